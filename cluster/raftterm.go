package cluster

import (
	"fmt"
	"runtime"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/hashicorp/raft"
)

// A node on a full disk goes on voting: its log's file has room inside that nothing else
// can take. Where that does not help, because the disk is read-only or broken, or its
// file system writes nothing in place, raft would panic when it cannot save its term. So
// here it does not hear of that: the goroutine that wanted to ends, Raft.Run says why, and
// the node stops in order. It comes back with a restart when the disk can be written.

// spareLog is how much room is made inside a raftStore's file: about ten times what two
// thousand entries take, which is what raft keeps.
const spareLog = 4 << 20

var spareBucket = []byte("spare")

// makeRoom has the file hold free pages that are on disk, not holes: bbolt takes them before
// it has the file grow.
func makeRoom(db *bbolt.DB) error {
	if int64(db.Stats().FreePageN)*int64(db.Info().PageSize) >= spareLog/2 {
		return nil
	}
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(spareBucket)
		if err != nil {
			return err
		}
		return b.Put(spareBucket, []byte(strings.Repeat("x", spareLog)))
	})
	if err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(spareBucket) })
}

// termKey is raft's name for its term. raftterm_test.go compares.
const termKey = "CurrentTerm"

// firstTerm is the one that a cluster is formed in. Who writes it can be told of errors.
const firstTerm = 1

// raftTerm is the part of a raftStore that raft keeps its term and vote in.
type raftTerm struct {
	*raftStore
	// lost is told once, or more often, that the term cannot be saved.
	lost func(error)
}

var _ raft.StableStore = raftTerm{}

// SetUint64 implements raft.StableStore. It does not return, and ends the goroutine, when
// raft would panic at its error. What raft runs there it ends by deferred calls, as in
// a panic, and an answer that is under way says that nothing was done.
func (s raftTerm) SetUint64(key []byte, value uint64) error {
	if string(key) != termKey {
		return s.raftStore.SetUint64(key, value)
	}
	if had, err := s.GetUint64(key); err == nil && had == value {
		return nil
	}
	err := s.raftStore.SetUint64(key, value)
	if err == nil || value == firstTerm {
		return err
	}
	s.lost(fmt.Errorf("raft log %s cannot be written: %w", s.path, withCure(err)))
	runtime.Goexit()
	return err
}
