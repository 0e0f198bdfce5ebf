package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// golden is a message as the published codec sees it: absent fields are nil.
type golden struct {
	Topic           Topic    `json:"topic"`
	Action          *Action  `json:"action"`
	ActionName      string   `json:"actionName"`
	Data            *string  `json:"data"`
	CorrelationID   *string  `json:"correlationId"`
	IsError         bool     `json:"isError"`
	IsAck           bool     `json:"isAck"`
	IsWriteAck      bool     `json:"isWriteAck"`
	Name            *string  `json:"name"`
	Names           []string `json:"names"`
	Subscription    *string  `json:"subscription"`
	OriginalAction  *Action  `json:"originalAction"`
	Path            *string  `json:"path"`
	Version         *int32   `json:"version"`
	Versions        []pair   `json:"versions"`
	RequestorName   *string  `json:"requestorName"`
	RequestorData   *string  `json:"requestorData"`
	URL             string   `json:"url"`
	ProtocolVersion string   `json:"protocolVersion"`
	SDKVersion      string   `json:"sdkVersion"`
	SDKType         string   `json:"sdkType"`
}

// pair is ["name", version].
type pair NameVersion

func (p *pair) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&p.Name, &p.Version})
}

// message is g as our codec sees it.
func (g *golden) message() Message {
	m := Message{
		Topic: g.Topic, IsError: g.IsError, IsAck: g.IsAck, IsWriteAck: g.IsWriteAck, Names: g.Names,
		URL: g.URL, ProtocolVersion: g.ProtocolVersion, SDKVersion: g.SDKVersion, SDKType: g.SDKType,
	}
	if g.Action != nil {
		m.Action = *g.Action
	}
	text := func(to, from *string, has Fields) {
		if from != nil {
			*to = *from
			m.Has |= has
		}
	}
	text(&m.Data, g.Data, HasData)
	text(&m.CorrelationID, g.CorrelationID, HasCorrelationID)
	text(&m.Name, g.Name, HasName)
	text(&m.Subscription, g.Subscription, HasSubscription)
	text(&m.Path, g.Path, HasPath)
	text(&m.RequestorName, g.RequestorName, HasRequestorName)
	text(&m.RequestorData, g.RequestorData, HasRequestorData)
	if g.OriginalAction != nil {
		m.OriginalAction = *g.OriginalAction
		m.Has |= HasOriginalAction
	}
	if g.Version != nil {
		m.Version = *g.Version
		m.Has |= HasVersion
	}
	for _, v := range g.Versions {
		m.Versions = append(m.Versions, NameVersion(v))
		m.Has |= HasVersions
	}
	return m
}

// same compares messages; a list of no names is no list.
func same(a, b Message) bool {
	if len(a.Names) == 0 && len(b.Names) == 0 {
		a.Names, b.Names = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

type goldenCase struct {
	Name    string `json:"name"`
	Message golden `json:"message"`
	Frame   string `json:"frame"`
}

func goldenCases(t testing.TB) []goldenCase {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", "frames.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a field of theirs that we do not know must be noticed
	if err := d.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 400 {
		t.Fatalf("only %d golden frames", len(cases))
	}
	return cases
}

func TestGoldenFramesReadAndWriteToTheByte(t *testing.T) {
	for _, c := range goldenCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			want := c.Message.message()
			frame := unhex(t, c.Frame)
			var got Message
			if err := Decode(frame, &got); err != nil {
				t.Fatal(err)
			}
			if !same(got, want) {
				t.Errorf("Decode = %+v, want %+v", got, want)
			}
			if b := Append(nil, &want); !bytes.Equal(b, frame) {
				t.Errorf("Append = %x, want %x", b, frame)
			}
		})
	}
}

func TestActionNamesAreThoseOfThePublishedCodec(t *testing.T) {
	theirs := map[Topic]map[Action]bool{}
	for _, c := range goldenCases(t) {
		m := c.Message
		if m.ActionName == "" {
			continue
		}
		if theirs[m.Topic] == nil {
			theirs[m.Topic] = map[Action]bool{}
		}
		theirs[m.Topic][*m.Action] = true
		if got := m.Action.Name(m.Topic); got != m.ActionName {
			t.Errorf("%v %d = %s, want %s", m.Topic, *m.Action, got, m.ActionName)
		}
	}
	for topic, names := range actionNames {
		for action, name := range names {
			// The one action that is younger than the codec's release (spec 01 §5.4).
			younger := topic == TopicRecord && action == RecordPatchMulti
			if theirs[topic][action] == younger {
				t.Errorf("%v %s: known to the published codec: %v", topic, name, !younger)
			}
		}
	}
}

// TestPublishedCodecReadsOurFrames sends frames of ours through the npm package
// and compares what it saw.
func TestPublishedCodecReadsOurFrames(t *testing.T) {
	dir := filepath.Join("testdata", "golden")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Skip("the published codec is not installed: run `make deps`")
	}
	var want []Message
	for _, c := range goldenCases(t) {
		want = append(want, c.Message.message())
	}
	random := messages()
	for seed := range 500 {
		want = append(want, random.Example(seed))
	}
	var in bytes.Buffer
	for i := range want {
		fmt.Fprintln(&in, hex.EncodeToString(Append(nil, &want[i])))
	}
	cmd := exec.CommandContext(t.Context(), "node", "verify.mjs")
	cmd.Dir = dir
	cmd.Stdin = &in
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for i := range want {
		var seen golden
		if err := d.Decode(&seen); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if got := seen.message(); !same(got, want[i]) {
			t.Errorf("the published codec read %+v, want %+v", got, want[i])
		}
	}
}
