package jetstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// block is the path of a block file of a stream.
func block(dir, stream string, number int) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream, "msgs", fmt.Sprintf("%d.blk", number))
}

// edit changes a file.
func edit(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes a byte that is so far from the first place where text stands.
func flip(text string, distance int) func([]byte) []byte {
	return func(b []byte) []byte {
		i := bytes.Index(b, []byte(text))
		if i < 0 {
			panic("there is no " + text)
		}
		b[i+distance] ^= 1
		return b
	}
}

// complaint is a problem as a test expects it.
type complaint struct {
	file   string // base name
	seq    uint64
	record string
	what   string
}

func mustComplain(t *testing.T, report Report, want ...complaint) {
	t.Helper()
	fits := func(p *Problem, c complaint) bool {
		return filepath.Base(p.File) == c.file && p.Sequence == c.seq && p.Record == c.record && strings.Contains(p.What, c.what) && p.Cure != ""
	}
	missing := slices.Clone(want)
	for _, p := range report.Problems {
		i := slices.IndexFunc(missing, func(c complaint) bool { return fits(&p, c) })
		if i < 0 {
			t.Errorf("unexpected: %v (record %q)", &p, p.Record)
			continue
		}
		missing = slices.Delete(missing, i, i+1)
	}
	for _, c := range missing {
		t.Errorf("not found: %+v", c)
	}
}

func TestVerifyNamesWhatIsDamagedInTheState(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t) // sequence 1
	mustAppend(t, s, storetest.Put("before", 1, `{"at":"BEFORE"}`))
	mustAppend(t, s, storetest.Put("old/and new", 1, `{"at":"OLD"}`))
	mustAppend(t, s, storetest.Put("bad/ü", 1, `{"at":"BAD"}`)) // 4
	mustAppend(t, s, storetest.Put("old/and new", 2, `{"at":"NEW"}`))
	mustAppend(t, s, storetest.Put("gone", 1, `{"at":"GONE"}`))
	mustAppend(t, s, storetest.Delete("gone"))
	mustAppend(t, s, storetest.Put("last", 1, `{"at":"LAST"}`)) // 8
	r.stop(t)
	defer r.start(t)
	state := block(r.dir, "HADAL_STATE_0", 1)
	all := []string{"before", "old/and new", "bad/ü", "last"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name })
	}
	mark := filepath.Join(r.dir, "mark")
	ends := complaint{"1.blk", 7, "", "the stream ends here, and was acknowledged up to sequence 8"}
	tests := []struct {
		name    string
		file    string
		change  func([]byte) []byte
		records []string
		want    []complaint
	}{
		{"nothing", state, func(b []byte) []byte { return b }, all, nil},
		{"a byte of a record", state, flip("BAD", 1), without("bad/ü"), []complaint{{"1.blk", 4, "bad/ü", "checksum"}}},
		{"a byte of what was replaced", state, flip("OLD", 1), all, []complaint{{"1.blk", 3, "old/and new", "checksum"}}},
		{"a byte of what was removed", state, flip("GONE", 1), all, []complaint{{"1.blk", 6, "gone", "checksum"}}},
		{"a sequence", state, flip("hadal.s0.r.bad", -18), without("bad/ü"), []complaint{{"1.blk", 5, "bad/ü", "checksum"}}},
		// All that can be said of the record comes from the index.
		{"the length of a message", state, flip("hadal.s0.r.bad", -blockHeader), without("bad/ü"), []complaint{
			{"1.blk", 4, "bad/ü", "checksum"}}},
		{"the length of a message, by far", state, flip("hadal.s0.r.bad", -blockHeader+2), without("bad/ü"), []complaint{
			{"1.blk", 4, "bad/ü", "middle of a message"}}},
		{"the length of the subject", state, flip("hadal.s0.r.bad", -2), without("bad/ü"), []complaint{
			{"1.blk", 4, "", "checksum"}, {"1.blk", 0, "bad/ü", "1 records that the server's index lists are missing"}}},
		{"a subject", state, flip("hadal.s0.r.bad", 11), without("bad/ü"), []complaint{
			{"1.blk", 4, "cad/ü", "checksum"}, {"1.blk", 0, "bad/ü", "1 records that the server's index lists are missing"}}},
		{"the beginning of a subject", state, flip("hadal.s0.r.bad", 0), without("bad/ü"), []complaint{
			{"1.blk", 0, "", "no message"}, {"1.blk", 0, "bad/ü", "1 records that the server's index lists are missing"}}},
		{"the first message", state, flip("hadal.s0.fence", 3), all, []complaint{
			{"1.blk", 0, "", "no message"}, {"msgs", 0, "", "no fence"}}},
		{"the last message", state, flip("LAST", 1), without("last"), []complaint{{"1.blk", 8, "last", "checksum"}, ends}},
		{"the end cut off", state, func(b []byte) []byte { return b[:len(b)-5] }, without("last"), []complaint{
			{"1.blk", 8, "last", "middle of a message"}, ends}},
		{"the last message cut off", state, func(b []byte) []byte {
			return b[:bytes.Index(b, []byte("hadal.s0.r.last"))-blockHeader]
		}, without("last"), []complaint{ends, {"1.blk", 0, "last", "1 records"}}},
		{"zeros in the middle", state, func(b []byte) []byte {
			i := bytes.Index(b, []byte("hadal.s0.r.bad")) - blockHeader
			clear(b[i : i+50])
			return b
		}, without("bad/ü"), []complaint{{"1.blk", 0, "", "no message has the length 0"}, {"1.blk", 0, "bad/ü", "1 records"}}},
		{"nothing left", state, func([]byte) []byte { return nil }, nil, []complaint{
			{"1.blk", 0, "", "acknowledged up to sequence 8"}, {"1.blk", 0, "bad/ü", "5 records"}}},
		{"a mark from later", mark, func(b []byte) []byte {
			return append([]byte{9, 0, 0, 0, 0, 0, 0, 0}, sumOf(9)...)
		}, all, []complaint{{"1.blk", 8, "", "acknowledged up to sequence 9"}}},
		{"another configuration", filepath.Join(filepath.Dir(filepath.Dir(state)), "meta.inf"), flip("HADAL", 1), all, []complaint{{"meta.inf", 0, "", "checksum"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keep, err := os.ReadFile(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			edit(t, tt.file, tt.change)
			report, got := verified(t, r.dir)
			mustComplain(t, report, tt.want...)
			for _, name := range tt.records {
				if _, ok := got[name]; !ok {
					t.Errorf("%q is not among the records", name)
				}
			}
			if len(got) != len(tt.records) {
				t.Errorf("Verify found %d records, want %d", len(got), len(tt.records))
			}
			edit(t, tt.file, func([]byte) []byte { return keep })
		})
	}
	report, _ := verified(t, r.dir)
	mustBeClean(t, report)
	if want := (Report{Records: 4, Tombstones: 1, Older: 2}); report.Records != want.Records || report.Tombstones != want.Tombstones || report.Older != want.Older {
		t.Errorf("Verify counts %+v, want %+v", report, want)
	}
}

// sumOf is the checksum of a mark.
func sumOf(seq uint64) []byte {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	m, err := openMark(filepath.Join(dir, "mark"))
	if err != nil {
		panic(err)
	}
	defer m.f.Close()
	b := make([]byte, markSize)
	if err := errors.Join(m.write(seq), func() error { _, err := m.f.ReadAt(b, 0); return err }()); err != nil {
		panic(err)
	}
	return b[8:]
}

// The end of a stream that nobody was promised is no damage.
func TestVerifyTellsAnUnfinishedEndFromALostOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `1`))
	mustAppend(t, s, storetest.Put("a", 2, `2`))
	r.stop(t)
	defer r.start(t)
	state, mark := block(r.dir, "HADAL_STATE_0", 1), filepath.Join(r.dir, "mark")
	whole, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	// As a kill leaves it: the index is older than the end.
	if err := os.Remove(filepath.Join(filepath.Dir(state), "index.db")); err != nil {
		t.Fatal(err)
	}
	third := bytes.LastIndex(whole, []byte("hadal.s0.r.a")) - blockHeader
	acked := func(seq uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, seq), sumOf(seq)...) }
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-9] ^= 1
	zeros := append(bytes.Clone(whole[:third]), make([]byte, 500)...)
	tests := []struct {
		name    string
		content []byte
		mark    []byte
		version int32
		damaged bool
	}{
		{"acknowledged and there", whole, acked(3), 2, false},
		{"torn before it was acknowledged", whole[:third+60], acked(2), 1, false},
		{"hardly begun", whole[:third+1], acked(2), 1, false},
		{"zeros after a power cut", zeros, acked(2), 1, false},
		{"a bad checksum after a power cut", flipped, acked(2), 1, false},
		{"torn after it was acknowledged", whole[:third+60], acked(3), 0, true},
		{"zeros in the place of what was acknowledged", zeros, acked(3), 1, true},
		{"a bad checksum after it was acknowledged", flipped, acked(3), 0, true},
		{"torn, without a mark", whole[:third+60], nil, 1, false},
		{"a bad checksum, without a mark", flipped, nil, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			edit(t, state, func([]byte) []byte { return tt.content })
			edit(t, mark, func([]byte) []byte { return tt.mark })
			report, got := verified(t, r.dir)
			if report.Damaged() != tt.damaged {
				t.Errorf("problems: %v, want some: %v", report.Problems, tt.damaged)
			}
			if got["a"].Version != tt.version {
				t.Errorf("a is %v, want version %d", got["a"], tt.version)
			}
		})
	}
	edit(t, state, func([]byte) []byte { return whole })
}

func TestVerifyNamesMissingBlocksOfTheState(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t)
	large := fmt.Sprintf("%q", strings.Repeat("x", 100_000))
	for i := range int32(20) {
		var ops []store.Op
		for j := range 10 {
			ops = append(ops, storetest.Put(fmt.Sprintf("r/%d/%d", i, j), i, large))
		}
		mustAppend(t, s, ops...)
	}
	r.stop(t)
	report, _ := verified(t, r.dir)
	mustBeClean(t, report)
	if report.Streams[0].Blocks < 3 {
		t.Fatalf("the stream is %+v, want three blocks", report.Streams[0])
	}
	hide := func(number int) (back func()) {
		name := block(r.dir, "HADAL_STATE_0", number)
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.Rename(name+".away", name); err != nil {
				t.Error(err)
			}
		}
	}
	back := hide(2)
	report, got := verified(t, r.dir)
	if len(report.Problems) != 1 || filepath.Base(report.Problems[0].File) != "2.blk" ||
		!strings.Contains(report.Problems[0].What, fmt.Sprintf("the file is missing, and %d records", 200-len(got))) {
		t.Errorf("problems: %v, with %d records", report.Problems, len(got))
	}
	back()
	back = hide(report.Streams[0].Blocks + 1)
	if report, _ = verified(t, r.dir); len(report.Problems) != 2 {
		t.Errorf("problems: %v, want the end and the block", report.Problems)
	}
	back()
	r.start(t)
}

func TestVerifyLooksIntoTheMessages(t *testing.T) {
	t.Parallel()
	good := appendEntry(nil, &entry{Op: storetest.Put("bad", 3, `{"a":1}`)})
	newer := bytes.Clone(good)
	newer[0] = 2
	tests := []struct {
		name, subject string
		payload       []byte
		want          string
	}{
		{"foreign", "r.bad", []byte(`{"a":1}`), "format is 123"},
		{"a newer format", "r.bad", newer, "format is 2"},
		{"cut", "r.bad", good[:len(good)-1], "checksum"},
		{"another record", "r.bad", appendEntry(nil, &entry{Op: storetest.Put("good", 3, `{}`)}), `holds "good"`},
		{"a fence among records", "r.bad", appendEntry(nil, &entry{fence: true, epoch: 9}), "fence in the place of a record"},
		{"no JSON", "r.bad", appendEntry(nil, &entry{Op: storetest.Put("bad", 3, `{"a":`)}), "not JSON"},
		{"a record for a fence", "fence", good, "record in the place of the fence"},
		{"a floor above itself", "fence", appendEntry(nil, &entry{fence: true, epoch: 1, floor: 4}), "floor is 4"},
		{"a later epoch", "fence", appendEntry(nil, &entry{fence: true, epoch: 1 << 41}), "not of the same moment"},
		{"a stranger's", "x", []byte("x"), "stranger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, true)
			s := r.fenced(t)
			mustAppend(t, s, storetest.Put("good", 1, `{}`), storetest.Put("bad", 1, `{}`))
			publish := func(payload []byte) {
				if _, err := s.js.Publish(t.Context(), "hadal.s0."+tt.subject, payload); err != nil {
					t.Fatal(err)
				}
			}
			publish(tt.payload)
			r.stop(t)
			report, _ := verified(t, r.dir)
			if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].What, tt.want) || report.Problems[0].Sequence != 4 {
				t.Errorf("problems: %v, want %q at sequence 4", report.Problems, tt.want)
			}
			// What came after it is what counts.
			r.start(t)
			s = r.store(t)
			switch tt.subject {
			case "r.bad":
				publish(good)
			case "fence":
				publish(appendEntry(nil, &entry{fence: true, epoch: 2}))
			default:
				return
			}
			r.stop(t)
			report, _ = verified(t, r.dir)
			mustBeClean(t, report)
			r.start(t)
		})
	}
}

func TestVerifyHoldsTheLogToTheRulesOfReplay(t *testing.T) {
	t.Parallel()
	op := storetest.Put("a", 2, `2`)
	batch := func(e logEntry) []byte {
		e.kind = logBatch
		if e.ops == nil {
			e.ops = []store.Op{op}
		}
		return appendLog(nil, &e)
	}
	tests := []struct {
		name, subject string
		payload       []byte
		want          string
	}{
		{"foreign", "b", []byte("x"), "format is 120"},
		{"written to follow another", "b", batch(logEntry{follows: 1, epoch: 1}), "to follow sequence 1"},
		{"of another epoch", "b", batch(logEntry{follows: 2, epoch: 2}), "epoch is 2 after epoch 1"},
		{"of an epoch before", "fence", appendLog(nil, &logEntry{kind: logFence}), "epoch is 0 after epoch 1"},
		{"a fence among batches", "b", appendLog(nil, &logEntry{kind: logFence, epoch: 1}), "kind 2"},
		{"a floor above itself", "b", batch(logEntry{follows: 2, epoch: 1, floor: 3}), "floor is 3"},
		{"no JSON", "b", batch(logEntry{follows: 2, epoch: 1, ops: []store.Op{storetest.Put("a", 1, "[")}}), "not JSON"},
		{"a stranger's", "x", []byte("x"), "stranger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newLogRig(t, true, LogOptions{})
			l := r.fenced(t, 1)
			logAppend(t, l, storetest.Put("a", 1, `1`))
			if _, err := l.js.Publish(t.Context(), "hadal.l0."+tt.subject, tt.payload); err != nil {
				t.Fatal(err)
			}
			r.close(t)
			r.stop(t)
			report, _ := verified(t, r.dir)
			if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].What, tt.want) ||
				report.Problems[0].Stream != "HADAL_LOG_0" || report.Problems[0].Sequence != 3 {
				t.Errorf("problems: %v, want %q at sequence 3 of the log", report.Problems, tt.want)
			}
			r.start(t)
		})
	}
}

func TestVerifyFindsHolesInTheLog(t *testing.T) {
	t.Parallel()
	for _, at := range []uint64{1, 2} { // right behind the floor, in the middle
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			r := newLogRig(t, true, LogOptions{})
			l := r.fenced(t, 1)
			logAppend(t, l, storetest.Put("a", 0, `"first"`))
			// The floor rises to what was appended until now, while more is appended.
			until := l.base
			logAppend(t, l, storetest.Put("a", 1, `"NUMBER-1"`))
			logAppend(t, l, storetest.Put("b", 2, `"NUMBER-2"`))
			if err := l.states.Append(t.Context(), []store.Op{storetest.Put("a", 0, `"first"`)}); err != nil {
				t.Fatal(err)
			}
			if err := l.raiseFloor(t.Context(), until, l.fences); err != nil {
				t.Fatal(err)
			}
			logAppend(t, l, storetest.Put("c", 3, `"NUMBER-3"`))
			r.close(t)
			r.stop(t)
			log := block(r.dir, "HADAL_LOG_0", 1)
			report, got := verified(t, r.dir)
			mustBeClean(t, report)
			if len(got) != 3 || got["a"].Version != 1 || report.Pending != 3 || report.Streams[1].Floor != until {
				t.Errorf("Verify found %v, %+v, want three records and messages above %d", got, report, until)
			}
			whole, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			edit(t, log, flip(fmt.Sprint("NUMBER-", at), 3))
			report, _ = verified(t, r.dir)
			mustComplain(t, report, complaint{"1.blk", until + at, "", "checksum"})
			// The same, and the message is not there at all.
			edit(t, log, func([]byte) []byte { return whole })
			r.start(t)
			stream, err := r.store(t).js.Stream(t.Context(), "HADAL_LOG_0")
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.DeleteMsg(t.Context(), until+at); err != nil {
				t.Fatal(err)
			}
			r.close(t)
			r.stop(t)
			report, _ = verified(t, r.dir)
			mustComplain(t, report, complaint{"1.blk", until + at, "", fmt.Sprintf("missing before this place, sequences %d to %d", until+at, until+at)})
			r.start(t)
		})
	}
}

func TestVerifyFindsMissingBlocksOfTheLog(t *testing.T) {
	t.Parallel()
	r := newLogRig(t, true, LogOptions{LogBytes: 127_000, CheckpointBytes: 1 << 30, CheckpointRecords: 1 << 30})
	l := r.fenced(t, 1)
	flaky := &flakyState{stateStore: l.states}
	broken := errors.New("broken")
	flaky.fail.Store(&broken)
	l.checkpoints.Lock()
	l.states = flaky
	l.checkpoints.Unlock()
	for i := range int32(70) {
		logAppend(t, l, storetest.Put(fmt.Sprint(i), i, fmt.Sprintf("%q", strings.Repeat("x", 1000))))
	}
	r.close(t)
	r.stop(t)
	report, got := verified(t, r.dir)
	mustBeClean(t, report)
	if report.Streams[1].Blocks < 3 || len(got) != 70 {
		t.Fatalf("the log is %+v with %d records, want three blocks with 70", report.Streams[1], len(got))
	}
	name := block(r.dir, "HADAL_LOG_0", 2)
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	report, _ = verified(t, r.dir)
	if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].What, "messages are missing") {
		t.Errorf("problems: %v, want a hole", report.Problems)
	}
	if err := os.Rename(name+".away", name); err != nil {
		t.Fatal(err)
	}
	// A state without its log's records is not noticed, the other way round is.
	if err := os.RemoveAll(filepath.Dir(filepath.Dir(block(r.dir, "HADAL_STATE_0", 1)))); err != nil {
		t.Fatal(err)
	}
	if report, _ = verified(t, r.dir); !report.Damaged() {
		t.Error("a missing stream is not noticed")
	}
	r.start(t)
}
