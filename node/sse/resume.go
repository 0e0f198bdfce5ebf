package sse

import (
	"hash/fnv"
	"strconv"
	"strings"
	"sync"

	"hadal/protocol"
)

// resume is what a client of one stream has of its records: by what it said when it came,
// and by what it was sent since.
//
// The id of a record's event names this record alone, as its bytes are shared by all
// streams. Of a stream with several records each such event is followed by an id of them
// all, which stands alone: clients note it, and hear of no event. It is the word "all", a
// sum of the names in their order, and a version each, in base 36, or "-" where the client
// has none.
type resume struct {
	names []string
	index map[string]int
	sum   string

	mu      sync.Mutex
	had     map[string]int32 // the versions that the client said it has; guarded by mu
	has     []int32          // of names: what it was sent, noVersion for none; guarded by mu
	waiting map[string]bool  // names whose first answer is to come; guarded by mu
}

const noVersion = -1

// newResume is that of a stream of records whose client says what it had last.
func newResume(records []string, last string) *resume {
	r := &resume{index: make(map[string]int), had: make(map[string]int32), waiting: make(map[string]bool)}
	sum := fnv.New32a()
	for _, name := range records {
		if _, twice := r.index[name]; twice {
			continue
		}
		r.index[name] = len(r.names)
		r.names, r.has = append(r.names, name), append(r.has, noVersion)
		r.waiting[name] = true
		_, _ = sum.Write([]byte(name + "\x00")) // it never fails
	}
	r.sum = strconv.FormatUint(uint64(sum.Sum32()), 36)
	if name, version, ok := protocol.ParseSSEID(last); ok {
		r.had[name] = version
	} else {
		r.parse(last)
	}
	return r
}

// parse reads an id of all records, if it is one of these.
func (r *resume) parse(id string) {
	parts := strings.Split(id, " ")
	if len(parts) != 3 || parts[0] != "all" || parts[1] != r.sum || len(parts[2]) > 8*len(r.names) {
		return
	}
	versions := strings.Split(parts[2], ".")
	if len(versions) != len(r.names) {
		return
	}
	for i, text := range versions {
		if v, err := strconv.ParseInt(text, 36, 32); err == nil && v >= 0 {
			r.had[r.names[i]] = int32(v)
		}
	}
}

// id is the id of all records. The caller holds mu.
func (r *resume) id() []byte {
	b := append([]byte("id: all "), r.sum...)
	for i, v := range r.has {
		b = append(b, " ."[min(i, 1)])
		if v < 0 {
			b = append(b, '-')
		} else {
			b = strconv.AppendInt(b, int64(v), 36)
		}
	}
	return append(b, "\n\n"...)
}

// skips says whether the client said that it has what m tells it of a record that it has
// just subscribed to. That is asked once.
func (r *resume) skips(m *protocol.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.had[m.Name]
	if !ok {
		return false
	}
	delete(r.had, m.Name)
	return v == m.Version
}

// skipsAny says whether there is something left that the client said it has.
func (r *resume) skipsAny() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.had) > 0
}

// sent notes that m was queued, and queues the id of all records if the client is to note
// another one. It is called for several messages at once, and their ids keep their order.
func (r *resume) sent(m *protocol.Message, queue func([]byte)) {
	i, ours := r.index[m.Name]
	if !ours || m.Topic != protocol.TopicRecord || len(r.names) < 2 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.waiting[m.Name]
	switch m.Action {
	case protocol.RecordReadResponse:
		r.has[i] = max(m.Version, noVersion)
	case protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordPatchMulti:
		r.has[i], first = m.Version, false
	case protocol.RecordDeleted:
		r.has[i], first = noVersion, false
	default:
		if !m.IsError || !first {
			return
		}
	}
	if first { // of many at once, of which the last one says it all
		delete(r.waiting, m.Name)
		if len(r.waiting) > 0 {
			return
		}
	}
	queue(r.id())
}
