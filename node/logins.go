package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"hadal/auth/vault"
	"hadal/cluster"
	"hadal/node/admin"
	"hadal/store/jetstream"
)

// This file opens the vault, in which logins keep users, roles, registrations and what
// there is to know of tokens, and looks after it. It stands beside the records: on the same
// embedded server, on as many nodes, and in memory where they are.

const (
	// loginsPause is how long after a failure the vault is opened again, in a cluster.
	loginsPause = time.Second
	// loginsLook is how old the last look at the vault may be for /readyz, loginsTime how
	// long a look may take.
	loginsLook = 2 * time.Second
	loginsTime = time.Second
)

// loginStore is the vault and what it stands on.
type loginStore struct {
	*vault.Counted
	memory *vault.Memory    // nil when it is kept
	kept   *jetstream.Vault // nil when it is in memory
	conn   *nats.Conn       // of kept
	need   replicaNeed      // of keepReplicas

	mu     sync.Mutex
	looked time.Time              // guarded by mu
	stream jetstream.StreamStatus // guarded by mu; as it was then
	err    error                  // guarded by mu; why it could not be asked then
}

// openLogins opens the vault. In a cluster it waits until there is one.
func (s *recordStores) openLogins(ctx context.Context) error {
	n := s.node
	server := n.place.Server() // also on a node that keeps nothing itself
	if server == nil {
		m := vault.NewMemory()
		s.setLogins(&loginStore{Counted: vault.Count(m), memory: m})
		return nil
	}
	conn, err := server.Dial("hadal logins")
	if err != nil {
		return err
	}
	room := server.Room
	if n.cfg.Cluster.Enabled() && n.cfg.Cluster.Role == cluster.RoleEdge {
		room = nil // it is not this node's disk
	}
	for {
		kept, err := jetstream.OpenVault(ctx, conn, jetstream.VaultOptions{Replicas: n.place.Replicas(0), Room: room, Log: n.log})
		if err == nil {
			s.setLogins(&loginStore{Counted: vault.Count(kept), kept: kept, conn: conn})
			return nil
		}
		if ctx.Err() != nil || !n.cfg.Cluster.Enabled() {
			conn.Close()
			return fmt.Errorf("open the store of logins: %w", causeOf(ctx, err))
		}
		n.log.Warn("the store of logins cannot be opened yet, and it is tried again", "err", err)
		select {
		case <-time.After(loginsPause):
		case <-ctx.Done():
		}
	}
}

// setLogins has keepReplicas and shutDown know of it.
func (s *recordStores) setLogins(l *loginStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins = l
}

// loginStore is the vault, or nil before it is open.
func (s *recordStores) loginStore() *loginStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// close ends all calls.
func (l *loginStore) close() {
	if l.kept != nil {
		l.kept.Close()
		l.conn.Close()
	}
}

// look asks how the stream is, unless that was done a moment ago.
func (l *loginStore) look(ctx context.Context) (jetstream.StreamStatus, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.looked) >= loginsLook {
		ctx, done := context.WithTimeout(ctx, loginsTime)
		defer done()
		st, err := l.kept.Stream(ctx)
		if err == nil && st.Leader == "" && st.Wanted > 1 {
			err = errors.New("the store of logins has no leader")
		}
		if l.looked, l.err = now, err; err == nil {
			l.stream = st
		}
	}
	return l.stream, l.err
}

// ready says what does not work, in words for anybody, or nil.
func (l *loginStore) ready(ctx context.Context) error {
	if l.kept == nil {
		return nil
	}
	if _, err := l.look(ctx); err != nil {
		return errors.New("users and tokens cannot be looked up: too few nodes see each other, or the disk fails (see the log)")
	}
	err := l.kept.Room()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrDiskFull):
		return errors.New("the disk is full: users and tokens cannot be changed until there is room (see the log)")
	}
	return errors.New("the disk takes no writes: users and tokens cannot be changed until it does (see the log)")
}

// size is how many entries there are and what they occupy, removals that are remembered
// included.
func (l *loginStore) size(ctx context.Context) (entries, bytes float64) {
	if l.memory != nil {
		n, size := l.memory.Size()
		return float64(n), float64(size)
	}
	st, _ := l.look(ctx) // else as it was
	return float64(st.Messages), float64(st.Bytes)
}

// keepLogins has the vault kept by as many nodes as the table says, if this node is to see
// to it: the owner of the first partition.
func (s *recordStores) keepLogins(ctx context.Context) {
	l := s.loginStore()
	if l == nil || l.kept == nil || s.first != nil {
		return
	}
	const seesTo = 0
	owner := false
	for _, st := range s.all() {
		owner = owner || st.partition == seesTo
	}
	if !owner {
		l.need = replicaNeed{} // who is it meanwhile may change it
		return
	}
	wanted := s.node.place.Replicas(seesTo)
	if !l.need.due(wanted, time.Now()) {
		return
	}
	if err := s.replicateLogins(ctx, l, wanted); err != nil && ctx.Err() == nil {
		l.need.after = time.Now().Add(replicasPause)
		s.node.log.Warn("the store of logins is not kept by as many nodes as it should yet, and it is tried again", "replicas", wanted, "err", err)
	}
}

// replicateLogins returns when so many nodes have everything.
func (s *recordStores) replicateLogins(ctx context.Context, l *loginStore, wanted int) error {
	ctx, done := context.WithTimeout(ctx, replicasTime)
	defer done()
	st, err := l.kept.Stream(ctx)
	if err != nil {
		return err
	}
	if st.Wanted != wanted {
		s.node.log.Info("the store of logins gets another number of replicas", "were", st.Wanted, "replicas", wanted)
		if err := l.kept.SetReplicas(ctx, wanted); err != nil {
			return err
		}
	}
	l.need.has = wanted
	return nil
}

// copyLogins brings the vault of the time alone, on its own server, into the cluster's, and
// returns how many entries there were.
func (n *Node) copyLogins(ctx context.Context, server *cluster.Server, to vault.Vault) (count int, err error) {
	from, err := jetstream.OpenVault(ctx, server.Conn(), jetstream.VaultOptions{Log: n.log})
	if err != nil {
		return 0, err
	}
	defer from.Close()
	err = from.List(ctx, "", func(e vault.Entry) error {
		for {
			err := vault.Restore(ctx, to, e)
			if err == nil {
				count++
				return nil
			}
			if errors.Is(err, vault.ErrInvalid) || ctx.Err() != nil {
				return err
			}
			n.log.Warn("an entry of the store of logins that could not be copied is tried again", "err", err)
			select {
			case <-time.After(loginsPause):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	return count, err
}

// errNoLogins is what an operator gets before the vault is open.
var errNoLogins = errors.New("the store of logins is not open yet, or any more: see /readyz")

// ScanLogins calls fn for all that logins keep.
func (o operator) ScanLogins(ctx context.Context, fn func(admin.Login) error) error {
	return translateLogin(o.node.vault.List(ctx, "", func(e vault.Entry) error {
		return fn(admin.Login{Key: e.Key, Value: e.Value, Ends: e.Ends})
	}))
}

// RestoreLogin writes an entry over what is there.
func (o operator) RestoreLogin(ctx context.Context, l admin.Login) error {
	return translateLogin(vault.Restore(ctx, o.node.vault, vault.Entry{Key: l.Key, Value: l.Value, Ends: l.Ends}))
}

// translateLogin says an error of the vault in the admin API's words.
func translateLogin(err error) error {
	switch {
	case errors.Is(err, vault.ErrNotReady):
		return errNoLogins
	case errors.Is(err, vault.ErrInvalid):
		return invalid{err}
	}
	return err
}

// loginsQuarterFull says that answers of the HTTP API shall not be kept any further: a few
// callers with long ones could else keep everybody from registering, and from new tokens.
func (n *Node) loginsQuarterFull(ctx context.Context) bool {
	return n.loginsHold(ctx) > jetstream.VaultBytes/4
}

// loginsHalfFull says that the store of logins shall not be filled with registrations any
// further. Anybody can register clients, and a removal is remembered for good: what is left
// is for users, tokens and revocations.
func (n *Node) loginsHalfFull(ctx context.Context) bool {
	return n.loginsHold(ctx) > jetstream.VaultBytes/2
}

// loginsCrowded says that the store of logins shall be filled neither with tokens nor with users
// that logins make: what is left is for revocations and removals, which must not fail for
// want of room, and for what the operator does.
func (n *Node) loginsCrowded(ctx context.Context) bool {
	return n.loginsHold(ctx) > jetstream.VaultBytes/4*3
}

// loginsHold is how many bytes the store of logins has; 0 before it is open.
func (n *Node) loginsHold(ctx context.Context) (bytes float64) {
	st := n.stored()
	if st == nil {
		return 0
	}
	if l := st.loginStore(); l != nil {
		_, bytes = l.size(ctx)
	}
	return bytes
}
