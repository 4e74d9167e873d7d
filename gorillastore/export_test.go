package gorillastore

// States returns how many sessions a store keeps states for.
func (s *Store) States() (n int) {
	s.states.Range(func(any, any) bool { n++; return true })
	return n
}
