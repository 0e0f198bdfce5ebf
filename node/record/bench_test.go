package record

import (
	"fmt"
	"testing"

	"hadal/protocol"
)

// BenchmarkWrite is one client with many writes in flight, over the memory
// store: what the room itself costs. In "hot" all go to one record.
func BenchmarkWrite(b *testing.B) {
	for _, test := range []struct {
		name    string
		records int
		ack     bool
	}{{"hot", 1, false}, {"hot/ack", 1, true}, {"many", 1000, false}} {
		b.Run(test.name, func(b *testing.B) {
			r := start(b, options{})
			c := &mute{newClient("a")}
			messages := make([]protocol.Message, test.records)
			for i := range messages {
				messages[i] = protocol.Message{
					Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: fmt.Sprintf("r/%d", i),
					Version: anyVersion, Data: `{"name":"some data","value":12345,"more":["a","b","c"]}`,
					CorrelationID: "12345", IsWriteAck: test.ack, Has: protocol.HasVersion | protocol.HasData | protocol.HasCorrelationID,
				}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m := messages[i%len(messages)]
				i++
				r.Handle(c, &m)
			}
			if err := r.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkPatch sets one path of a 200-byte record.
func BenchmarkPatch(b *testing.B) {
	r := start(b, options{})
	c := &mute{newClient("a")}
	say(b, r, c.client, `CREATEANDUPDATE r v=-1 data={"a":"0123456789012345678901234567890123456789","b":{"c":[1,2,3,4,5,6,7,8,9,10]},"d":"0123456789012345678901234567890123456789","value":1,"e":"0123456789012345678901234567890123456789"}`)
	b.ReportAllocs()
	for b.Loop() {
		m := protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Name: "r", Path: "value", Version: anyVersion, Data: "12345",
			Has: protocol.HasVersion | protocol.HasData | protocol.HasPath,
		}
		r.Handle(c, &m)
	}
	if err := r.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead reads a record in memory.
func BenchmarkRead(b *testing.B) {
	r := start(b, options{})
	c := &mute{newClient("a")}
	say(b, r, c.client, `CREATEANDUPDATE r v=-1 data={"x":1}`)
	b.ReportAllocs()
	for b.Loop() {
		m := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "r"}
		r.Handle(c, &m)
	}
	if err := r.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// mute is a client that keeps nothing.
type mute struct{ *client }

func (*mute) Answer(*protocol.Message)        {}
func (*mute) AnswerShared(*protocol.Outbound) {}
func (*mute) Send(*protocol.Outbound)         {}

// What the room allocates for a write and a read is its request and what is sent: a
// little memory for each of very many messages is what the collector is busy with.
func TestWritesAndReadsAllocateLittle(t *testing.T) {
	r := start(t, options{})
	c := &mute{newClient("a")}
	write := protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "r", Version: anyVersion, Data: `{"x":1}`,
		CorrelationID: "1", Has: protocol.HasVersion | protocol.HasData | protocol.HasCorrelationID,
	}
	acked := write
	acked.IsWriteAck = true
	read := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "r"}
	r.Handle(c, &write)
	// Of each turn of the owner, its batch and its append there is a little more.
	const turns, slack = 2000, 0.5
	for _, test := range []struct {
		name string
		m    *protocol.Message
		most float64
	}{{"a write", &write, 3}, {"a write with an acknowledgement", &acked, 4}, {"a read", &read, 3}} {
		m := new(protocol.Message)
		got := testing.AllocsPerRun(1, func() {
			for range turns {
				*m = *test.m
				r.Handle(c, m)
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}) / turns
		if got > test.most+slack {
			t.Errorf("%s allocates %.2f times, want at most %v", test.name, got, test.most+slack)
		}
	}
}
