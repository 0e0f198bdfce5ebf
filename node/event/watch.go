package event

import (
	"sync"

	"hadal/cluster"
	"hadal/node/sub"
)

// This file subscribes clients to events by filters. While there is one, this node has
// joined all slots, and so takes the events of the whole cluster.

// all is joined while on. Its lock is held over what that takes, which puts it in turn.
type all struct {
	mu sync.Mutex
	on bool // guarded by mu
}

// Watch subscribes a client to the events that a filter matches and that it may hear of.
func (r *Room) Watch(filter string, w *sub.Watcher) sub.Added {
	added := r.subs.Watch(filter, w)
	r.joinAll()
	return added
}

// Unwatch ends that.
func (r *Room) Unwatch(filter string, w *sub.Watcher) {
	r.subs.Unwatch(filter, w)
	r.joinAll()
}

// joinAll joins all slots if there is a filter, and else those only in which a name has a
// subscriber. Each slot counts it as one name more.
func (r *Room) joinAll() {
	r.all.mu.Lock()
	defer r.all.mu.Unlock()
	on := r.subs.Watched()
	if on == r.all.on {
		return
	}
	r.all.on = on
	for number := range uint16(cluster.Slots) {
		if on {
			r.slots.enter(number)
		} else {
			r.slots.exit(number)
		}
	}
}
