package register

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

const (
	// lookUpLimit bounds one look at the vault for a connection that was just opened.
	lookUpLimit = 5 * time.Second
	// lookUpPause is how long after a look-up that failed the next one is.
	lookUpPause = time.Second
)

// Conn is a connection as this room sees it; two of one connection are equal. Its methods
// do not block, and take no lock under which the room is called.
type Conn interface {
	// User is who logged in.
	User() *auth.User
	// EndLogin closes the connection.
	EndLogin(End)
}

// End is why a connection of a registered client ends.
type End uint8

// The ends.
const (
	// Over: what it logged in with has ended.
	Over End = iota
	// Unknown: nobody here knows whether that has ended.
	Unknown
)

// Opened is told of each connection that has logged in, or whose login was renewed.
func (r *Room) Opened(c Conn) {
	s := c.User().Session
	if s == nil {
		return
	}
	segment, ours := strings.CutPrefix(s.Family, prefix)
	if !ours {
		return
	}
	id, err := vault.Text(segment)
	if err != nil {
		return // not made by userOf
	}
	r.mu.Lock()
	r.conns[c] = id
	if r.byID[id] == nil {
		r.byID[id] = make(map[Conn]struct{})
	}
	r.byID[id][c] = struct{}{}
	r.lookLocked(r.check, id) // what changed between the login and now was not heard for it
	r.mu.Unlock()
	if !r.touch.Knows() { // nor would endAll, if it has been, have ended it
		r.end(c, Unknown, cutOffCause)
	}
}

// Closed is told of each connection that was Opened, when it has gone.
func (r *Room) Closed(c Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(c)
}

// forgetLocked takes a connection off the lists, if it is on them. The caller holds mu.
func (r *Room) forgetLocked(c Conn) {
	id, listed := r.conns[c]
	if !listed {
		return
	}
	delete(r.conns, c)
	delete(r.byID[id], c)
	if len(r.byID[id]) == 0 {
		delete(r.byID, id)
	}
}

// lookLocked has Run look a client up, which is check or urgent. The caller holds mu.
func (r *Room) lookLocked(which map[string]struct{}, id string) {
	which[id] = struct{}{}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// end closes a connection whose login is over, once.
func (r *Room) end(c Conn, how End, why string) {
	r.mu.Lock()
	id, listed := r.conns[c]
	r.forgetLocked(c)
	r.mu.Unlock()
	if !listed {
		return
	}
	r.counts.ended.Add(1)
	r.log.Info("login of a registered client has ended", "client", id, "cause", why)
	c.EndLogin(how)
}

// cutOffCause is why connections end on a node that was cut off for too long.
const cutOffCause = "this node does not know any more who is registered"

// endAll ends the connections of all registered clients: this node was cut off for longer
// than its grace. Those that go on by what another strategy gave them stay.
func (r *Room) endAll() {
	r.mu.Lock()
	var all []Conn
	for c, id := range r.conns {
		if s := c.User().Session; s != nil && s.Family == keyOf(id) {
			all = append(all, c)
		}
	}
	r.mu.Unlock()
	for _, c := range all {
		r.end(c, Unknown, cutOffCause)
	}
	if len(all) > 0 {
		r.log.Warn("connections of registered clients were closed: this node does not know any more who is registered", "closed", len(all))
	}
}

// judgeConns ends the connections of a client that its entry does not vouch for; c is nil
// when it has gone.
func (r *Room) judgeConns(id string, c *client) {
	now := time.Now()
	var over []Conn
	r.mu.Lock()
	for conn := range r.byID[id] {
		s := conn.User().Session // a renewed connection may have another one
		if s == nil || s.Family != keyOf(id) {
			continue // it goes on by what another strategy gave it
		}
		if c == nil || !c.vouches(s.ID, now) {
			over = append(over, conn)
		}
	}
	r.mu.Unlock()
	why := "there is a later login"
	if c == nil {
		why = "the client was unregistered"
	}
	for _, conn := range over {
		r.end(conn, Over, why)
	}
}

// Run ends logins that are over, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { r.lookUp(ctx) })
	// Until it is heard for the first time who is registered, that is as if the node was cut
	// off: logins are judged by looking each up, but who was let in would go unwatched.
	r.touch.Lost()
	wg.Go(func() { r.touch.Run(ctx, r.deps.OfflineGrace, r.endAll) })
	return r.deps.Vault.Watch(ctx, prefix, vault.Watcher{Told: r.told, Synced: r.synced, Lost: r.lost})
}

// synced is called when all entries have been told.
func (r *Room) synced() {
	r.census.synced()
	began := r.touch.Began()
	away := r.touch.Synced()
	if began {
		r.log.Info("registrations are heard of again", "after", away.Round(time.Millisecond))
	}
	// What went while nothing was heard is not told again.
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.byID {
		r.lookLocked(r.check, id)
	}
}

// lost is called when the watch will begin anew.
func (r *Room) lost(err error) {
	r.census.lost()
	if r.touch.Lost() {
		r.log.Warn("cut off from the registrations", "err", err, "grace", r.deps.OfflineGrace())
	}
}

// told is called with each change of an entry.
func (r *Room) told(change vault.Change) {
	id, err := vault.Text(strings.TrimPrefix(change.Key, prefix))
	if err != nil {
		r.log.Error("an entry of the vault is no registration", "name", change.Key, "err", err)
		return
	}
	r.census.told(change.Key, change.Gone)
	r.mu.Lock()
	here := len(r.byID[id]) > 0
	if change.Gone {
		delete(r.recent, id)
	}
	r.mu.Unlock()
	if !here {
		return
	}
	// Watches lag: an older change may be told after a newer login was opened. So it only
	// says that there is something to look at. And that goes before what is looked at for
	// safety's sake, which is one look for each login: of very many at once.
	r.mu.Lock()
	r.lookLocked(r.urgent, id)
	r.mu.Unlock()
}

// lookUp looks up the clients that it is told to, until ctx ends.
func (r *Room) lookUp(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		// By turns, so that neither has to wait until there is nothing of the other.
		for more := true; more && ctx.Err() == nil; {
			urgent := r.lookUpNext(ctx, r.urgent)
			more = r.lookUpNext(ctx, r.check) || urgent
		}
	}
}

// lookUpNext looks up one of those clients, if there is one.
func (r *Room) lookUpNext(ctx context.Context, which map[string]struct{}) bool {
	id, ok := r.take(which)
	if !ok {
		return false
	}
	if err := r.lookUpOne(ctx, id); err != nil && ctx.Err() == nil {
		r.log.Warn("registration could not be looked up, and will be again", "client", id, "err", err)
		time.AfterFunc(lookUpPause, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.byID[id]) > 0 {
				r.lookLocked(which, id)
			}
		})
	}
	return true
}

// take takes any one of those clients.
func (r *Room) take(which map[string]struct{}) (id string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range which {
		delete(r.urgent, id) // one look does for both
		delete(r.check, id)
		return id, true
	}
	return "", false
}

// lookUpOne ends the logins of a client that are over.
func (r *Room) lookUpOne(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, lookUpLimit)
	defer cancel()
	c, _, err := r.find(ctx, id)
	switch {
	case errors.Is(err, errUnknown):
		r.judgeConns(id, nil)
		return nil
	case err != nil:
		return err
	}
	r.judgeConns(id, c)
	return nil
}
