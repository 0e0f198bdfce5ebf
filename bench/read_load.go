package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"hadal/bench/target"
	"hadal/protocol"
)

// readScenarios are readers of records that are not in memory.
var readScenarios = []Scenario{
	{Name: "record-read", Text: "100 readers of 20 000 records of which 1 MiB is cached", Unit: "read", Clients: 100, Window: 4,
		Config: "records: {cacheBytes: 1048576}\n", new: func() driver { return &reads{} }},
}

// readNames is how many records there are.
const readNames = 20_000

type reads struct {
	clients []*target.Client
	names   int
}

func (d *reads) setup(ctx context.Context, l *load) (err error) {
	d.names = max(int(readNames*l.Scale), l.clients)
	if d.clients, err = l.connect(ctx, "r", l.clients); err != nil {
		return err
	}
	return each(len(d.clients), len(d.clients), func(i int) error {
		mine := (d.names - i + len(d.clients) - 1) / len(d.clients)
		return d.clients[i].Exchange(mine, 4, protocol.RecordWriteAcknowledgement, func(k int) {
			m := l.write(d.name(i+k*len(d.clients)), true)
			m.CorrelationID = "1"
			d.clients[i].Queue(m)
		}, nil)
	})
}

func (d *reads) name(i int) string { return fmt.Sprintf("bench/read/%d", i) }

func (d *reads) drive(ctx context.Context, l *load) error {
	errs := make([]error, len(d.clients))
	var wg sync.WaitGroup
	for i, c := range d.clients {
		wg.Go(func() { errs[i] = d.read(ctx, l, i, c) })
	}
	wg.Wait()
	return firstOf(errs)
}

// read keeps questions about records at random in flight. Their answers nearly come in the
// order of the questions.
func (d *reads) read(ctx context.Context, l *load, client int, c *target.Client) error {
	random := rand.New(rand.NewPCG(l.Seed, uint64(client)))
	window := max(l.window, 1)
	asked := make([]int64, window) // a ring
	for ctx.Err() == nil {
		err := c.Exchange(16*window, window, protocol.RecordReadResponse, func(i int) {
			asked[i%window] = clock()
			c.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: d.name(random.IntN(d.names))})
		}, func(i int) { l.done(client, clock()-asked[i%window]) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *reads) check(context.Context, *load) error { return nil }
