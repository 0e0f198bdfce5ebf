package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrDiskFull means that the disk has no room above what is kept free.
var ErrDiskFull = errors.New("disk is full")

// What is kept free. JetStream must never meet the end of the disk through our
// own writes, as it then needs a restart, and it writes more than it is sent:
//
//   - an index of all subjects of a stream, every two minutes, after a purge and at
//     its end: 34 bytes a record for names of 27 bytes, where the record itself
//     takes 330 (with 200 bytes of JSON). Measured: 3.4 MB for 100 000 records;
//   - a copy of a block while it is compacted: at most 8 MiB a stream;
//   - a batch of STATE a second time, until it is committed: about 1 MiB. Measured, for
//     both: 4.3 MB above the resting size while 100 000 records are written over and
//     over;
//   - the copies of settle and the probe, 17 MiB.
//
// So 32 MiB do for all but the index, which grows with the records: a tenth of
// them, more where names are long. An eighth of the volume covers it. From 2 GiB on
// the reserve does not grow, as what matters is only the growth of the index between
// two of its writes, of the last two minutes.
const (
	reserveLeast = 32 << 20
	reserveMost  = 256 << 20
	reserveShare = 8
	// reserveFiles is how many files more must be possible: blocks, their copies
	// and a batch's own directory.
	reserveFiles = 64
)

// disk is the file system under a directory.
type disk struct {
	dir     string
	reserve int64 // bytes kept free; 0 means the default
}

// space is what a file system has, as an unprivileged user sees it.
type space struct {
	total, free int64
	// files is the number of files that can be made, or -1 where the system sets
	// no limit or does not say.
	files int64
	// readOnly is not seen on every read-only system: one that an error stopped
	// may still look writable.
	readOnly bool
}

// kept is how many bytes are kept free on a file system of that size.
func (d *disk) kept(total int64) int64 {
	if d.reserve > 0 {
		return d.reserve
	}
	return min(max(total/reserveShare, reserveLeast), reserveMost)
}

// room is nil when so many bytes may be written, or says what is short. It looks
// at the file system every time, which costs about a microsecond, so nothing can
// run past it but what was granted and is not written yet: the appends under way,
// of which there are two a partition. They are in the reserve.
func (d *disk) room(bytes int64) error {
	s, err := look(d.dir)
	switch {
	case err != nil:
		return fmt.Errorf("the disk of %s cannot be asked for its free space: %w", d.dir, err)
	case s.readOnly:
		return fmt.Errorf("the file system of %s is read-only: %w", d.dir, syscall.EROFS)
	case s.files >= 0 && s.files < reserveFiles:
		return fmt.Errorf("%w: %s has room for %d more files, %d are kept free", ErrDiskFull, d.dir, s.files, reserveFiles)
	}
	if kept := d.kept(s.total); s.free-kept < bytes {
		return fmt.Errorf("%w: %s has %s free of %s, of which %s are kept free (records.diskReserve), and %s are to be written",
			ErrDiskFull, d.dir, inMiB(s.free), inMiB(s.total), inMiB(kept), inMiB(bytes))
	}
	return nil
}

func inMiB(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// probe writes so many bytes into a file in dir, syncs and removes it: whether a
// directory can be written is known only afterwards. The error names the
// directory and what to do.
func probe(dir string, size int) error {
	f, err := os.CreateTemp(dir, probePrefix+"*")
	if err != nil {
		return withCure(err)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = 1 // zeros may need no room
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return withCure(errors.Join(err, f.Close(), os.Remove(f.Name())))
}

// withCure adds to an error of the file system what an operator can do.
func withCure(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; make room on that disk", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount it writable", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; let the user that hadal runs as write there", err)
	}
	return err
}
