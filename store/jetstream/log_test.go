package jetstream

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"hadal/store"
	"hadal/store/storetest"
)

// logRig is a rig that opens stores with a LOG.
type logRig struct {
	*rig
	opts LogOptions
	open []*Logged
}

// newLogRig makes a rig whose stores checkpoint when told to, unless opts say
// otherwise.
func newLogRig(t testing.TB, sync bool, opts LogOptions) *logRig {
	t.Helper()
	if opts.CheckpointAge == 0 {
		opts.CheckpointAge = time.Hour
	}
	r := &logRig{rig: newRig(t, sync), opts: opts}
	t.Cleanup(func() { r.close(t) })
	return r
}

func (r *logRig) close(t testing.TB) {
	t.Helper()
	for _, l := range r.open {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	r.open = nil
}

func (r *logRig) store(t testing.TB) *Logged {
	t.Helper()
	opts := r.opts
	if r.sync {
		opts.Mark, opts.LogMark = filepath.Join(r.dir, "mark"), filepath.Join(r.dir, "mark-log")
	}
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := OpenLogged(context.Background(), r.nc, opts)
	if err != nil {
		t.Fatalf("OpenLogged: %v", err)
	}
	r.open = append(r.open, l)
	return l
}

func (r *logRig) Open(t *testing.T) store.Store { return r.store(t) }

func (r *logRig) Restart(t *testing.T) {
	r.close(t)
	r.rig.Restart(t)
}

// crash goes on with the files as they are now, as after a kill.
func (r *logRig) crash(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	// A kill is a moment and a copy is not, so nothing is written meanwhile; the
	// server may remove what it is done with.
	for _, l := range r.open {
		l.checkpoints.Lock()
		l.mu.Lock()
	}
	err := filepath.WalkDir(r.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		to := filepath.Join(dir, strings.TrimPrefix(name, r.dir))
		if e.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return gone(err)
		}
		return os.WriteFile(to, data, 0o600)
	})
	for _, l := range r.open {
		l.mu.Unlock()
		l.checkpoints.Unlock()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.close(t)
	r.stop(t)
	r.dir = dir
	r.start(t)
}

// gone is nil for what is not there any more.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// fenced is an open store under an epoch.
func (r *logRig) fenced(t testing.TB, epoch uint64) *Logged {
	t.Helper()
	l := r.store(t)
	if err := l.Fence(context.Background(), epoch); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	return l
}

func logAppend(t testing.TB, l *Logged, ops ...store.Op) {
	t.Helper()
	if err := l.Append(context.Background(), ops); err != nil {
		t.Fatalf("Append of %d ops: %v", len(ops), err)
	}
}

func checkpoint(t testing.TB, l *Logged) {
	t.Helper()
	if err := l.Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// holds checks that Load, Scan and Names agree on these records and no others.
func holds(t testing.TB, l *Logged, want map[string]store.Record) {
	t.Helper()
	got := make(map[string]store.Record)
	err := l.Scan(context.Background(), "", func(r store.Record) error {
		if _, twice := got[r.Name]; twice {
			t.Errorf("Scan gave %q twice", r.Name)
		}
		got[r.Name] = r
		return nil
	})
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("Scan = %v, %v, want %v", got, err, want)
	}
	names := 0
	if err := l.Names(context.Background(), "", func(name string) error {
		if _, ok := want[name]; ok {
			names++
		}
		return nil
	}); err != nil || names != len(want) {
		t.Fatalf("Names gave %d of %d, %v", names, len(want), err)
	}
	for name, r := range want {
		if got, err := l.Load(context.Background(), name); err != nil || got != r {
			t.Fatalf("Load %q = %v, %v, want %v", name, got, err, r)
		}
	}
}

// flakyState is STATE that refuses appends when told to.
type flakyState struct {
	stateStore
	fail    atomic.Pointer[error]
	appends [][]store.Op
}

func (f *flakyState) Append(ctx context.Context, ops []store.Op) error {
	if err := f.fail.Load(); err != nil {
		return *err
	}
	f.appends = append(f.appends, append([]store.Op(nil), ops...))
	return f.stateStore.Append(ctx, ops)
}

func TestALoggedStoreKeepsTheContract(t *testing.T) {
	for _, age := range []time.Duration{time.Hour, 50 * time.Millisecond} {
		t.Run(fmt.Sprintf("checkpoint after %v", age), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) store.Store {
				return newLogRig(t, false, LogOptions{CheckpointAge: age}).store(t)
			})
		})
	}
}

func TestALoggedStoreIsHandedFromOwnerToOwner(t *testing.T) {
	for _, age := range []time.Duration{time.Hour, 50 * time.Millisecond} {
		t.Run(fmt.Sprintf("checkpoint after %v", age), func(t *testing.T) {
			t.Parallel()
			storetest.RunShared(t, func(t *testing.T) storetest.Shared {
				return newLogRig(t, true, LogOptions{CheckpointAge: age})
			})
		})
	}
}

func TestACheckpointWritesEachNameOnceAndThenPurges(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, true, LogOptions{})
	l := r.fenced(t, 1)
	flaky := &flakyState{stateStore: l.states}
	l.states = flaky
	for i := range int32(50) {
		logAppend(t, l, storetest.Put("hot", i, `{}`), storetest.Put("comes", i, `{}`))
	}
	logAppend(t, l, storetest.Delete("comes"))
	if st := l.Stats(t.Context()); st.LastSequence != 52 || st.Dirty != 2 || st.Messages != 52 || st.State.LastSequence != 1 || st.Pending == 0 {
		t.Errorf("Stats before = %+v, want 52 messages and 2 dirty names", st)
	}
	checkpoint(t, l)
	if len(flaky.appends) != 1 || len(flaky.appends[0]) != 2 {
		t.Errorf("STATE was given %v, want two ops once", flaky.appends)
	}
	st := l.Stats(t.Context())
	if st.Floor != 52 || st.Purged != 52 || st.LastSequence != 53 || st.Messages != 1 || st.Dirty != 0 || st.Pending != 0 || st.Checkpoints != 1 || st.LastCheckpoint.IsZero() {
		t.Errorf("Stats after = %+v, want the floor at 52 and one message, that says so", st)
	}
	want := map[string]store.Record{"hot": {Name: "hot", Version: 49, Data: `{}`}}
	holds(t, l, want)
	checkpoint(t, l) // of nothing
	if st := l.Stats(t.Context()); st.LastSequence != 53 {
		t.Errorf("a checkpoint of nothing wrote something: %+v", st)
	}
	r.Restart(t)
	l = r.fenced(t, 1)
	if st := l.Stats(t.Context()); st.Dirty != 0 || st.Floor != 52 {
		t.Errorf("Stats after a restart = %+v, want nothing dirty", st)
	}
	holds(t, l, want)
}

func TestNothingIsPurgedThatStateDidNotTake(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, true, LogOptions{})
	l := r.fenced(t, 1)
	flaky := &flakyState{stateStore: l.states}
	l.states = flaky
	logAppend(t, l, storetest.Put("a", 1, `1`), storetest.Put("b", 1, `1`))
	broken := errors.New("broken")
	flaky.fail.Store(&broken)
	if err := l.Checkpoint(t.Context()); !errors.Is(err, broken) {
		t.Fatalf("Checkpoint = %v, want STATE's error", err)
	}
	if st := l.Stats(t.Context()); st.Floor != 0 || st.Messages != 2 || st.Dirty != 2 || st.CheckpointFailures == 0 {
		t.Errorf("Stats = %+v, want everything in the LOG still", st)
	}
	logAppend(t, l, storetest.Put("a", 2, `2`), storetest.Put("c", 1, `1`))
	want := map[string]store.Record{"a": {Name: "a", Version: 2, Data: `2`}, "b": {Name: "b", Version: 1, Data: `1`}, "c": {Name: "c", Version: 1, Data: `1`}}
	holds(t, l, want)
	flaky.fail.Store(nil)
	checkpoint(t, l) // may find the one that failed already made up for
	checkpoint(t, l)
	if st := l.Stats(t.Context()); st.Dirty != 0 || st.Messages != 1 || st.Fenced {
		t.Errorf("Stats = %+v, want all of it carried over", st)
	}
	holds(t, l, want)
	// Somebody else has STATE: this owner is over.
	if err := flaky.stateStore.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	fenced := fmt.Errorf("told: %w", store.ErrFenced)
	flaky.fail.Store(&fenced)
	logAppend(t, l, storetest.Put("a", 3, `3`))
	if err := l.Checkpoint(t.Context()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Checkpoint = %v, want ErrFenced", err)
	}
	if _, err := l.Load(t.Context(), "a"); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Load = %v, want ErrFenced", err)
	}
}

func TestStateThatIsFencedOffIsFencedAnewForAReader(t *testing.T) {
	t.Parallel()
	l := newLogRig(t, false, LogOptions{}).fenced(t, 1)
	logAppend(t, l, storetest.Put("a", 1, `1`))
	checkpoint(t, l)
	l.states.(*Store).fail()
	if got, err := l.Load(t.Context(), "a"); err != nil || got.Version != 1 {
		t.Errorf("Load = %v, %v, want the record", got, err)
	}
}

func TestCheckpointsBeginBySizeByNumberAndByAge(t *testing.T) {
	t.Parallel()
	tests := map[string]LogOptions{
		"size":   {CheckpointBytes: 1000},
		"number": {CheckpointRecords: 10},
		"age":    {CheckpointAge: time.Millisecond},
	}
	for name, opts := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLogRig(t, false, opts).fenced(t, 1)
			for i := range int32(20) {
				logAppend(t, l, storetest.Put(fmt.Sprint(i), i, `{}`))
			}
			for l.Stats(t.Context()).Checkpoints == 0 {
				if t.Context().Err() != nil {
					t.Fatal("no checkpoint")
				}
			}
		})
	}
}

func TestAFullLogWaitsForACheckpointAndRefuses(t *testing.T) {
	t.Parallel()
	l := newLogRig(t, false, LogOptions{LogBytes: 64 << 10}).fenced(t, 1)
	flaky := &flakyState{stateStore: l.states}
	broken := errors.New("broken")
	flaky.fail.Store(&broken)
	l.checkpoints.Lock() // so that no checkpoint sees the exchange half done
	l.states = flaky
	l.checkpoints.Unlock()
	kept := make(map[string]store.Record)
	refused := false
	for i := int32(0); i < 100 && !refused; i++ {
		op := storetest.Put(fmt.Sprint(i), i, `"`+strings.Repeat("x", 1000)+`"`)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := l.Append(ctx, []store.Op{op})
		cancel()
		switch {
		case errors.Is(err, store.ErrFull):
			refused = true
		case err != nil:
			t.Fatal(err)
		default:
			kept[op.Name] = op.Record
		}
	}
	if !refused {
		t.Fatal("the log took more than fits")
	}
	holds(t, l, kept)
	flaky.fail.Store(nil)
	last := storetest.Put("last", 1, `1`)
	logAppend(t, l, last) // waits
	kept["last"] = last.Record
	holds(t, l, kept)
}

func TestBatchesAboveTheLimitOfOneMessageAreRefused(t *testing.T) {
	t.Parallel()
	l := newLogRig(t, false, LogOptions{Options: Options{MaxRecord: 1 << 20}}).fenced(t, 1)
	data := strings.Repeat("x", 1<<20)
	var ops []store.Op
	for i := range l.MaxBatch()/(1<<20) + 1 {
		ops = append(ops, storetest.Put(fmt.Sprint(i), 1, data))
	}
	if err := l.Append(t.Context(), ops); !errors.Is(err, store.ErrRefused) {
		t.Errorf("Append = %v, want ErrRefused", err)
	}
	if err := l.Append(t.Context(), []store.Op{storetest.Put("a", 1, data+"x")}); !errors.Is(err, store.ErrRefused) {
		t.Errorf("Append of a large record = %v, want ErrRefused", err)
	}
	logAppend(t, l, ops[1:]...)
	checkpoint(t, l)
	if got, err := l.Load(t.Context(), "1"); err != nil || got.Data != data {
		t.Errorf("Load = %d bytes, %v", len(got.Data), err)
	}
}

// An old owner in the middle of appends and checkpoints is taken over.
func TestNothingOfTheOldOwnerReachesTheLogOrTheStateAfterTheFence(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, false, LogOptions{CheckpointAge: time.Millisecond})
	for round := range uint64(8) {
		old := r.fenced(t, 2*round+1)
		acked := int32(0)
		started, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := int32(1); ; i++ {
				if err := old.Append(context.Background(), []store.Op{storetest.Put("a", i, `"old"`), storetest.Put("b", i, `"old"`)}); err != nil {
					ended <- err
					return
				}
				acked = i
				if i == 20 {
					close(started)
				}
			}
		}()
		<-started
		next := r.fenced(t, 2*round+2)
		a, err := next.Load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		logAppend(t, next, storetest.Put("b", 0, `"new"`))
		if err := <-ended; !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old owner ended with %v, want ErrFenced", err)
		}
		if a.Version < acked {
			t.Errorf("a is %v, acknowledged was %d", a, acked)
		}
		if err := old.Checkpoint(t.Context()); !errors.Is(err, store.ErrFenced) {
			t.Errorf("Checkpoint of the old owner = %v, want ErrFenced", err)
		}
		want := map[string]store.Record{"a": a, "b": {Name: "b", Data: `"new"`}}
		holds(t, next, want)
		checkpoint(t, next)
		holds(t, next, want)
	}
}

// What is in the LOG but does not belong there stops the next owner, who names it.
func TestADamagedLogIsNamedAndNotServed(t *testing.T) {
	op := storetest.Put("a", 2, `2`)
	batch := func(e logEntry) []byte {
		e.kind, e.ops = logBatch, []store.Op{op}
		return appendLog(nil, &e)
	}
	good := batch(logEntry{follows: 2, epoch: 1})
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name    string
		payload []byte
		want    string
	}{
		{"foreign", []byte("x"), "format is 120"},
		{"a flipped bit", flipped, "checksum"},
		{"written to follow another", batch(logEntry{follows: 1, epoch: 1}), "to follow sequence 1"},
		{"of another epoch", batch(logEntry{follows: 2, epoch: 2}), "epoch is 2 after epoch 1"},
		{"a fence among batches", appendLog(nil, &logEntry{kind: logFence, epoch: 1}), "kind 2"},
		{"a floor above itself", batch(logEntry{follows: 2, epoch: 1, floor: 3}), "floor is 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newLogRig(t, false, LogOptions{})
			l := r.fenced(t, 1)
			logAppend(t, l, storetest.Put("a", 1, `1`))
			if _, err := l.js.Publish(t.Context(), l.subjects, tt.payload); err != nil {
				t.Fatal(err)
			}
			next := r.store(t)
			for range 2 {
				err := next.Fence(t.Context(), 2)
				corrupt, ok := errors.AsType[*CorruptError](err)
				if !ok || corrupt.Stream != "HADAL_LOG_0" || corrupt.Sequence != 3 || !strings.Contains(corrupt.Reason, tt.want) {
					t.Errorf("Fence = %v, want %q at sequence 3 of the log", err, tt.want)
				}
			}
			if _, err := next.Load(t.Context(), "a"); !errors.Is(err, store.ErrFenced) {
				t.Errorf("Load = %v, want ErrFenced", err)
			}
		})
	}
}

func TestAHoleInTheLogIsNamed(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, false, LogOptions{})
	for _, hole := range []uint64{3, 2} { // in the middle, at the beginning
		l := r.fenced(t, 1)
		first := l.base
		checkpoint(t, l)
		for i := range int32(4) {
			logAppend(t, l, storetest.Put("a", i, `1`))
		}
		stream, err := l.js.Stream(t.Context(), l.stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.DeleteMsg(t.Context(), first+hole-1); err != nil {
			t.Fatal(err)
		}
		err = r.store(t).Fence(t.Context(), 1)
		if corrupt, ok := errors.AsType[*CorruptError](err); !ok || corrupt.Sequence != first+hole-1 || !strings.Contains(corrupt.Reason, "missing") {
			t.Errorf("Fence = %v, want sequence %d missing", err, first+hole-1)
		}
		if err := stream.Purge(t.Context()); err != nil { // as an operator gives it up
			t.Fatal(err)
		}
	}
}

// A server that lost the end of the LOG says nothing of it.
func TestALogThatIsShorterThanItWasIsReported(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, true, LogOptions{})
	l := r.fenced(t, 1)
	logAppend(t, l, storetest.Put("a", 1, `1`))
	if err := l.mark.write(l.base + 1); err != nil {
		t.Fatal(err)
	}
	if err := r.store(t).Fence(t.Context(), 1); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "mark-log") {
		t.Errorf("Fence = %v, want ErrCorrupt and what to do", err)
	}
}

// Purges that were undone, wholly or in part: what stands at or below the floor
// does not count, be it there or not, or be it nonsense.
func TestAnUndonePurgeTakesNothingBack(t *testing.T) {
	t.Parallel()
	for _, gap := range []bool{false, true} {
		t.Run(fmt.Sprintf("gap %v", gap), func(t *testing.T) {
			t.Parallel()
			r := newLogRig(t, false, LogOptions{})
			l := r.fenced(t, 1)
			for i := range int32(10) {
				logAppend(t, l, storetest.Put("a", i, `1`), storetest.Put("b", i, `1`))
			}
			logAppend(t, l, storetest.Delete("b"))
			// A checkpoint up to the floor, without the purge that follows it.
			l.state.Lock()
			until := l.base
			ops := []store.Op{l.dirty["a"], l.dirty["b"]}
			l.state.Unlock()
			if err := l.states.Append(t.Context(), ops); err != nil {
				t.Fatal(err)
			}
			if err := l.raiseFloor(t.Context(), until, l.fences); err != nil {
				t.Fatal(err)
			}
			if gap {
				stream, err := l.js.Stream(t.Context(), l.stream)
				if err != nil {
					t.Fatal(err)
				}
				for seq := uint64(6); seq <= until; seq++ {
					if err := stream.DeleteMsg(t.Context(), seq); err != nil {
						t.Fatal(err)
					}
				}
			}
			logAppend(t, l, storetest.Put("c", 1, `1`))
			next := r.fenced(t, 2)
			if st := next.Stats(t.Context()); st.Floor < until || st.State.Ops > 1 {
				t.Errorf("Stats = %+v, want floor %d, and of the names none but the one above it for STATE", st, until)
			}
			holds(t, next, map[string]store.Record{"a": {Name: "a", Version: 9, Data: `1`}, "c": {Name: "c", Version: 1, Data: `1`}})
			// The purge is made up for without a change to wait for.
			for next.Stats(t.Context()).Purged < until {
				if t.Context().Err() != nil {
					t.Fatal("no purge")
				}
			}
		})
	}
}

// takenState is STATE that takes everything in no time, and notes the order.
type takenState struct {
	stateStore
	mu    sync.Mutex
	order map[string]int // guarded by mu
}

func (s *takenState) Append(_ context.Context, ops []store.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range ops {
		s.order[ops[i].Name] = len(s.order)
	}
	return nil
}

// The floor rises over what a checkpoint has taken, never over a batch that was
// acknowledged just then.
func TestTheFloorNeverPassesWhatStateHas(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, false, LogOptions{CheckpointRate: 1_000_000_000})
	l := r.fenced(t, 1)
	states := &takenState{stateStore: l.states, order: make(map[string]int)}
	l.states = states
	type risen struct {
		floor uint64
		taken int // how many names STATE had then
	}
	var all []risen
	var done atomic.Bool
	var checkpoints sync.WaitGroup
	checkpoints.Go(func() {
		for !done.Load() {
			if err := l.Checkpoint(t.Context()); err != nil {
				t.Errorf("Checkpoint = %v", err)
				return
			}
			l.state.Lock()
			floor := l.floor
			l.state.Unlock()
			states.mu.Lock()
			all = append(all, risen{floor, len(states.order)})
			states.mu.Unlock()
		}
	})
	const n = 20_000
	last := make([]uint64, n) // the sequence at which each name was there at the latest
	name := func(i int) string { return fmt.Sprintf("n/%d", i) }
	for i := range last {
		logAppend(t, l, storetest.Put(name(i), 1, `1`))
		l.state.Lock()
		last[i] = l.base
		l.state.Unlock()
	}
	done.Store(true)
	checkpoints.Wait()
	states.mu.Lock() // the store may begin a checkpoint of its own
	defer states.mu.Unlock()
	i := 0
	for _, at := range all {
		for ; i < n && last[i] <= at.floor; i++ {
			if order, ok := states.order[name(i)]; !ok || order >= at.taken {
				t.Fatalf("the floor is %d, and %s, at sequence %d, is not in STATE", at.floor, name(i), last[i])
			}
		}
	}
	if len(all) < 100 {
		t.Errorf("%d checkpoints only", len(all))
	}
}

// Fences alone do not make the LOG grow.
func TestManyFencesAreTidiedAway(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, false, LogOptions{})
	l := r.store(t)
	for epoch := range uint64(tidyAfter + 2) {
		if err := l.Fence(t.Context(), epoch); err != nil {
			t.Fatal(err)
		}
	}
	for l.Stats(t.Context()).Messages > 2 {
		if t.Context().Err() != nil {
			t.Fatal("the fences stay")
		}
	}
}

func TestAnAppendToTheLogWithoutAnswerFencesTheStoreOff(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, true, LogOptions{})
	l := r.fenced(t, 1)
	logAppend(t, l, storetest.Put("a", 1, `1`))
	// Somebody else writes, so that the append is refused.
	if _, err := l.publish(t.Context(), &nats.Msg{Subject: l.subjects, Data: appendLog(nil, &logEntry{kind: logBatch, follows: l.base, epoch: 1, ops: []store.Op{storetest.Put("a", 7, `7`)}})}); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), []store.Op{storetest.Put("a", 2, `2`)}); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Append = %v, want ErrFenced", err)
	}
	if st := l.Stats(t.Context()); !st.Fenced || st.Failures != 1 || st.Appends != 1 {
		t.Errorf("Stats = %+v, want fenced after one failure", st)
	}
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Load(t.Context(), "a"); err != nil || got.Version != 7 {
		t.Errorf("Load = %v, %v, want what stands in the LOG", got, err)
	}
}

// The store beside a map, with every kind of interruption between two calls.
func TestALoggedStoreIsAMap(t *testing.T) {
	// A check starts streams and waits for batches: fewer than rapid would like,
	// unless somebody asks for more.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set("10"); err != nil {
			t.Fatal(err)
		}
	}
	r := newLogRig(t, true, LogOptions{CheckpointRate: 1_000_000})
	epoch := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		// Each check goes on where the last one ended.
		epoch++
		l := r.fenced(t, epoch)
		want := make(map[string]store.Record)
		if err := l.Scan(context.Background(), "", func(r store.Record) error { want[r.Name] = r; return nil }); err != nil {
			rt.Fatal(err)
		}
		name := rapid.SampledFrom([]string{"a", "b", "a/b", "a/c", "ä", "x.y", "*"})
		op := rapid.Custom(func(rt *rapid.T) store.Op {
			if rapid.IntRange(0, 3).Draw(rt, "kind") == 0 {
				return storetest.Delete(name.Draw(rt, "name"))
			}
			return storetest.Put(name.Draw(rt, "name"), rapid.Int32().Draw(rt, "version"), rapid.SampledFrom([]string{`{}`, `[1]`, `"x"`}).Draw(rt, "data"))
		})
		again := func() {
			if err := l.Close(); err != nil {
				rt.Fatal(err)
			}
			r.open = nil
			epoch++
			l = r.fenced(t, epoch)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				ops := rapid.SliceOfN(op, 0, 5).Draw(rt, "ops")
				if err := l.Append(context.Background(), ops); err != nil {
					rt.Fatal(err)
				}
				for _, op := range ops {
					if op.Delete {
						delete(want, op.Name)
					} else {
						want[op.Name] = op.Record
					}
				}
			},
			"load": func(rt *rapid.T) {
				name := name.Draw(rt, "name")
				got, err := l.Load(context.Background(), name)
				w, ok := want[name]
				if ok && (err != nil || got != w) || !ok && !errors.Is(err, store.ErrNotFound) {
					rt.Fatalf("Load %q = %v, %v, want %v, there %v", name, got, err, w, ok)
				}
			},
			"names": func(rt *rapid.T) {
				prefix := rapid.SampledFrom([]string{"", "a", "a/", "x", "z"}).Draw(rt, "prefix")
				left := maps.Clone(want)
				err := l.Names(context.Background(), prefix, func(name string) error {
					if _, ok := left[name]; !ok {
						rt.Errorf("Names %q gave %q, unknown or twice", prefix, name)
					}
					delete(left, name)
					return nil
				})
				maps.DeleteFunc(left, func(name string, _ store.Record) bool { return !strings.HasPrefix(name, prefix) })
				if err != nil || len(left) > 0 {
					rt.Fatalf("Names %q = %v and left out %v", prefix, err, left)
				}
			},
			"checkpoint": func(rt *rapid.T) {
				if err := l.Checkpoint(context.Background()); err != nil {
					rt.Fatal(err)
				}
			},
			"interrupted checkpoint": func(rt *rapid.T) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if err := l.Checkpoint(ctx); err == nil && len(l.dirty) > 0 {
					rt.Fatal("a checkpoint without a context succeeded")
				}
			},
			"fence":  func(rt *rapid.T) { epoch++; rapidFence(rt, l, epoch) },
			"reopen": func(*rapid.T) { again() },
			"crash": func(rt *rapid.T) {
				r.crash(t)
				epoch++
				l = r.fenced(t, epoch)
			},
		})
		holds(t, l, want)
		again()
		holds(t, l, want)
		if err := l.Close(); err != nil {
			rt.Fatal(err)
		}
		r.open = nil
	})
}

func rapidFence(rt *rapid.T, l *Logged, epoch uint64) {
	if err := l.Fence(context.Background(), epoch); err != nil {
		rt.Fatal(err)
	}
}
