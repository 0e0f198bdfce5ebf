package bench

import (
	"context"
	"fmt"

	"hadal/bench/target"
	"hadal/protocol"
)

// createScenarios are writers that make new records, once each.
var createScenarios = alike(func(sc *Scenario) {
	sc.Unit, sc.Clients, sc.Window = "write", 100, 4
}, []Scenario{
	{Name: "record-create/10000", Text: "100 writers create 100 records each and are acknowledged; what a record takes in memory is read afterwards", new: func() driver { return &creates{each: 100} }},
	{Name: "record-create/100000", Text: "100 writers create 1 000 records each and are acknowledged; what a record takes in memory is read afterwards", new: func() driver { return &creates{each: 1000} }},
})

// creates is measured while records are made; their memory is read when the server has rested.
type creates struct {
	each    int // records of a writer
	writers []*target.Client
	before  int64
}

func (*creates) finite() {}

func (d *creates) setup(ctx context.Context, l *load) (err error) {
	if d.writers, err = l.connect(ctx, "w", l.clients); err != nil {
		return err
	}
	_, d.before = l.server.usage()
	return nil
}

func (d *creates) drive(_ context.Context, l *load) error {
	window := max(l.window, 1)
	return each(len(d.writers), len(d.writers), func(i int) error {
		c := d.writers[i]
		asked := make([]int64, window) // a ring
		return c.Exchange(d.each, window, protocol.RecordWriteAcknowledgement, func(k int) {
			asked[k%window] = clock()
			m := l.write(fmt.Sprintf("bench/create/%d/%d", i, k), true)
			m.CorrelationID = "1"
			c.Queue(m)
		}, func(k int) { l.done(i, clock()-asked[k%window]) })
	})
}

func (d *creates) check(ctx context.Context, l *load) error {
	if err := target.Pause(ctx, min(idleRest, 3*l.Time)); err != nil {
		return err
	}
	if _, after := l.server.usage(); l.server.known() {
		l.fact("memory a record", float64(after-d.before)/float64(d.each*len(d.writers)), "bytes")
	}
	return nil
}
