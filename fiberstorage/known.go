package fiberstorage

import (
	"crypto/sha256"
	"sync"

	"github.com/pgsession/pgsession"
)

// known remembers whose the sessions are that were read or written last, so that a save can keep what fiber does
// not hand over, without asking first. It need not be right: the version says whether it still is.
//
// There are two generations, of which the older goes when the younger one is full: fiber reads a session a request
// before it saves it, and nothing tells of a request that ends without a save. Tokens are kept by their hashes:
// these are of sessions that may have ended long ago.
type known struct {
	mu           sync.Mutex
	young, older map[[sha256.Size]byte]owner
}

type owner struct {
	version int64 // 0: not known
	subject string
}

// maxKnown is how many sessions a generation has.
const maxKnown = 4096

func (k *known) add(key string, session pgsession.Session) {
	now, hash := owner{session.Version, session.Subject}, sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.young[hash]; !there && (k.young == nil || len(k.young) >= maxKnown) {
		k.young, k.older = make(map[[sha256.Size]byte]owner), k.young
	}
	k.young[hash] = now
}

func (k *known) of(key string) owner {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	if found, ok := k.young[hash]; ok {
		return found
	}
	return k.older[hash]
}

func (k *known) forget(key string) {
	hash := sha256.Sum256([]byte(key))
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.young, hash)
	delete(k.older, hash)
}
