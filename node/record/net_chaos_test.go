package record

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"

	"hadal/protocol"
	"hadal/store"
)

// Clients on three nodes write, read, subscribe and unsubscribe, while partitions move,
// links break and leases end. Afterwards: every request has one answer; what was
// acknowledged is there, and what was refused for good is not; no version was given
// twice; no subscriber has seen a version fall, and each has the last one.
func TestNothingIsLostWhenOwnersAndLinksChange(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 2
	}
	for range seeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, seed) })
		})
	}
}

func chaos(t *testing.T, seed uint64) {
	ids := []string{"a", "b", "c"}
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(seed, 7)) // guarded by mu
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return dice.IntN(n)
	}
	moody := func(st store.Store) store.Store {
		return &faulty{Store: st, onAppend: func(ops []store.Op) error {
			time.Sleep(time.Duration(roll(5000)) * time.Microsecond)
			switch roll(40) {
			case 0: // made, and not said
				if err := st.Append(t.Context(), ops); err != nil {
					return err
				}
				return errors.New("no answer")
			case 1:
				return errors.New("no answer")
			case 2:
				return fmt.Errorf("no room: %w", store.ErrFull)
			}
			return nil
		}, onLoad: func(context.Context, string) error {
			time.Sleep(time.Duration(roll(1000)) * time.Microsecond)
			return nil
		}}
	}
	w := startNet(t, netOptions{
		ids: ids, partitions: 2, wrap: map[string]func(store.Store) store.Store{"a": moody, "b": moody, "c": moody},
		options: options{keep: func(k *KeepConfig) { k.CacheBytes = int64(roll(2)) << 20 }},
		lag:     func() time.Duration { return time.Duration(roll(300)) * time.Microsecond },
	})
	w.ready()
	names := []string{"r/1", "r/2", "r/3", "r/4"}
	type op struct{ name, path string }
	type writer struct {
		*client
		ops []op
	}
	var writers []*writer
	watchers := map[*client]string{}
	var wg sync.WaitGroup
	for _, id := range ids {
		watcher := newClient("watch" + id)
		watchers[watcher] = id
		say(t, w.room(id), watcher, `SUBSCRIBEANDREAD corr=0 names=`+strings.Join(names, ","))
	}
	w.settleAll()
	const writes = 150
	acks := map[string]*atomic.Int64{}
	for _, name := range names {
		acks[name] = new(atomic.Int64)
	}
	for i, id := range ids {
		for j := range 2 {
			c := &writer{client: newClient(fmt.Sprint(id, j))}
			writers = append(writers, c)
			rng := rand.New(rand.NewPCG(seed, uint64(10*i+j)))
			wg.Go(func() {
				for k := range writes {
					o := op{names[rng.IntN(len(names))], fmt.Sprintf("%s%d_%d", id, j, k)}
					c.ops = append(c.ops, o)
					say(t, w.room(id), hooked{c.client, func(m *protocol.Message) {
						if m.Action == protocol.RecordWriteAcknowledgement {
							acks[m.Name].Add(1)
						}
					}}, fmt.Sprintf(`CREATEANDPATCH %s v=-1 path=%s data=1 corr=%d ack`, o.name, o.path, k))
					if rng.IntN(4) == 0 {
						w.until("answers come", func() bool { return c.count() > k-8 })
					}
				}
			})
		}
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i, id := range ids {
		rng := rand.New(rand.NewPCG(seed, uint64(200+i)))
		readers.Go(func() { readAll(t, w, id, rng, names, acks, done) })
	}
	var faults sync.WaitGroup
	faults.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 99))
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(1+rng.IntN(20)) * time.Millisecond):
			}
			x, y := rng.IntN(3), 0
			for y = rng.IntN(3); y == x; y = rng.IntN(3) {
			}
			switch rng.IntN(6) {
			case 0, 1, 2:
				w.move(ids[x], rng.IntN(2))
			case 3:
				w.cut(ids[x], ids[y], rng.IntN(2) == 0)
				time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
				w.link(ids[x], ids[y])
			case 4:
				// Whoever learns nothing has no lease.
				w.lease(ids[x], false)
				w.freeze(ids[x], true)
				time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
				w.freeze(ids[x], false)
				w.lease(ids[x], true)
			case 5:
				w.lease(ids[x], false)
				time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
				w.lease(ids[x], true)
			}
		}
	})
	wg.Wait()
	close(done)
	readers.Wait()
	faults.Wait()
	w.ready()
	for _, c := range writers {
		w.until("every write is answered", func() bool { return c.count() >= writes })
	}
	w.settleAll()
	// One more of each, so that whoever has missed something learns of it, or has not.
	final := map[string]int32{}
	data := map[string]string{}
	for _, name := range names {
		if _, err := w.room("a").Get(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	w.compared()
	w.settleAll()
	for _, name := range names {
		rec, err := w.room("b").Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		final[name], data[name] = rec.Version, rec.Data
	}
	acked, unknown, refused := 0, 0, 0
	count := map[string]int{}
	for _, c := range writers {
		got := c.messages()
		if len(got) != writes {
			t.Errorf("%s heard %d answers, want %d", c.user.ID, len(got), writes)
		}
		seen := map[string]bool{}
		for _, m := range got {
			if seen[m.CorrelationID] {
				t.Errorf("%s heard twice: %s", c.user.ID, text(&m))
			}
			seen[m.CorrelationID] = true
			var k int
			if _, err := fmt.Sscan(m.CorrelationID, &k); err != nil {
				t.Fatalf("%s heard %s", c.user.ID, text(&m))
			}
			o := c.ops[k]
			there := gjson.Get(data[o.name], o.path).Exists()
			if there {
				count[o.name]++
			}
			switch {
			case m.Action == protocol.RecordWriteAcknowledgement:
				acked++
				if !there {
					t.Errorf("%s of %s was acknowledged, and is lost", o.path, o.name)
				}
			case strings.Contains(m.Data, errUnknown.Error()):
				unknown++
			default:
				refused++
				if there {
					t.Errorf("%s of %s was refused, and is there: %s", o.path, o.name, text(&m))
				}
			}
		}
	}
	// A client's writes of a record are in its order: the fields are in the order in
	// which they came.
	for _, name := range names {
		last := map[string]int{}
		gjson.Parse(data[name]).ForEach(func(key, _ gjson.Result) bool {
			who, n, _ := strings.Cut(key.Str, "_")
			var k int
			if _, err := fmt.Sscan(n, &k); err != nil {
				t.Fatal(err)
			}
			if before, ok := last[who]; ok && k < before {
				t.Errorf("%s: %s wrote %d after %d", name, who, k, before)
			}
			last[who] = k
			return true
		})
		if int(final[name]) < count[name] || int(final[name]) > count[name]+1 {
			t.Errorf("%s has version %d after %d writes", name, final[name], count[name])
		}
	}
	for c, id := range watchers {
		versions := map[string]int32{}
		for _, m := range c.messages() {
			switch m.Action {
			case protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordReadResponse:
			case protocol.RecordSubscribeAndRead:
				continue
			default:
				t.Errorf("a watcher at %s heard %s", id, text(&m))
				continue
			}
			if v, ok := versions[m.Name]; ok && m.Version < v {
				t.Errorf("a watcher at %s heard of version %d of %s after %d", id, m.Version, m.Name, v)
			}
			versions[m.Name] = m.Version
		}
		for _, name := range names {
			if versions[name] != final[name] {
				t.Errorf("a watcher at %s heard of version %d of %s last, want %d", id, versions[name], name, final[name])
			}
		}
	}
	t.Logf("%d acknowledged, %d unknown, %d refused", acked, unknown, refused)
}

// hooked is a client that looks at its answers.
type hooked struct {
	*client
	on func(*protocol.Message)
}

func (h hooked) Answer(m *protocol.Message) {
	h.on(m)
	h.client.Answer(m)
}

// readAll asks one thing after the other, and has one answer to each. A read sees what
// anybody was told to be written before it began.
func readAll(t *testing.T, w *net, id string, rng *rand.Rand, names []string, acks map[string]*atomic.Int64, done <-chan struct{}) {
	c := newClient("reader" + id)
	subscribed := map[string]bool{}
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		case <-time.After(time.Duration(rng.IntN(3000)) * time.Microsecond):
		}
		name := names[rng.IntN(len(names))]
		least := acks[name].Load()
		var asked string
		var isAnswer func(*protocol.Message) bool
		switch rng.IntN(4) {
		case 0:
			asked = "READ " + name
			isAnswer = func(m *protocol.Message) bool {
				return m.Action == protocol.RecordReadResponse || m.OriginalAction == protocol.RecordRead
			}
		case 1:
			asked = "HEAD " + name
			isAnswer = func(m *protocol.Message) bool {
				return m.Action == protocol.RecordHeadResponse || m.OriginalAction == protocol.RecordHead
			}
		case 2:
			asked = fmt.Sprintf("SUBSCRIBE names=%s corr=%d", name, n)
			isAnswer = func(m *protocol.Message) bool { return m.IsAck && m.CorrelationID == fmt.Sprint(n) }
			if subscribed[name] {
				asked = fmt.Sprintf("UNSUBSCRIBE names=%s corr=%d", name, n)
			}
			subscribed[name] = !subscribed[name]
		case 3:
			asked = fmt.Sprintf("SUBSCRIBEANDHEAD names=%s corr=%d", name, n)
			isAnswer = func(m *protocol.Message) bool { // the ack may come before
				return m.Action == protocol.RecordHeadResponse || len(m.Versions) > 0 ||
					m.OriginalAction == protocol.RecordSubscribeAndHead && m.Action != protocol.RecordMultipleSubscriptions
			}
			subscribed[name] = true
		}
		c.messages()
		say(t, w.room(id), c, asked)
		var got []protocol.Message
		answers := func() (n int) {
			got = append(got, c.messages()...)
			for i := range got {
				if isAnswer(&got[i]) {
					n++
				}
			}
			return n
		}
		w.until(asked+" is answered at "+id, func() bool { return answers() > 0 })
		time.Sleep(time.Millisecond)
		if answers() != 1 {
			t.Errorf("%q at %s had %d answers", asked, id, answers())
		}
		for i := range got {
			m := &got[i]
			if isAnswer(m) && !m.IsAck && m.OriginalAction == 0 && len(m.Versions) == 0 && int64(max(m.Version, 0)) < least { // -1 is that of a record that nobody has created
				t.Errorf("%q at %s had version %d, when %d writes had been acknowledged", asked, id, m.Version, least)
			}
			if m.Action == protocol.RecordMultipleSubscriptions && !strings.HasPrefix(asked, "SUBSCRIBE") {
				t.Errorf("%q at %s was answered with %s", asked, id, text(m))
			}
		}
	}
}
