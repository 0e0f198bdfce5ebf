package jetstream

import (
	"context"
	"fmt"
	"strings"

	"hadal/store"
)

// verifyState reads STATE. What the LOG has of a name is newer.
func (v *verifier) verifyState(ctx context.Context, s *files) error {
	fence, record := s.prefix+"fence", s.prefix+"r."
	err := v.eachMessage(ctx, s, func(m stored) error {
		tokens, isRecord := strings.CutPrefix(m.subject, record)
		p := Problem{File: m.file, Offset: m.offset, Stream: s.Name, Sequence: m.seq, Subject: m.subject, Cure: CureRestore}
		switch {
		case m.subject == fence && s.fence, m.seq <= s.Floor:
			v.report.Purged++
		case m.subject == fence:
			s.fence = true
			e, err := decodeEntry(m.payload)
			switch {
			case err != nil:
				p.What = err.Error()
			case !e.fence:
				p.What = "it is a record in the place of the fence"
			case e.floor >= m.seq:
				p.What = fmt.Sprintf("its floor is %d", e.floor)
			default:
				s.Floor, s.Epoch = e.floor, e.epoch
				v.checkEpoch(s, m, e.epoch)
				return nil
			}
			v.problem(p)
		case !isRecord:
			p.What = "a stranger wrote it: no record and no fence has that subject"
			v.problem(p)
		case !v.newest(tokens):
			v.report.Older++
		default:
			return v.entry(&p, m)
		}
		return nil
	}, func(subject string) {
		// An older message of the name does not count in its place.
		if tokens, isRecord := strings.CutPrefix(subject, record); isRecord {
			v.newest(tokens)
		}
		s.fence = s.fence || subject == fence
	})
	if err != nil {
		return err
	}
	if !s.fence && s.Messages > 0 {
		v.problem(Problem{File: s.msgs, Offset: -1, Stream: s.Name, Subject: fence, Cure: CureRestore,
			What: "the stream has no fence that can be read: removed records may come back"})
	}
	index, err := v.readIndex(s)
	if err != nil {
		return err
	}
	v.checkEnd(s, index)
	if index != nil {
		v.checkMissing(s, index)
	}
	return nil
}

// entry looks at the newest message of a name.
func (v *verifier) entry(p *Problem, m stored) error {
	e, err := decodeEntry(m.payload)
	switch {
	case err != nil:
		p.What = err.Error()
	case e.fence:
		p.What = "it is a fence in the place of a record"
	case !v.isAt(e.Name, m.subject):
		p.What = fmt.Sprintf("it holds %.200q", e.Name)
	default:
		return v.op(p, &e.Op)
	}
	v.problem(*p)
	return nil
}

// op counts a record in its newest state.
func (v *verifier) op(p *Problem, op *store.Op) error {
	switch {
	case op.Delete:
		v.report.Tombstones++
	case !v.opts.Valid(op.Data):
		p.Record, p.What = op.Name, "its data is not JSON"
		v.problem(*p)
	default:
		v.report.Records++
		v.report.Data += int64(len(op.Name) + len(op.Data))
		if v.opts.Each != nil {
			return v.opts.Each(op.Record)
		}
	}
	return nil
}

// newest says whether nothing of a name was seen yet, and notes it.
func (v *verifier) newest(tokens string) bool {
	hash := fingerprint(tokens)
	if _, seen := v.seen[hash]; seen {
		return false
	}
	v.seen[hash] = struct{}{}
	return true
}

// isAt says whether a name belongs to a subject.
func (v *verifier) isAt(name, subject string) bool {
	v.subject = appendSubject(fmt.Appendf(v.subject[:0], "hadal.s%d.r.", v.opts.Partition), name)
	return string(v.subject) == subject
}

// checkEpoch compares a fence with what the data directory knows.
func (v *verifier) checkEpoch(s *files, m stored, epoch uint64) {
	if v.opts.Epoch > 0 && epoch > v.opts.Epoch {
		v.problem(Problem{File: m.file, Offset: m.offset, Stream: s.Name, Sequence: m.seq, Subject: m.subject, Cure: CureRestore,
			What: fmt.Sprintf("it is of epoch %d, and the file meta of the data directory is of %d: they are not of the same moment, and a node would be refused", epoch, v.opts.Epoch)})
	}
}
