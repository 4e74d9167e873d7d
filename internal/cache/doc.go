// Package cache keeps sessions in the memory of a process, coherent with a PostgreSQL server that
// many processes write to.
//
// It keeps this guarantee: a cached read is never older than one notification delay while the
// listener is live; never older than the liveness deadline when the listener, the network or the
// server fails in any way; never older than Config.MaxAge in any case; and a session that this
// process has ended is never served again by it. Ages count from a change's publication: that is
// before the call that made the change returns.
//
// The package knows nothing of SQL or of connections. The store tells it when a statement begins,
// what it answered, and what its listeners hear; the cache says what may be served.
//
// # State
//
//	E              Cache.epoch: how many operations had begun when the present epoch began. An entry
//	               or an operation is of the present epoch if its seq is above E, so none stores it
//	S              Cache.seq: operations begun
//	L              Cache.live: until when the cache is live, by both clocks; the least of Listener.until
//	B              Listener.sent: nonce -> when the beat that returned it was sent
//	entry[id]      entry: version, subject, begun-seq, and the earlier of t0 + MaxAge and the deadline
//	pending[id]    pending: operations in flight, loads and writes: count, floor, dead
//	flight[id]     flights: the load that runs, and the one that will
//	subjectFloor   floors: hash of subject -> seq
//	txFence[id]    fences: written in a caller's transaction
//	ended[id]      ended: versions that this process has ended, for MaxAge
//
// Cache.mu guards all of it but what hits read: the entries, E, L, the floors, and how many fences
// there are. Those are read without a lock, in the order that [Cache.valid] explains.
//
// # Rules, and what keeps each
//
//	begin      [Cache.Begin], [Op.End]: S++, pending[id].count++; seq, epoch and t0 = now are remembered
//	           before the statement is sent
//	valid      Cache.valid: e.epoch == E and now < L and now < min(t0 + MaxAge, deadline) and no
//	           txFence[id] and e.seq > subjectFloor[e.subject]
//	Get        [Cache.Get], [Cache.Load]: valid is a hit. Else join the flight that runs, if it began
//	           in this epoch, is young, unfenced, above every subjectFloor, and we are live, and no
//	           txFence[id] (Cache.joinable); else join the flight that will run, since it will see
//	           all that was committed before, or make one (Cache.join). Reaching the deadline is a
//	           miss, never "not found": the session may have been touched elsewhere
//	landing    Cache.land: what a flight brought is not for those who joined after its takeoff if it
//	           found none, was reached through renewed_to, or has expired by now; and for nobody who joined if it may
//	           have been read inside a transaction of the one it was begun for ([ErrPrivate])
//	fill       Cache.fill, Cache.refuses: keep a reply only if the session is alive, was not reached
//	           through renewed_to, the server said it is cacheable and is one that a listener hears,
//	           op.epoch == E, no txFence, version >= floor, op.seq > dead, op.seq > subjectFloor,
//	           version >= the entry's. Its age counts from op.t0
//	raise      Cache.raise: floor = max(floor, version); fence the flight (Cache.fenceFlight); drop
//	           the entry if it is older
//	reply      [Op.Read] of a GetFresh: fill, as a load's; and where it finds none, Cache.kill, since what
//	           has begun may have been answered before it was. [Op.Wrote] of a set, patch, update: fill
//	           and raise, then the store publishes and returns. [Op.Touched]: fill with what is
//	           cached if the version is the same, else raise. [Cache.Ended] of a destroy, renew,
//	           revoke: raise each, or a new epoch if they are many; and remember them
//	           (Cache.take asks ended). [Cache.NotAlive] of those that somebody else had ended: as
//	           no reply. [Cache.Revoked] beside it: subjectFloor = S. [Cache.Cleared]
//	no reply   [Op.InDoubt], [Cache.InDoubt], Cache.kill: drop the entry; dead = S; fence the flight.
//	           Then the store publishes (id, unknown) through a function that waits for the id's lock
//	heard      [Cache.Heard]: raise, and lift the fence; [Cache.HeardUnknown]: kill;
//	           [Cache.HeardSubject]: subjectFloor = S (Cache.raiseSubject); [Listener.HeardClear] of
//	           clear, malformed, gap: E++ and L = 0
//	fence      [Cache.BeginTx], [Cache.EndedInTx]: set. Lifted by a notification of at least the
//	           version that the transaction wrote, or after MaxAge (fences.heard, fences.fenced)
//	beat       [Listener.Beat] remembers when, [Beat.Answered] B[nonce] = then;
//	           [Listener.HeardBeat] of a nonce in B: L = max(L, B[nonce] + deadline) (Listener.prove)
//	lost       [Listener.Lost]: E++, L = 0, B = {}. [Listener.Listening]: E++ again. A machine that
//	           slept is a gap of all listeners (Cache.observe)
//
// # The shared beat
//
// The server keeps one row per store: a nonce, and when it was last published. The beat function
// returns the nonce that the next published beat will carry. Whoever finds the row older than a
// second publishes that nonce and draws a new one.
//
// A nonce that was still unpublished in the caller's snapshot commits after everything that had
// committed before the call. The order of the queue is the order of commits. So hearing the nonce
// proves that all that had been published before the call has been heard; and since the store hands
// over notifications in order, it has also been applied. That is why liveness counts from when the
// beat was sent, and why no nonce that was not asked for proves anything: a listener that stood
// still hears old nonces late, and anyone may send one.
//
// # Why each stale path is closed
//
// Each line is a switch of the model in the tests, which finds a violation without it, for the model
// and for this implementation alike.
//
//	a load overtaken by a notification                     floor and dead: raise, kill, fill
//	a write's reply overtaken by a later writer's          writes are begun like loads: Begin
//	reads begun before one's own write, ended after        raise on the reply: Wrote, Ended
//	joining a load that began before a fence               the join rule: joinable
//	a write in doubt, that has committed                   publish (id, unknown) under the lock: the store
//	committed in a caller's transaction, not heard yet     txFence: BeginTx, EndedInTx
//	a load across a reconnect                              the epoch of its beginning: Lost, fill
//	committed before LISTEN took effect                    the second E++: Listening
//	a subject revoked while loads and entries exist        subjectFloor: HeardSubject, Revoked
//	the revoker holds a copy under an older subject        revoke returns the ids it ended: Ended
//	a subject change unpublished when its revoke arrives   such a write notifies in its transaction: the store
//	an old token in its grace                              nothing reached through renewed_to is kept: fill
//	a frozen listener                                      the sending time: prove
//	another writer's notification while a transaction      a fence is lifted by its own version: fences.heard
//	  of the caller's waits for that writer's lock
//	a successor ended, or a session expired or was         such replies are not for who joined late: land
//	  created, between a load's snapshot and a late joiner
//	a lagging replica behind the QueryFunc                 ended ids are remembered: take
//	a fresh read which finds none, beside an operation     kill: Op.Read
//	  whose answer is older
//
// # Hits
//
// State: none of their own. Races: with everything; an invalidation makes its change visible in the
// opposite order to that in which a hit reads. Failure modes: a hit that fails is a miss. A slot
// shared with another subject's floor is a miss, once. A slot shared with another key's fence costs a
// lock. Within 100 µs of running time after a machine woke up, what was served just before it fell
// asleep may be served: the wall clock is not looked at more often.
//
// # Flights
//
// States: queued (waits for the one before it and for room; anyone may join; nobody's if all leave),
// running (joined by rule), landed. At most one of a key runs that is young, and at most one is
// queued; MaxLoads run in all. Races: what overtakes one that runs fences it, and its reply is held
// against floor, dead and the epoch when it lands. Failure modes: an error, a panic and the end of
// its goroutine go to all who wait, and nothing is kept; one that hangs ends by LoadTimeout, and holds up
// the next one for Config.Liveness at most; Close ends it.
//
// # Operations
//
// States: begun, ended. Races: two of one key meet in its pending record, whatever each is. Failure
// modes: one that is never ended leaks its key's record, and nothing else; one that has no reply is
// in doubt, and nothing that had begun by then is kept.
//
// # Fences
//
// States of a key: free, awaited (a statement has been sent), written. Races: another writer's
// notification does not lift it, since its version is lower; with two transactions the later counts.
// Failure modes: a rollback, or a notification lost in a gap, leaves it for MaxAge, and reads go to
// the database. A transaction that is open for longer than MaxAge after its last write here may be
// read stale for one notification delay after its commit. Beyond 65,536 at once every key is fenced.
//
// # Liveness
//
// States of a listener: lost (or new), listening, live until a moment. Races: an answer of the beat
// function and its nonce come by two connections, in any order. Failure modes: an answer lost is a
// beat less. A connection that ends takes its beats with it. Not live is the state in which nothing
// is assumed: reads go to the database, or, by Config.WhenNotLive, entries are served until MaxAge
// or until the next connection listens. A write that was answered by a server which no listener hears
// is a gap of all of them, and the store hands over no beat until they hear that server, or it has
// answered none for MaxAge: what others write there is not heard.
//
// # Ended sessions
//
// A lagging replica that a QueryFunc reaches may show a session after its end; such a reply is never
// kept, and for MaxAge this process does not believe it. Failure modes: beyond 65,536 some are
// forgotten, and the replica is believed.
package cache
