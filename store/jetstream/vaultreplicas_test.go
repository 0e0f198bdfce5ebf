//go:build !race

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"hadal/auth/vault"
	"hadal/auth/vault/vaulttest"
)

// vaults are the vault as each server of the group has it.
func (g *group) vaults(t *testing.T) []*Vault {
	t.Helper()
	all := make([]*Vault, len(g.conns))
	for i, nc := range g.conns {
		all[i] = openVault(t, nc, VaultOptions{Replicas: 3})
	}
	until(t, "all replicas are there", func() error {
		st, err := all[0].Stream(t.Context())
		if err == nil && !st.Whole() {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
	return all
}

// edge is a server of the group's cluster that keeps nothing, with a connection.
func (g *group) edge(t *testing.T) *nats.Conn {
	t.Helper()
	opts := &server.Options{
		ServerName: "edge", Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: 4 << 20, MaxPending: 512 << 20, NoSigs: true, NoLog: true,
		Cluster: server.ClusterOpts{
			Name: "test", Host: "127.0.0.1", Port: server.RANDOM_PORT, TLSConfig: g.net.node(t, "edge"), TLSTimeout: 10,
			PingInterval: time.Second, MaxPingsOut: 2, PoolSize: 1,
		},
	}
	for _, a := range g.addrs {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: a})
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("NewServer: %v", err)
	}
	srv.SetLoggerV2(quiet{t}, false, false, false)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the edge did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestReplicatedVaultKeepsTheContract(t *testing.T) {
	g := newGroup(t, 3)
	var handles []vault.Vault
	for _, v := range g.vaults(t) {
		handles = append(handles, v)
	}
	handles = append(handles, openVault(t, g.edge(t), VaultOptions{Replicas: 3}))
	vaulttest.Run(t, func(*testing.T) []vault.Vault { return handles }, nil)
}

func TestReplicatedVaultGoesOnWithoutOneServer(t *testing.T) {
	g := newGroup(t, 3)
	all := g.vaults(t)
	ctx := t.Context()
	rev := mustCreate(t, all[0], "count", "0", 0)
	heard := make([]chan string, len(all))
	for i, v := range all {
		var end func()
		heard[i], end = overhear(t, v, "w/")
		defer end()
		hear(t, heard[i], "synced")
	}
	st, err := all[0].Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dead := slices.IndexFunc(g.srvs, func(s *server.Server) bool { return s.Name() == st.Leader })
	others := slices.Delete([]int{0, 1, 2}, dead, dead+1)
	v, w := all[others[0]], all[others[1]]
	// The counter goes on while its leader dies: every update happens once.
	const times = 60
	for n := 1; n <= times; n++ {
		if n == times/3 {
			g.net.unplug(member(dead))
		}
		var err error
		for rev != 0 {
			cctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			var next uint64
			next, err = v.Update(cctx, "count", []byte(strconv.Itoa(n)), rev, 0)
			cancel()
			if err == nil {
				rev = next
				break
			}
			// What is not known is looked up, as any caller has to.
			e, getErr := w.Get(ctx, "count")
			if getErr != nil {
				t.Fatalf("update %d: %v, then Get: %v", n, err, getErr)
			}
			if string(e.Value) == strconv.Itoa(n) {
				rev = e.Revision
				break
			}
			if e.Revision != rev {
				t.Fatalf("update %d: %v, and the counter is %q at %d", n, err, e.Value, e.Revision)
			}
		}
	}
	for _, x := range []*Vault{v, w} {
		if e, err := x.Get(ctx, "count"); err != nil || string(e.Value) != strconv.Itoa(times) || e.Revision != rev {
			t.Errorf("Get = %q at %d, %v, want %d at %d", e.Value, e.Revision, err, times, rev)
		}
	}
	mustCreate(t, w, "w/a", "1", 0)
	for _, i := range others {
		hear(t, heard[i], "w/a=1")
	}
	// The one that was cut off says so, refuses in time, and catches up.
	hear(t, heard[dead], "lost")
	began := time.Now()
	if _, err := all[dead].Create(ctx, "w/b", nil, 0); err == nil || errors.Is(err, vault.ErrExists) {
		t.Errorf("Create without a majority = %v", err)
	}
	if _, err := all[dead].Get(ctx, "count"); err == nil || errors.Is(err, vault.ErrNotFound) {
		t.Errorf("Get without a majority = %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("two calls without a majority took %v, want five seconds each", took)
	}
	g.net.plug(member(dead))
	hear(t, heard[dead], "w/a=1", "synced")
	until(t, "the server is back", func() error {
		e, err := all[dead].Get(ctx, "count")
		if err == nil && e.Revision != rev {
			err = fmt.Errorf("the counter is at %d, want %d", e.Revision, rev)
		}
		return err
	})
}

func TestReplicatedVaultThatIsFullCanBeEmptied(t *testing.T) {
	g := newGroup(t, 3)
	fillAndEmpty(t, openVault(t, g.conns[0], VaultOptions{Replicas: 3, bytes: 20_000, reserve: 4_000}))
}

func TestReplicatedVaultOfOneBecomesOneOfThree(t *testing.T) {
	g := newGroup(t, 3)
	v := openVault(t, g.conns[0], VaultOptions{Replicas: 1})
	rev := mustCreate(t, v, "a", "1", time.Hour)
	w := openVault(t, g.conns[1], VaultOptions{Replicas: 3})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := v.SetReplicas(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if st, err := w.Stream(ctx); err != nil || !st.Whole() || st.Wanted != 3 {
		t.Errorf("Stream = %+v, %v, want three replicas", st, err)
	}
	if e, err := w.Get(ctx, "a"); err != nil || e.Revision != rev || e.Ends.IsZero() {
		t.Errorf("Get = %+v, %v", e, err)
	}
}
