//go:build linux || darwin

package cluster

import (
	"errors"
	"os"
	"syscall"
)

// flagReadOnly is ST_RDONLY of statvfs(3), which package syscall lacks.
const flagReadOnly = 1

// look asks the file system of dir.
func look(dir string) (space, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(dir, &st)
	for errors.Is(err, syscall.EINTR) {
		err = syscall.Statfs(dir, &st)
	}
	if err != nil {
		return space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	block := int64(st.Bsize)
	s := space{total: int64(st.Blocks) * block, free: int64(st.Bavail) * block, files: -1, readOnly: st.Flags&flagReadOnly != 0}
	if st.Files > 0 { // some make files without a limit, and say zero
		s.files = int64(st.Ffree)
	}
	return s, nil
}
