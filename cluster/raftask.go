package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
)

// A request is a version byte, a kind, and a change. Its answer is a version byte and
// a code, and then what the code says.
const (
	requestVersion = 1

	requestJoin   = 1 // a change: the member
	requestChange = 2 // a change
	requestStatus = 3 // answered with JSON

	replyOK        = 0 // the answer
	replyNotLeader = 1 // fields: id and address of the leader, if any
	replyRefused   = 2 // fields: the number of a sentinel or 0, and the text
)

// sentinels are the errors that a caller on another node may tell apart. Their place
// is part of the format between nodes: only add.
var sentinels = []error{nil, ErrUnknownMember, ErrNameTaken, ErrReplaced, ErrOldIncarnation, ErrSettingChanged, ErrRemoved, ErrCopied, errUndecided}

// errUndecided means that a change was asked for, and may have been made or not.
var errUndecided = errors.New("the leader of the cluster was lost meanwhile, so the change may have been made or not")

func encodeRequest(kind byte, c change) []byte {
	return append([]byte{requestVersion, kind}, c.encode()...)
}

func decodeRequest(b []byte) (kind byte, c change, err error) {
	if len(b) < 2 {
		return 0, change{}, errMalformed
	}
	if b[0] != requestVersion {
		return 0, change{}, fmt.Errorf("request of version %d: this version understands %d", b[0], requestVersion)
	}
	c, err = decodeChange(b[2:])
	return b[1], c, err
}

func encodeReply(answer []byte, err error) []byte {
	var notLeader *NotLeaderError
	b := fields{requestVersion}
	switch {
	case err == nil:
		return append(b, append([]byte{replyOK}, answer...)...)
	case errors.As(err, &notLeader):
		b = append(b, replyNotLeader)
		b.text(fieldID, notLeader.Leader)
		b.text(fieldRaftAddr, notLeader.Address)
		return b
	}
	b = append(b, replyRefused)
	for i, s := range sentinels {
		if s != nil && errors.Is(err, s) {
			b.number(fieldNumber, uint64(i))
		}
	}
	b.text(fieldValue, err.Error())
	return b
}

// raftRefusal is an error of the leader's, as another node hears of it.
type raftRefusal struct {
	text string
	is   error
}

func (r *raftRefusal) Error() string { return r.text }
func (r *raftRefusal) Unwrap() error { return r.is }

func decodeReply(b []byte) (answer []byte, err error) {
	if len(b) < 2 {
		return nil, errMalformed
	}
	if b[0] != requestVersion {
		return nil, fmt.Errorf("answer of version %d: this version understands %d", b[0], requestVersion)
	}
	if b[1] == replyOK {
		return b[2:], nil
	}
	var id, address string
	var refused raftRefusal
	err = eachField(b[2:], func(n protowire.Number, v uint64) {
		if n == fieldNumber && v < uint64(len(sentinels)) {
			refused.is = sentinels[v]
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldID:
			id = string(v)
		case fieldRaftAddr:
			address = string(v)
		case fieldValue:
			refused.text = string(v)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case b[1] == replyNotLeader:
		return nil, &NotLeaderError{Leader: id, Address: address}
	}
	return nil, &refused
}

// Serve answers a request of another node, as the leader: it may take until a
// majority has agreed, at most some FailureTimeouts. Any bytes may be given to it. Nodes
// that ask each other by Stream need not call it.
func (r *Raft) Serve(request []byte) (reply []byte) {
	select {
	case <-r.running:
	default:
		return encodeReply(nil, &NotLeaderError{})
	}
	kind, c, err := decodeRequest(request)
	if err != nil {
		return encodeReply(nil, fmt.Errorf("request of another node: %w", err))
	}
	if !r.lead.leads() {
		return encodeReply(nil, r.notLeader())
	}
	switch kind {
	case requestJoin:
		if err = r.admit(c); undecided(err) {
			err = r.notLeader() // whoever asks again does no harm
		}
	case requestChange:
		if err = r.order(c); undecided(err) {
			err = fmt.Errorf("%w (%w)", errUndecided, err)
		}
	case requestStatus:
		// Who is not in it takes itself for removed (judgeSelf).
		if !r.provesLead() {
			return encodeReply(nil, r.notLeader())
		}
		status, err := json.Marshal(r.Status())
		return encodeReply(status, err)
	default:
		err = fmt.Errorf("request of kind %d: this version does not know it", kind)
	}
	return encodeReply(nil, r.asAnswer(err))
}

// asAnswer says it by name when the error is that this node leads no more.
func (r *Raft) asAnswer(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return r.notLeader()
	}
	return err
}

// undecided says that a change may have been made or not, or was not: this node has
// ceased to lead meanwhile, or is too busy.
func undecided(err error) bool {
	return errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrRaftShutdown)
}

func (r *Raft) notLeader() *NotLeaderError {
	at, id := r.raft.LeaderWithID()
	if id == raft.ServerID(r.o.Self.ID) {
		return &NotLeaderError{} // not yet, or not any more
	}
	_, address := splitRaftAddress(at)
	return &NotLeaderError{Leader: string(id), Address: address}
}

// leads says whether this node leads and knows all that went before.
func (l *leading) leads() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != 0
}

// admit takes a node in, or takes it back. One that was removed comes back as another
// only: an operator wanted it gone, and whatever starts processes again must not undo that.
func (r *Raft) admit(c change) error {
	returns := c.returns
	c.kind, c.on, c.returns = changeJoin, true, false
	if r.asksStill(c) {
		return ErrCopied
	}
	if _, known := r.view.Load().members[c.id]; !known && returns && !r.provesLead() {
		return r.notLeader() // another may have taken it in
	}
	r.membership.Lock()
	defer r.membership.Unlock()
	v := r.view.Load()
	if v.cluster == "" {
		return &NotLeaderError{} // about to be formed
	}
	m, known := v.members[c.id]
	switch {
	case !known && returns:
		return ErrRemoved
	case known && c.incarnation > 0 && m.Incarnation == c.incarnation && m.Raft != c.raft:
		return ErrCopied // a process has one address, and each a number of its own
	}
	if known && m.Alive && !m.replaced && m.Incarnation == c.incarnation && m.Name == c.name &&
		m.Raft == c.raft && m.NATS == c.nats && m.URL == c.url && m.Role == c.role {
		return nil
	}
	if err := r.propose([]change{c}); err != nil {
		return err
	}
	r.o.Log.Info("node joined", "peer", c.id, "name", c.name, "role", string(c.role), "incarnation", c.incarnation)
	kick(r.led)
	return nil
}

// A process that runs asks every tick. For so many ticks it is given the time to, and what
// comes in the first of them may have been under way.
const (
	asksWithin = 6
	asksAfter  = 2
)

// asksStill says whether the process that a node wants to take the place of runs: its lease
// stream brings more than what was under way. It takes a few ticks when that does not end.
func (r *Raft) asksStill(c change) bool {
	if c.id == r.o.Self.ID {
		return c.incarnation > r.o.Self.Incarnation
	}
	m := r.view.Load().members[c.id]
	if !m.Alive || c.incarnation <= m.Incarnation {
		return false
	}
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	for began := r.now(); r.now()-began < asksWithin*r.parts.tick; <-tick.C {
		switch heard := r.lead.lastAsk(c.id, m.Incarnation); {
		case heard == 0:
			return false
		case heard-began > asksAfter*r.parts.tick:
			return true
		}
	}
	return false
}

// order carries out a change that an operator, or a room, asks for.
func (r *Raft) order(c change) error {
	v := r.view.Load()
	m, known := v.members[c.id]
	switch c.kind {
	case changeDrain, changeMove, changeSetting:
	case changeRemove:
		r.membership.Lock()
		defer r.membership.Unlock()
		switch {
		case !known:
			return fmt.Errorf("%w: %q", ErrUnknownMember, c.id)
		case m.Alive && !m.Draining:
			return fmt.Errorf("node %s is alive: drain it first, then remove it", m.Name)
		case c.id == r.o.Self.ID:
			// Nobody removes itself: the next leader will do it.
			if err := r.raft.LeadershipTransfer().Error(); err != nil {
				return fmt.Errorf("node %s leads the cluster, and no other can: %w", m.Name, err)
			}
			return raft.ErrNotLeader
		}
	default:
		return fmt.Errorf("request for a change of kind %d: only the leader makes it", c.kind)
	}
	if err := r.propose([]change{c}); err != nil {
		return err
	}
	kick(r.led)
	return nil
}

// serveAsk is the other end of ask.
func (r *Raft) serveAsk(_ context.Context, conn net.Conn) {
	if err := conn.SetDeadline(time.Now().Add(10 * r.o.FailureTimeout)); err != nil {
		return
	}
	request, err := readFrame(conn)
	if err == nil {
		_, err = conn.Write(frame(r.Serve(request)))
	}
	if err != nil {
		r.o.Log.Debug("request of a peer not answered", "err", err)
	}
}

// refuseAsk answers a request that is meant for another node, who was at this address.
func (r *Raft) refuseAsk(conn net.Conn) {
	if err := conn.SetDeadline(time.Now().Add(r.o.FailureTimeout)); err != nil {
		return
	}
	_, err := readFrame(conn)
	if err == nil {
		_, err = conn.Write(frame(encodeReply(nil, &NotLeaderError{})))
	}
	if err != nil {
		r.o.Log.Debug("request of a peer, meant for another node, not answered", "err", err)
	}
}

// ask asks the node at a raftAddress, or whoever is at an address. The error is a NotLeaderError when it did nothing because it does
// not lead; any other error of the connection means that it may have done it.
func (r *Raft) ask(ctx context.Context, address raft.ServerAddress, request []byte) ([]byte, error) {
	conn, err := r.streams.dial(streamAsk, address, time.Duration(r.parts.answer))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", &NotLeaderError{}, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(10 * r.o.FailureTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(frame(request)); err != nil {
		return nil, fmt.Errorf("%w (node at %s: %w)", errUndecided, address, err)
	}
	reply, err := readFrame(conn)
	if err != nil {
		return nil, fmt.Errorf("%w (node at %s did not say: %w)", errUndecided, address, err)
	}
	return decodeReply(reply)
}

// request has the leader carry out an encoded request, wherever the leader is. While
// there is none it waits for one, until ctx ends.
func (r *Raft) request(ctx context.Context, request []byte) ([]byte, error) {
	select {
	case <-r.running:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	for {
		answer, err := decodeReply(r.Serve(request))
		var not *NotLeaderError
		if errors.As(err, &not) && not.Address != "" {
			answer, err = r.ask(ctx, raftAddress(not.Leader, not.Address), request)
		}
		if !errors.As(err, &not) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-tick.C:
		}
	}
}

// joinSelf is this node as a member to be.
func (r *Raft) joinSelf() change {
	self := r.o.Self
	self.Alive = true
	c := joining(peerMember{Peer: self, speaks: commandVersion})
	c.returns = r.o.Returns
	return c
}

// Join makes this node a member of the cluster that one of the addresses, of raft,
// belongs to, and says so again after a start with other addresses of its own. It keeps
// trying until ctx ends; whoever answers says who leads. ErrNameTaken, ErrReplaced, ErrRemoved,
// ErrCopied and ErrOldIncarnation mean that it cannot join as it is.
func (r *Raft) Join(ctx context.Context, addresses []string) error {
	select {
	case <-r.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	request := encodeRequest(requestJoin, r.joinSelf())
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	for {
		err := error(&NotLeaderError{})
		var try []raft.ServerAddress
		for _, address := range addresses {
			try = append(try, raft.ServerAddress(address))
		}
		for i := 0; i < len(try) && i < 3*len(addresses); i++ {
			if _, address := splitRaftAddress(try[i]); address == r.o.Self.Raft {
				_, err = decodeReply(r.Serve(request))
			} else {
				_, err = r.ask(ctx, try[i], request)
			}
			var not *NotLeaderError
			if !errors.As(err, &not) {
				break
			}
			if leader := raftAddress(not.Leader, not.Address); not.Address != "" && !slices.Contains(try[i:], leader) {
				try = append(try, leader)
			}
		}
		var refused *raftRefusal
		if err == nil {
			r.member.Store(true)
			return nil
		}
		if errors.As(err, &refused) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no cluster to join at %v: %w (%w)", addresses, err, ctx.Err())
		case <-tick.C:
		}
	}
}

func (r *Raft) change(ctx context.Context, c change) error {
	_, err := r.request(ctx, encodeRequest(requestChange, c))
	return err
}

// Drain says that a member is about to leave, so that it gives away all it owns; or,
// with on false, that it stays. A node that starts again is not draining.
func (r *Raft) Drain(ctx context.Context, id string, on bool) error {
	return r.change(ctx, change{kind: changeDrain, id: id, on: on})
}

// RemoveMember removes a member for good: its replicas are placed elsewhere. It must
// be dead, or draining.
func (r *Raft) RemoveMember(ctx context.Context, id string) error {
	return r.change(ctx, change{kind: changeRemove, id: id})
}

// Move makes a member the owner of a partition of which it keeps a replica, and keeps
// it there until that member dies, or is removed; with an empty id the partition goes
// where balance wants it again. It returns when the wish is noted, not when it is done.
func (r *Raft) Move(ctx context.Context, partition int, id string) error {
	if partition < 0 {
		return fmt.Errorf("%w: %d", errNoPartition, partition)
	}
	return r.change(ctx, change{kind: changeMove, number: uint64(partition), id: id})
}

// Set gives a setting a value if its number is the one given, which rises by one.
// ErrSettingChanged means that it is another.
func (r *Raft) Set(ctx context.Context, name string, value []byte, number uint64) error {
	return r.change(ctx, change{kind: changeSetting, name: name, value: value, number: number})
}

// Overwrite gives a setting a value, whatever its number is.
func (r *Raft) Overwrite(ctx context.Context, name string, value []byte) error {
	return r.change(ctx, change{kind: changeSetting, name: name, value: value, on: true})
}
