package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// failoverScenarios lose a node under load.
var failoverScenarios = []Scenario{
	{Name: "failover", Text: "60 writers on 3 nodes; one node is killed. A message is an acknowledged write, a gap the longest time between two of a client", Unit: "write",
		Clients: 60, Window: 1, Nodes: 3, own: true, new: func() driver { return &failover{} }},
}

// failover has writers of one record each, one write in flight each, that go to another node
// when theirs is lost.
type failover struct {
	victim  int
	writers []*survivor
	killed  int64 // when
}

// survivor is a writer.
type survivor struct {
	number int
	at     int // the node it is at
	client *target.Client

	turn        int   // of the write that is under way, or was last
	acked       int   // the turn that was acknowledged last
	last        int64 // when
	gap         time.Duration
	reconnected int
}

// Bounds of a failover.
const (
	survives = time.Minute     // until every writer writes again
	answerIn = 5 * time.Second // until a writer gives up waiting for an answer
)

func failoverName(i int) string { return "bench/failover/" + strconv.Itoa(i) }

func (d *failover) setup(ctx context.Context, l *load) error {
	d.victim = l.rand.IntN(len(l.server.nodes))
	d.writers = make([]*survivor, l.clients)
	for i := range d.writers {
		d.writers[i] = &survivor{number: i, at: i % len(l.server.urls)}
	}
	return each(len(d.writers), atOnce, func(i int) error {
		w := d.writers[i]
		if err := w.connect(ctx, l); err != nil {
			return err
		}
		// A busy machine may refuse for a while.
		for give := time.Now().Add(survives); !w.write(l); {
			if time.Now().After(give) {
				return fmt.Errorf("no write was acknowledged in %v", survives)
			}
			if err := errors.Join(w.client.Close(), target.Pause(ctx, answerIn/10), w.connect(ctx, l)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *survivor) connect(ctx context.Context, l *load) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	w.client, err = target.Login(ctx, &net.Dialer{}, l.server.urls[w.at], l.login("f"+strconv.Itoa(w.number)))
	return err
}

// write writes the next turn and says whether it was acknowledged.
func (w *survivor) write(l *load) bool {
	began := clock()
	w.turn++
	m := l.write(failoverName(w.number), true)
	m.Data, m.CorrelationID = fmt.Sprintf(`{"turn":%d}`, w.turn), strconv.Itoa(w.turn)
	if w.client.SetDeadline(time.Now().Add(answerIn)) != nil || w.client.Say(m) != nil {
		return false
	}
	for {
		got, err := w.client.Hear()
		switch {
		case err != nil || got.IsError || got.Action == protocol.RecordRecordUpdateError:
			return false
		case got.Action != protocol.RecordWriteAcknowledgement:
			continue
		}
		now := clock()
		if w.last > 0 {
			w.gap = max(w.gap, time.Duration(now-w.last))
		}
		w.last, w.acked = now, w.turn
		l.done(w.number, now-began)
		return true
	}
}

func (d *failover) drive(ctx context.Context, l *load) error {
	// Whoever has not written since the kill goes on when the time is over.
	over, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.WarmUp+l.Time+survives)
	defer cancel()
	var wg sync.WaitGroup
	killed := make(chan struct{})
	for _, w := range d.writers {
		wg.Go(func() { w.survive(ctx, over, l, killed) })
	}
	err := target.Pause(ctx, l.WarmUp+l.Time/3)
	if err == nil {
		err = l.server.nodes[d.victim].Kill()
	}
	d.killed = clock()
	close(killed)
	wg.Wait()
	return err
}

// survive writes until ctx has ended and the writer has written since the kill.
func (w *survivor) survive(ctx, over context.Context, l *load, killed <-chan struct{}) {
	defer func() {
		if w.client != nil {
			_ = w.client.Close() // it may be one of the killed node
		}
	}()
	for wait := time.Millisecond; over.Err() == nil; {
		if w.client != nil && w.write(l) {
			wait = time.Millisecond
			select {
			case <-killed:
				if ctx.Err() != nil {
					return
				}
			default:
			}
			continue
		}
		if w.client != nil {
			_ = w.client.Close() // lost, or its write was refused
			w.client = nil
		}
		if target.Pause(over, wait) != nil {
			return
		}
		wait = min(2*wait, 100*time.Millisecond)
		w.at = (w.at + 1) % len(l.server.urls)
		if w.connect(over, l) != nil {
			w.client = nil
		} else {
			w.reconnected++
		}
	}
}

// check reads every record at a node that lives: what was acknowledged must be there.
func (d *failover) check(ctx context.Context, l *load) error {
	var gaps, atVictim []time.Duration
	silent, lost := 0, 0
	reader, err := l.dial(ctx, (d.victim+1)%len(l.server.urls), "reader")
	if err != nil {
		return err
	}
	defer reader.Close()
	for i, w := range d.writers {
		if w.last < d.killed {
			silent++
			continue
		}
		gaps = append(gaps, w.gap)
		if i%len(l.server.urls) == d.victim {
			atVictim = append(atVictim, w.gap)
		}
		turn, err := readTurn(reader, failoverName(i))
		for give := time.Now().Add(survives); err != nil && time.Now().Before(give); {
			if err := target.Pause(ctx, answerIn/10); err != nil { // the others may not be done with it
				return err
			}
			turn, err = readTurn(reader, failoverName(i))
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", failoverName(i), err)
		}
		if turn < w.acked {
			lost++
		}
	}
	if silent > 0 {
		return fmt.Errorf("%d of %d writers could not write again in %v", silent, len(d.writers), survives)
	}
	l.gapFacts("gap", gaps)
	l.gapFacts("gap at the killed node", atVictim)
	l.fact("lost acknowledged writes", float64(lost), "")
	if lost > 0 {
		return fmt.Errorf("%d records have less than was acknowledged", lost)
	}
	return nil
}

func (l *load) gapFacts(name string, gaps []time.Duration) {
	if len(gaps) == 0 {
		return
	}
	slices.Sort(gaps)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	l.fact(name+", median", ms(gaps[len(gaps)/2]), "ms")
	l.fact(name+", longest", ms(gaps[len(gaps)-1]), "ms")
}

// readTurn is the turn that a record has.
func readTurn(c *target.Client, name string) (turn int, err error) {
	if err := c.SetDeadline(time.Now().Add(answerIn)); err != nil {
		return 0, err
	}
	m := &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: name}
	if err := c.Say(m); err != nil {
		return 0, err
	}
	got, err := c.Until(protocol.RecordReadResponse)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscanf(got.Data, `{"turn":%d}`, &turn)
	return turn, err
}
