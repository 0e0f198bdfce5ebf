package perms

import (
	"fmt"
	"strings"
	"testing"

	"hadal/protocol"
)

// manyPaths has n paths of the shapes that people write.
func manyPaths(n int) string {
	var b strings.Builder
	b.WriteString("record:\n  '*': {read: true, write: true}\n")
	for i := range n - 1 {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "  'app%d/users/$id': {read: false}\n", i)
		case 1:
			fmt.Fprintf(&b, "  'app%d/*': {read: true}\n", i)
		case 2:
			fmt.Fprintf(&b, "  'app%d/config': {write: false}\n", i)
		case 3:
			fmt.Fprintf(&b, "  'app%d/$tenant/orders/$order': {read: true, write: true}\n", i)
		}
	}
	return b.String() + restEvent + restRPC + restPresence
}

func BenchmarkDoor(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		r := load(b, manyPaths(n))
		b.Run(fmt.Sprintf("paths=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r.Door(someone, protocol.TopicRecord, protocol.RecordRead, "app3/acme/orders/4711", "") != Allow {
					b.Fatal("denied")
				}
			}
		})
	}
	for _, n := range []int{10, 1000, 10000} {
		r := load(b, manyPaths(n))
		b.Run(fmt.Sprintf("new name, paths=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.sections[secRecord].search("app3/acme/orders/4711")
			}
		})
	}
}

func BenchmarkLiveDoor(b *testing.B) {
	l := NewLive(load(b, manyPaths(1000)), nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		if l.Door(someone, protocol.TopicRecord, protocol.RecordRead, "app3/acme/orders/4711", "") != Allow {
			b.Fatal("denied")
		}
	}
}

func BenchmarkLiveDoorWithTypeNone(b *testing.B) {
	r, err := New(Config{Type: "none"})
	if err != nil {
		b.Fatal(err)
	}
	l := NewLive(r, nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		if l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "some/event", "1") != Allow {
			b.Fatal("denied")
		}
	}
}
