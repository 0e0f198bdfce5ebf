package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// On a lease stream a node first says who it is (a request to join, as in
// raftask.go: it may have been started again), and then asks after each heartbeat of the
// leader's raft, after partAsk without one, and at once when its table has changed. The
// leader answers each, and also speaks up when the table is settled further.
const (
	leaseAskSize   = 1 + 8 + 8         // flags, the asker's clock, the version of its table
	leaseReplySize = 1 + 8 + 8 + 8 + 8 // what, the asker's clock, lead, settled, spare

	leaseGoodbye = 1 // a flag: the asker stops, and holds nothing any more
	leaseUnfit   = 2 // a flag: the asker cannot write, and should own nothing

	leaseNone      = 0 // no lease now: ask again
	leaseGiven     = 1 // from the asker's clock, less the lead
	leaseNotLeader = 2 // ask another
	leaseNoMember  = 3 // the asker was removed
	leaseFarewell  = 4 // its goodbye was heard
	leaseOutdated  = 5 // another process was started with the asker's id since
)

type leaseReply struct {
	what    byte
	asked   int64  // the asker's clock when it asked, or 0: nobody asked
	lead    int64  // nanoseconds by which the proof of leadership is older than the answer
	settled uint64 // the table is settled up to this version
}

func (a leaseReply) encode() []byte {
	b := append(make([]byte, 0, leaseReplySize), a.what)
	b = binary.BigEndian.AppendUint64(b, uint64(a.asked))
	b = binary.BigEndian.AppendUint64(b, uint64(a.lead))
	b = binary.BigEndian.AppendUint64(b, a.settled)
	return binary.BigEndian.AppendUint64(b, 0)
}

func decodeLeaseReply(b [leaseReplySize]byte) leaseReply {
	return leaseReply{b[0], int64(binary.BigEndian.Uint64(b[1:])), int64(binary.BigEndian.Uint64(b[9:])), binary.BigEndian.Uint64(b[17:])}
}

// keepLease asks the leader for a lease, whoever that is, until ctx ends.
func (r *Raft) keepLease(ctx context.Context) {
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	var lost lostLeader
	var without leaderless
	var asking atomic.Bool
	for {
		address, leader := r.raft.LeaderWithID()
		if without.due(r.now(), leader, r.lostTime()) && asking.CompareAndSwap(false, true) {
			r.wg.Go(func() { // a leader that comes meanwhile is not to wait
				defer asking.Store(false)
				r.askAround(ctx)
			})
		}
		if leader != "" && leader != raft.ServerID(r.o.Self.ID) {
			taken, err := r.askLeader(ctx, address, leader)
			if err != nil && ctx.Err() == nil {
				r.o.Log.Debug("lost touch with the leader", "peer", leader, "err", err)
				if taken {
					lost.ended(leader)
				} else if lost.failed(leader, err, func() int { return r.turnsBefore(leader) }) {
					r.stand(leader)
				}
			}
		}
		next, ends := tick.C, (<-chan struct{})(nil)
		if leader == raft.ServerID(r.o.Self.ID) {
			if ends = r.lead.ends(); ends != nil {
				next = nil // it has nobody to ask
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ends:
		case <-next:
		}
	}
}

// askLeader keeps asking one leader, until it is not the leader or does not answer. taken
// says whether it took the stream.
func (r *Raft) askLeader(ctx context.Context, address raft.ServerAddress, leader raft.ServerID) (taken bool, err error) {
	conn, err := r.streams.dial(streamLease, address, time.Duration(r.parts.answer))
	if err != nil {
		return false, err
	}
	heard := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	if err := r.write(conn, frame(encodeRequest(requestJoin, r.joinSelf()))); err != nil {
		return true, err
	}
	wg.Go(func() { heard <- r.hearLeader(conn) })
	late := time.NewTimer(r.part(partAsk))
	defer late.Stop()
	for {
		if err := r.write(conn, r.leaseAsk(0)); err != nil {
			return true, err
		}
		late.Reset(r.part(partAsk))
		select {
		case err := <-heard:
			return true, err
		case <-ctx.Done():
			return true, nil
		case <-r.applied:
			continue
		case <-r.beaten:
		case <-late.C:
		}
		if _, now := r.raft.LeaderWithID(); now != leader {
			return true, &NotLeaderError{Leader: string(now)}
		}
	}
}

// goodbye tells the leader, when there is one within an election's time, that this
// node holds nothing any more, so that others need not wait for its lease to end.
func (r *Raft) goodbye() error {
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	err := errors.New("no leader to say it to")
	for end := r.now() + int64(r.part(partHeartbeat)); r.now() < end; <-tick.C {
		address, leader := r.raft.LeaderWithID()
		if leader == "" || leader == raft.ServerID(r.o.Self.ID) {
			continue
		}
		// A leader that is only about to lead does not hear it: say it again.
		if err = r.sayGoodbye(address); err == nil {
			return nil
		}
	}
	return err
}

func (r *Raft) sayGoodbye(to raft.ServerAddress) error {
	conn, err := r.streams.dial(streamLease, to, time.Duration(r.parts.answer))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := r.write(conn, append(frame(encodeRequest(requestJoin, r.joinSelf())), r.leaseAsk(leaseGoodbye)...)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Duration(r.parts.answer))); err != nil {
		return err
	}
	var b [leaseReplySize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return err
	}
	if reply := decodeLeaseReply(b); reply.what != leaseFarewell {
		return fmt.Errorf("it was not heard: answer %d", reply.what)
	}
	return nil
}

// write sends a few bytes, in the time that one message may take.
func (r *Raft) write(conn net.Conn, b []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(time.Duration(r.parts.answer))); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

func (r *Raft) leaseAsk(flags byte) []byte {
	if r.isUnfit.Load() {
		flags |= leaseUnfit
	}
	b := append(make([]byte, 0, leaseAskSize), flags)
	b = binary.BigEndian.AppendUint64(b, uint64(r.now()))
	return binary.BigEndian.AppendUint64(b, r.view.Load().changed)
}

// hearLeader takes the leader's answers, until there is none for half a
// FailureTimeout: then another stream, or another leader, may do better.
func (r *Raft) hearLeader(conn net.Conn) error {
	for {
		if err := conn.SetReadDeadline(time.Now().Add(r.part(partHeartbeat))); err != nil {
			return err
		}
		var b [leaseReplySize]byte
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return err
		}
		reply := decodeLeaseReply(b)
		switch reply.what {
		case leaseNotLeader:
			return &NotLeaderError{}
		case leaseNoMember:
			if _, was := r.view.Load().members[r.o.Self.ID]; !was && !r.member.Load() {
				// It has not joined yet, and hears from the leader because it has the address of
				// one who was a member: what it is without its data.
				return ErrUnknownMember
			}
			r.placeless(ErrRemoved)
			return ErrRemoved
		case leaseOutdated:
			r.placeless(ErrOldIncarnation)
			return ErrOldIncarnation
		case leaseGiven:
			r.member.Store(true)
			raise(&r.until, reply.asked-max(reply.lead, 0)+r.parts.lease)
		}
		if reply.settled > 0 {
			r.settle(reply.settled)
		}
	}
}

// placeless notes that this process has no place in the cluster any more.
func (r *Raft) placeless(why error) {
	r.onceGone.Do(func() {
		r.why = why
		close(r.removed)
	})
}

// settle notes that the table is settled up to a version.
func (r *Raft) settle(version uint64) {
	for {
		old := r.settled.Load()
		if version <= old {
			return
		}
		if r.settled.CompareAndSwap(old, version) {
			break
		}
	}
	// Whoever waits to hold what it was given asks again.
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.view.Load(); s.cluster != "" {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// raise sets v to at least to.
func raise(v interface {
	Load() int64
	CompareAndSwap(old, new int64) bool
}, to int64) {
	for old := v.Load(); old < to && !v.CompareAndSwap(old, to); old = v.Load() {
	}
}

// serveLease is the other end of askLeader.
func (r *Raft) serveLease(ctx context.Context, conn net.Conn) {
	if err := conn.SetReadDeadline(time.Now().Add(r.o.FailureTimeout)); err != nil {
		return
	}
	b, err := readFrame(conn)
	if err != nil {
		return
	}
	kind, c, err := decodeRequest(b)
	if err != nil || kind != requestJoin {
		r.o.Log.Warn("peer misbehaves", "err", err)
		return
	}
	if r.lead.rejoins(r.view.Load(), c) {
		if err := r.admit(c); err != nil {
			r.o.Log.Info("node not taken back", "peer", c.id, "name", c.name, "err", err)
		}
	}
	s := &leaseStream{conn: conn}
	defer r.lead.ended(s, c.id)
	for ctx.Err() == nil {
		if err := conn.SetReadDeadline(time.Now().Add(2 * r.o.FailureTimeout)); err != nil {
			return
		}
		var ask [leaseAskSize]byte
		if _, err := io.ReadFull(conn, ask[:]); err != nil {
			return
		}
		reply := r.lead.answer(r, s, c.id, c.incarnation, ask)
		if s.say(reply, time.Duration(r.parts.answer)) != nil || reply.what == leaseNotLeader || reply.what == leaseNoMember || reply.what == leaseOutdated {
			return
		}
		if ask[0]&leaseGoodbye != 0 {
			kick(r.led)
			return
		}
	}
}

// leaseStream is a node that asks this one.
type leaseStream struct {
	conn     net.Conn
	mu       sync.Mutex // one answer at a time
	stranger int64      // since when the asker is not in the table, or 0; guarded by leading.mu
}

// isStranger says whether this node provably led after the asker was missing from its table: so
// the asker was removed, and not taken in by another leader. The caller holds leading.mu.
func (s *leaseStream) isStranger(now, proof int64) bool {
	if s.stranger == 0 {
		s.stranger = now
	}
	return proof >= s.stranger
}

func (s *leaseStream) say(reply leaseReply, within time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := s.conn.Write(reply.encode())
	return err
}

// frames of requests, answers and what begins a lease stream.
const maxFrame = 4 << 20

func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
}

func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes is more than %d", n, maxFrame)
	}
	// Not all at once: the size is only a claim.
	b, err := io.ReadAll(io.LimitReader(from, int64(n)))
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
