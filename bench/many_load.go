package bench

import (
	"context"
	"fmt"
)

// manyScenarios are publishers that share topics, each of which has some subscribers. They
// differ in nothing but how many of all there are, and say what a delivery costs when there
// are more. So the events come at a rate, the same one: in a closed loop eight deliveries
// would wait for each of few connections, and leave in one write, and none for one of many.
var manyScenarios = alike(func(sc *Scenario) {
	sc.Unit, sc.Rate, sc.new = "delivery", 2000, func() driver { return &many{} }
}, []Scenario{
	{Name: "many/1000-paced", Text: "2 000 events a second from 10 publishers, 100 topics with 10 subscribers each, on 100 connections: 1 000 subscriptions", Clients: 100},
	{Name: "many/100000-paced", Text: "the same to 10 000 topics with 10 subscribers each, on 10 000 connections: 100 000 subscriptions", Clients: 10_000},
})

const (
	manyPublishers = 10
	manyEach       = 10 // subscriptions of a connection, and connections of a topic
)

// many has as many topics as subscribers: subscriber i has topic i and those behind it.
type many struct{ sends }

func (many) setup(ctx context.Context, l *load) error {
	n := max(l.clients, manyEach)
	publishers, err := l.connect(ctx, "p", manyPublishers)
	if err != nil {
		return err
	}
	subscribers, err := l.connect(ctx, "s", n)
	if err != nil {
		return err
	}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("bench/topic/%d", i)
	}
	streams := make([]*stream, n)
	for p, c := range publishers {
		var mine []string
		for i := p; i < n; i += manyPublishers {
			mine = append(mine, names[i])
		}
		s := l.publish(c, mine...).sender
		for i, st := range s.streams {
			st.shared(manyEach)
			streams[p+i*manyPublishers] = st
		}
	}
	_, before := l.server.usage()
	err = l.subscribeAll(ctx, subscribers, func(i int) []*stream { return around(streams, i) }, func(i int) []string { return around(names, i) })
	_, after := l.server.usage()
	l.fact("subscriptions", float64(n*manyEach), "")
	if after > before {
		l.fact("memory a subscription", float64(after-before)/float64(n*manyEach), "bytes")
	}
	return err
}

// around are the elements from i on, the first ones after the last.
func around[T any](all []T, i int) []T {
	some := make([]T, manyEach)
	for k := range some {
		some[k] = all[(i+k)%len(all)]
	}
	return some
}
