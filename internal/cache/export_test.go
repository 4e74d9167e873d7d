package cache

import "time"

// OnLoaded calls f between the answer of each load and its fill.
func (c *Cache[V]) OnLoaded(f func(Key)) { c.hooks.loaded = f }

// SwitchOff stops keeping one of the rules.
func (c *Cache[V]) SwitchOff(r Rule) { c.hooks.off |= r }

// Rule is rule.
type Rule = rule

// The rules.
const (
	RuleRaiseOnReply = ruleRaiseOnReply
	RuleJoin         = ruleJoin
	RuleTxFence      = ruleTxFence
	RuleSecondEpoch  = ruleSecondEpoch
	RuleSubjectFloor = ruleSubjectFloor
	RuleViaRenewed   = ruleViaRenewed
	RuleSendingTime  = ruleSendingTime
	RuleFloor        = ruleFloor
	RuleEpoch        = ruleEpoch
	RuleFenceVersion = ruleFenceVersion
	RuleLate         = ruleLate
	RuleEnded        = ruleEnded
	RuleGone         = ruleGone
)

// Bounds that tests exceed.
const (
	MaxFences     = maxFences
	MaxEnded      = maxEnded
	MaxRaises     = maxRaises
	EntryOverhead = entryOverhead
	LargestShare  = largestShare
	LookEvery     = time.Duration(lookEvery)
)

// Pending is how many keys have operations in flight, and Remembered how many ended ones are.
func (c *Cache[V]) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) + len(c.flights)
}

func (c *Cache[V]) Remembered() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.ended.sessions) }
