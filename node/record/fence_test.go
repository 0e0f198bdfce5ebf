package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/store"
)

// A store may be fenced off by something else than an append: a checkpoint that has
// no answer for its floor, while the server restarts in its place. Nobody writes,
// and the records are there all the same.
func TestReadsFenceAStoreThatIsFencedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Bool
		s := &faulty{Store: store.NewMemory()}
		s.onLoad = func(context.Context, string) error {
			if off.Load() {
				return fmt.Errorf("load: %w", store.ErrFenced)
			}
			return nil
		}
		s.onFence = func() error { off.Store(false); return nil }
		r := start(t, options{store: s})
		settle(t, r)
		off.Store(true)
		a := newClient("a")
		say(t, r, a, `READ r`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		a.heard()
		say(t, r, a, `READ r`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantHeard(t, "a", a, "RECORD_NOT_FOUND name=r of=READ error")
	})
}

// One name that the store refuses must not cost the writes of others; with
// durability fast it blocks the store for good.
func TestANameThatTheStoreRefusesHarmsNobodyElse(t *testing.T) {
	for _, durability := range []string{"commit", "fast"} {
		synctest.Test(t, func(t *testing.T) {
			s := &faulty{Store: store.NewMemory(), onAppend: func(ops []store.Op) error {
				for i := range ops {
					if len(ops[i].Name) > 1<<20 {
						return store.ErrRefused
					}
				}
				return nil
			}}
			r := start(t, options{store: s, keep: func(k *KeepConfig) { k.Durability = durability }})
			a := newClient("a")
			err := r.Restore(t.Context(), store.Record{Name: strings.Repeat("x", 1<<20+1), Version: 1, Data: `{}`})
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("Restore = %v, want ErrInvalid", err)
			}
			time.Sleep(time.Minute)
			say(t, r, a, `CREATEANDUPDATE r v=1 data={} corr=1 ack`)
			time.Sleep(time.Minute)
			synctest.Wait()
			wantHeard(t, "a with "+durability, a, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck")
		})
	}
}

// slowFence is a store whose fences take their time: a long log to read back.
type slowFence struct {
	*faulty
	takes atomic.Int64
}

func (s *slowFence) Fence(ctx context.Context, epoch uint64) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(s.takes.Load())):
	}
	return s.faulty.Fence(ctx, epoch)
}

// A fence reads back the log, up to three quarters of records.logBytes: at the start
// as at any other time that may take longer than an append.
func TestAFenceMayTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s := &slowFence{faulty: &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error {
			if broken.Swap(false) {
				return errors.New("no answer")
			}
			return nil
		}}}
		s.takes.Store(int64(15 * time.Second))
		r := start(t, options{store: s})
		settle(t, r)
		a := newClient("a")
		broken.Store(true)
		say(t, r, a, `CREATEANDUPDATE r v=1 data={} corr=1 ack`)
		time.Sleep(5 * time.Minute)
		a.heard()
		say(t, r, a, `CREATEANDUPDATE r v=1 data={} corr=2 ack`)
		synctest.Wait()
		wantHeard(t, "a after five minutes", a, "WRITE_ACKNOWLEDGEMENT name=r corr=2 writeAck")
	})
}
