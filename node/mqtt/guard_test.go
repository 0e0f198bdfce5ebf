package mqtt

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestTheGuardKnowsWhatTheBrokerMustNotSee(t *testing.T) {
	connect := "\x10\x02ab"
	for name, c := range map[string]struct {
		bytes string
		want  error
	}{
		"a CONNECT and what follows":  {connect + "\xc0\x00" + "\x30\x80\x01" + strings.Repeat("x", 128), nil},
		"a cut packet":                {connect + "\x30\x05ab", nil},
		"a PUBLISH first":             {"\x30\x02ab", errNotConnect},
		"another protocol":            {"GET / HTTP/1.1", errNotConnect},
		"a large CONNECT":             {"\x10\x81\x80\x02", errTooLarge},
		"the largest CONNECT":         {"\x10\x80\x80\x02", nil},
		"a packet over the limit":     {connect + "\x30\x81\x80\x04", errTooLarge},
		"a packet at the limit":       {connect + "\x30\x80\x80\x04", nil},
		"a length of five bytes":      {connect + "\x30\xff\xff\xff\xff\x01", errLength},
		"the largest length there is": {connect + "\x30\xff\xff\xff\x7f", errTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			whole, bytewise := guard{limit: 1 << 16}, guard{limit: 1 << 16}
			if got := whole.pass([]byte(c.bytes)); !errors.Is(got, c.want) {
				t.Errorf("pass = %v, want %v", got, c.want)
			}
			var got error
			for i := 0; i < len(c.bytes) && got == nil; i++ {
				got = bytewise.pass([]byte{c.bytes[i]})
			}
			if !errors.Is(got, c.want) {
				t.Errorf("byte by byte: %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzGuard compares the guard, which is given pieces, with what it should see of the whole.
func FuzzGuard(f *testing.F) {
	f.Add([]byte("\x10\x02ab\x30\x81\x01x"), uint8(3))
	f.Add([]byte("\x30\x02ab"), uint8(1))
	f.Add([]byte("\x10\x00\x10\xff\xff\xff\xff"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		const limit = 1000
		g := guard{limit: limit}
		var got error
		for rest := b; len(rest) > 0 && got == nil; {
			n := min(int(piece)+1, len(rest))
			got = g.pass(rest[:n])
			rest = rest[n:]
		}
		want := packetsOf(b, limit)
		if !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// packetsOf reads the packets of a stream in the plain way.
func packetsOf(b []byte, limit int) error {
	for first := true; len(b) > 0; first = false {
		if first && b[0]>>4 != typeConnect {
			return errNotConnect
		}
		r := bytes.NewReader(b[1:])
		size := 0
		for i := 0; ; i++ {
			c, err := r.ReadByte()
			if err != nil {
				return nil // cut
			}
			if size |= int(c&0x7f) << (7 * i); c < 0x80 {
				break
			}
			if i == 3 {
				return errLength
			}
		}
		if size > limit {
			return errTooLarge
		}
		if size > r.Len() {
			return nil
		}
		b = b[len(b)-r.Len()+size:]
	}
	return nil
}

func TestFiltersAndRecordPrefixes(t *testing.T) {
	cfg := Config{RecordPrefixes: []string{"state/", "a/b/"}}
	for filter, want := range map[string][2]bool{
		"#": {true, true}, "+/x": {true, true}, "state/#": {true, false}, "state/+/x": {true, false},
		"stat/#": {false, true}, "a/#": {true, true}, "a/b/#": {true, false}, "a/+/c": {true, true}, "b/#": {false, true},
	} {
		if records, events := cfg.mayMatch(filter); records != want[0] || events != want[1] {
			t.Errorf("mayMatch(%q) = %v, %v", filter, records, events)
		}
	}
	if cfg.isRecord("state") || !cfg.isRecord("state/x") {
		t.Error("prefixes are not what topics begin with")
	}
}

func TestAConfigurationThatCannotBe(t *testing.T) {
	bad := DefaultConfig()
	bad.Enabled, bad.Port, bad.URLPath, bad.IdleTimeout, bad.RecordPrefixes, bad.SSL.Key = true, -1, "", 0, []string{"a/#"}, "k"
	err := bad.Validate()
	for _, key := range []string{"port: ", "idleTimeout: ", "recordPrefixes[0]: ", "ssl.cert: "} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate = %v, want a word on %s", err, key)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
}
