package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// This file is the table that raft replicates, as a pure state machine: a state and
// a change give the next state, or an error and the same state. It knows neither time
// nor network nor disk, and every node comes to the same result. A state that was
// handed out never changes: a change works on a copy.
//
// Epochs only rise: a partition's rises by one with every new owner and whenever its
// owner starts anew, from the base that the formation names, and none is used twice.

// Errors of changes. Every node reports the same for the same change.
var (
	// ErrUnknownMember means that no member has the id.
	ErrUnknownMember = errors.New("the cluster has no such member")
	// ErrNameTaken means that another living member has the name.
	ErrNameTaken = errors.New("another node of that name is in the cluster: give this one another name (--node-name), or stop that one")
	// ErrReplaced means that the member's place was taken by a node that came with the
	// same name and an id of its own.
	ErrReplaced = errors.New("the node was replaced by another of its name")
	// ErrOldIncarnation means that the member has been started again since.
	ErrOldIncarnation = errors.New("another process has been started with this node's id since: the data directory was copied, or put back from a backup; stop that process, or start this node with an empty data directory")
	// ErrSettingChanged means that a setting is not at the number that was expected.
	ErrSettingChanged = errors.New("the setting was changed meanwhile")

	errFormed         = errors.New("the cluster is formed already")
	errNotFormed      = errors.New("the cluster is not formed")
	errNoPartition    = errors.New("there is no such partition")
	errEpochChanged   = errors.New("the partition changed hands meanwhile")
	errCannotOwn      = errors.New("the node cannot own the partition")
	errUnknownCommand = errors.New("unknown command")
)

// DefaultPartitions is how many partitions there are when a cluster is formed, unless configured.
const DefaultPartitions = 6

// Peer is a member with the addresses at which other nodes reach it.
type Peer struct {
	Member
	NATS, Raft string
}

// peerMember is a member as the table keeps it.
type peerMember struct {
	Peer
	speaks   uint64 // the highest commandVersion that it understands
	replaced bool   // its name was taken over: to be removed
}

// partitionState is what the table says about one partition.
type partitionState struct {
	owner    string // empty: nobody
	epoch    uint64
	since    uint64   // the log index at which owner or epoch changed last
	replicas []string // ids, in the order of their choice
	wanted   string   // the owner an operator asked for, while it lives
}

// settingState is one named value that all nodes share.
type settingState struct {
	number uint64 // rises by one with each change, from 1
	value  []byte
}

// tableState is the whole table. It is never changed once it was handed out.
type tableState struct {
	cluster, name string
	changed       uint64 // the log index of the last change that succeeded
	members       map[string]peerMember
	partitions    []partitionState
	settings      map[string]settingState
}

// Kinds of change. Their numbers are in logs on disk: never change one, only add,
// and raise commandVersion with it.
const (
	changeForm    = 1 // id: cluster's; name; number: partitions; epoch: their base
	changeJoin    = 2 // a member, new or started again; on: it is alive
	changeAlive   = 3 // id, on. One that dies owns nothing any more
	changeDrain   = 4 // id, on
	changeRemove  = 5 // id
	changeAssign  = 6 // number: partition; id: owner or nobody; replicas; epoch: the one expected
	changeMove    = 7 // number: partition; id: the owner wanted, or empty
	changeSetting = 8 // name, value; number: the one expected, or on: whatever it is
)

// change is one step of a command. Which fields count depends on the kind.
type change struct {
	kind        uint64
	id, name    string
	number      uint64
	epoch       uint64
	on          bool
	replicas    []string
	value       []byte
	role        Role
	incarnation uint64
	nats, raft  string
	url         string
	speaks      uint64
	returns     bool // of a request to join: the node has been a member; never in the log
}

// joining is the change by which a member joins.
func joining(m peerMember) change {
	return change{kind: changeJoin, id: m.ID, name: m.Name, role: m.Role, incarnation: m.Incarnation,
		nats: m.NATS, raft: m.Raft, url: m.URL, speaks: m.speaks, on: m.Alive}
}

// clone is a copy whose maps and partitions may be changed. Values of settings and
// lists of replicas are shared, and replaced as a whole.
func (s *tableState) clone() *tableState {
	c := *s
	c.members = maps.Clone(s.members)
	c.settings = maps.Clone(s.settings)
	c.partitions = slices.Clone(s.partitions)
	if c.members == nil {
		c.members = make(map[string]peerMember)
	}
	if c.settings == nil {
		c.settings = make(map[string]settingState)
	}
	return &c
}

// apply is the state after all changes of a command, which is at the index of the
// log; or an error and no change at all.
func (s *tableState) apply(index uint64, changes []change) (*tableState, error) {
	next := s.clone()
	for i := range changes {
		if err := next.change(index, &changes[i]); err != nil {
			return s, err
		}
	}
	next.changed = index
	return next, nil
}

func (s *tableState) change(index uint64, c *change) error {
	if c.kind == changeForm {
		return s.form(c)
	}
	if s.cluster == "" {
		return errNotFormed
	}
	switch c.kind {
	case changeJoin:
		return s.join(index, c)
	case changeAlive:
		return s.alive(index, c)
	case changeDrain:
		return s.edit(c.id, func(m *peerMember) error { m.Draining = c.on; return nil })
	case changeRemove:
		return s.remove(index, c.id)
	case changeAssign:
		return s.assign(index, c)
	case changeMove:
		return s.move(c)
	case changeSetting:
		return s.set(c)
	}
	return fmt.Errorf("%w %d: a newer version wrote it", errUnknownCommand, c.kind)
}

func (s *tableState) form(c *change) error {
	if s.cluster != "" {
		return errFormed
	}
	if c.id == "" || c.number < 1 || c.number > maxPartitions {
		return fmt.Errorf("a cluster needs an id and from 1 to %d partitions, not %d", maxPartitions, c.number)
	}
	s.cluster, s.name = c.id, c.name
	s.partitions = make([]partitionState, c.number)
	for i := range s.partitions {
		s.partitions[i].epoch = c.epoch
	}
	return nil
}

func (s *tableState) join(index uint64, c *change) error {
	if c.id == "" || c.name == "" || c.role != RoleCore && c.role != RoleEdge {
		return fmt.Errorf("a member needs an id, a name and the role %s or %s", RoleCore, RoleEdge)
	}
	old, known := s.members[c.id]
	switch {
	case known && old.replaced:
		return ErrReplaced
	case known && c.incarnation < old.Incarnation:
		return ErrOldIncarnation
	}
	for id, m := range s.members {
		if id == c.id || m.Name != c.name || m.replaced {
			continue
		}
		if m.Alive {
			return ErrNameTaken
		}
		m.replaced = true
		s.members[id] = m
	}
	m := peerMember{speaks: c.speaks, Peer: Peer{NATS: c.nats, Raft: c.raft,
		Member: Member{ID: c.id, Name: c.name, Incarnation: c.incarnation, Role: c.role, Alive: c.on, URL: c.url}}}
	if known && c.incarnation == old.Incarnation {
		m.Draining = old.Draining
		m.Alive = m.Alive || old.Alive
	}
	s.members[c.id] = m
	switch {
	case m.Role == RoleEdge || !m.Alive:
		s.disown(index, c.id)
	case known && c.incarnation > old.Incarnation:
		for i := range s.partitions {
			if p := &s.partitions[i]; p.owner == c.id {
				p.epoch, p.since = p.epoch+1, index
			}
		}
	}
	return nil
}

// edit changes one member.
func (s *tableState) edit(id string, f func(*peerMember) error) error {
	m, ok := s.members[id]
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownMember, id)
	}
	if err := f(&m); err != nil {
		return err
	}
	s.members[id] = m
	return nil
}

// alive says that a member is there, or that it is not: then it owns nothing and
// nobody waits for it to own anything.
func (s *tableState) alive(index uint64, c *change) error {
	err := s.edit(c.id, func(m *peerMember) error {
		if c.on && m.replaced {
			return ErrReplaced
		}
		m.Alive = c.on
		return nil
	})
	if err == nil && !c.on {
		s.disown(index, c.id)
	}
	return err
}

func (s *tableState) disown(index uint64, id string) {
	for i := range s.partitions {
		p := &s.partitions[i]
		if p.owner == id {
			p.owner, p.since = "", index
		}
		if p.wanted == id {
			p.wanted = ""
		}
	}
}

func (s *tableState) remove(index uint64, id string) error {
	if _, ok := s.members[id]; !ok {
		return fmt.Errorf("%w: %q", ErrUnknownMember, id)
	}
	delete(s.members, id)
	s.disown(index, id)
	for i := range s.partitions {
		p := &s.partitions[i]
		if slices.Contains(p.replicas, id) {
			p.replicas = slices.DeleteFunc(slices.Clone(p.replicas), func(r string) bool { return r == id })
		}
	}
	return nil
}

func (s *tableState) assign(index uint64, c *change) error {
	if c.number >= uint64(len(s.partitions)) {
		return fmt.Errorf("%w: %d", errNoPartition, c.number)
	}
	p := &s.partitions[c.number]
	if p.epoch != c.epoch {
		return fmt.Errorf("%w: %d is at epoch %d", errEpochChanged, c.number, p.epoch)
	}
	for i, id := range c.replicas {
		if m, ok := s.members[id]; !ok || m.Role != RoleCore || slices.Contains(c.replicas[:i], id) {
			return fmt.Errorf("%w %d: %q is no core member, or twice among its replicas", errCannotOwn, c.number, id)
		}
	}
	if c.id != "" && (!s.members[c.id].Alive || !slices.Contains(c.replicas, c.id)) {
		return fmt.Errorf("%w %d: %q is not alive, or none of its replicas", errCannotOwn, c.number, c.id)
	}
	p.replicas = slices.Clone(c.replicas)
	if p.owner == c.id {
		return nil
	}
	p.owner, p.since = c.id, index
	if c.id != "" {
		p.epoch++
	}
	return nil
}

func (s *tableState) move(c *change) error {
	if c.number >= uint64(len(s.partitions)) {
		return fmt.Errorf("%w: %d", errNoPartition, c.number)
	}
	p := &s.partitions[c.number]
	m := s.members[c.id]
	switch {
	case c.id == "":
	case m.ID == "":
		return fmt.Errorf("%w: %q", ErrUnknownMember, c.id)
	case !m.Alive || m.Draining || !slices.Contains(p.replicas, c.id):
		return fmt.Errorf("%w %d: %q must be alive, not draining, and one of its replicas", errCannotOwn, c.number, m.Name)
	}
	p.wanted = c.id
	return nil
}

func (s *tableState) set(c *change) error {
	old := s.settings[c.name]
	if !c.on && old.number != c.number {
		return fmt.Errorf("%w: %q is at number %d", ErrSettingChanged, c.name, old.number)
	}
	s.settings[c.name] = settingState{number: old.number + 1, value: slices.Clone(c.value)}
	return nil
}

// sortedMembers are the members by id.
func (s *tableState) sortedMembers() []peerMember {
	return slices.SortedFunc(maps.Values(s.members), func(a, b peerMember) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}
