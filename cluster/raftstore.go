package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// Buckets of a raftStore.
var (
	logBucket    = []byte("log")    // index, 8 bytes big-endian: entry
	stableBucket = []byte("stable") // raft's term and vote, our formation
)

// logFormat is the format of the entries that this version writes.
const logFormat = 1

// errDamagedEntry means that an entry of the log cannot be read.
var errDamagedEntry = errors.New("the entry is damaged")

// raftStore keeps raft's log, term and vote in one bbolt file. What a method has
// written is on disk when it returns: each is one transaction, synced. It does not
// note how much is known to be committed (raft.CommitTrackingLogStore): raft 1.8, when
// it makes use of that, forgets who votes if the log up to there says so.
type raftStore struct {
	db   *bbolt.DB
	path string
	// cramped is why the file has no room in reserve, or nil.
	cramped error
}

var (
	_ raft.LogStore          = (*raftStore)(nil)
	_ raft.StableStore       = (*raftStore)(nil)
	_ raft.MonotonicLogStore = (*raftStore)(nil)
)

// openRaftStore opens the file, making it when there is none. It waits a second
// for a process that has it open.
func openRaftStore(path string) (*raftStore, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("raft log %s cannot be opened: %w", path, withCure(err))
	}
	s := &raftStore{db: db, path: path}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{logBucket, stableBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raft log %s cannot be prepared: %w", path, withCure(err)), db.Close())
	}
	// A disk that is full already must not keep the node from its vote.
	s.cramped = withCure(makeRoom(db))
	return s, nil
}

// Close closes the file.
func (s *raftStore) Close() error { return s.db.Close() }

// IsMonotonic implements raft.MonotonicLogStore: StoreLogs refuses holes.
func (s *raftStore) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore: 0 when it is empty.
func (s *raftStore) FirstIndex() (uint64, error) {
	return s.index(func(c *bbolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex implements raft.LogStore: 0 when it is empty.
func (s *raftStore) LastIndex() (uint64, error) {
	return s.index(func(c *bbolt.Cursor) []byte { k, _ := c.Last(); return k })
}

func (s *raftStore) index(at func(*bbolt.Cursor) []byte) (index uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if k := at(tx.Bucket(logBucket).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog implements raft.LogStore.
func (s *raftStore) GetLog(index uint64, to *raft.Log) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(logBucket).Get(indexKey(index))
		if v == nil {
			return raft.ErrLogNotFound
		}
		entry, err := decodeEntry(v)
		if err != nil {
			return fmt.Errorf("raft log entry %d: %w", index, err)
		}
		entry.Index = index
		*to = entry
		return nil
	})
}

// StoreLog implements raft.LogStore.
func (s *raftStore) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. Entries follow each other and what is there.
func (s *raftStore) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		log := tx.Bucket(logBucket)
		last, _ := log.Cursor().Last()
		for i, e := range entries {
			if i == 0 && last != nil && e.Index > binary.BigEndian.Uint64(last)+1 || i > 0 && e.Index != entries[i-1].Index+1 {
				return fmt.Errorf("raft log entry %d leaves a hole before it", e.Index)
			}
			if err := log.Put(indexKey(e.Index), encodeEntry(e)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore. It removes low to high, both included.
func (s *raftStore) DeleteRange(low, high uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		// After a delete the cursor may skip one; so it is placed anew each time.
		for k, _ := c.Seek(indexKey(low)); k != nil && binary.BigEndian.Uint64(k) <= high; k, _ = c.Seek(indexKey(low)) {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements raft.StableStore.
func (s *raftStore) Set(key, value []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(stableBucket).Put(key, value) })
}

// Get implements raft.StableStore: empty when the key is not there.
func (s *raftStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		value = append([]byte{}, tx.Bucket(stableBucket).Get(key)...)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s *raftStore) SetUint64(key []byte, value uint64) error { return s.Set(key, indexKey(value)) }

// GetUint64 implements raft.StableStore: 0 when the key is not there.
func (s *raftStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	switch {
	case err != nil:
		return 0, err
	case len(v) == 0:
		return 0, nil
	case len(v) != 8:
		return 0, fmt.Errorf("raft state %q: %w", key, errDamagedEntry)
	}
	return binary.BigEndian.Uint64(v), nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// encodeEntry writes an entry but for its index: format, type, term, time, length
// of the data, data, and the extensions to the end.
func encodeEntry(e *raft.Log) []byte {
	b := make([]byte, 0, 2+3*binary.MaxVarintLen64+len(e.Data)+len(e.Extensions))
	b = append(b, logFormat, byte(e.Type))
	b = binary.AppendUvarint(b, e.Term)
	var at int64
	if !e.AppendedAt.IsZero() {
		at = e.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(e.Data)))
	b = append(b, e.Data...)
	return append(b, e.Extensions...)
}

// decodeEntry reads what encodeEntry wrote. The entry does not alias the bytes.
func decodeEntry(b []byte) (raft.Log, error) {
	if len(b) < 2 {
		return raft.Log{}, errDamagedEntry
	}
	if b[0] != logFormat {
		return raft.Log{}, fmt.Errorf("it has format %d, and this version reads %d: use the version that wrote it", b[0], logFormat)
	}
	e := raft.Log{Type: raft.LogType(b[1])}
	b = b[2:]
	term, n := binary.Uvarint(b)
	if n <= 0 {
		return raft.Log{}, errDamagedEntry
	}
	e.Term, b = term, b[n:]
	at, n := binary.Varint(b)
	if n <= 0 {
		return raft.Log{}, errDamagedEntry
	}
	if b = b[n:]; at != 0 {
		e.AppendedAt = time.Unix(0, at)
	}
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return raft.Log{}, errDamagedEntry
	}
	b = b[n:]
	e.Data = append([]byte(nil), b[:size]...)
	e.Extensions = append([]byte(nil), b[size:]...)
	return e, nil
}
