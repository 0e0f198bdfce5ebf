package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"hadal/store"
)

// Verify reads the files of a partition without the server, which would mend
// what it finds: it cuts a block off at the first message that it cannot read, and
// with that destroys what could tell. Nothing here writes.
//
// The streams are read from their ends to their beginnings, the LOG before
// STATE, so that the first message of a name is the one that counts, a fence is
// seen before what it rules out, and one pass does. What is remembered is a 64-bit
// hash of each name, and one block at a time.
//
// What does not count is not damage: messages that a later one replaced, that
// are at or below a floor, that the server removed, and one at the very end that
// was being written when the process was killed and was never acknowledged. A
// block that cannot be read from its beginning to its end is damage also where
// nothing in it counts, because the server cuts it there.

// maxProblems is how many problems a Report names; the others it counts.
const maxProblems = 1000

// VerifyOptions says what Verify reads.
type VerifyOptions struct {
	// Dir is the directory of the embedded server, which is not running.
	Dir string
	// Partition is the number of the partition.
	Partition int
	// Mark and LogMark are the files of Options.Mark and LogOptions.LogMark. One
	// that does not exist says nothing.
	Mark, LogMark string
	// Epoch is the highest that an owner may have had. 0 means that it is not known.
	Epoch uint64
	// Valid says whether data is JSON. nil means encoding/json's opinion.
	Valid func(data string) bool
	// Progress hears how many bytes are read, of how many. It may be nil.
	Progress func(done, total int64)
	// Each is called with every record that is in order, in no promised order. Its
	// error ends the reading. It may be nil.
	Each func(store.Record) error
}

// Report is what Verify found.
type Report struct {
	// Records is how many records are in order. Tombstones stand for removed ones;
	// Older is how many messages of STATE were replaced by later ones and are still
	// in the files, Purged how many of both streams are below a floor.
	Records    int `json:"records"`
	Tombstones int `json:"tombstones"`
	Older      int `json:"olderVersions"`
	Purged     int `json:"purgedMessages"`
	// Pending is how many messages of the LOG wait for a checkpoint.
	Pending int `json:"pendingLogMessages"`
	// Data is the size of the records, names and JSON.
	Data    int64          `json:"dataBytes"`
	Streams []StreamReport `json:"streams"`
	// Problems is what is damaged. More is how many others there are.
	Problems []Problem `json:"problems"`
	More     int       `json:"moreProblems"`
	// Notes is what is worth knowing and no damage.
	Notes []string `json:"notes"`
}

// Damaged says whether anything is.
func (r *Report) Damaged() bool { return len(r.Problems) > 0 }

// StreamReport is what Verify found of a stream.
type StreamReport struct {
	Name     string `json:"name"`
	Blocks   int    `json:"blocks"`
	Bytes    int64  `json:"bytes"`
	Messages int    `json:"messages"`
	// First and Last are the lowest and the highest sequence of messages.
	First uint64 `json:"firstSequence"`
	Last  uint64 `json:"lastSequence"`
	// Acknowledged is what the mark says, 0 when it says nothing.
	Acknowledged uint64 `json:"acknowledgedSequence"`
	// Floor and Epoch are those of the last fence.
	Floor uint64 `json:"floor"`
	Epoch uint64 `json:"epoch"`
}

// Problem is one thing that is damaged.
type Problem struct {
	File     string `json:"file"`
	Offset   int64  `json:"offset"` // -1 when it is about the whole file
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Record   string `json:"record,omitempty"`
	What     string `json:"what"`
	Cure     string `json:"cure"`
}

// String is the problem in one line, without the cure.
func (p *Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Offset >= 0 {
		fmt.Fprintf(&b, ", byte %d", p.Offset)
	}
	if p.Stream != "" {
		b.WriteString(": stream " + p.Stream)
	}
	if p.Sequence > 0 {
		fmt.Fprintf(&b, ", sequence %d", p.Sequence)
	}
	switch {
	case p.Record != "":
		fmt.Fprintf(&b, ", record %.200q", p.Record)
	case p.Subject != "":
		fmt.Fprintf(&b, ", subject %.200q", p.Subject)
	}
	return b.String() + ": " + p.What
}

// What an operator can do.
const (
	// CureRestore is the cure of everything.
	CureRestore = "restore the directory from a copy; or export what can be read with `hadal records export --offline`, and import that or a backup into a new directory"
	cureMark    = CureRestore + "; or remove the file %s to start without what is lost"
)

// verifier is one call of Verify.
type verifier struct {
	opts    VerifyOptions
	report  Report
	seen    map[uint64]struct{} // hashes of the subjects of names
	buf     []byte
	subject []byte
	done    int64
	total   int64
	// chainOnly leaves out what the messages of the LOG say of records.
	chainOnly bool
}

// Verify checks the files of one partition. The error is about the reading
// itself, or of Each; what is damaged is in the Report.
func Verify(ctx context.Context, opts VerifyOptions) (Report, error) {
	v := newVerifier(opts)
	if err := v.verify(ctx); err != nil {
		return v.report, fmt.Errorf("verify partition %d in %s: %w", opts.Partition, opts.Dir, err)
	}
	return v.report, nil
}

// CheckLog is for a node that starts: it reads the LOG before the server does and
// returns a CorruptError for the first damage. STATE is not read: it is large, and
// what is damaged there is found by whoever reads it. Without a LogMark nothing is
// checked: then the operator wants to go on with what there is, or it is not known
// what was acknowledged.
func CheckLog(ctx context.Context, opts VerifyOptions) error {
	v := newVerifier(opts)
	v.chainOnly = true
	log, err := v.open(LogName(opts.Partition), fmt.Sprintf("hadal.l%d.", opts.Partition), opts.LogMark)
	if err == nil && log.there && log.Acknowledged > 0 {
		err = v.verifyLog(ctx, log)
	}
	if err != nil {
		return fmt.Errorf("check the log in %s: %w", opts.Dir, err)
	}
	if log.Acknowledged == 0 || !v.report.Damaged() {
		return nil
	}
	p := v.report.Problems[0]
	return fmt.Errorf("%s: %w; nothing was touched: `hadal records verify` says more. What to do: %s; or remove the file %s to start without what is lost",
		filepath.Base(p.File), &CorruptError{Stream: p.Stream, Subject: p.Subject, Sequence: p.Sequence, Reason: p.What}, CureRestore, opts.LogMark)
}

func newVerifier(opts VerifyOptions) *verifier {
	if opts.Valid == nil {
		opts.Valid = func(data string) bool { return json.Valid([]byte(data)) }
	}
	return &verifier{opts: opts, seen: make(map[uint64]struct{}), report: Report{
		Streams: []StreamReport{}, Problems: []Problem{}, Notes: []string{},
	}}
}

func (v *verifier) verify(ctx context.Context) error {
	log, err := v.open(LogName(v.opts.Partition), fmt.Sprintf("hadal.l%d.", v.opts.Partition), v.opts.LogMark)
	if err != nil {
		return err
	}
	states, err := v.open(Name(v.opts.Partition), fmt.Sprintf("hadal.s%d.", v.opts.Partition), v.opts.Mark)
	if err != nil {
		return err
	}
	if log.there {
		if err := v.verifyLog(ctx, log); err != nil {
			return err
		}
	}
	switch {
	case states.there:
		if err := v.verifyState(ctx, states); err != nil {
			return err
		}
	case log.Last > 0 && states.Acknowledged == 0: // else that was told
		// An owner writes its fence into STATE before it touches the LOG.
		v.problem(Problem{File: states.dir, Offset: -1, Stream: states.Name, Cure: CureRestore, What: "the stream is missing, and its log is there"})
	case log.Last == 0:
		v.note("there are no records: no node has served from this directory yet")
	}
	if log.Epoch > states.Epoch && states.there {
		v.problem(Problem{File: states.dir, Offset: -1, Stream: states.Name, Cure: CureRestore,
			What: fmt.Sprintf("the log has seen epoch %d and the state only %d: they are not of the same moment", log.Epoch, states.Epoch)})
	}
	for _, s := range []*files{states, log} {
		if s.there {
			v.report.Streams = append(v.report.Streams, s.StreamReport)
		}
	}
	return nil
}

func (v *verifier) problem(p Problem) {
	if len(v.report.Problems) >= maxProblems {
		v.report.More++
		return
	}
	if p.Record == "" {
		if _, tokens, ok := strings.Cut(p.Subject, ".r."); ok {
			p.Record = nameOf(tokens)
		}
	}
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verifier) note(format string, args ...any) {
	v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
}

// files is a stream on disk.
type files struct {
	StreamReport
	dir    string // of the stream
	msgs   string // of the blocks
	prefix string // of subjects
	mark   string
	there  bool
	blocks []blockFile // by number

	// While it is read, from the end to the beginning:
	above uint64   // the sequence of the message read last, 0 at first
	end   uint64   // the highest sequence of anything
	any   bool     // something has been read
	tail  *Problem // damage at the very end, of which it is not known yet whether it counts
	fence bool     // the last fence has been seen, or was damaged
}

// blockFile is one block.
type blockFile struct {
	number uint32
	name   string
	size   int64
}

// open finds the files of a stream and checks what is beside the blocks.
func (v *verifier) open(name, prefix, mark string) (*files, error) {
	s := &files{StreamReport: StreamReport{Name: name}, prefix: prefix, mark: mark,
		dir: filepath.Join(v.opts.Dir, "jetstream", "$G", "streams", name)}
	s.msgs = filepath.Join(s.dir, "msgs")
	if err := v.readMark(s); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		if s.Acknowledged > 0 {
			v.problem(Problem{File: s.dir, Offset: -1, Stream: name, Cure: fmt.Sprintf(cureMark, mark),
				What: fmt.Sprintf("the stream is missing, and was acknowledged up to sequence %d", s.Acknowledged)})
		}
		return s, nil
	} else if err != nil {
		return nil, err
	}
	s.there = true
	if err := v.checkMeta(s); err != nil {
		return nil, err
	}
	// A purge of everything, which only an operator asks for, goes through this
	// directory. With a block in it the server takes it for the stream's.
	if purged, err := filepath.Glob(filepath.Join(s.dir, "__new_msgs__", "*.blk")); err == nil && len(purged) > 0 {
		s.msgs = filepath.Dir(purged[0])
		v.note("stream %s: everything in it was being purged; the server will finish that", name)
	}
	entries, err := os.ReadDir(s.msgs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		number, isBlock := strings.CutSuffix(e.Name(), ".blk")
		n, err := strconv.ParseUint(number, 10, 32)
		if !isBlock || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		s.blocks = append(s.blocks, blockFile{uint32(n), filepath.Join(s.msgs, e.Name()), info.Size()})
		s.Bytes += info.Size()
	}
	slices.SortFunc(s.blocks, func(a, b blockFile) int { return int(int64(a.number) - int64(b.number)) })
	s.Blocks = len(s.blocks)
	v.total += s.Bytes
	return s, nil
}

// readMark reads how far the stream was acknowledged.
func (v *verifier) readMark(s *files) error {
	if s.mark == "" {
		return nil
	}
	f, err := os.Open(s.mark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	if s.Acknowledged, err = (&mark{name: s.mark, f: f}).read(); err == nil && s.Acknowledged == 0 {
		v.note("%s says nothing: how far stream %s was acknowledged is not known", s.mark, s.Name)
	}
	return err
}

// stored is a message of a stream, as eachMessage hands it out.
type stored struct {
	seq     uint64
	file    string
	offset  int64
	subject string
	payload []byte // for the call only
}

// eachMessage reads a stream from its end to its beginning. fn gets the messages;
// damaged is told of each damage, after it was reported.
func (v *verifier) eachMessage(ctx context.Context, s *files, fn func(stored) error, damaged func(subject string)) error {
	reader := &blockReader{stream: s.Name, prefix: []byte(s.prefix)}
	removed := make(map[uint64]struct{})
	for i := len(s.blocks) - 1; i >= 0; i-- {
		block := s.blocks[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		buf, err := v.readBlock(s, block)
		if err != nil {
			return err
		}
		items, err := reader.read(buf, block.number)
		if err != nil {
			return err
		}
		for _, it := range slices.Backward(items) {
			if it.kind != itemDamage {
				s.end = max(s.end, it.seq)
			}
			subject := string(buf[min(it.off+blockHeader, it.end):][:it.subject])
			switch it.kind {
			case itemRemoval:
				// In STATE it does not matter: the later message of a name counts, or the floor.
				if s.prefix[len("hadal.")] == 'l' {
					removed[it.seq] = struct{}{}
				}
			case itemDamage:
				if v.damage(s, block, it, subject) {
					damaged(subject)
				}
			case itemMessage:
				if s.above > 0 && it.seq >= s.above {
					v.problem(Problem{File: block.name, Offset: int64(it.off), Stream: s.Name, Sequence: it.seq, Subject: subject,
						What: fmt.Sprintf("it stands before sequence %d", s.above), Cure: CureRestore})
					break
				}
				if _, gone := removed[it.seq]; gone {
					break
				}
				s.Messages++
				if s.Last == 0 {
					s.Last = it.seq
				}
				s.First = it.seq
				m := stored{it.seq, block.name, int64(it.off), subject, buf[it.payload : it.end-blockChecksum]}
				if err := fn(m); err != nil {
					return err
				}
				s.above = it.seq
			}
			s.any = true
		}
		v.done += block.size
		if v.opts.Progress != nil {
			v.opts.Progress(v.done, v.total)
		}
	}
	return nil
}

// readBlock reads a file, or as much of it as can be.
func (v *verifier) readBlock(s *files, block blockFile) ([]byte, error) {
	f, err := os.Open(block.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := block.size
	if size > blockMaxFile {
		v.problem(Problem{File: block.name, Offset: blockMaxFile, Stream: s.Name, Cure: CureRestore,
			What: fmt.Sprintf("the file has %d bytes, a block has at most %d; the rest is not looked at", size, blockMaxFile)})
		size = blockMaxFile
	}
	if int64(cap(v.buf)) < size {
		v.buf = make([]byte, size)
	}
	n, err := f.ReadAt(v.buf[:size], 0)
	if err != nil {
		v.problem(Problem{File: block.name, Offset: int64(n), Stream: s.Name, Cure: CureRestore, What: fmt.Sprintf("it cannot be read: %v", err)})
	}
	if bytes.HasPrefix(v.buf[:n], []byte("cmp\x01")) {
		v.note("%s looks compressed, which no version of hadal asks for", block.name)
	}
	return v.buf[:n], nil
}

// damage reports bytes that are no message, and says whether they count. At the
// very end that may come out later: a kill leaves an unfinished message there,
// after what was acknowledged.
func (v *verifier) damage(s *files, block blockFile, it item, subject string) bool {
	p := Problem{File: block.name, Offset: int64(it.off), Stream: s.Name, Subject: subject, What: it.why, Cure: CureRestore}
	if it.subject > 0 {
		p.Sequence = it.seq
	}
	if it.subject == 0 || it.torn {
		p.What += fmt.Sprintf("; %d bytes are no message", it.end-it.off)
	}
	acknowledged := it.subject > 0 && it.seq <= s.Acknowledged
	if !s.any && !acknowledged && (it.torn || s.Acknowledged > 0) {
		s.tail = &p
		return false
	}
	v.problem(p)
	return true
}

// checkEnd compares the end of a stream with its mark and its index.
func (v *verifier) checkEnd(s *files, index *streamIndex) {
	p := Problem{File: s.msgs, Offset: -1, Stream: s.Name, Sequence: s.end}
	if len(s.blocks) > 0 {
		p.File = s.blocks[len(s.blocks)-1].name
	}
	if s.tail != nil && s.Acknowledged > s.end {
		v.problem(*s.tail)
	} else if s.tail != nil {
		v.note("stream %s ends in an unfinished message, as a kill or a power cut leaves it (%s, byte %d); it was never acknowledged", s.Name, s.tail.File, s.tail.Offset)
	}
	if s.Acknowledged > s.end {
		p.What = fmt.Sprintf("the stream ends here, and was acknowledged up to sequence %d", s.Acknowledged)
		p.Cure = fmt.Sprintf(cureMark, s.mark)
		v.problem(p)
		return
	}
	if index == nil || index.last <= s.end {
		return
	}
	if s.Acknowledged > 0 {
		v.note("stream %s ends at sequence %d; the server's index goes to %d, and nothing above %d was acknowledged", s.Name, s.end, index.last, s.Acknowledged)
		return
	}
	p.What = fmt.Sprintf("the stream ends here, and the server's index goes to sequence %d; with records.sync: interval a power cut may do that", index.last)
	p.Cure = CureRestore
	v.problem(p)
}

// fingerprint is how a name is remembered: by its subject, less what all of them begin with.
func fingerprint(tokens string) uint64 { return xxhash.Sum64String(tokens) }

// nameOf is the name behind the tokens of a subject, or "" when they hold only a
// hash of it.
func nameOf(tokens string) string {
	var b strings.Builder
	for i := 0; i < len(tokens); i++ {
		switch c := tokens[i]; {
		case c == '.':
			b.WriteByte('/')
		case c != '=':
			b.WriteByte(c)
		case i+1 == len(tokens) || tokens[i+1] == '.': // an empty token
		default:
			if i+2 >= len(tokens) {
				return ""
			}
			n, err := strconv.ParseUint(tokens[i+1:i+3], 16, 8)
			if err != nil {
				return ""
			}
			b.WriteByte(byte(n))
			i += 2
		}
	}
	return b.String()
}
