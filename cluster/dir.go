package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Files of a data directory.
const (
	lockFile = "lock" // the process that uses it
	metaFile = "meta" // what it is
	natsDir  = "nats" // the embedded server's
)

// dirFormat is the format of data directories that this version writes. An
// older one is read, and becomes one of this format; a newer one is refused.
//
//	1  records in STATE
//	2  records in STATE, changes before them in LOG, which a version that knows
//	   only format 1 would not see
//	3  of a node in a cluster: records in another place, which a version that
//	   knows only format 2 would not see, and begin anew
const dirFormat = 3

// soloFormat is the format of the directory of a node that runs alone.
const soloFormat = 2

// ErrInUse means that another process uses the data directory.
var ErrInUse = errors.New("data directory is in use")

// meta is the file of that name, as JSON. A field that a later version adds
// raises the format if this version must not ignore it.
type meta struct {
	Format     int    `json:"format"`
	ClusterID  string `json:"clusterId"`
	NodeID     string `json:"nodeId"`
	Partitions int    `json:"partitions"`
	Epoch      uint64 `json:"epoch"`
	// Cluster is set when the node belongs to one.
	Cluster *Belonging `json:"cluster,omitempty"`
}

// Belonging is what a data directory knows of the cluster that its node belongs to.
type Belonging struct {
	Name      string `json:"name"`
	ClusterID string `json:"clusterId"`
	// Founders are those of the formation that the node has promised, if it founds.
	Founders []Founder `json:"founders,omitempty"`
	// Joined says that the node has been a member.
	Joined bool `json:"joined,omitempty"`
}

// founded says whether the node is a founder.
func (b *Belonging) founded() bool { return b != nil && len(b.Founders) > 0 }

// adopts says whether a founder brings records.
func (b *Belonging) adopts() bool {
	return slices.ContainsFunc(b.Founders, func(f Founder) bool { return f.SoloRecords })
}

// Dir is the data directory of this process.
type Dir struct {
	path   string
	lock   *os.File
	damage error // of an inspected one

	mu   sync.Mutex
	meta meta // what the cluster is of it is guarded by mu
}

// OpenDir takes the data directory for this process alone, making it when there
// is none, and raises its epoch by one: it is opened once a start. The error
// names the directory and what to do.
func OpenDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be made: %w", path, withCure(err))
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if err := d.load(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// InspectDir takes a data directory to look at, and writes nothing into it. It is
// ErrInUse while a process has the directory; meanwhile none can take it. What is
// wrong with the meta file is left for Damage.
func InspectDir(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if _, err := os.ReadDir(path); err != nil {
		return nil, fmt.Errorf("data directory %s cannot be read: %w", path, err)
	}
	d := &Dir{path: path}
	// A copy may lack the lock file, and then nobody has locked it.
	d.lock, err = os.Open(filepath.Join(path, lockFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.lock = nil
	case err != nil:
		return nil, fmt.Errorf("data directory %s cannot be locked: %w", path, err)
	default:
		if err := lock(d.lock); err != nil {
			return nil, errors.Join(refused(path, d.lock, err), d.lock.Close())
		}
	}
	b, err := os.ReadFile(filepath.Join(path, metaFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(path, natsDir)); err != nil {
			return nil, errors.Join(fmt.Errorf("%s is no data directory: it has neither a file %q nor data", path, metaFile), d.Close())
		}
		d.damage = fmt.Errorf("file %q is missing", metaFile)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("data directory %s cannot be read: %w", path, err), d.Close())
	default:
		if d.meta, err = parseMeta(b); err != nil {
			d.damage = fmt.Errorf("file %q: %w", metaFile, err)
		}
	}
	return d, nil
}

// Damage is what is wrong with the meta file of an inspected directory, or nil.
func (d *Dir) Damage() error { return d.damage }

// takeLock locks the lock file and writes the process id into it. The lock goes
// with the process, however it ends; the file stays.
func takeLock(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be locked: %w", dir, withCure(err))
	}
	err = lock(f)
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
		if err == nil {
			return f, nil
		}
		return nil, errors.Join(fmt.Errorf("data directory %s cannot be locked: %w", dir, withCure(err)), f.Close())
	}
	return nil, errors.Join(refused(dir, f, err), f.Close())
}

// refused is the error for a lock that was not given.
func refused(dir string, f *os.File, err error) error {
	if !errors.Is(err, errLocked) {
		return fmt.Errorf("data directory %s cannot be locked: %w", dir, err)
	}
	who := "another process"
	if b, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			who = "process " + strconv.Itoa(pid)
		}
	}
	return &inUseError{dir: dir, who: who}
}

// inUseError is ErrInUse for the operator.
type inUseError struct{ dir, who string }

func (e *inUseError) Error() string {
	return fmt.Sprintf("data directory %s is in use by %s; stop it or choose another with --data-dir", e.dir, e.who)
}

func (e *inUseError) Unwrap() error { return ErrInUse }

// load reads the meta file, or begins a new one, and writes it with the next
// epoch.
func (d *Dir) load() error {
	name := filepath.Join(d.path, metaFile)
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The store's data without the file that says what it is: a half copy of a
		// directory. A new epoch would begin below the old one.
		if _, err := os.Stat(filepath.Join(d.path, natsDir)); err == nil {
			return fmt.Errorf("data directory %s holds data but no file %q; restore the whole directory", d.path, metaFile)
		}
		d.meta = meta{Format: soloFormat, ClusterID: newID(), NodeID: newID(), Partitions: 1}
	case err != nil:
		return fmt.Errorf("data directory %s cannot be read: %w", d.path, err)
	default:
		if d.meta, err = parseMeta(b); err != nil {
			return fmt.Errorf("data directory %s: file %q: %w", d.path, metaFile, err)
		}
	}
	d.meta.Epoch++
	return d.write()
}

// write replaces the meta file.
func (d *Dir) write() error {
	d.meta.Format = soloFormat
	if d.meta.Cluster != nil {
		d.meta.Format = dirFormat
	}
	b, err := json.MarshalIndent(d.meta, "", "  ")
	if err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	if err := writeFile(filepath.Join(d.path, metaFile), append(b, '\n')); err != nil {
		return fmt.Errorf("data directory %s cannot be written: %w", d.path, withCure(err))
	}
	return nil
}

// Belongs says which cluster the node belongs to, or nil.
func (d *Dir) Belongs() *Belonging {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.Cluster
}

// Promise writes down which cluster the node belongs to, durably.
func (d *Dir) Promise(b Belonging) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, id := d.meta.Cluster, d.meta.ClusterID
	d.meta.Cluster, d.meta.ClusterID = &b, b.ClusterID
	err := d.write()
	if err != nil {
		d.meta.Cluster, d.meta.ClusterID = was, id
	}
	return err
}

// partitions notes how many there are, with the next write.
func (d *Dir) partitions(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meta.Partitions = n
}

// HoldsAlone says whether the directory holds records of a node that ran alone, which
// its cluster does not have yet.
func (d *Dir) HoldsAlone() bool {
	_, err := os.Stat(d.Store())
	return err == nil
}

// SetAside moves the records of a node that ran alone out of the way, for an operator to
// remove. It returns where to.
func (d *Dir) SetAside() (string, error) {
	to := filepath.Join(d.path, natsDir+"-alone")
	if err := os.Rename(d.Store(), to); err != nil {
		return "", err
	}
	return to, syncDir(d.path)
}

// parseMeta reads a meta file. Every error says what is wrong with it.
func parseMeta(b []byte) (meta, error) {
	var m meta
	// The format first: a newer one may have anything else in it.
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return m, fmt.Errorf("it is damaged: %w", err)
	}
	switch {
	case head.Format > dirFormat:
		return m, fmt.Errorf("it was written by a newer version of hadal (format %d, this version knows %d); run that version", head.Format, dirFormat)
	case head.Format < 1:
		return m, fmt.Errorf("it is damaged: format %d", head.Format)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("it is damaged: %w", err)
	}
	switch {
	case m.ClusterID == "" || m.NodeID == "":
		return m, errors.New("it is damaged: an id is missing")
	case m.Partitions < 1 || m.Partitions > maxPartitions:
		return m, fmt.Errorf("it is damaged: %d partitions", m.Partitions)
	case m.Epoch == 0 || m.Epoch == 1<<64-1:
		return m, fmt.Errorf("it is damaged: epoch %d", m.Epoch)
	}
	return m, nil
}

// Store is where the embedded server keeps its files.
func (d *Dir) Store() string { return filepath.Join(d.path, natsDir) }

// Path is the directory, absolute.
func (d *Dir) Path() string { return d.path }

// Epoch is the number of this start: one more than at the last.
func (d *Dir) Epoch() uint64 { return d.meta.Epoch }

// NodeID is random, made with the directory.
func (d *Dir) NodeID() string { return d.meta.NodeID }

// ClusterID is random, made with the cluster.
func (d *Dir) ClusterID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.ClusterID
}

// Partitions is the number of partitions that the data is kept in.
func (d *Dir) Partitions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.Partitions
}

// Close gives the directory up. Whatever works in it must have ended.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	return nil
}

// newID returns 130 random bits as text.
func newID() string { return strings.ToLower(rand.Text()) }

// writeFile replaces a file so that after a crash, or a power cut, either the old
// or the new content is there.
func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes what happened to the names in a directory durable.
func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
