package scsstore

// Remembered returns how many loads a store remembers.
func (s *Store) Remembered() int {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	return s.loads.n
}
