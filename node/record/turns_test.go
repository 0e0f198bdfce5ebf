package record

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/protocol"
	"hadal/store"
)

// sluggish is a store whose appends take appendTime, or as long as hung is there.
type sluggish struct {
	store.Store
	appends atomic.Int64
	hung    atomic.Pointer[chan struct{}]
}

const appendTime = 10 * time.Millisecond

func (s *sluggish) Append(ctx context.Context, ops []store.Op) error {
	s.appends.Add(1)
	if hung := s.hung.Load(); hung != nil {
		<-*hung
	} else {
		time.Sleep(appendTime)
	}
	return s.Store.Append(ctx, ops)
}

// busyPair is a node with two partitions and their stores, to be run in a bubble.
func busyPair(t *testing.T) (*Room, [2]*sluggish) {
	var mu sync.Mutex
	var opened []*sluggish
	w := startNet(t, netOptions{partitions: 2, ids: []string{"a"}, wrap: map[string]func(store.Store) store.Store{
		"a": func(st store.Store) store.Store {
			mu.Lock()
			defer mu.Unlock()
			opened = append(opened, &sluggish{Store: st})
			return opened[len(opened)-1]
		}}})
	w.ready()
	r := w.room("a")
	var stores [2]*sluggish
	for _, st := range opened {
		for p := range w.stores {
			if r.seats()[p].owner.Load().store == store.Store(st) {
				stores[p] = st
			}
		}
	}
	return r, stores
}

// writeOften has writers with a record of their own in a partition, each of which makes its next
// write when it has been told that the last one is durable. The first one has begun when
// the others begin.
func writeOften(t *testing.T, r *Room, partition, writers, writes int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for name, n := 0, 0; n < writers; name++ {
		m := &protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: fmt.Sprint(name),
			Data: `{}`, Version: -1, Has: protocol.HasVersion, IsWriteAck: true, CorrelationID: "1",
		}
		if r.partition(m.Name) != partition {
			continue
		}
		n++
		acked := make(chan protocol.Action, 1)
		c := hooked{newClient(m.Name), func(m *protocol.Message) { acked <- m.Action }}
		wg.Go(func() {
			for range writes {
				r.Handle(c, m)
				if got := <-acked; got != protocol.RecordWriteAcknowledgement {
					t.Errorf("a write of %s was answered %d", m.Name, got)
				}
			}
		})
		if n == 1 {
			synctest.Wait()
		}
	}
	return &wg
}

func TestBusyOwnersFindAllThatIsInFlightWhenItIsTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const writers, writes = 40, 20
		r, stores := busyPair(t)
		begun := time.Now()
		first, second := writeOften(t, r, 0, writers, writes), writeOften(t, r, 1, writers, writes)
		first.Wait()
		second.Wait()
		for p, st := range stores {
			// Without turns each append leaves some behind, and there are two for each write.
			if n := st.appends.Load(); n > writes+4 {
				t.Errorf("partition %d: %d appends for %d writes of each of %d writers", p, n, writes, writers)
			}
		}
		if took := time.Since(begun); took > (2*writes+4)*appendTime {
			t.Errorf("it took %v, longer than without turns", took)
		}
	})
}

func TestAStoreThatHangsHoldsOthersUpForATurnAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stores := busyPair(t)
		writeOften(t, r, 0, 40, 3).Wait()
		writeOften(t, r, 1, 40, 3).Wait()
		hung := make(chan struct{})
		stores[0].hung.Store(&hung)
		stuck := writeOften(t, r, 0, 40, 1)
		begun := time.Now()
		writeOften(t, r, 1, 40, 10).Wait()
		if took := time.Since(begun); took > turnTime+(2*10+4)*appendTime {
			t.Errorf("10 writes of each client took %v", took)
		}
		close(hung)
		stuck.Wait()
	})
}

func TestWhoGivesUpItsTurnHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		owners := make([]*owner, 4)
		for i := range owners {
			owners[i] = &owner{turn: make(chan struct{}, 1)}
		}
		end, ok := turns.take(owners[0], 1)
		if !ok {
			t.Fatal("the first one has to wait")
		}
		for _, o := range owners[1:] {
			if _, ok := turns.take(o, 1); ok {
				t.Fatal("two have a turn")
			}
		}
		end()
		end()
		<-owners[1].turn
		turns.leave(owners[1])
		<-owners[2].turn
		if _, ok := turns.take(owners[3], 1); ok {
			t.Error("one that came later is first")
		}
		end, ok = turns.take(owners[2], 2)
		if !ok {
			t.Error("who was rung has to wait")
		}
		<-owners[3].turn // there is another one
		if _, ok := turns.take(owners[3], 2); !ok {
			t.Error("one of two turns is not to be had")
		}
		end()
		time.Sleep(turnTime) // which is the end of the other one
		synctest.Wait()
		if turns.taken != 0 {
			t.Errorf("%d turns are taken, want none", turns.taken)
		}
	})
}
