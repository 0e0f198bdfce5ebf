package bench

import (
	"context"
	"strconv"
)

// pairsScenarios are publishers with a subscriber each.
var pairsScenarios = alike(func(sc *Scenario) {
	sc.Unit, sc.bare, sc.new = "delivery", true, func() driver { return &pairs{} }
}, []Scenario{
	{Name: "pairs/1", Text: "500 publishers with a subscriber each, 1 event in flight each: nothing to batch", Clients: 500, Window: 1},
	{Name: "pairs/4", Text: "500 publishers with a subscriber each, 4 events in flight each", Clients: 500, Window: 4},
	{Name: "pairs/paced", Text: "500 publishers with a subscriber each, 10 000 events a second in all", Clients: 500, Rate: 10_000},
})

type pairs struct{ sends }

func (pairs) setup(ctx context.Context, l *load) error {
	publishers, err := l.connect(ctx, "p", l.clients)
	if err != nil {
		return err
	}
	subscribers, err := l.connect(ctx, "s", l.clients)
	if err != nil {
		return err
	}
	name := func(i int) string { return "bench/pair/" + strconv.Itoa(i) }
	streams := make([]*stream, l.clients)
	for i, c := range publishers {
		streams[i] = l.publish(c, name(i))
	}
	return l.subscribeAll(ctx, subscribers, func(i int) []*stream { return streams[i : i+1] }, func(i int) []string { return []string{name(i)} })
}
