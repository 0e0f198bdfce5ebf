package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func openStore(t *testing.T, path string) *raftStore {
	t.Helper()
	s, err := openRaftStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func storeEntries(t *testing.T, s *raftStore, from, to uint64) {
	t.Helper()
	var entries []*raft.Log
	for i := from; i <= to; i++ {
		entries = append(entries, &raft.Log{Index: i, Term: i / 3, Type: raft.LogCommand, Data: fmt.Append(nil, "entry ", i)})
	}
	if err := s.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
}

func wantRange(t *testing.T, s *raftStore, first, last uint64) {
	t.Helper()
	gotFirst, err := s.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	gotLast, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if gotFirst != first || gotLast != last {
		t.Errorf("the log goes from %d to %d, want %d to %d", gotFirst, gotLast, first, last)
	}
	for i := max(first, 1); i <= last; i++ {
		var e raft.Log
		if err := s.GetLog(i, &e); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		if want := fmt.Sprint("entry ", i); e.Index != i || e.Term != i/3 || string(e.Data) != want {
			t.Errorf("entry %d = %+v, want %q of term %d", i, e, want, i/3)
		}
	}
}

func TestTheRaftLogIsStillThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	wantRange(t, s, 0, 0)
	var e raft.Log
	if err := s.GetLog(1, &e); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("GetLog of an empty log = %v, want %v", err, raft.ErrLogNotFound)
	}
	storeEntries(t, s, 1, 700)
	wantRange(t, s, 1, 700)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	wantRange(t, s, 1, 700)
}

func TestTheRaftLogLosesWhatIsDeleted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	storeEntries(t, s, 1, 700)
	for _, tt := range []struct{ low, high, first, last uint64 }{
		{1, 500, 501, 700}, {601, 700, 501, 600}, {900, 1000, 501, 600}, {1, 501, 502, 600}, {600, 600, 502, 599},
	} {
		if err := s.DeleteRange(tt.low, tt.high); err != nil {
			t.Fatal(err)
		}
		wantRange(t, s, tt.first, tt.last)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	wantRange(t, s, 502, 599)
	storeEntries(t, s, 600, 601)
	wantRange(t, s, 502, 601)
	if err := s.DeleteRange(0, 601); err != nil {
		t.Fatal(err)
	}
	wantRange(t, s, 0, 0)
	// After a snapshot of another node the log begins anew, higher up.
	storeEntries(t, s, 1000, 1002)
	wantRange(t, s, 1000, 1002)
}

func TestTheRaftLogRefusesHoles(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
	storeEntries(t, s, 1, 3)
	if err := s.StoreLog(&raft.Log{Index: 5}); err == nil {
		t.Error("entry 5 was stored behind 3")
	}
	if err := s.StoreLogs([]*raft.Log{{Index: 4}, {Index: 6}}); err == nil {
		t.Error("entry 6 was stored behind 4")
	}
	wantRange(t, s, 1, 3)
	storeEntries(t, s, 2, 4) // again is allowed
	wantRange(t, s, 1, 4)
}

func TestAnEntryKeepsAllItsFields(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
	want := raft.Log{Index: 1, Term: 1 << 40, Type: raft.LogConfiguration, Data: []byte{0, 1}, Extensions: []byte("x"), AppendedAt: time.Unix(1790000000, 5)}
	if err := s.StoreLog(&want); err != nil {
		t.Fatal(err)
	}
	var got raft.Log
	if err := s.GetLog(1, &got); err != nil {
		t.Fatal(err)
	}
	if got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
		!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
		t.Errorf("GetLog = %+v, want %+v", got, want)
	}
}

func TestTermAndVoteAreStillThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	if v, err := s.Get([]byte("vote")); err != nil || v == nil || len(v) != 0 {
		t.Errorf("Get of nothing = %q, %v, want empty", v, err)
	}
	if n, err := s.GetUint64([]byte("term")); err != nil || n != 0 {
		t.Errorf("GetUint64 of nothing = %d, %v, want 0", n, err)
	}
	if err := errors.Join(s.Set([]byte("vote"), []byte("a")), s.SetUint64([]byte("term"), 7), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, path)
	if v, err := s.Get([]byte("vote")); err != nil || string(v) != "a" {
		t.Errorf("vote = %q, %v, want a", v, err)
	}
	if n, err := s.GetUint64([]byte("term")); err != nil || n != 7 {
		t.Errorf("term = %d, %v, want 7", n, err)
	}
	if _, err := s.GetUint64([]byte("vote")); !errors.Is(err, errDamagedEntry) {
		t.Errorf("a number of one byte = %v, want %v", err, errDamagedEntry)
	}
}

func TestARaftLogInUseIsRefusedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	openStore(t, path)
	if s, err := openRaftStore(path); err == nil {
		s.Close()
		t.Error("a log was opened twice")
	}
	bad := filepath.Join(t.TempDir(), "raft.db")
	if err := os.WriteFile(bad, bytes.Repeat([]byte("not bolt"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := openRaftStore(bad); err == nil {
		s.Close()
		t.Error("a file that is no log was opened")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(&raft.Log{Term: 3, Type: raft.LogNoop, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: time.Unix(5, 6)}))
	f.Add([]byte{1, 0, 1, 0, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := decodeEntry(encodeEntry(&e))
		if err != nil || again.Term != e.Term || again.Type != e.Type || !bytes.Equal(again.Data, e.Data) ||
			!bytes.Equal(again.Extensions, e.Extensions) || !again.AppendedAt.Equal(e.AppendedAt) {
			t.Errorf("%+v comes back as %+v, %v", e, again, err)
		}
	})
}
