package fiberstorage

import (
	"strings"
	"sync"

	"github.com/pgsession/pgsession"
)

// known remembers whose the sessions are that were read or written last, so that a save can keep what fiber does
// not hand over, without asking first. It need not be right: the version says whether it still is.
//
// There are two generations, of which the older goes when the younger one is full: fiber reads a session a request
// before it saves it, and nothing tells of a request that ends without a save.
type known struct {
	mu           sync.Mutex
	young, older map[string]owner
}

type owner struct {
	version int64 // 0: not known
	subject string
}

// maxKnown is how many sessions a generation has.
const maxKnown = 4096

func (k *known) add(key string, session pgsession.Session) {
	now := owner{session.Version, session.Subject}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.young[key]; !there {
		if k.young == nil || len(k.young) >= maxKnown {
			k.young, k.older = make(map[string]owner), k.young
		}
		key = strings.Clone(key) // it may be a part of the request, whose memory fiber uses again
	}
	k.young[key] = now
}

func (k *known) of(key string) owner {
	k.mu.Lock()
	defer k.mu.Unlock()
	if found, ok := k.young[key]; ok {
		return found
	}
	return k.older[key]
}

func (k *known) forget(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.young, key)
	delete(k.older, key)
}
