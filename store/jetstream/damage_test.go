package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

func TestDamagedMessagesAreReportedAndNotServed(t *testing.T) {
	good := appendEntry(nil, &entry{Op: storetest.Put("bad", 3, `{"a":1}`)})
	newer := bytes.Clone(good)
	newer[0] = 2
	flipped := bytes.Clone(good)
	flipped[len(flipped)-3] ^= 1
	tests := []struct {
		name    string
		payload []byte
		want    string
	}{
		{"empty", nil, "too early"},
		{"foreign", []byte(`{"a":1}`), "format is 123"},
		{"a newer format", newer, "format is 2, this version reads 1"},
		{"a flipped bit", flipped, "checksum"},
		{"cut", good[:len(good)-1], "checksum"},
		{"another record", appendEntry(nil, &entry{Op: storetest.Put("good", 3, `{}`)}), `holds "good"`},
		{"a fence", appendEntry(nil, &entry{fence: true, epoch: 9}), "holds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, false)
			s := r.fenced(t)
			mustAppend(t, s, storetest.Put("good", 1, `{}`), storetest.Put("bad", 1, `{}`))
			if _, err := s.js.Publish(t.Context(), s.subject("bad"), tt.payload); err != nil {
				t.Fatal(err)
			}
			check := func(s *Store, scan error) {
				t.Helper()
				_, err := s.Load(t.Context(), "bad")
				corrupt, ok := errors.AsType[*CorruptError](err)
				if !ok || !errors.Is(err, store.ErrCorrupt) || corrupt.Subject != s.subject("bad") || corrupt.Sequence != 4 || !strings.Contains(corrupt.Reason, tt.want) {
					t.Errorf("Load = %v, want %q at sequence 4 of %s", err, tt.want, s.subject("bad"))
				}
				if r, err := s.Load(t.Context(), "good"); err != nil || r.Version != 1 {
					t.Errorf("Load of another record = %v, %v", r, err)
				}
				if err := s.Scan(t.Context(), "", func(store.Record) error { return nil }); !errors.Is(err, scan) {
					t.Errorf("Scan = %v, want %v", err, scan)
				}
				n := 0
				if err := s.Names(t.Context(), "", func(string) error { n++; return nil }); !errors.Is(err, scan) {
					t.Errorf("Names = %v after %d, want %v", err, n, scan)
				}
			}
			// Somebody else wrote: this owner is over, and its scan would have holes.
			check(s, store.ErrFenced)
			// The next one starts all the same.
			if err := s.Append(t.Context(), []store.Op{storetest.Put("x", 1, `1`)}); !errors.Is(err, store.ErrFenced) {
				t.Errorf("Append = %v, want ErrFenced", err)
			}
			next := r.store(t)
			if err := next.Fence(t.Context(), 2); err != nil {
				t.Fatalf("Fence: %v", err)
			}
			check(next, store.ErrCorrupt)
			mustAppend(t, next, storetest.Put("bad", 5, `5`))
			if r, err := next.Load(t.Context(), "bad"); err != nil || r.Version != 5 {
				t.Errorf("Load of the mended record = %v, %v", r, err)
			}
		})
	}
}

func TestADamagedFenceStopsTheOwner(t *testing.T) {
	r := newRig(t, false)
	s := r.fenced(t)
	for _, payload := range []string{"", "\x01", string(appendEntry(nil, &entry{Op: storetest.Put("a", 1, `1`)}))} {
		if _, err := s.js.Publish(t.Context(), s.fenceAt, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if err := s.Fence(t.Context(), 2); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("Fence with %q in the place of the fence = %v, want ErrCorrupt", payload, err)
		}
	}
}

// Bytes of a stored record change on disk. The server finds its index in order,
// or, after a crash, has to read the blocks again. Whatever it makes of that, a
// record that was there is not missing.
func TestADamagedDiskIsReportedAndNotServed(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed %v", crashed), func(t *testing.T) {
			r := newRig(t, true)
			s := r.fenced(t)
			mark := "MARK-OF-THE-RECORD"
			mustAppend(t, s, storetest.Put("before", 1, `{}`))
			mustAppend(t, s, storetest.Put("bad", 1, `{"m":"`+mark+`"}`))
			mustAppend(t, s, storetest.Put("after", 1, `{}`))
			r.stop(t)
			msgs := filepath.Join(r.dir, "jetstream", "*", "streams", "*", "msgs")
			if !overwrite(t, filepath.Join(msgs, "*.blk"), mark) {
				t.Fatal("the record is in no block file")
			}
			if crashed {
				r.forget(t)
			}
			r.start(t)
			s = r.store(t)
			if err := s.Fence(t.Context(), 2); err != nil {
				// The server cut the stream at the damage.
				if !crashed || !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "acknowledged up to sequence 4") {
					t.Errorf("Fence = %v, want ErrCorrupt with the sequence", err)
				}
				return
			}
			_, err := s.Load(t.Context(), "bad")
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("Load = %v, want ErrCorrupt", err)
			}
			err = s.Scan(t.Context(), "", func(store.Record) error { return nil })
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("Scan = %v, want ErrCorrupt", err)
			}
			for _, name := range []string{"before", "after"} {
				if r, err := s.Load(t.Context(), name); err != nil || r.Version != 1 {
					t.Errorf("Load of %s = %v, %v", name, r, err)
				}
			}
		})
	}
}

// The end of a block file is gone, as a file system that was repaired may leave
// it. The server finds in its index how far the stream went, and lets it go on
// from there as if the messages that are missing had been removed.
func TestACutFileIsReportedAndNotServed(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		t.Run(fmt.Sprintf("crashed %v", crashed), func(t *testing.T) {
			r := newRig(t, true)
			s := r.fenced(t)
			for i := range 100 {
				mustAppend(t, s, storetest.Put(fmt.Sprint("r/", i), 1, `{}`))
			}
			r.stop(t)
			blocks, err := filepath.Glob(filepath.Join(r.dir, "jetstream", "*", "streams", "*", "msgs", "*.blk"))
			if err != nil || len(blocks) != 1 {
				t.Fatalf("block files: %v, %v", blocks, err)
			}
			info, err := os.Stat(blocks[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(blocks[0], info.Size()/2); err != nil {
				t.Fatal(err)
			}
			if crashed {
				r.forget(t)
			}
			r.start(t)
			s = r.store(t)
			err = s.Fence(t.Context(), 2)
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "remove the file") {
				t.Fatalf("Fence = %v, want ErrCorrupt and what to do", err)
			}
			if _, err := s.Load(t.Context(), "r/0"); !errors.Is(err, store.ErrFenced) {
				t.Errorf("Load = %v, want ErrFenced", err)
			}
			// Who goes on without what is lost says so by removing the mark.
			if err := os.Truncate(s.mark.name, 0); err != nil {
				t.Fatal(err)
			}
			if err := s.Fence(t.Context(), 2); err != nil {
				t.Fatalf("Fence without the mark = %v", err)
			}
			if r, err := s.Load(t.Context(), "r/0"); err != nil || r.Version != 1 {
				t.Errorf("Load = %v, %v", r, err)
			}
		})
	}
}

// forget removes what the server wrote at its clean stop, as if it had crashed:
// it has to read its files again.
func (r *rig) forget(t *testing.T) {
	t.Helper()
	index, err := filepath.Glob(filepath.Join(r.dir, "jetstream", "*", "streams", "*", "msgs", "index.db"))
	if err != nil || len(index) != 1 {
		t.Fatalf("index files: %v, %v", index, err)
	}
	if err := os.Remove(index[0]); err != nil {
		t.Fatal(err)
	}
}

// overwrite changes the first byte of mark in the files that hold it.
func overwrite(t *testing.T, pattern, mark string) (hit bool) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte(mark)); i >= 0 {
			b[i]++
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			hit = true
		}
	}
	return hit
}
