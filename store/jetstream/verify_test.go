package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hadal/store"
	"hadal/store/storetest"
)

// verified is what Verify makes of a directory, and the records that it found.
func verified(t testing.TB, dir string) (Report, map[string]store.Record) {
	t.Helper()
	got := make(map[string]store.Record)
	report, err := Verify(context.Background(), VerifyOptions{
		Dir: dir, Mark: filepath.Join(dir, "mark"), LogMark: filepath.Join(dir, "mark-log"), Epoch: 1 << 40,
		Each: func(r store.Record) error {
			if _, twice := got[r.Name]; twice {
				t.Errorf("%q came twice", r.Name)
			}
			got[r.Name] = r
			return nil
		},
	})
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if report.Records != len(got) {
		t.Errorf("Verify counts %d records and gave %d", report.Records, len(got))
	}
	return report, got
}

func mustBeClean(t testing.TB, report Report) {
	t.Helper()
	for _, p := range report.Problems {
		t.Errorf("Verify: %v", &p)
	}
}

// This is the test that fails when a new version of the server writes its files
// in another way: what the server knows and what Verify reads is compared through
// everything that the files go through.
func TestVerifyReadsWhatTheServerWrote(t *testing.T) {
	t.Parallel()
	for _, logged := range []bool{false, true} {
		t.Run(fmt.Sprintf("logged %v", logged), func(t *testing.T) {
			t.Parallel()
			// A log that small has blocks of 32 kB.
			r := newLogRig(t, true, LogOptions{LogBytes: 127_000})
			random := rand.New(rand.NewPCG(1, 2))
			want := make(map[string]store.Record)
			batch := func(n, size int) []store.Op {
				var ops []store.Op
				for range n {
					name := fmt.Sprintf("r/%d.%s", random.IntN(400), string([]byte{byte(random.IntN(256))}))
					op := storetest.Put(name, random.Int32(), fmt.Sprintf("%q", strings.Repeat("x", random.IntN(size))))
					if random.IntN(4) == 0 {
						op = storetest.Delete(name)
					}
					ops = append(ops, op)
					delete(want, name)
					if !op.Delete {
						want[name] = op.Record
					}
				}
				return ops
			}
			rolled, waited := false, false
			for round := range uint64(6) {
				var s store.Store
				states := (*Store)(nil)
				if logged {
					l := r.fenced(t, round+1)
					s, states = l, l.states.(*Store)
				} else {
					states = r.rig.store(t)
					if err := states.Fence(t.Context(), round+1); err != nil {
						t.Fatal(err)
					}
					s = states
				}
				for i := range 60 {
					size := 500
					if round == 3 && !logged { // 10 MB, more than a block
						size = 10_000
					}
					if err := s.Append(t.Context(), batch(1+random.IntN(50), size)); err != nil {
						t.Fatal(err)
					}
					if i == 30 && round%2 == 1 {
						if err := states.compact(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					if l, ok := s.(*Logged); ok && i%20 == 10 {
						checkpoint(t, l)
					}
				}
				info, err := states.streamInfo(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				live := info.Messages
				r.close(t)
				r.stop(t)
				report, got := verified(t, r.dir)
				mustBeClean(t, report)
				if !maps.Equal(got, want) {
					t.Errorf("round %d: Verify found %d records, want %d", round, len(got), len(want))
				}
				state := report.Streams[0]
				// The end of a LOG's owner may come in the middle of a checkpoint.
				exact := state.Last == info.LastSeq && state.Acknowledged == state.Last
				if !exact && !logged || state.First > info.FirstSeq || state.Epoch != round+1 {
					t.Errorf("round %d: the stream is %+v, the server says %+v", round, state, info)
				}
				if !logged && uint64(report.Records+report.Tombstones+1) != live {
					t.Errorf("round %d: %+v, the server counts %d messages", round, report, live)
				}
				if logged {
					log := report.Streams[1]
					// The floor's own message, or the fence's, is above the floor as well.
					if report.Pending >= log.Messages || log.Acknowledged != log.Last {
						t.Errorf("round %d: %d messages wait, and the log is %+v", round, report.Pending, log)
					}
					rolled, waited = rolled || log.Blocks > 1, waited || report.Pending > 0
				} else {
					rolled = rolled || state.Blocks > 1
				}
				for _, note := range report.Notes {
					t.Errorf("round %d: note %q after a clean stop", round, note)
				}
				r.start(t)
			}
			if !rolled || logged && !waited {
				t.Error("no stream had more than one block, or no log was ever left with changes: the test is too small for what it is for")
			}
		})
	}
}

func TestVerifyFindsNoDamageAfterAKill(t *testing.T) {
	t.Parallel()
	for _, logged := range []bool{false, true} {
		t.Run(fmt.Sprintf("logged %v", logged), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if logged {
				if err := os.WriteFile(filepath.Join(dir, loggedFile), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			total := int32(0)
			for round := range 5 {
				killVictim(t, dir, 1+rand.IntN(30), total)
				before := snapshot(t, dir)
				report, got := verified(t, dir)
				mustBeClean(t, report)
				if !maps.Equal(before, snapshot(t, dir)) {
					t.Fatalf("round %d: Verify wrote into the directory", round)
				}
				r := &rig{dir: dir, sync: true}
				r.start(t)
				var s store.Store
				if logged {
					s = (&logRig{rig: r, opts: LogOptions{CheckpointAge: time.Hour}}).store(t)
				} else {
					s = r.store(t)
				}
				if err := s.Fence(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				want := make(map[string]store.Record)
				if err := s.Scan(t.Context(), "", func(r store.Record) error { want[r.Name] = r; return nil }); err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(got, want) {
					t.Errorf("round %d: Verify found %v, the server %v", round, got, want)
				}
				total = want["alone"].Version
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				r.stop(t)
			}
		})
	}
}

// snapshot is the content of all files of a directory.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestVerifyOfADirectoryThatNeverServedIsClean(t *testing.T) {
	report, _ := verified(t, t.TempDir())
	mustBeClean(t, report)
	if len(report.Notes) != 1 || !strings.Contains(report.Notes[0], "no records") {
		t.Errorf("notes: %q", report.Notes)
	}
	// The streams exist, and no owner has come.
	r := newLogRig(t, true, LogOptions{})
	r.store(t)
	r.close(t)
	r.stop(t)
	report, _ = verified(t, r.dir)
	mustBeClean(t, report)
	r.start(t)
}

func TestVerifyEndsWithItsContextAndItsReader(t *testing.T) {
	r := newRig(t, true)
	mustAppend(t, r.fenced(t), storetest.Put("a", 1, `1`))
	r.stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, VerifyOptions{Dir: r.dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v, want that it was cancelled", err)
	}
	enough := errors.New("enough")
	if _, err := Verify(t.Context(), VerifyOptions{Dir: r.dir, Each: func(store.Record) error { return enough }}); !errors.Is(err, enough) {
		t.Errorf("Verify = %v, want what Each said", err)
	}
	r.start(t)
}
