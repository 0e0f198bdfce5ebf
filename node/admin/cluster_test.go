package admin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// fakeCluster notes what it is asked to do, and fails as it is told.
type fakeCluster struct {
	asked []string
	err   error
}

func (f *fakeCluster) Status(context.Context) (ClusterStatus, error) {
	return ClusterStatus{ID: "c", Name: "prod", Nodes: []NodeStatus{{ID: "x", Name: "a", Alive: true}}, Partitions: []PartitionStatus{{Owner: "x", Epoch: 3}}}, f.err
}

func (f *fakeCluster) Drain(_ context.Context, node string, on bool) error {
	f.asked = append(f.asked, fmt.Sprintf("drain %s %v", node, on))
	return f.err
}

func (f *fakeCluster) Remove(_ context.Context, node string) error {
	f.asked = append(f.asked, "remove "+node)
	return f.err
}

func (f *fakeCluster) Move(_ context.Context, partition int, node string) error {
	f.asked = append(f.asked, fmt.Sprintf("move %d %s", partition, node))
	return f.err
}

func TestTheClusterIsSeenAndChangedOverTheAPI(t *testing.T) {
	h := serve(t, Config{})
	c, ctx := h.client(t), t.Context()
	want, _ := h.cluster.Status(ctx)
	if got, err := c.Cluster(ctx); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, err := range []error{c.Drain(ctx, "a b", true), c.Drain(ctx, "a", false), c.RemoveNode(ctx, "a"), c.MovePartition(ctx, 3, "a")} {
		if err != nil {
			t.Error(err)
		}
	}
	if got, want := strings.Join(h.cluster.asked, ";"), "drain a b true;drain a false;remove a;move 3 a"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	for err, status := range map[error]string{ErrNoSuchNode: "404", ErrNotPossible: "409", ErrNoQuorum: "503", errors.New("x"): "500"} {
		h.cluster.err = fmt.Errorf("node q: %w", err)
		if got := c.RemoveNode(ctx, "q"); got == nil || !strings.Contains(got.Error(), "node q") {
			t.Errorf("of %v (%s) the client hears %v", err, status, got)
		}
	}
	for _, path := range []string{"/cluster/drain?node=a&on=perhaps", "/cluster/move?partition=x&node=a"} {
		if _, err := c.do(ctx, "POST", path, nil, nil); err == nil {
			t.Errorf("%s is taken", path)
		}
	}
}
