package protocol

import "testing"

// smallEvent is the message of the speed goals: 41 bytes of data, 17 of name.
func smallEvent() *Message {
	return &Message{
		Topic: TopicEvent, Action: EventEmit, Has: HasData | HasName,
		Name: "rooms/blue/people", Data: `{"who":"anna","at":123456789,"seen":true}`,
	}
}

func recordPatch() *Message {
	return &Message{
		Topic: TopicRecord, Action: RecordPatch, Has: HasData | HasName | HasPath | HasVersion | HasCorrelationID,
		Name: "users/0f3a99/profile", Data: `"anna"`, Path: "address.city", Version: 1234,
		CorrelationID: "17", IsWriteAck: true,
	}
}

func benchmarkDecode(b *testing.B, m *Message) {
	frame := Append(nil, m)
	var got Message
	b.ReportAllocs()
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		if err := Decode(frame, &got); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkAppend(b *testing.B, m *Message) {
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], m)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeEvent(b *testing.B)       { benchmarkDecode(b, smallEvent()) }
func BenchmarkDecodeRecordPatch(b *testing.B) { benchmarkDecode(b, recordPatch()) }
func BenchmarkAppendEvent(b *testing.B)       { benchmarkAppend(b, smallEvent()) }
func BenchmarkAppendRecordPatch(b *testing.B) { benchmarkAppend(b, recordPatch()) }

func BenchmarkEncodeFrame(b *testing.B) {
	m := smallEvent()
	b.ReportAllocs()
	for b.Loop() {
		EncodeFrame(FormBinary, m, "")
	}
}
