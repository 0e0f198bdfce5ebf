package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names of files that we make beside the embedded server's. What a crash left of
// them is removed at the next start.
const (
	probePrefix  = ".probe-"
	settlePrefix = ".settle-"
)

// blockSuffix ends the names of the embedded server's block files.
const blockSuffix = ".blk"

// youngBlocks are the block files below dir which the server may have written and
// not synced, when it syncs at least that often, and their size in bytes: in each
// directory the one with the highest number, which takes the messages, and those
// that were compacted lately. After an error the server writes to no other one.
func youngBlocks(dir string, every time.Duration) (names []string, size int64, err error) {
	type block struct {
		name   string
		number int
		size   int64
		at     time.Time
	}
	blocks := make(map[string][]block)
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server removes the directory of a batch while we look
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		base, ok := strings.CutSuffix(e.Name(), blockSuffix)
		number, err := strconv.Atoi(base)
		if !ok || err != nil {
			return nil // no block
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		parent := filepath.Dir(name)
		blocks[parent] = append(blocks[parent], block{name, number, info.Size(), info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for _, all := range blocks {
		last := slices.MaxFunc(all, func(a, b block) int { return cmp.Compare(a.number, b.number) })
		newest := slices.MaxFunc(all, func(a, b block) int { return a.at.Compare(b.at) })
		since := newest.at.Add(-2*every - time.Second)
		for _, b := range all {
			if b == last || !b.at.Before(since) {
				names = append(names, b.name)
				size += b.size
			}
		}
	}
	return names, size, nil
}

// settle brings to the disk what the embedded server would read back, before it
// reads it. After a failed sync the system counts the pages as clean, though the
// disk never got them: a server that starts anew finds a message in memory, goes
// on behind it, syncs what follows, and a power cut takes all of that, as the
// message before it is damaged. A copy is written and synced, or fails, as a whole.
// No server may run in dir.
func settle(dir string, every time.Duration) error {
	if err := sweep(dir); err != nil {
		return err
	}
	names, _, err := youngBlocks(dir, every)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := rewrite(dir, name); err != nil {
			return fmt.Errorf("rewrite %s: %w", name, err)
		}
	}
	return nil
}

// rewrite replaces a file by a copy of it, made in dir, where the embedded server
// does not look.
func rewrite(dir, name string) error {
	from, err := os.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := os.CreateTemp(dir, settlePrefix+"*")
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Rename(to.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(to.Name()))
	}
	return syncDir(filepath.Dir(name))
}

// sweep removes files of ours that a crash left in dir.
func sweep(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), probePrefix) || strings.HasPrefix(f.Name(), settlePrefix) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
