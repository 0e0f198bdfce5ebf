//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// workPrefix begins the name of the directory that a run works in.
const workPrefix = "hadal-crash-"

// openWork makes a directory for this run, and removes what runs left behind that
// were themselves killed. A run holds a lock on its directory.
func openWork() (dir string, done func() error, err error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), workPrefix+"*"))
	if err != nil {
		return "", nil, err
	}
	for _, dir := range old {
		lock, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			continue // its run goes on, or is somebody else's, or has just ended
		}
		if err != nil {
			return "", nil, fmt.Errorf("remove what an earlier run left in %s: %w", dir, err)
		}
		if err := errors.Join(removeWork(dir), lock.Close()); err != nil {
			return "", nil, fmt.Errorf("remove what an earlier run left in %s: %w", dir, err)
		}
	}
	// Under another name until it is locked, or another run would remove it.
	unlocked, err := os.MkdirTemp("", "."+workPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockDir(unlocked)
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(os.TempDir(), strings.TrimPrefix(filepath.Base(unlocked), "."))
	if err := os.Rename(unlocked, dir); err != nil {
		return "", nil, errors.Join(err, lock.Close())
	}
	return dir, func() error { return errors.Join(removeWork(dir), lock.Close()) }, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeWork unmounts whatever is mounted below dir and removes it.
func removeWork(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unmount(m.dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	dir    string
	device string // major:minor
}

// mountsBelow lists the mounts in a directory.
func mountsBelow(dir string) ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // id parent device root dir ...
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			all = append(all, mount{f[4], f[2]})
		}
	}
	return all, nil
}

// unmount tries for a while: a process that was just killed may still be on its
// way out.
func unmount(dir string) error {
	give := time.Now().Add(patience)
	for {
		err := command("umount", dir)
		if err == nil || time.Now().After(give) {
			return err
		}
		<-time.After(50 * time.Millisecond)
	}
}

// command runs a program; what it says is in the error.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// volume is an ext4 file system in a file.
type volume struct {
	image  string
	dir    string // where it is mounted
	device string // major:minor of the loop device, while it is mounted
}

// errNoLoop is what to do where volumes cannot be mounted.
var errNoLoop = errors.New("this needs root and loop devices: run as root (a container needs --privileged), " +
	"or set HADAL_NO_ROOT_TESTS=1 to leave out, knowingly, the power cut and the full disk")

// newVolume makes a file system of that size and mounts it.
func newVolume(work, name string, size int64) (*volume, error) {
	if os.Geteuid() != 0 {
		return nil, errNoLoop
	}
	v := &volume{image: filepath.Join(work, name+".img"), dir: filepath.Join(work, name)}
	f, err := os.Create(v.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	// Nothing is left to be initialized in the background, which would write.
	if err := command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", v.image); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, err
	}
	return v, v.mount()
}

func (v *volume) mount() error {
	if err := command("mount", "-o", "loop", v.image, v.dir); err != nil {
		return fmt.Errorf("%w: %w", errNoLoop, err)
	}
	mounts, err := mountsBelow(filepath.Dir(v.dir))
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.dir == v.dir {
			v.device = m.device
			return nil
		}
	}
	return fmt.Errorf("%s is not among the mounts", v.dir)
}

// remove unmounts the volume and deletes it.
func (v *volume) remove() error {
	return errors.Join(unmount(v.dir), os.Remove(v.image))
}

// cut is a power cut: the disk as it is now, without what the kernel still has in
// memory for it, takes the place of the volume. Nobody may be writing; die ends
// whoever has files open, after the copy was taken.
func (v *volume) cut(die func() error) error {
	after := v.image + ".cut"
	if err := v.copyTo(after); err != nil {
		return errors.Join(err, die())
	}
	if err := die(); err != nil {
		return err
	}
	// This writes what was in memory to the old image, which is of no use any more.
	if err := v.remove(); err != nil {
		return err
	}
	if err := os.Rename(after, v.image); err != nil {
		return err
	}
	return v.mount()
}

// copyTo copies the image file under the mounted volume. What the loop device has
// been given is in that file, as everyone who reads it sees it; what the file system
// has not given to the device yet is not. The kernel may write by itself while we
// copy, which would make a disk of two moments: then it is done again.
func (v *volume) copyTo(name string) error {
	for range 20 {
		before, quiet, err := v.traffic()
		if err != nil {
			return err
		}
		if quiet {
			if err := copySparse(name, v.image); err != nil {
				return err
			}
			after, quiet, err := v.traffic()
			if err != nil {
				return err
			}
			if quiet && after == before {
				return nil
			}
		}
		<-time.After(50 * time.Millisecond)
	}
	return errors.New("the volume does not come to rest: somebody writes to it")
}

// traffic is what was written to the loop device so far; quiet means that nothing
// is on its way.
func (v *volume) traffic() (written string, quiet bool, err error) {
	b, err := os.ReadFile("/sys/dev/block/" + v.device + "/stat")
	if err != nil {
		return "", false, err
	}
	// 4 to 6 are writes, those merged, and sectors; 8 is what is under way; 11 and 15 are
	// discards and flushes.
	f := strings.Fields(string(b))
	if len(f) < 16 {
		return "", false, fmt.Errorf("the numbers of the loop device are %q", b)
	}
	return strings.Join([]string{f[4], f[6], f[11], f[15]}, " "), f[8] == "0", nil
}

// copySparse copies a file and leaves holes where there are zeros.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	size := int64(0)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := out.WriteAt(buf[:n], size); err != nil {
				return errors.Join(err, out.Close())
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return errors.Join(out.Truncate(size), out.Close())
}
