package bench

import (
	"context"

	"hadal/protocol"
)

// hotScenarios are one record that many have subscribed to.
var hotScenarios = []Scenario{
	{Name: "record-hot", Text: "one record with 1 000 subscribers, patched", Unit: "delivery", Clients: 1000, Window: 4, new: func() driver { return &hot{} }},
}

type hot struct{ sends }

func (hot) setup(ctx context.Context, l *load) error {
	const name = "bench/hot"
	writers, err := l.connect(ctx, "w", 1)
	if err != nil {
		return err
	}
	subscribers, err := l.connect(ctx, "s", l.clients)
	if err != nil {
		return err
	}
	first := l.write(name, true)
	if err := ask(writers[0], first, protocol.RecordWriteAcknowledgement); err != nil {
		return err
	}
	st := l.newStream(l.newSender(writers[0]), &protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Name: name, Version: -1, Path: recordField,
		Data: l.data(false), Has: protocol.HasVersion | protocol.HasPath,
	})
	st.shared(len(subscribers))
	writer := l.newReceiver(writers[0])
	l.goes(func() error { return writer.listen(ignore) })
	return each(len(subscribers), atOnce, func(i int) error { return l.subscribeRecord(subscribers[i], name, st, false) })
}
