package cluster

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

func TestANodeThatCannotSaveItsTermStopsAndSaysWhy(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		n := c.follower()
		if err := n.r.store.db.Close(); err != nil {
			t.Fatal(err)
		}
		c.kill(c.leader()) // so that there is a new term
		select {
		case err := <-n.done:
			if file := filepath.Join(n.dir, raftFile); err == nil || !strings.Contains(err.Error(), "raft log "+file+" cannot be written") {
				t.Errorf("Run = %v, want words about %s", err, file)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the node goes on without its term")
		}
		c.set(n, nil)
	})
}

func TestTheTermOfAFormationCanFail(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), raftFile))
	term := raftTerm{s, func(err error) { t.Errorf("lost: %v", err) }}
	if err := term.SetUint64([]byte(termKey), firstTerm); err != nil {
		t.Fatal(err)
	}
	if got, err := term.GetUint64([]byte(termKey)); got != firstTerm || err != nil {
		t.Errorf("the term is %d, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := term.SetUint64([]byte(termKey), firstTerm); err == nil {
		t.Error("a term is saved in a file that is closed")
	}
	var lost error
	done := make(chan struct{})
	go func() {
		defer close(done)
		raftTerm{s, func(err error) { lost = err }}.SetUint64([]byte(termKey), 2)
		t.Error("a term that is not saved returns")
	}()
	<-done
	if lost == nil {
		t.Error("nobody is told of a term that is not saved")
	}
}

// What raft keeps fits into what the file has free, however often it is written anew.
func TestTheRaftLogNeedsNoMoreOfTheDisk(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), raftFile))
	if stats := s.db.Stats(); (stats.FreePageN+stats.PendingPageN)*s.db.Info().PageSize < spareLog {
		t.Fatalf("%+v are free, want %d bytes", stats, spareLog)
	}
	var end uint64
	if err := s.db.View(func(tx *bbolt.Tx) error { end = uint64(tx.Size()); return nil }); err != nil {
		t.Fatal(err)
	}
	for first := uint64(1); first < 5000; first += 500 {
		for i := first; i < first+500; i += 10 {
			var entries []*raft.Log
			for j := i; j < i+10; j++ {
				entries = append(entries, &raft.Log{Index: j, Term: j, Data: make([]byte, 200)})
			}
			if err := s.StoreLogs(entries); err != nil {
				t.Fatal(err)
			}
		}
		if first > 2000 {
			if err := s.DeleteRange(0, first-2000); err != nil {
				t.Fatal(err)
			}
		}
	}
	var now uint64
	if err := s.db.View(func(tx *bbolt.Tx) error { now = uint64(tx.Size()); return nil }); err != nil {
		t.Fatal(err)
	}
	if now != end {
		t.Errorf("the file's pages in use end at %d, and did at %d", now, end)
	}
}
