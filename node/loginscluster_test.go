//go:build !race

package node

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"hadal/auth/vault"
	"hadal/cluster"
	"hadal/cluster/freeport"
)

// A node alone with users founds a cluster of three, which an edge joins; then one of the
// three goes. Without the race detector, under which elections take too long: see make
// test-replicas.
func TestReplicatedLoginsComeAlongAndOutliveANode(t *testing.T) {
	data := t.TempDir()
	alone := run(t, func(c *Config) { c.DataDir = data })
	for key, ttl := range map[string]time.Duration{"user/ann": 0, "bearer/ann": time.Hour, "user/bob": 0} {
		if _, err := alone.vault.Create(t.Context(), key, []byte(key), ttl); err != nil {
			t.Fatal(err)
		}
	}
	if err := alone.vault.Delete(t.Context(), "user/bob", 0); err != nil {
		t.Fatal(err)
	}
	if err := alone.stop(); err != nil {
		t.Fatal(err)
	}

	addrs, release, err := freeport.Claim(4)
	if err != nil {
		t.Fatal(err)
	}
	release()
	member := func(i int, role cluster.Role) *running {
		return begin(t, func(c *Config) {
			if i == 0 {
				c.DataDir = data
			}
			c.ServerName = fmt.Sprint("n", i)
			c.Cluster.Name, c.Cluster.Secret, c.Cluster.Partitions = "logins", "a secret of sixteen bytes", 2
			c.Cluster.Listen, c.Cluster.Join, c.Cluster.BootstrapExpect, c.Cluster.Role = addrs[i], addrs[:3], 3, role
		})
	}
	nodes := []*running{member(0, cluster.RoleCore), member(1, cluster.RoleCore), member(2, cluster.RoleCore)}
	for _, n := range nodes {
		n.await(t)
	}
	edge := member(3, cluster.RoleEdge)
	edge.await(t)
	want := map[string]string{"user/ann": "user/ann", "bearer/ann": "bearer/ann"}
	for i, n := range append(nodes, edge) {
		if got := loginsOf(t, n.Node); !maps.Equal(got, want) {
			t.Errorf("node %d has %v, want %v", i, got, want)
		}
	}
	within(t, "three nodes keep it", func(ctx context.Context) error {
		st, err := nodes[0].stored().loginStore().kept.Stream(ctx)
		if err == nil && (st.Wanted != 3 || !st.Whole()) {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
	for i, n := range []*running{nodes[1], edge} {
		s, err := members{n.Node}.Status(t.Context())
		if err != nil || s.Logins == nil || s.Logins.Name != "HADAL_VAULT" || s.Logins.Replicas != 3 || s.Logins.Messages == 0 || s.Logins.Leader == "" {
			t.Errorf("look %d at the cluster's status: logins %+v, %v", i, s.Logins, err)
		}
	}
	if _, err := edge.vault.Create(t.Context(), "user/eve", []byte("1"), 0); err != nil {
		t.Errorf("Create on the edge: %v", err)
	}
	heard := make(chan string, 100)
	watch, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = edge.vault.Watch(watch, "revoked/", vault.Watcher{ // it ends with its context
			Told: func(c vault.Change) { heard <- c.Key }, Synced: func() { heard <- "synced" }, Lost: func(error) {},
		})
	}()
	defer func() {
		end()
		<-ended
	}()
	hears := func(want string) {
		t.Helper()
		for got := ""; got != want; {
			select {
			case got = <-heard:
			case <-time.After(time.Minute):
				t.Fatalf("the edge has not heard %q within a minute", want)
			}
		}
	}
	hears("synced")
	if err := nodes[2].stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	within(t, "users are written on two nodes of three", func(ctx context.Context) error {
		return vault.Restore(ctx, nodes[0].vault, vault.Entry{Key: "revoked/all", Value: []byte("1")})
	})
	hears("revoked/all")
	within(t, "the other node knows it", func(ctx context.Context) error {
		_, err := nodes[1].vault.Get(ctx, "revoked/all")
		return err
	})
}

// within asks again and again, for a minute, until there is no error.
func within(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s: %v", what, err)
		}
	}
}
