package jetstream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// realBlock is the first block of a stream as the server writes it, with what is
// beside it.
func realBlock(t testing.TB) (blocks, index []byte) {
	t.Helper()
	r := newRig(t, true)
	s := r.fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `{}`), storetest.Put("b/c", 2, `[1,2]`))
	mustAppend(t, s, storetest.Put("a", 2, `{}`))
	mustAppend(t, s, storetest.Delete("b/c"))
	stream, err := s.js.Stream(t.Context(), s.stream)
	if err != nil {
		t.Fatal(err)
	}
	// What an operator may do: one removal that leaves a tombstone of the server's,
	// one that erases.
	if err := stream.DeleteMsg(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if err := stream.SecureDeleteMsg(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	r.stop(t)
	name := block(r.dir, s.stream, 1)
	if blocks, err = os.ReadFile(name); err == nil {
		index, err = os.ReadFile(filepath.Join(filepath.Dir(name), "index.db"))
	}
	if err != nil {
		t.Fatal(err)
	}
	r.start(t)
	return blocks, index
}

func stateReader() *blockReader { return &blockReader{stream: Name(0), prefix: []byte("hadal.s0.")} }

func TestBlocksAreSplitIntoWhatTheServerWrote(t *testing.T) {
	t.Parallel()
	b, index := realBlock(t)
	items, err := stateReader().read(b, 1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range items {
		got = append(got, fmt.Sprint(it.kind, " ", it.seq, " ", string(b[it.off+blockHeader:][:it.subject])))
	}
	want := []string{
		"0 1 hadal.s0.fence", "0 2 hadal.s0.r.a", "0 3 hadal.s0.r.b.c", "0 4 hadal.s0.r.a",
		"1 5 ", "2 4 ", "2 5 ",
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n")+"\n", w+"\n") {
			t.Errorf("%q is not among %q", w, got)
		}
	}
	// Under another number all checksums are wrong.
	items, err = stateReader().read(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		if it.kind != itemDamage {
			t.Errorf("under another key there is %+v", it)
		}
	}
	idx, err := parseIndex(index[:len(index)-blockChecksum])
	if err != nil || idx.last != 5 || len(idx.blocks) != 1 || !bytes.Equal(streamHash(Name(0), index[:len(index)-blockChecksum]), index[len(index)-blockChecksum:]) {
		t.Errorf("the index is %+v, %v", idx, err)
	}
}

// FuzzBlock gives the reader what no server wrote, and what one wrote with a part
// of it replaced.
func FuzzBlock(f *testing.F) {
	good, _ := realBlock(f)
	f.Add(good, 0, []byte(nil))
	f.Add(good, 20, []byte{0xff, 0xff, 0xff, 0x7f})
	f.Add(good, len(good)-30, []byte{})
	f.Add([]byte{}, 0, bytes.Repeat([]byte{0}, 100))
	f.Add([]byte{}, 0, bytes.Repeat(append(binary.LittleEndian.AppendUint32(nil, 500), []byte("..................hadal.s0.")...), 40))
	f.Fuzz(func(t *testing.T, b []byte, at int, patch []byte) {
		b = bytes.Clone(b)
		if at >= 0 && at <= len(b) {
			b = append(b[:at], append(bytes.Clone(patch), b[min(len(b), at+len(patch)):]...)...)
		}
		items, err := stateReader().read(b, 1)
		if err != nil {
			t.Fatal(err)
		}
		end := 0
		for _, it := range items {
			if it.off != end || it.end <= it.off || it.end > len(b) {
				t.Fatalf("%+v after byte %d of %d", it, end, len(b))
			}
			end = it.end
			if it.kind != itemDamage && (it.payload < it.off+blockHeader || it.payload > it.end-blockChecksum) {
				t.Fatalf("the payload of %+v is outside of it", it)
			}
			if it.off+blockHeader+it.subject > it.end && it.subject > 0 {
				t.Fatalf("the subject of %+v is outside of it", it)
			}
		}
		if end != len(b) {
			t.Fatalf("the items end at byte %d of %d", end, len(b))
		}
		// Damage and a message take turns at most, and the shortest message has 30 bytes.
		if len(items) > 2+2*len(b)/blockMinimum {
			t.Fatalf("%d items in %d bytes", len(items), len(b))
		}
	})
}

func FuzzIndex(f *testing.F) {
	_, index := realBlock(f)
	f.Add(index[:len(index)-blockChecksum])
	f.Add([]byte{indexMagic, indexVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := parseIndex(b)
		if err == nil && index.count > uint64(len(b)) {
			t.Fatalf("%d subjects in %d bytes", index.count, len(b))
		}
		if err == nil {
			(&verifier{}).checkMissing(&files{StreamReport: StreamReport{Name: "s"}, prefix: "hadal.s0."}, index)
		}
	})
}

// A file made to look like many messages in one another ends the search.
func TestAHostileBlockDoesNotTakeForEver(t *testing.T) {
	t.Parallel()
	head := binary.LittleEndian.AppendUint32(nil, 4<<20)
	b := bytes.Repeat(append(head, "..................hadal.s0."...), (8<<20)/31)
	r := stateReader()
	if _, err := r.read(b, 1); err != nil {
		t.Fatal(err)
	}
	if r.budget < -2*blockMaxMessage {
		t.Errorf("the budget ended at %d", r.budget)
	}
}

func BenchmarkVerify(b *testing.B) {
	const records = 100_000
	r := newRig(b, false)
	s := r.fenced(b)
	data := fmt.Sprintf("{%q:%q}", "x", strings.Repeat("x", 192))
	var ops []store.Op
	for i := range records {
		if ops = append(ops, storetest.Put(fmt.Sprintf("users/%08d", i), 1, data)); len(ops) == store.MaxOps {
			mustAppend(b, s, ops...)
			ops = ops[:0]
		}
	}
	r.stop(b)
	b.ReportAllocs()
	for b.Loop() {
		report, err := Verify(b.Context(), VerifyOptions{Dir: r.dir})
		if err != nil || report.Records != records || report.Damaged() {
			b.Fatalf("Verify = %+v, %v", report, err)
		}
		b.SetBytes(report.Streams[0].Bytes)
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	r.start(b)
}
