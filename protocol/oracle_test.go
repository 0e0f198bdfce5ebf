package protocol

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"
)

// wire is the format as proto/*.proto describe it, compiled once.
var wire = sync.OnceValues(func() (w struct {
	envelope protoreflect.MessageDescriptor
	topics   protoreflect.EnumDescriptor
	inner    map[Topic]protoreflect.MessageDescriptor
}, err error) {
	files := []string{
		"message.proto", "parser.proto", "connection.proto", "auth.proto",
		"event.proto", "record.proto", "rpc.proto", "presence.proto",
	}
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{"proto"}}}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		return w, err
	}
	w.envelope = compiled[0].Messages().ByName("Message")
	w.topics = compiled[0].Enums().ByName("Topic")
	w.inner = map[Topic]protoreflect.MessageDescriptor{}
	for i, f := range compiled[1:] {
		w.inner[Topic(i+1)] = f.Messages().Get(0)
	}
	return w, nil
})

// oracleFields maps the field names of the .proto files to ours; the test fails
// when a file has a field that is in neither this list nor the unused ones.
var oracleFields = map[protoreflect.Name]field{
	"action": fieldAction, "data": fieldData, "correlationId": fieldCorrelationID,
	"isError": fieldIsError, "isAck": fieldIsAck, "isWriteAck": fieldIsWriteAck,
	"name": fieldName, "names": fieldNames, "subscription": fieldSubscription,
	"originalAction": fieldOriginalAction, "path": fieldPath, "version": fieldVersion,
	"versions": fieldVersions, "requestorName": fieldRequestorName, "requestorData": fieldRequestorData,
	"url": fieldURL, "protocolVersion": fieldProtocolVersion, "sdkVersion": fieldSDKVersion, "sdkType": fieldSDKType,
	"originalTOPIC": fieldNone, "pattern": fieldNone,
}

func TestProtoFilesAreAllCompiled(t *testing.T) {
	files, err := filepath.Glob("proto/*.proto")
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(w.inner) + 1; got != len(files) {
		t.Errorf("compiled %d of %d files", got, len(files))
	}
}

func TestProtoFilesAndTablesNumberFieldsAlike(t *testing.T) {
	w, err := wire()
	if err != nil {
		t.Fatal(err)
	}
	for topic, desc := range w.inner {
		if got := string(w.topics.Values().ByNumber(protoreflect.EnumNumber(topic)).Name()); got != topic.String() {
			t.Errorf("topic %d is %s in the .proto file, %v here", topic, got, topic)
		}
		described := map[byte]field{}
		for i := range desc.Fields().Len() {
			f := desc.Fields().Get(i)
			ours, ok := oracleFields[f.Name()]
			if !ok {
				t.Errorf("%s: field %s is unknown here", desc.FullName(), f.Name())
			}
			if ours != fieldNone {
				described[byte(f.Number())] = ours
			}
		}
		for n, f := range numbers[topic] {
			if described[n] != f {
				t.Errorf("%v: field %d is %d here, %d in the .proto file", topic, n, f, described[n])
			}
		}
		if len(described) != len(numbers[topic]) {
			t.Errorf("%v: %d fields here, %d in the .proto file", topic, len(numbers[topic]), len(described))
		}
	}
}

func TestProtoFilesAndTablesNameActionsAlike(t *testing.T) {
	w, err := wire()
	if err != nil {
		t.Fatal(err)
	}
	for topic, desc := range w.inner {
		values := desc.Enums().ByName("Action").Values()
		for i := range values.Len() {
			v := values.Get(i)
			if v.Number() == 0 {
				continue
			}
			if got := Action(v.Number()).Name(topic); got != string(v.Name()) {
				t.Errorf("%v %d is %s here, %s in the .proto file", topic, v.Number(), got, v.Name())
			}
		}
		if got, want := values.Len()-1, len(actionNames[topic]); got != want {
			t.Errorf("%v has %d actions in the .proto file, %d here", topic, got, want)
		}
	}
}

// theirs builds m with the protobuf library, from the .proto files.
func theirs(t rapid.TB, m *Message) []byte {
	w, err := wire()
	if err != nil {
		t.Fatal(err)
	}
	inner := dynamicpb.NewMessage(w.inner[m.Topic])
	for n, f := range numbers[m.Topic] {
		if f == fieldNone {
			continue
		}
		fd := inner.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(n))
		number := func(v int32) protoreflect.Value {
			if fd.Kind() == protoreflect.EnumKind {
				return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v))
			}
			return protoreflect.ValueOfInt32(v)
		}
		text := func(s string, present bool) {
			if present {
				inner.Set(fd, protoreflect.ValueOfString(s))
			}
		}
		flag := func(on bool) {
			if on {
				inner.Set(fd, protoreflect.ValueOfBool(true))
			}
		}
		switch f {
		case fieldAction:
			inner.Set(fd, number(int32(m.Action)))
		case fieldIsError:
			flag(m.IsError)
		case fieldIsAck:
			flag(m.IsAck)
		case fieldIsWriteAck:
			flag(m.IsWriteAck)
		case fieldOriginalAction:
			if m.Carries(HasOriginalAction) {
				inner.Set(fd, number(int32(m.OriginalAction)))
			}
		case fieldVersion:
			if m.Carries(HasVersion) {
				inner.Set(fd, number(m.Version))
			}
		case fieldVersions:
			for _, v := range m.Versions {
				inner.Mutable(fd).Map().Set(protoreflect.ValueOfString(v.Name).MapKey(), protoreflect.ValueOfInt32(v.Version))
			}
		case fieldNames:
			for _, name := range m.Names {
				inner.Mutable(fd).List().Append(protoreflect.ValueOfString(name))
			}
		case fieldData:
			text(m.Data, m.Carries(HasData))
		case fieldCorrelationID:
			text(m.CorrelationID, m.Carries(HasCorrelationID))
		case fieldName:
			text(m.Name, m.Carries(HasName))
		case fieldSubscription:
			text(m.Subscription, m.Carries(HasSubscription))
		case fieldPath:
			text(m.Path, m.Carries(HasPath))
		case fieldRequestorName:
			text(m.RequestorName, m.Carries(HasRequestorName))
		case fieldRequestorData:
			text(m.RequestorData, m.Carries(HasRequestorData))
		case fieldURL:
			text(m.URL, m.URL != "")
		case fieldProtocolVersion:
			text(m.ProtocolVersion, m.ProtocolVersion != "")
		case fieldSDKVersion:
			text(m.SDKVersion, m.SDKVersion != "")
		case fieldSDKType:
			text(m.SDKType, m.SDKType != "")
		default:
			t.Fatalf("field %d is not compared", f)
		}
	}
	// Deterministic: map entries sorted by name, fields by number.
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(inner)
	if err != nil {
		t.Fatal(err)
	}
	envelope := dynamicpb.NewMessage(w.envelope)
	fields := w.envelope.Fields()
	envelope.Set(fields.ByName("topic"), protoreflect.ValueOfEnum(protoreflect.EnumNumber(m.Topic)))
	envelope.Set(fields.ByName("message"), protoreflect.ValueOfBytes(body))
	var frame strings.Builder
	opts := protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}
	if _, err := opts.MarshalTo(&frame, envelope); err != nil {
		t.Fatal(err)
	}
	return []byte(frame.String())
}

// TestProtobufLibraryAgrees is both directions at once: bytes that are equal are
// read alike by both.
func TestProtobufLibraryAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := messages().Draw(t, "message")
		frame := Append(nil, &want)
		if their := theirs(t, &want); string(frame) != string(their) {
			t.Fatalf("Append = %x, the library %x", frame, their)
		}
		if n := Size(&want); n != len(frame) {
			t.Fatalf("Size = %d, want %d", n, len(frame))
		}
		var got Message
		if err := Decode(frame, &got); err != nil {
			t.Fatal(err)
		}
		if !same(got, want) {
			t.Fatalf("Decode = %+v, want %+v", got, want)
		}
	})
}
