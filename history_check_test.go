package pgsession_test

import (
	"strings"
	"testing"
	"time"
)

// scene makes hand-made histories short: times are in milliseconds.
type scene []deed

func (s scene) add(instance int, a action, o outcome, begin, end time.Duration, version int64, data string) scene {
	return append(s, deed{
		instance: instance, action: a, outcome: o, begin: begin * time.Millisecond, end: end * time.Millisecond,
		version: version, data: data,
	})
}

// write is by instance 0.
func (s scene) write(begin, end time.Duration, version int64, data string) scene {
	return s.add(0, writes, done, begin, end, version, data)
}

func (s scene) read(instance int, begin, end time.Duration, version int64, data string) scene {
	return s.add(instance, reads, done, begin, end, version, data)
}

// but changes the last deed.
func (s scene) but(change func(*deed)) scene {
	change(&s[len(s)-1])
	return s
}

func inTheCallers(r *deed) { r.inTx, r.notifies = true, true }
func notifying(r *deed)    { r.notifies = true }

func TestTheCheckOfHistoriesFindsWhatBreaksTheGuarantee(t *testing.T) {
	t.Parallel()
	g := guarantee{maxAge: time.Second, liveness: []time.Duration{300 * time.Millisecond, 300 * time.Millisecond, 0}}
	first := scene{}.write(0, 1, 1, "a")
	clone := func() scene { return append(scene{}, first...) }
	twice := func() scene { return clone().write(10, 20, 2, "b") }
	for name, test := range map[string]struct {
		history scene
		broken  string // "": it is not
	}{
		"nothing":                     {nil, ""},
		"another's write is read":     {twice().read(1, 30, 31, 2, "b"), ""},
		"the delay of a notification": {twice().read(1, 30, 31, 1, "a"), ""},
		"just within the deadline":    {twice().read(1, 319, 400, 1, "a"), ""},
		"at the deadline":             {twice().read(1, 320, 400, 1, "a"), "published for more than 300ms"},
		"begun in time, ended late":   {twice().read(1, 30, 5000, 1, "a"), ""},
		"no deadline, within MaxAge":  {twice().read(2, 1019, 1100, 1, "a"), ""},
		"no deadline, at MaxAge":      {twice().read(2, 1020, 1100, 1, "a"), "committed for more than 1s"},
		"one's own write":             {twice().read(0, 20, 21, 1, "a"), "this instance had changed it"},
		"one's own write, under way":  {twice().read(0, 19, 25, 1, "a"), ""},
		"a fresh read of the old":     {twice().add(1, readsFresh, done, 20, 21, 1, "a"), "a fresh read"},
		"a fresh read, begun before":  {twice().add(1, readsFresh, done, 19, 30, 1, "a"), ""},
		"back to an older one, in time": {
			twice().read(1, 30, 31, 2, "b").read(1, 40, 41, 1, "a"), "",
		},
		"of two newer ones the first counts for the deadline": {
			twice().write(900, 910, 3, "c").read(1, 911, 912, 1, "a"), "version 2",
		},
		"the newest is not published for long enough": {
			twice().write(900, 910, 3, "c").read(1, 911, 912, 2, "b"), "",
		},
		"unpublished, past the deadline": {
			clone().add(0, writes, unpublished, 10, 20, 2, "b").read(1, 900, 901, 1, "a"), "",
		},
		"unpublished, past MaxAge": {
			clone().add(0, writes, unpublished, 10, 20, 2, "b").read(1, 1020, 1021, 1, "a"), "committed for more than",
		},
		"unpublished, here": {
			clone().add(0, writes, unpublished, 10, 20, 2, "b").read(0, 20, 21, 1, "a"), "this instance had changed it",
		},
		"in doubt, and never seen": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").read(1, 9000, 9001, 1, "a"), "",
		},
		"in doubt, seen, and within MaxAge of that": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").read(1, 500, 501, 2, "b").read(1, 1500, 1501, 1, "a"), "",
		},
		"in doubt, seen, and past MaxAge of that": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").read(1, 500, 501, 2, "b").read(1, 1501, 1502, 1, "a"),
			"committed for more than",
		},
		"in doubt, seen, and a fresh read does not see it": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").read(1, 30, 31, 2, "b").
				add(1, readsFresh, done, 31, 32, 1, "a"), "a fresh read",
		},
		"in doubt with its notification, seen, and past the deadline": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").but(notifying).read(1, 30, 31, 2, "b").read(1, 331, 332, 1, "a"),
			"published for more than",
		},
		"in doubt, seen, as another version later": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").read(1, 30, 31, 2, "b").read(1, 40, 41, 3, "b"), "that was another version",
		},
		"one version with two contents": {
			clone().add(0, writes, inDoubt, 10, 20, 0, "b").add(0, writes, inDoubt, 10, 20, 0, "c").
				read(1, 30, 31, 2, "b").read(1, 40, 41, 2, "c"), "that version was b",
		},
		"content of another version": {twice().read(1, 30, 31, 1, "b"), "that was another version"},
		"never written":              {twice().read(1, 30, 31, 2, "x"), "nobody had written that"},
		"not yet written":            {twice().read(1, 5, 9, 2, "b"), "nobody had written that"},
		"read while it is written":   {twice().read(1, 5, 11, 2, "b"), ""},
		"rolled back": {
			clone().add(0, writes, failed, 10, 20, 0, "b").read(1, 30, 31, 2, "b"), "that was not committed",
		},
		"written in a transaction": {
			clone().write(10, 900, 2, "b").but(inTheCallers).read(0, 900, 901, 1, "a"), "this instance had changed it",
		},
		"in a transaction beyond MaxAge": {
			clone().write(10, 1010, 2, "b").but(inTheCallers).read(0, 1010, 1011, 1, "a"), "",
		},
		"in a transaction beyond MaxAge, and past the deadline": {
			clone().write(10, 1010, 2, "b").but(inTheCallers).read(0, 1310, 1311, 1, "a"), "published for more than",
		},
		"missing, and nobody ended it": {clone().add(1, reads, missing, 10, 11, 0, ""), "nobody had tried to end it"},
		"missing, and ended later": {
			clone().add(1, reads, missing, 10, 11, 0, "").add(0, ends, done, 12, 13, 0, ""), "nobody had tried to end it",
		},
		"missing, and the end failed": {
			clone().add(0, ends, failed, 5, 6, 0, "").add(1, reads, missing, 10, 11, 0, ""), "nobody had tried to end it",
		},
		"missing, and the end is in doubt": {clone().add(0, ends, inDoubt, 5, 6, 0, "").add(1, reads, missing, 10, 11, 0, ""), ""},
		"ended here and served": {
			clone().add(0, ends, done, 5, 6, 0, "").read(0, 6, 7, 1, "a"), "this instance had changed it",
		},
		"ended elsewhere, within the deadline": {
			clone().add(0, ends, done, 5, 6, 0, "").read(1, 305, 310, 1, "a"), "",
		},
		"ended elsewhere, past the deadline": {
			clone().add(0, ends, done, 5, 6, 0, "").read(1, 306, 310, 1, "a"), "published for more than",
		},
		"an end in doubt that was seen, past the deadline": {
			clone().add(0, ends, inDoubt, 5, 6, 0, "").add(1, reads, missing, 10, 11, 0, "").read(0, 311, 312, 1, "a"),
			"published for more than",
		},
		"an end in doubt that was seen, and a fresh read": {
			clone().add(0, ends, inDoubt, 5, 6, 0, "").add(1, reads, missing, 10, 11, 0, "").add(0, readsFresh, done, 12, 13, 1, "a"),
			"a fresh read",
		},
		"found gone by a fresh read here, and served": {
			clone().add(1, ends, done, 5, 6, 0, "").add(0, readsFresh, missing, 7, 8, 0, "").read(0, 8, 9, 1, "a"), "found it gone",
		},
		"found gone by a fresh read elsewhere, within the deadline": {
			clone().add(1, ends, done, 5, 6, 0, "").add(1, readsFresh, missing, 7, 8, 0, "").read(0, 8, 9, 1, "a"), "",
		},
		"found gone by a read that others may answer, within the deadline": {
			clone().add(1, ends, done, 5, 6, 0, "").add(0, reads, missing, 7, 8, 0, "").read(0, 8, 9, 1, "a"), "",
		},
		"another session's": {
			twice().read(1, 900, 901, 1, "a").but(func(r *deed) { r.session = 1 }), "nobody had written that",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(g.check(test.history), "\n")
			if test.broken == "" && got != "" || !strings.Contains(got, test.broken) {
				t.Errorf("found %q, want %q", got, test.broken)
			}
		})
	}
}
