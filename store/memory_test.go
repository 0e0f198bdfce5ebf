package store_test

import (
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

// sharedMemory hands out handles on one memory.
type sharedMemory struct{ first *store.Memory }

func (s *sharedMemory) Open(*testing.T) store.Store { return s.first.Another() }
func (s *sharedMemory) Restart(*testing.T)          {}

func TestMemoryIsHandedFromOwnerToOwner(t *testing.T) {
	storetest.RunShared(t, func(*testing.T) storetest.Shared { return &sharedMemory{store.NewMemory()} })
}
