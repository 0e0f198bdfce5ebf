package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Commands and snapshots of the table are a version byte and protobuf fields. Within a
// version fields may only be added that an older node may ignore; everything else
// raises the version, and is proposed only when every member understands it.
const (
	commandVersion  = 1
	snapshotVersion = 1
)

var errMalformed = errors.New("malformed")

// Fields of a command, of a change in it, of a snapshot, and of what is in that.
const (
	fieldChange = 1 // of a command

	fieldKind, fieldID, fieldName, fieldNumber, fieldEpoch, fieldOn                 = 1, 2, 3, 4, 5, 6
	fieldReplica, fieldValue, fieldRole, fieldIncarnation, fieldNATS, fieldRaftAddr = 7, 8, 9, 10, 11, 12
	fieldURL, fieldSpeaks, fieldDraining, fieldReplaced, fieldWanted, fieldSince    = 13, 14, 15, 16, 17, 18
	fieldReturns                                                                    = 19 // of a request to join only
	fieldMember, fieldPartition, fieldSetting                                       = 20, 21, 22
)

// fields appends fields, leaving out what is zero.
type fields []byte

func (f *fields) number(n protowire.Number, v uint64) {
	if v != 0 {
		*f = protowire.AppendVarint(protowire.AppendTag(*f, n, protowire.VarintType), v)
	}
}

func (f *fields) text(n protowire.Number, v string) {
	if v != "" {
		*f = protowire.AppendString(protowire.AppendTag(*f, n, protowire.BytesType), v)
	}
}

// bytes appends a field even when it is empty: in a list each counts.
func (f *fields) bytes(n protowire.Number, v []byte) {
	*f = protowire.AppendBytes(protowire.AppendTag(*f, n, protowire.BytesType), v)
}

func (f *fields) flag(n protowire.Number, v bool) { f.number(n, protowire.EncodeBool(v)) }

// eachField calls number or bytes for every field. The bytes alias b.
func eachField(b []byte, number func(protowire.Number, uint64), bytes func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errMalformed
			}
			number(num, v)
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			if err := bytes(num, v); err != nil {
				return err
			}
			b = b[n:]
		default:
			return errMalformed
		}
	}
	return nil
}

func noNumber(protowire.Number, uint64) {}

// encodeCommand is the log entry of some changes, applied together or not at all.
func encodeCommand(changes []change) []byte {
	b := fields{commandVersion}
	for i := range changes {
		b.bytes(fieldChange, changes[i].encode())
	}
	return b
}

// decodeCommand reads what encodeCommand wrote. What a newer version wrote is
// errUnknownCommand.
func decodeCommand(b []byte) ([]change, error) {
	if len(b) == 0 {
		return nil, errMalformed
	}
	if b[0] != commandVersion {
		return nil, fmt.Errorf("%w of version %d: this version understands %d", errUnknownCommand, b[0], commandVersion)
	}
	var changes []change
	err := eachField(b[1:], noNumber, func(n protowire.Number, v []byte) error {
		if n != fieldChange {
			return nil
		}
		c, err := decodeChange(v)
		changes = append(changes, c)
		return err
	})
	return changes, err
}

func (c *change) encode() []byte {
	var b fields
	b.number(fieldKind, c.kind)
	b.text(fieldID, c.id)
	b.text(fieldName, c.name)
	b.number(fieldNumber, c.number)
	b.number(fieldEpoch, c.epoch)
	b.flag(fieldOn, c.on)
	for _, id := range c.replicas {
		b.bytes(fieldReplica, []byte(id))
	}
	b.text(fieldValue, string(c.value))
	b.text(fieldRole, string(c.role))
	b.number(fieldIncarnation, c.incarnation)
	b.text(fieldNATS, c.nats)
	b.text(fieldRaftAddr, c.raft)
	b.text(fieldURL, c.url)
	b.number(fieldSpeaks, c.speaks)
	b.flag(fieldReturns, c.returns)
	return b
}

func decodeChange(b []byte) (change, error) {
	var c change
	err := eachField(b, func(n protowire.Number, v uint64) {
		switch n {
		case fieldKind:
			c.kind = v
		case fieldNumber:
			c.number = v
		case fieldEpoch:
			c.epoch = v
		case fieldOn:
			c.on = v != 0
		case fieldIncarnation:
			c.incarnation = v
		case fieldSpeaks:
			c.speaks = v
		case fieldReturns:
			c.returns = v != 0
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldID:
			c.id = string(v)
		case fieldName:
			c.name = string(v)
		case fieldReplica:
			c.replicas = append(c.replicas, string(v))
		case fieldValue:
			c.value = slices.Clone(v)
		case fieldRole:
			c.role = Role(v)
		case fieldNATS:
			c.nats = string(v)
		case fieldRaftAddr:
			c.raft = string(v)
		case fieldURL:
			c.url = string(v)
		}
		return nil
	})
	return c, err
}

// encode is the table as a snapshot.
func (s *tableState) encode() []byte {
	b := fields{snapshotVersion}
	b.text(fieldID, s.cluster)
	b.text(fieldName, s.name)
	b.number(fieldSince, s.changed)
	for _, m := range s.sortedMembers() {
		var f fields
		f.text(fieldID, m.ID)
		f.text(fieldName, m.Name)
		f.flag(fieldOn, m.Alive)
		f.text(fieldRole, string(m.Role))
		f.number(fieldIncarnation, m.Incarnation)
		f.text(fieldNATS, m.NATS)
		f.text(fieldRaftAddr, m.Raft)
		f.text(fieldURL, m.URL)
		f.number(fieldSpeaks, m.speaks)
		f.flag(fieldDraining, m.Draining)
		f.flag(fieldReplaced, m.replaced)
		b.bytes(fieldMember, f)
	}
	for _, p := range s.partitions {
		var f fields
		f.text(fieldID, p.owner)
		f.number(fieldEpoch, p.epoch)
		f.number(fieldSince, p.since)
		f.text(fieldWanted, p.wanted)
		for _, id := range p.replicas {
			f.bytes(fieldReplica, []byte(id))
		}
		b.bytes(fieldPartition, f)
	}
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		var f fields
		f.text(fieldName, name)
		f.number(fieldNumber, s.settings[name].number)
		f.text(fieldValue, string(s.settings[name].value))
		b.bytes(fieldSetting, f)
	}
	return b
}

// decodeTable reads a snapshot.
func decodeTable(b []byte) (*tableState, error) {
	s := (&tableState{}).clone()
	if len(b) == 0 {
		return nil, errMalformed
	}
	if b[0] != snapshotVersion {
		return nil, fmt.Errorf("it has version %d, and this version reads %d: use the version that wrote it", b[0], snapshotVersion)
	}
	err := eachField(b[1:], func(n protowire.Number, v uint64) {
		if n == fieldSince {
			s.changed = v
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldID:
			s.cluster = string(v)
		case fieldName:
			s.name = string(v)
		case fieldMember:
			return s.decodeMember(v)
		case fieldPartition:
			return s.decodePartition(v)
		case fieldSetting:
			return s.decodeSetting(v)
		}
		return nil
	})
	if err == nil && len(s.partitions) > maxPartitions {
		err = errMalformed
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *tableState) decodeMember(b []byte) error {
	var m peerMember
	err := eachField(b, func(n protowire.Number, v uint64) {
		switch n {
		case fieldOn:
			m.Alive = v != 0
		case fieldIncarnation:
			m.Incarnation = v
		case fieldSpeaks:
			m.speaks = v
		case fieldDraining:
			m.Draining = v != 0
		case fieldReplaced:
			m.replaced = v != 0
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldID:
			m.ID = string(v)
		case fieldName:
			m.Name = string(v)
		case fieldRole:
			m.Role = Role(v)
		case fieldNATS:
			m.NATS = string(v)
		case fieldRaftAddr:
			m.Raft = string(v)
		case fieldURL:
			m.URL = string(v)
		}
		return nil
	})
	if err == nil && m.ID == "" {
		err = errMalformed
	}
	s.members[m.ID] = m
	return err
}

func (s *tableState) decodePartition(b []byte) error {
	var p partitionState
	err := eachField(b, func(n protowire.Number, v uint64) {
		switch n {
		case fieldEpoch:
			p.epoch = v
		case fieldSince:
			p.since = v
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldID:
			p.owner = string(v)
		case fieldWanted:
			p.wanted = string(v)
		case fieldReplica:
			p.replicas = append(p.replicas, string(v))
		}
		return nil
	})
	s.partitions = append(s.partitions, p)
	return err
}

func (s *tableState) decodeSetting(b []byte) error {
	var name string
	var set settingState
	err := eachField(b, func(n protowire.Number, v uint64) {
		if n == fieldNumber {
			set.number = v
		}
	}, func(n protowire.Number, v []byte) error {
		switch n {
		case fieldName:
			name = string(v)
		case fieldValue:
			set.value = slices.Clone(v)
		}
		return nil
	})
	s.settings[name] = set
	return err
}
