package pgsession

func (c *config) caches() bool { return false }
