package mqtt

import (
	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"
)

// This file is subscriptions with wildcards.

// watch adds a filter, if the client and the node may have one more.
func (c *session) watch(filter string) bool {
	s := c.server
	if _, twice := c.filters[filter]; twice {
		return true
	}
	if len(c.filters) >= s.cfg.MaxWildcards || !s.takeWildcard(c.conn.Load()) {
		s.refused.Add(1)
		s.log.Debug("a subscription with wildcards is refused: if clients need more, raise maxWildcards or maxWildcardsInAll", "conn", c.conn.Load().ID())
		return false
	}
	c.filters[filter] = struct{}{}
	records, events := s.cfg.mayMatch(filter)
	if events && !c.watchTopic(protocol.TopicEvent, filter) || records && !c.watchTopic(protocol.TopicRecord, filter) {
		c.unwatch(filter)
		return false
	}
	return true
}

func (c *session) watchTopic(t protocol.Topic, filter string) bool {
	w := c.watchers[t]
	if w == nil {
		w = c.newWatcher(t)
		c.watchers[t] = w
	}
	added := c.server.house.Watch(t, filter, w)
	return added == sub.First || added == sub.Further
}

func (c *session) newWatcher(t protocol.Topic) *sub.Watcher {
	s := c.server
	conn := c.conn.Load()
	return sub.NewWatcher(conn,
		func(u *auth.User, o *protocol.Outbound) (ok, keep bool) { return s.house.MayHear(u, o) },
		s.house.Generation,
		func(name string) bool { return s.cfg.isRecord(name) == (t == protocol.TopicRecord) },
		func() { conn.End(endpoint.SlowConsumer) })
}

// unwatch removes a filter.
func (c *session) unwatch(filter string) {
	if _, ok := c.filters[filter]; !ok {
		return
	}
	delete(c.filters, filter)
	for t, w := range c.watchers {
		c.server.house.Unwatch(t, filter, w)
	}
	c.server.giveWildcard(c.conn.Load())
}

// unwatchAll removes all filters, and returns when nothing is judged any more.
func (c *session) unwatchAll() {
	for filter := range c.filters {
		c.unwatch(filter)
	}
	for _, w := range c.watchers {
		w.Wait()
	}
}

// takeWildcard counts one more subscription with wildcards, if the node may have it, and
// the client's user. Those without a name are one user.
func (s *Server) takeWildcard(conn *endpoint.Conn) bool {
	user := conn.User().ID
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wildcards >= s.cfg.MaxWildcardsInAll || s.held[user] >= s.cfg.share() {
		return false
	}
	s.wildcards++
	s.held[user]++
	return true
}

// giveWildcard counts one less.
func (s *Server) giveWildcard(conn *endpoint.Conn) {
	user := conn.User().ID
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wildcards--
	if s.held[user]--; s.held[user] == 0 {
		delete(s.held, user)
	}
}
