package bench

import (
	"context"
	"strconv"
	"time"

	"hadal/bench/target"
)

// idleScenarios are clients that log in and do nothing.
var idleScenarios = []Scenario{
	{Name: "idle", Text: "10 000 clients log in, 32 at a time, and do nothing; a message is a login", Unit: "login", Clients: 10_000, new: func() driver { return &idle{} }},
}

// idle is measured while clients log in; their memory is read when they have rested.
type idle struct{ before int64 }

const (
	idleFirst = 100             // clients before the measured ones: what a server does once is done
	idleRest  = 3 * time.Second // until the memory of the logins has gone
)

func (*idle) finite() {}

func (d *idle) setup(ctx context.Context, l *load) error {
	if err := enough(l.clients); err != nil {
		return err
	}
	_, err := l.connect(ctx, "warm", min(idleFirst, l.clients))
	_, d.before = l.server.usage()
	return err
}

func (d *idle) drive(ctx context.Context, l *load) error {
	return each(l.clients, atOnce, func(i int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := clock()
		c, err := l.dial(ctx, i, "i"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		l.keep(c)
		l.done(i, clock()-began)
		return nil
	})
}

func (d *idle) check(ctx context.Context, l *load) error {
	if err := target.Pause(ctx, min(idleRest, 3*l.Time)); err != nil {
		return err
	}
	if _, after := l.server.usage(); l.server.known() {
		l.fact("memory a connection", float64(after-d.before)/float64(l.clients), "bytes")
	}
	return nil
}
