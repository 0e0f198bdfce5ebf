//go:build !linux && !darwin

package cluster

// look does not know how to ask here, and says that there always is room.
func look(string) (space, error) { return space{total: 1 << 62, free: 1 << 62, files: -1}, nil }
