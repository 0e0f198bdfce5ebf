package protocol

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The examples of spec 01 §2, byte for byte.
var specExamples = []struct {
	name  string
	frame string
	want  Message
}{
	{"accept", "06 10 02 1a 02 08 04", Message{Topic: TopicConnection, Action: ConnectionAccept}},
	{"login without data", "06 10 03 1a 02 08 03", Message{Topic: TopicAuth, Action: AuthAuthSuccessful}},
	{"unknown topic", "06 10 01 1a 02 08 01", Message{Topic: TopicParser, Action: ParserUnknownTopic}},
	{"subscription ack", "0b 10 04 1a 07 08 03 1a 01 37 28 01", Message{
		Topic: TopicEvent, Action: EventSubscribe, Has: HasCorrelationID, CorrelationID: "7", IsAck: true,
	}},
	{"login", "1a 10 03 1a 16 08 02 12 12 7b22757365726e616d65223a226a6f65227d", Message{
		Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{"username":"joe"}`,
	}},
	{"challenge", "3f 10 02 1a 3b 08 05 2a 1e" + hex.EncodeToString([]byte("ws://localhost:6020/deepstream")) +
		"32 04 302e3161 3a 05 372e302e35 42 0a 6a617661736372697074", Message{
		Topic: TopicConnection, Action: ConnectionChallenge, URL: "ws://localhost:6020/deepstream",
		ProtocolVersion: "0.1a", SDKVersion: "7.0.5", SDKType: "javascript",
	}},
}

func TestSpecExamplesReadAndWriteToTheByte(t *testing.T) {
	for _, tt := range specExamples {
		t.Run(tt.name, func(t *testing.T) {
			frame := unhex(t, tt.frame)
			var got Message
			if err := Decode(frame, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode = %+v, want %+v", got, tt.want)
			}
			if b := Append(nil, &tt.want); string(b) != string(frame) {
				t.Errorf("Append = %x, want %x", b, frame)
			}
			if n := Size(&tt.want); n != len(frame) {
				t.Errorf("Size = %d, want %d", n, len(frame))
			}
		})
	}
}
