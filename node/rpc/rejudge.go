package rpc

import (
	"maps"
	"slices"

	"hadal/node/sub"
	"hadal/protocol"
)

// Rejudge ends the providing that rules, which are in force, do not allow any more,
// and tells the clients. The calls that such a provider is asked go to others, as if
// it had left. It returns how many pairs of name and provider that were.
func (r *Room) Rejudge(rules sub.Rules) int {
	return r.endAll(r.refused(rules))
}

// RejudgeClient is Rejudge for one client, whose user has changed. It is called on its
// reader.
func (r *Room) RejudgeClient(rules sub.Rules, c sub.Client) int {
	r.mu.Lock()
	var names []string
	if k := r.clients[c.ID()]; k != nil {
		names = slices.Collect(maps.Keys(k.provides))
	}
	r.mu.Unlock()
	f := fallen{c, make(map[string]struct{})}
	for _, name := range names {
		if rules.Refuse(c.User(), protocol.TopicRPC, protocol.RPCProvide, name, "") != 0 {
			f.names[name] = struct{}{}
		}
	}
	if len(f.names) == 0 {
		return 0
	}
	return r.endAll(map[uint64]fallen{c.ID(): f})
}

// endAll ends providing, and returns how many pairs of name and provider that were.
func (r *Room) endAll(refused map[uint64]fallen) int {
	// All go before the first call is put to another: it must not be one of them.
	ended := 0
	for _, f := range refused {
		for name := range f.names {
			if r.evict(f.c.ID(), name) {
				ended++
				sub.TellEnded(f.c, protocol.TopicRPC, protocol.RPCProvide, name)
			}
		}
	}
	for _, f := range refused {
		r.rerouteAll(f)
	}
	return ended
}

// fallen is a client and the names that it may not provide any more.
type fallen struct {
	c     sub.Client
	names map[string]struct{}
}

// refused asks rules about all providers.
func (r *Room) refused(rules sub.Rules) map[uint64]fallen {
	refused := make(map[uint64]fallen)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate.Turn(rules)
	var list []provider
	// What is provided now is met, unless it ends before: the rules are asked without
	// the mutex.
	for name, providers := range r.providers {
		list = append(list[:0], providers...)
		r.mu.Unlock()
		for _, p := range list {
			if rules.Refuse(p.c.User(), protocol.TopicRPC, protocol.RPCProvide, name, "") == 0 {
				continue
			}
			f := refused[p.id]
			if f.names == nil {
				f = fallen{p.c, make(map[string]struct{}, 1)}
				refused[p.id] = f
			}
			f.names[name] = struct{}{}
		}
		r.mu.Lock()
	}
	return refused
}

// evict ends the providing of name, if it still goes on.
func (r *Room) evict(id uint64, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.clients[id]
	if k == nil {
		return false
	}
	if _, ok := k.provides[name]; !ok {
		return false
	}
	r.withdraw(k, name)
	r.forget(id, k)
	return true
}

// rerouteAll puts the calls that a client is asked, by names that it may not provide
// any more, to others.
func (r *Room) rerouteAll(f fallen) {
	var todo []delivery
	r.mu.Lock()
	n := 0
	if k := r.clients[f.c.ID()]; k != nil {
		for q, call := range k.asked {
			if _, ok := f.names[q.name]; !ok {
				continue
			}
			r.count.Rejects++
			todo = append(todo, r.reroute(call))
			if n++; n%chunk == 0 {
				r.mu.Unlock()
				r.mu.Lock()
			}
		}
	}
	r.mu.Unlock()
	for _, d := range todo {
		d.send()
	}
}
