package bench

import (
	"context"
	"fmt"

	"hadal/bench/target"
	"hadal/protocol"
)

// rpcScenarios are calls.
var rpcScenarios = []Scenario{
	{Name: "rpc", Text: "100 callers of one procedure with 10 providers, which accept and answer", Unit: "call", Clients: 100, Window: 4, new: func() driver { return &rpc{} }},
}

const (
	rpcName      = "bench/rpc"
	rpcProviders = 10
)

type rpc struct{ sends }

func (rpc) setup(ctx context.Context, l *load) error {
	providers, err := l.connect(ctx, "p", min(rpcProviders, l.clients))
	if err != nil {
		return err
	}
	callers, err := l.connect(ctx, "c", l.clients)
	if err != nil {
		return err
	}
	for _, p := range providers {
		m := &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{rpcName}, CorrelationID: "0"}
		if err := ask(p, m, protocol.RPCProvide); err != nil {
			return fmt.Errorf("provide: %w", err)
		}
		l.goes(func() error { return provide(p) })
	}
	for _, c := range callers {
		st := l.newStream(l.newSender(c), &protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: rpcName, CorrelationID: placeholder, Data: l.data(false),
		})
		r := l.newReceiver(c)
		r.expectLoose(st) // each provider answers in its own time
		l.goes(func() error { return r.listen(r.answers) })
	}
	return nil
}

// answers is a listener of a caller. The correlation id is the stamp, and so is what the
// provider sends back of the data.
func (r *receiver) answers(m *protocol.Message) error {
	if m.Topic != protocol.TopicRPC || m.Action != protocol.RPCResponse {
		return nil
	}
	st, err := readStamp(m.CorrelationID)
	if err != nil {
		return fmt.Errorf("an answer: %w", err)
	}
	if back, err := stampOf(m.Data); err != nil || back != st {
		return fmt.Errorf("the answer to call %d is that to call %d (%v)", st.seq, back.seq, err)
	}
	return r.got(st)
}

// provide accepts every call and sends its data back, as the official client does in two
// messages.
func provide(p *target.Client) error {
	for {
		call, err := p.Hear()
		switch {
		case err != nil:
			return err
		case call.IsError:
			return fmt.Errorf("a provider heard %s", call.Action.Name(call.Topic))
		case call.Topic == protocol.TopicRPC && call.Action == protocol.RPCRequest:
			answer := protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCAccept, Name: call.Name, CorrelationID: call.CorrelationID}
			p.Queue(&answer)
			answer.Action, answer.Data = protocol.RPCResponse, call.Data
			p.Queue(&answer)
		}
		if p.Buffered() == 0 && p.Queued() > 0 {
			if err := p.Flush(); err != nil {
				return err
			}
		}
	}
}
