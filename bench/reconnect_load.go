package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// reconnectScenarios are clients that all come back at the same time.
var reconnectScenarios = []Scenario{
	{Name: "reconnect", Text: "2 000 subscribers lose their connections at once and return at once; a message is one that is back, with its subscription", Unit: "return",
		Clients: 2000, new: func() driver { return &reconnect{} }},
}

type reconnect struct {
	clients []*target.Client
	failed  atomic.Int64
}

func (*reconnect) finite() {}

func (d *reconnect) setup(ctx context.Context, l *load) (err error) {
	if d.clients, err = l.connect(ctx, "r", l.clients); err != nil {
		return err
	}
	return each(len(d.clients), atOnce, func(i int) error {
		return subscribe(d.clients[i], protocol.TopicEvent, reconnectName(i))
	})
}

func reconnectName(i int) string { return "bench/reconnect/" + strconv.Itoa(i) }

// backIn is how long a client tries to come back.
const backIn = time.Minute

func (d *reconnect) drive(ctx context.Context, l *load) error {
	ctx, cancel := context.WithTimeout(ctx, backIn)
	defer cancel()
	for _, c := range d.clients {
		if err := c.Reset(); err != nil {
			return fmt.Errorf("drop a client: %w", err)
		}
	}
	began := clock()
	err := each(l.clients, l.clients, func(i int) error {
		if err := d.back(ctx, l, i); err != nil {
			return err
		}
		l.done(i, clock()-began)
		return nil
	})
	l.fact("all back after", float64(clock()-began)/1e6, "ms")
	l.fact("failed attempts", float64(d.failed.Load()), "")
	return err
}

// back brings one client back, in as many attempts as it takes.
func (d *reconnect) back(ctx context.Context, l *load, i int) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		c, err := l.dial(ctx, i, "r"+strconv.Itoa(i))
		if err == nil {
			l.keep(c)
			return subscribe(c, protocol.TopicEvent, reconnectName(i))
		}
		d.failed.Add(1)
		if target.Pause(ctx, wait) != nil {
			return fmt.Errorf("client %d is not back in %v: %w", i, backIn, err)
		}
	}
}

func (d *reconnect) check(context.Context, *load) error { return nil }
