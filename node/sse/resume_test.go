package sse

import (
	"strings"
	"testing"

	"hadal/protocol"
)

// told is a message about a record.
func told(action protocol.Action, name string, version int32) *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicRecord, Action: action, Name: name, Version: version}
}

// sends has a stream send messages and returns the last id that a client has noted: of an
// event itself, or of one that stands alone.
func sends(t *testing.T, r *resume, messages ...*protocol.Message) (last string) {
	t.Helper()
	note := func(b []byte) {
		for line := range strings.Lines(string(b)) {
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				last = strings.TrimSuffix(id, "\n")
			}
		}
	}
	for _, m := range messages {
		if m.Action != protocol.RecordReadResponse || !r.skips(m) {
			note(protocol.EncodeFrame(protocol.FormSSE, m, "{}"))
		}
		r.sent(m, note)
	}
	return last
}

func TestAClientIsNotSentWhatItHas(t *testing.T) {
	const read, update, patch, deleted = protocol.RecordReadResponse, protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordDeleted
	denied := told(protocol.Denied(protocol.TopicRecord), "b", 0)
	denied.IsError = true
	for name, c := range map[string]struct {
		records []string
		sent    []*protocol.Message
		has     string // records with what their next READ_RESPONSE would be, of which the client has those with a plus
	}{
		"one record":            {[]string{"a"}, []*protocol.Message{told(read, "a", 4), told(patch, "a", 5)}, "a4 a5+"},
		"several":               {[]string{"a", "b", "a", "ü c"}, []*protocol.Message{told(read, "b", 0), told(read, "a", 40), told(read, "ü c", 3), told(update, "a", 41)}, "a41+ b0+ ü c3+"},
		"before all are told":   {[]string{"a", "b", "c"}, []*protocol.Message{told(read, "b", 7), told(patch, "b", 8)}, "a0 b8+ c0"},
		"one that is no more":   {[]string{"a", "b"}, []*protocol.Message{told(read, "a", 3), told(read, "b", 3), told(deleted, "a", 0)}, "a3 b3+"},
		"one that is not yet":   {[]string{"a", "b"}, []*protocol.Message{told(read, "a", -1), told(read, "b", 3)}, "a0 a-1 b3+"},
		"one that is forbidden": {[]string{"a", "b"}, []*protocol.Message{denied, told(read, "a", 9)}, "a9+ b0"},
	} {
		last := sends(t, newResume(c.records, ""), c.sent...)
		for want := range strings.SplitSeq(strings.ReplaceAll(c.has, "ü c", "ü_c"), " ") {
			again := newResume(c.records, last)
			text, has := strings.CutSuffix(want, "+")
			i := strings.IndexAny(text, "-0123456789")
			version := int32(0)
			for _, d := range strings.TrimPrefix(text[i:], "-") {
				version = version*10 + d - '0'
			}
			if text[i] == '-' {
				version = -version
			}
			m := told(read, strings.ReplaceAll(text[:i], "_", " "), version)
			if got := again.skips(m); got != has {
				t.Errorf("%s: after %q version %d of %s is skipped: %v, want %v", name, last, version, m.Name, got, has)
			}
			if again.skips(m) {
				t.Errorf("%s: version %d of %s is skipped twice", name, version, m.Name)
			}
		}
	}
}

func TestIdsOfAllRecordsAreShort(t *testing.T) {
	var records []string
	for i := range DefaultConfig().MaxNames {
		records = append(records, strings.Repeat("long name ", 100)+string(rune('A'+i)))
	}
	r := newResume(records, "")
	id := ""
	for i, name := range records {
		id = sends(t, r, told(protocol.RecordReadResponse, name, int32(1000+i)))
	}
	if !strings.HasPrefix(id, "all ") || len(id) > 500 {
		t.Errorf("an id of %d bytes for %d records: %.600s", len(id), len(records), id)
	}
}

func TestOtherIdsAreNone(t *testing.T) {
	r := newResume([]string{"a", "b"}, "")
	good := sends(t, r, told(protocol.RecordReadResponse, "a", 1), told(protocol.RecordReadResponse, "b", 2))
	for _, id := range []string{
		"", "all", "all  ", good + ".3", strings.TrimSuffix(good, ".2"), good + " ", "all x 1.2", strings.Replace(good, "1.2", "-1.-2", 1),
		strings.Replace(good, "1.2", "zzzzzzzz.2", 1) + "z", strings.Repeat("all ", 1000), "all " + strings.Repeat(".", 10_000), "-1 \"a\"", "1 a",
	} {
		if again := newResume([]string{"a", "b"}, id); again.skips(told(protocol.RecordReadResponse, "a", 1)) {
			t.Errorf("%.100q is an id", id)
		}
	}
	if newResume([]string{"b", "a"}, good).skipsAny() {
		t.Error("the records of another stream are taken for these")
	}
}

func FuzzResume(f *testing.F) {
	f.Add("all 1dv8lqe 1.2", "a", "b")
	f.Add("5 \"a\"", "a", "")
	f.Fuzz(func(t *testing.T, last, a, b string) {
		r := newResume([]string{a, b}, last)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.had) > 2 {
			t.Errorf("%q names %d records", last, len(r.had))
		}
	})
}
