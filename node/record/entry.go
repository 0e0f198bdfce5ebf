package record

import (
	"unsafe"
	"weak"

	"hadal/protocol"
)

// state is a record as the owner sees it. Data is JSON text.
type state struct {
	version int32
	data    string
	exists  bool
}

// recollection is a state that somebody was told, if sure is set.
type recollection struct {
	state
	sure bool
}

// emptyRecord is the data of a record that was just created.
const emptyRecord = "{}"

// entryOverhead is roughly what an entry costs in memory beside its strings.
const entryOverhead = 256

// entry is one record in the owner's memory.
type entry struct {
	name string
	// state is the newest one; it is durable when batch is nil.
	state state
	// batch is the newest batch that holds a change of this record.
	batch *batch
	op    int // its index there
	// loaded says that state is known; otherwise a load is under way.
	loaded bool
	// was is what subscribers here have been told of the record, if it is known, while that
	// is not state: until the batch is durable, and until the load.
	was recollection
	// blind says that loaded is set though nobody has looked what the record is, which is
	// about to be overwritten.
	blind bool
	// volatile records are not kept in the store.
	volatile bool
	// queue holds what waits for the load, for room in the batch, or for parked.
	queue []*request
	// parked is the request whose rule waits for other records, or nil.
	parked *request
	// snapshots wait for the load, and for nothing else.
	snapshots []func(state, error)
	// ready says that the entry stands in the owner's ready list.
	ready bool

	// told is the last large answer to a read, as long as it waits for a client.
	told weak.Pointer[protocol.Outbound]

	older, newer *entry // neighbours in the cache's order of use
}

// sharedSize is the size in bytes from which records are read by all clients in
// one copy: so very many readers that do not take what they asked for do not
// multiply it.
const sharedSize = 4 << 10

// response is m, an answer to a read of this record, in the copy that is under way
// to others if there is one.
func (e *entry) response(m *protocol.Message) *protocol.Outbound {
	// The strings are the same when they are of the same state.
	if o := e.told.Value(); o != nil && o.Version == m.Version && len(o.Data) == len(m.Data) && unsafe.StringData(o.Data) == unsafe.StringData(m.Data) {
		return o
	}
	m.Topic = protocol.TopicRecord
	o := &protocol.Outbound{Message: *m}
	e.told = weak.Make(o)
	return o
}

// idle says that nothing would be lost if the entry left memory.
func (e *entry) idle() bool {
	return e.loaded && e.batch == nil && len(e.queue) == 0 && e.parked == nil && (!e.volatile || !e.state.exists)
}

func (e *entry) size() int64 {
	return int64(len(e.name) + len(e.state.data) + entryOverhead)
}

// cache holds the entries and forgets the least recently used idle ones when
// they grow beyond limit. Only the owner touches it.
type cache struct {
	limit   int64
	evicted func(*entry) // called for each entry that has left
	entries map[string]*entry
	bytes   int64
	root    entry // of the ring: root.newer is the oldest, root.older the newest
}

func newCache(limit int64) *cache {
	c := &cache{limit: limit, entries: make(map[string]*entry)}
	c.root.older, c.root.newer = &c.root, &c.root
	return c
}

// get returns the entry of that name, if there is one, and marks it as used.
func (c *cache) get(name string) *entry {
	e := c.entries[name]
	if e != nil {
		unlink(e)
		c.link(e)
	}
	return e
}

func (c *cache) add(e *entry) {
	c.entries[e.name] = e
	c.bytes += e.size()
	c.link(e)
}

// put changes the state of e, which is in the cache.
func (c *cache) put(e *entry, s state) {
	c.bytes += int64(len(s.data) - len(e.state.data))
	e.state = s
}

func (c *cache) remove(e *entry) {
	delete(c.entries, e.name)
	c.bytes -= e.size()
	unlink(e)
	if c.evicted != nil {
		c.evicted(e)
	}
}

// trim forgets idle entries until the limit is met. It looks at no more than a
// few entries that cannot go, so that its cost stays bounded.
func (c *cache) trim() {
	const patience = 64
	busy := 0
	for e := c.root.newer; e != &c.root && c.bytes > c.limit && busy < patience; {
		next := e.newer
		if e.idle() {
			c.remove(e)
		} else {
			// Moved to the far end, so that the next trim does not meet it again at once.
			unlink(e)
			c.link(e)
			busy++
		}
		e = next
	}
}

// link makes e the most recently used.
func (c *cache) link(e *entry) {
	e.older, e.newer = c.root.older, &c.root
	e.older.newer, c.root.older = e, e
}

func unlink(e *entry) {
	e.older.newer, e.newer.older = e.newer, e.older
	e.older, e.newer = nil, nil
}
