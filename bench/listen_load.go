package bench

import (
	"context"
	"fmt"

	"hadal/bench/target"
	"hadal/protocol"
)

// listenScenarios are subscriptions that providers serve.
var listenScenarios = []Scenario{
	{Name: "listen", Text: "100 clients subscribe to one new record after the other, which 4 listeners provide; a message is a subscription that has found its provider",
		Unit: "match", Clients: 100, Window: 1, new: func() driver { return &listen{} }},
}

const (
	listenPrefix    = "bench/listen/"
	listenPattern   = "^bench/listen/.*"
	listenProviders = 4
)

// listen has each client subscribe to the next name, and leave the last one, when it hears
// that the last one has a provider. The name has the stamp.
type listen struct{ sends }

func (d listen) setup(ctx context.Context, l *load) error {
	providers, err := l.connect(ctx, "p", listenProviders)
	if err != nil {
		return err
	}
	clients, err := l.connect(ctx, "c", l.clients)
	if err != nil {
		return err
	}
	for _, p := range providers {
		m := &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordListen, Name: listenPattern, CorrelationID: "0"}
		if err := ask(p, m, protocol.RecordListen); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		l.goes(func() error { return acceptAll(p) })
	}
	for _, c := range clients {
		s := l.newSender(c)
		st := l.newStream(s, &protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: []string{listenPrefix + placeholder}, CorrelationID: "1",
		})
		r := l.newReceiver(c)
		r.expect(st)
		l.goes(func() error { return r.listen(func(m *protocol.Message) error { return d.found(r, s, m) }) })
	}
	return nil
}

// found takes the news that a name has a provider.
func (listen) found(r *receiver, s *sender, m *protocol.Message) error {
	if m.Topic != protocol.TopicRecord || m.Action != protocol.RecordSubscriptionHasProvider || len(m.Name) < len(listenPrefix) {
		return nil
	}
	st, err := readStamp(m.Name[len(listenPrefix):])
	if err != nil {
		return fmt.Errorf("record %q has a provider: %w", m.Name, err)
	}
	s.mu.Lock()
	s.client.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUnsubscribe, Names: []string{m.Name}, CorrelationID: "2"})
	s.mu.Unlock()
	return r.got(st)
}

// acceptAll provides whatever it is asked for.
func acceptAll(p *target.Client) error {
	for {
		m, err := p.Hear()
		switch {
		case err != nil:
			return err
		case m.IsError:
			return fmt.Errorf("a listener heard %s", m.Action.Name(m.Topic))
		case m.Topic == protocol.TopicRecord && m.Action == protocol.RecordSubscriptionForPatternFound:
			p.Queue(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordListenAccept, Name: m.Name, Subscription: m.Subscription})
		}
		if p.Buffered() == 0 && p.Queued() > 0 {
			if err := p.Flush(); err != nil {
				return err
			}
		}
	}
}
