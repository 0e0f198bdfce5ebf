package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"hadal/protocol"
)

// MergeOptions says how Merge goes about it.
type MergeOptions struct {
	// DryRun looks at everything and writes nothing. So it compares several lines for one
	// name with what is here, and not with one another.
	DryRun bool
	// Overwrite writes also where the version that is here is as high, or higher.
	Overwrite bool
}

// Merged is what became of the records of a Merge; with DryRun, what would.
type Merged struct {
	// Written were not here, or in an older version; or Overwrite said so.
	Written int `json:"written"`
	// Unchanged are here, the same in version and data.
	Unchanged int `json:"unchanged"`
	// Kept are here otherwise, in a version that is not older, and stay so.
	Kept int `json:"kept"`
	// Refused cannot be records.
	Refused int `json:"refused"`
	// Told names some of those that were kept or refused, sorted by name.
	Told []Told `json:"told,omitempty"`
}

// Told is a record that was not written, and why, its name included.
type Told struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// mostTold bounds how many are told by name.
const mostTold = 1000

// Merge is Import for records from elsewhere. It leaves what is here as it is unless the version that
// comes is higher, and a record that cannot be taken is left out and told, in place of ending
// the import. So it may be repeated, and costs little for what has not changed. The lines
// have to be all of an export, and hold nothing of logins. Of several for one name the highest
// version stays, or with Overwrite the last one. What clients write meanwhile is not safe from it:
// looking at a record and writing it are two steps, and what was not there at the start is not
// looked at.
func (c *Client) Merge(ctx context.Context, lines io.Reader, o MergeOptions) (Merged, error) {
	var m Merged
	query := url.Values{"merge": {"newer"}, "dry": {strconv.FormatBool(o.DryRun)}}
	if o.Overwrite {
		query.Set("merge", "all")
	}
	err := c.decode(ctx, http.MethodPost, "/import", query, lines, &m)
	return m, err
}

// merge is what an import does with each record when it is one.
type merge struct {
	records  Records
	dry, all bool
	here     names // when it began, and those that it has written since

	mu     sync.Mutex
	merged Merged // guarded by mu
}

// mergeOf reads the query of an import; nil means that it is none.
func mergeOf(query url.Values, records Records) (*merge, error) {
	dry, err := strconv.ParseBool(cmp.Or(query.Get("dry"), "false"))
	if err != nil {
		return nil, errors.New("dry is true or false")
	}
	switch how := query.Get("merge"); how {
	case "newer", "all":
		return &merge{records: records, dry: dry, all: how == "all"}, nil
	case "":
		if dry {
			return nil, errors.New("dry goes with merge")
		}
		return nil, nil
	}
	return nil, errors.New("merge is newer or all")
}

// look finds out which names are here: to ask for a record that is not is slow. It still has to be
// done for every one when the names cannot be listed, as while very much changes.
func (m *merge) look(ctx context.Context, log *slog.Logger) {
	m.here = make(names, 1<<22)
	if err := m.records.Names(ctx, "", func(name string) error { m.here.add(name); return nil }); err != nil {
		log.Warn("names not listed, each record of the import is asked for", "err", err)
		for i := range m.here {
			m.here[i] = math.MaxUint64
		}
	}
}

// names is a set of names in 32 MiB: it may say that it has one which it has not, one time in
// two hundred when it has ten million, but never the reverse. It may be used by many at once.
type names []uint64

// bits are the two of a name, each a word of the set and a bit in that.
func (n names) bits(name string) (word [2]uint64, bit [2]uint64) {
	h := xxhash.Sum64String(name)
	for i, spot := range []uint64{h, h >> 32} {
		word[i], bit[i] = spot/64%uint64(len(n)), 1<<(spot%64)
	}
	return word, bit
}

func (n names) add(name string) {
	word, bit := n.bits(name)
	atomic.OrUint64(&n[word[0]], bit[0])
	atomic.OrUint64(&n[word[1]], bit[1])
}

func (n names) has(name string) bool {
	word, bit := n.bits(name)
	return atomic.LoadUint64(&n[word[0]])&bit[0] != 0 && atomic.LoadUint64(&n[word[1]])&bit[1] != 0
}

// take writes a record if it is to be written. It may be called by many at once, for
// different names.
func (m *merge) take(ctx context.Context, rec Record) error {
	err := m.records.Check(rec)
	if err == nil && protocol.Reserved(rec.Name) {
		err = fmt.Errorf("%w: record %q: names that begin with hadal/ are the server's", ErrInvalid, rec.Name)
	}
	if err == nil && m.here.has(rec.Name) {
		var here Record
		switch here, err = m.records.Get(ctx, rec.Name); {
		case errors.Is(err, ErrNotFound):
			err = nil
		case err != nil:
			return err
		case here == rec:
			m.note(&m.merged.Unchanged, "", "")
			return nil
		case here.Version >= rec.Version && !m.all:
			m.note(&m.merged.Kept, rec.Name, fmt.Sprintf("record %q: version %d is here, and %d comes", rec.Name, here.Version, rec.Version))
			return nil
		}
	}
	if err == nil && !m.dry {
		m.here.add(rec.Name) // another line may be of the same name
		err = m.records.Restore(ctx, rec)
	}
	switch {
	case errors.Is(err, ErrInvalid):
		m.note(&m.merged.Refused, rec.Name, err.Error())
	case err != nil:
		return err
	default:
		m.note(&m.merged.Written, "", "")
	}
	return nil
}

// note counts, and tells of name if there is one.
func (m *merge) note(count *int, name, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*count++
	if name != "" && len(m.merged.Told) < mostTold {
		m.merged.Told = append(m.merged.Told, Told{name, why})
	}
}

// result is what became of all, when no take is under way any more.
func (m *merge) result() Merged {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.merged.Told, func(a, b Told) int { return strings.Compare(a.Name, b.Name) })
	return m.merged
}
