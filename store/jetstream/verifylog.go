package jetstream

import (
	"context"
	"fmt"
	"slices"
)

// verifyLog reads the LOG by the rules of replay, in the other direction.
func (v *verifier) verifyLog(ctx context.Context, s *files) error {
	fence, batch := s.prefix+"fence", s.prefix+"b"
	decoder := &Logged{link: link{stream: s.Name, subjects: batch}, fenceAt: fence}
	var (
		next    logEntry // the message behind this one
		follows bool     // there is one, and no damage in between
		nextAt  stored
	)
	err := v.eachMessage(ctx, s, func(m stored) error {
		if m.seq <= s.Floor {
			v.report.Purged++
			return nil
		}
		p := Problem{File: m.file, Offset: m.offset, Stream: s.Name, Sequence: m.seq, Subject: m.subject, Cure: CureRestore}
		if follows && nextAt.seq != m.seq+1 {
			v.hole(s, nextAt, m.seq, next.kind)
		}
		if m.subject != fence && m.subject != batch {
			p.What = "a stranger wrote it: no message of the log has that subject"
			v.problem(p)
			follows = false
			return nil
		}
		e, err := decoder.decode(m.subject, m.seq, m.payload)
		if err != nil {
			p.What = err.(*CorruptError).Reason
			v.problem(p)
			s.fence = s.fence || m.subject == fence
			follows = false
			return nil
		}
		if follows && (next.epoch < e.epoch || next.kind != logFence && next.epoch != e.epoch) {
			late := Problem{File: nextAt.file, Offset: nextAt.offset, Stream: s.Name, Sequence: nextAt.seq, Subject: nextAt.subject, Cure: CureRestore}
			late.What = fmt.Sprintf("its epoch is %d after epoch %d", next.epoch, e.epoch)
			v.problem(late)
		}
		if m.subject == fence && !s.fence {
			s.fence = true
			s.Floor, s.Epoch = e.floor, e.epoch
			v.checkEpoch(s, m, e.epoch)
		}
		next, follows = logEntry{kind: e.kind, epoch: e.epoch}, true
		nextAt = m
		nextAt.payload = nil
		if e.kind != logBatch {
			return nil
		}
		v.report.Pending++
		if v.chainOnly {
			return nil
		}
		for _, op := range slices.Backward(e.ops) {
			v.subject = appendSubject(v.subject[:0], op.Name)
			if !v.newest(string(v.subject)) {
				continue
			}
			if err := v.op(&p, &op); err != nil {
				return err
			}
		}
		return nil
	}, func(subject string) {
		s.fence = s.fence || subject == fence
		follows = false
	})
	if err != nil {
		return err
	}
	if follows && nextAt.seq != s.Floor+1 {
		v.hole(s, nextAt, s.Floor, next.kind)
	}
	if !s.fence && s.end > 0 {
		v.problem(Problem{File: s.msgs, Offset: -1, Stream: s.Name, Subject: fence, Cure: CureRestore,
			What: "the log has no fence that can be read"})
	}
	index, err := v.readIndex(s)
	if err != nil {
		return err
	}
	v.checkEnd(s, index)
	return nil
}

// hole reports that messages are missing between one and the next.
func (v *verifier) hole(s *files, next stored, before uint64, kind byte) {
	if kind == logFence && s.Acknowledged == 0 { // as in replay
		v.note("stream %s lacks sequences %d to %d before a fence: the power went while they were not synced, or they were damaged", s.Name, before+1, next.seq-1)
		return
	}
	v.problem(Problem{File: next.file, Offset: next.offset, Stream: s.Name, Sequence: before + 1, Subject: s.prefix + "b", Cure: CureRestore,
		What: fmt.Sprintf("messages are missing before this place, sequences %d to %d; everything up to %d was carried over", before+1, next.seq-1, s.Floor)})
}
