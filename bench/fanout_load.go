package bench

import (
	"context"
	"fmt"

	"hadal/bench/target"
	"hadal/protocol"
)

// fanoutScenarios are one publisher and many subscribers of one event.
var fanoutScenarios = alike(func(sc *Scenario) {
	sc.Unit, sc.bare, sc.new = "delivery", sc.Nodes == 0, func() driver { return &fanout{} }
}, []Scenario{
	{Name: "fanout/1", Text: "events from 1 publisher to 1 subscriber", Clients: 1, Window: 64},
	{Name: "fanout/100", Text: "events from 1 publisher to 100 subscribers", Clients: 100, Window: 8},
	{Name: "fanout/1000", Text: "events from 1 publisher to 1000 subscribers", Clients: 1000, Window: 4},
	{Name: "fanout/5000", Text: "events from 1 publisher to 5000 subscribers", Clients: 5000, Window: 2},
	{Name: "fanout/1000-paced", Text: "20 events a second from 1 publisher to 1000 subscribers: nothing to batch", Clients: 1000, Rate: 20},
	{Name: "cluster-fanout", Text: "events from 1 publisher to 999 subscribers, spread over 3 nodes", Clients: 999, Window: 4, Nodes: 3},
})

type fanout struct{ sends }

func (fanout) setup(ctx context.Context, l *load) error {
	publishers, err := l.connect(ctx, "p", 1)
	if err != nil {
		return err
	}
	subscribers, err := l.connect(ctx, "s", l.clients)
	if err != nil {
		return err
	}
	st := l.publish(publishers[0], "bench/fanout")
	st.shared(len(subscribers))
	return l.subscribeAll(ctx, subscribers, func(int) []*stream { return []*stream{st} }, func(int) []string { return []string{"bench/fanout"} })
}

// publish makes a client a sender, with a stream of events of that name for each name.
func (l *load) publish(c *target.Client, names ...string) *stream {
	s := l.newSender(c)
	for _, name := range names {
		l.newStream(s, &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name, Data: l.data(false)})
	}
	r := l.newReceiver(c)
	l.goes(func() error { return r.listen(ignore) })
	return s.streams[0]
}

// subscribeAll has clients subscribe to events, and listen, and returns when what is
// published reaches them.
func (l *load) subscribeAll(ctx context.Context, clients []*target.Client, streams func(i int) []*stream, names func(i int) []string) error {
	receivers := make([]*receiver, len(clients))
	for i, c := range clients {
		receivers[i] = l.newReceiver(c)
		receivers[i].expect(streams(i)...)
	}
	err := each(len(clients), atOnce, func(i int) error {
		if err := subscribe(clients[i], protocol.TopicEvent, names(i)...); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		r := receivers[i]
		l.goes(func() error { return r.listen(r.hears(protocol.TopicEvent, protocol.EventEmit)) })
		return nil
	})
	if err != nil || len(l.server.urls) == 1 {
		return err
	}
	return l.probes(ctx)
}
