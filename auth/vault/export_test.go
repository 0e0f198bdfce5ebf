package vault

// NewMemoryBehind is NewMemory with another bound of what waits for a watcher.
func NewMemoryBehind(n int) *Memory {
	m := NewMemory()
	m.fan.behind = n
	return m
}
