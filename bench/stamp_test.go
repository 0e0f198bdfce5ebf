package bench

import (
	"strings"
	"testing"
)

func TestAStampIsReadAsItWasWritten(t *testing.T) {
	for _, want := range []stamp{{}, {7, 1, 2}, {1<<32 - 1, 1<<40 - 1, 1<<56 - 1}} {
		b := []byte(placeholder + "rest")
		want.put(b)
		if got, err := readStamp(string(b)); err != nil || got != want {
			t.Errorf("readStamp = %v, %v, want %v", got, err, want)
		}
		if string(b[stampSize:]) != "rest" {
			t.Errorf("wrote over what is behind the stamp: %q", b)
		}
		for _, data := range []string{`"` + string(b) + `"`, `{"` + recordField + `":"` + string(b) + `"}`} {
			if got, err := stampOf(data); err != nil || got != want {
				t.Errorf("stampOf(%s) = %v, %v, want %v", data, got, err, want)
			}
		}
	}
}

func TestWhatIsNoStampIsRefused(t *testing.T) {
	for _, data := range []string{"", `"`, "{", `{"v":"`, `"` + placeholder + `"`, `"` + strings.Repeat("0", stampSize-1), `{"w":1}`} {
		if got, err := stampOf(data); err == nil {
			t.Errorf("stampOf(%q) = %v, want an error", data, got)
		}
	}
}

func BenchmarkStampOf(b *testing.B) {
	text := []byte(`"` + placeholder + `xxxxxxxxxxxx"`)
	stamp{1, 2, 3}.put(text[1:])
	data := string(text)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stampOf(data); err != nil {
			b.Fatal(err)
		}
	}
}
