package cache

// rule is one that tests can switch off, to see that something goes wrong without it. None is
// looked at by a hit.
type rule uint16

const (
	ruleRaiseOnReply rule = 1 << iota
	ruleJoin
	ruleTxFence
	ruleSecondEpoch
	ruleSubjectFloor
	ruleViaRenewed
	ruleSendingTime
	ruleFloor
	ruleEpoch
	ruleFenceVersion
	ruleLate
	ruleEnded
	ruleGone
)

func (c *Cache[V]) without(r rule) bool { return c.hooks.off&r != 0 }
