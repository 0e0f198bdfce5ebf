package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func sameChange(a, b change) bool {
	// An empty value and none are the same on the wire.
	if len(a.value) == 0 && len(b.value) == 0 {
		a.value, b.value = nil, nil
	}
	if len(a.replicas) == 0 && len(b.replicas) == 0 {
		a.replicas, b.replicas = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// testTable is a table that is changed in a test.
type testTable struct {
	t     *testing.T
	s     *tableState
	index uint64
}

func formed(t *testing.T, partitions int, cores ...string) *testTable {
	t.Helper()
	tab := &testTable{t: t, s: &tableState{}}
	tab.do(change{kind: changeForm, id: "cluster", name: "test", number: uint64(partitions), epoch: 100})
	for _, id := range cores {
		tab.do(member(id, 1))
	}
	return tab
}

func member(id string, incarnation uint64) change {
	return joining(peerMember{Peer: Peer{Member: Member{ID: id, Name: "name of " + id, Role: RoleCore, Incarnation: incarnation, Alive: true}}, speaks: 1})
}

func (tab *testTable) try(changes ...change) error {
	tab.index++
	next, err := tab.s.apply(tab.index, changes)
	tab.s = next
	return err
}

func (tab *testTable) do(changes ...change) {
	tab.t.Helper()
	if err := tab.try(changes...); err != nil {
		tab.t.Fatal(err)
	}
}

func (tab *testTable) want(partition int, owner string, epoch uint64) {
	tab.t.Helper()
	if p := tab.s.partitions[partition]; p.owner != owner || p.epoch != epoch {
		tab.t.Errorf("partition %d is owned by %q at epoch %d, want %q at %d", partition, p.owner, p.epoch, owner, epoch)
	}
}

func give(partition uint64, owner string, epoch uint64, replicas ...string) change {
	return change{kind: changeAssign, number: partition, id: owner, epoch: epoch, replicas: replicas}
}

func TestEpochsRiseWithEachOwnerAndEachStartOfIt(t *testing.T) {
	tab := formed(t, 2, "a", "b", "c")
	tab.want(0, "", 100)
	tab.do(give(0, "a", 100, "a", "b"))
	tab.want(0, "a", 101)
	tab.do(give(0, "a", 101, "b", "a", "c")) // only replicas
	tab.want(0, "a", 101)
	tab.do(give(0, "b", 101, "a", "b", "c"))
	tab.want(0, "b", 102)
	tab.do(member("b", 2))
	tab.want(0, "b", 103)
	tab.do(member("b", 2)) // says it again
	tab.want(0, "b", 103)
	tab.do(change{kind: changeAlive, id: "b"})
	tab.want(0, "", 103)
	tab.do(change{kind: changeAlive, id: "b", on: true}, give(0, "b", 103, "a", "b", "c"))
	tab.want(0, "b", 104)
	tab.do(change{kind: changeRemove, id: "b"})
	tab.want(0, "", 104)
	if got := tab.s.partitions[0].replicas; !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("replicas = %v after one was removed", got)
	}
	tab.want(1, "", 100)
}

func TestACommandIsAppliedWholeOrNotAtAll(t *testing.T) {
	tab := formed(t, 2, "a", "b")
	tab.do(give(0, "a", 100, "a", "b"))
	before := tab.s.encode()
	err := tab.try(change{kind: changeAlive, id: "a"}, give(0, "b", 100, "a", "b"))
	if !errors.Is(err, errEpochChanged) || !bytes.Equal(tab.s.encode(), before) {
		t.Errorf("err = %v, changed: %v", err, !bytes.Equal(tab.s.encode(), before))
	}
	tab.do(change{kind: changeAlive, id: "a"}, give(0, "b", 101, "a", "b"))
	tab.want(0, "b", 102)
}

func TestChangesThatMakeNoSenseAreRefused(t *testing.T) {
	tab := formed(t, 2, "a", "b")
	tab.do(joining(peerMember{Peer: Peer{Member: Member{ID: "e", Name: "e", Role: RoleEdge, Alive: true}}}))
	tab.do(change{kind: changeAlive, id: "b"})
	for _, tt := range []struct {
		c    change
		want error
	}{
		{change{kind: changeForm, id: "other", number: 1}, errFormed},
		{change{kind: 99}, errUnknownCommand},
		{change{}, errUnknownCommand},
		{change{kind: changeAlive, id: "x"}, ErrUnknownMember},
		{change{kind: changeDrain, id: "x", on: true}, ErrUnknownMember},
		{change{kind: changeRemove, id: "x"}, ErrUnknownMember},
		{give(2, "a", 100, "a"), errNoPartition},
		{give(1<<63, "a", 100, "a"), errNoPartition},
		{give(0, "a", 99, "a"), errEpochChanged},
		{give(0, "a", 100, "b"), errCannotOwn},
		{give(0, "b", 100, "b"), errCannotOwn}, // dead
		{give(0, "e", 100, "e"), errCannotOwn}, // an edge node
		{give(0, "a", 100, "a", "a"), errCannotOwn},
		{change{kind: changeMove, number: 9, id: "a"}, errNoPartition},
		{change{kind: changeMove, id: "x"}, ErrUnknownMember},
		{change{kind: changeMove, id: "a"}, errCannotOwn}, // no replica
		{member("a", 0), ErrOldIncarnation},
		{change{kind: changeSetting, name: "s", number: 1}, ErrSettingChanged},
	} {
		before := tab.s.encode()
		if err := tab.try(tt.c); !errors.Is(err, tt.want) || !bytes.Equal(tab.s.encode(), before) {
			t.Errorf("%+v = %v, want %v", tt.c, err, tt.want)
		}
	}
	empty := &testTable{t: t, s: &tableState{}}
	for _, c := range []change{member("a", 1), {kind: changeSetting, name: "s"}} {
		if err := empty.try(c); !errors.Is(err, errNotFormed) {
			t.Errorf("%+v before the cluster was formed = %v, want %v", c, err, errNotFormed)
		}
	}
	for _, c := range []change{{kind: changeForm, number: 1}, {kind: changeForm, id: "c"}, {kind: changeForm, id: "c", number: maxPartitions + 1}} {
		if err := empty.try(c); err == nil {
			t.Errorf("formed with %+v", c)
		}
	}
	for _, c := range []change{joining(peerMember{Peer: Peer{Member: Member{ID: "x", Name: "x"}}}), joining(peerMember{})} {
		if err := tab.try(c); err == nil {
			t.Errorf("joined with %+v", c)
		}
	}
}

func TestANameBelongsToOneLivingMember(t *testing.T) {
	tab := formed(t, 1, "a", "b")
	again := member("new", 1)
	again.name = "name of a"
	if err := tab.try(again); !errors.Is(err, ErrNameTaken) {
		t.Errorf("joining under a living member's name = %v, want %v", err, ErrNameTaken)
	}
	tab.do(change{kind: changeAlive, id: "a"})
	tab.do(again)
	if !tab.s.members["a"].replaced || !tab.s.members["new"].Alive {
		t.Errorf("members = %+v", tab.s.members)
	}
	for _, c := range []change{member("a", 2), {kind: changeAlive, id: "a", on: true}} {
		if err := tab.try(c); !errors.Is(err, ErrReplaced) {
			t.Errorf("the replaced one comes back with %+v: %v, want %v", c, err, ErrReplaced)
		}
	}
	// The next of that name replaces the second.
	tab.do(change{kind: changeAlive, id: "new"})
	third := again
	third.id = "third"
	tab.do(third)
	if !tab.s.members["new"].replaced {
		t.Error("the second was not replaced by the third")
	}
}

func TestAWishIsKeptWhileTheNodeLives(t *testing.T) {
	tab := formed(t, 1, "a", "b")
	tab.do(give(0, "a", 100, "a", "b"), change{kind: changeMove, id: "b"})
	tab.do(change{kind: changeAlive, id: "a"})
	if got := tab.s.partitions[0].wanted; got != "b" {
		t.Errorf("wanted = %q, want b", got)
	}
	tab.do(change{kind: changeAlive, id: "b"})
	if got := tab.s.partitions[0].wanted; got != "" {
		t.Errorf("wanted = %q after its death", got)
	}
}

func TestAStartEndsADrain(t *testing.T) {
	tab := formed(t, 1, "a")
	tab.do(change{kind: changeDrain, id: "a", on: true})
	tab.do(member("a", 1))
	if !tab.s.members["a"].Draining {
		t.Error("saying it again ended the drain")
	}
	tab.do(member("a", 2))
	if tab.s.members["a"].Draining {
		t.Error("it drains after a start")
	}
}

// Random commands: whatever they are, epochs never fall, one epoch has one owner, an
// owner is alive, and the table survives a snapshot.
func TestAnyCommandsKeepTheTableWhole(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 7))
		tab := formed(t, 3, "a", "b", "c")
		owners := make(map[[2]uint64]string)
		for range 200 {
			var changes []change
			for range 1 + random.IntN(3) {
				changes = append(changes, randomChange(random, tab.s))
			}
			decoded, err := decodeCommand(encodeCommand(changes))
			if err != nil || !slices.EqualFunc(changes, decoded, sameChange) {
				t.Fatalf("seed %d: %+v comes back as %+v, %v", seed, changes, decoded, err)
			}
			before := tab.s
			beforeBytes := before.encode()
			err = tab.try(changes...)
			if !bytes.Equal(before.encode(), beforeBytes) {
				t.Fatalf("seed %d: %+v changed a table that was handed out", seed, changes)
			}
			if err != nil && tab.s != before {
				t.Fatalf("seed %d: %+v = %v and yet another table", seed, changes, err)
			}
			checkTable(t, seed, before, tab.s, owners)
		}
	}
}

func randomChange(random *rand.Rand, s *tableState) change {
	ids := []string{"a", "b", "c", "d", "e"}
	id := ids[random.IntN(len(ids))]
	p := random.IntN(4)
	c := change{kind: 2 + uint64(random.IntN(7)), id: id, on: random.IntN(2) == 0, number: uint64(p)}
	switch c.kind {
	case changeJoin:
		c = member(id, s.members[id].Incarnation+uint64(random.IntN(2)))
		c.name = "name of " + ids[random.IntN(len(ids))]
	case changeAssign:
		if p < len(s.partitions) {
			c.epoch = s.partitions[p].epoch
		}
		random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		c.replicas = ids[:random.IntN(4)]
	case changeSetting:
		c.name, c.value, c.number = id, []byte(fmt.Sprint(p)), s.settings[id].number
	}
	return c
}

func checkTable(t *testing.T, seed uint64, before, after *tableState, owners map[[2]uint64]string) {
	t.Helper()
	for i, p := range after.partitions {
		old := before.partitions[i]
		key := [2]uint64{uint64(i), p.epoch}
		had := owners[key]
		if p.epoch < old.epoch || p.owner != "" && had != "" && had != p.owner {
			t.Fatalf("seed %d: partition %d went from %+v to %+v; its epoch was %q's", seed, i, old, p, had)
		}
		if p.owner != "" {
			owners[key] = p.owner
			if m := after.members[p.owner]; !m.Alive || m.Role != RoleCore || !slices.Contains(p.replicas, p.owner) {
				t.Fatalf("seed %d: partition %+v is owned by %+v", seed, p, m)
			}
		}
	}
	again, err := decodeTable(after.encode())
	if err != nil || !bytes.Equal(again.encode(), after.encode()) || !reflect.DeepEqual(again.members, after.members) || again.changed != after.changed {
		t.Fatalf("seed %d: %+v comes back as %+v, %v", seed, after, again, err)
	}
}

func TestWhatANewerVersionWroteIsNotRead(t *testing.T) {
	if _, err := decodeCommand([]byte{commandVersion + 1}); !errors.Is(err, errUnknownCommand) {
		t.Errorf("a newer command = %v, want %v", err, errUnknownCommand)
	}
	if _, err := decodeTable([]byte{snapshotVersion + 1}); err == nil {
		t.Error("a newer snapshot was read")
	}
	for _, b := range [][]byte{nil, {commandVersion, 0xff}} {
		if _, err := decodeCommand(b); !errors.Is(err, errMalformed) {
			t.Errorf("decodeCommand(%v) = %v, want %v", b, err, errMalformed)
		}
	}
}

// The same entry must give every node the same: a table, or the same refusal.
func FuzzApplyCommand(f *testing.F) {
	tab := &tableState{}
	for i, changes := range [][]change{
		{{kind: changeForm, id: "c", number: 2, epoch: 5}}, {member("a", 1), member("b", 1)}, {give(0, "a", 5, "a", "b")},
		{{kind: changeMove, id: "b"}}, {{kind: changeSetting, name: "s", value: []byte("v")}}, {{kind: 77}},
	} {
		f.Add(encodeCommand(changes))
		if next, err := tab.apply(uint64(i+1), changes); err == nil {
			tab = next
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := decodeCommand(b)
		if err != nil {
			return
		}
		x, errX := tab.apply(9, changes)
		y, errY := tab.apply(9, changes)
		if fmt.Sprint(errX) != fmt.Sprint(errY) || !bytes.Equal(x.encode(), y.encode()) {
			t.Errorf("twice the same gives %v and %v", errX, errY)
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	tab := &tableState{}
	for i, changes := range [][]change{{{kind: changeForm, id: "c", number: 2, epoch: 5}}, {member("a", 1)}, {give(0, "a", 5, "a")}, {{kind: changeSetting, name: "s", value: []byte("v")}}} {
		next, err := tab.apply(uint64(i+1), changes)
		if err != nil {
			f.Fatal(err)
		}
		tab = next
	}
	f.Add(tab.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeTable(b)
		if err != nil {
			return
		}
		again, err := decodeTable(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Errorf("%+v comes back as %+v, %v", s, again, err)
		}
	})
}
