package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// watchQuiet is how long the file must be left alone before it is read: who
	// writes it may do so in pieces, or have it gone for a moment.
	watchQuiet = 100 * time.Millisecond
	// watchPatience is how long a file that is never left alone waits.
	watchPatience = time.Second
	// maxLinks is how many symbolic links a path may lead through.
	maxLinks = 40
)

// RulesFile is the file that holds the rules, as it was read.
type RulesFile struct {
	// Path is absolute; empty when the rules stand in the configuration itself.
	Path string
	// Sum stands for the text that was read, or for the reason why it could not be.
	Sum string
}

// Watched is the rules file when changes of it are to be noticed, and else nothing.
func (l Loaded) Watched(c Config) RulesFile {
	if c.Permission.Type != "config" || !c.Permission.Options.Watch {
		return RulesFile{}
	}
	return l.Rules
}

// sumOf is what a RulesFile remembers of a text, or of a failure to read it.
func sumOf(text string, err error) string {
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Watch notices when the text of the rules file changes, however that is done: written
// in place, replaced by another file, or by another target of a symbolic link on the
// way to it, as Kubernetes does. So it is the directories that are watched: that of
// the file, and those of all links that lead to it. What is told is a changed text,
// not an event: a bad text is told once, and one that was read already never.
type Watch struct {
	log     *slog.Logger
	changed func()
	follow  chan RulesFile
	seen    chan RulesFile
}

// NewWatch makes a Watch that calls changed, which must not block.
func NewWatch(log *slog.Logger, changed func()) *Watch {
	return &Watch{log: log, changed: changed, follow: make(chan RulesFile), seen: make(chan RulesFile)}
}

// Follow says which file is to be watched from now on, none for the zero value, and
// what of it is known already. It returns when Run has taken notice, or ctx has ended.
func (w *Watch) Follow(ctx context.Context, f RulesFile) {
	select {
	case w.follow <- f:
	case <-ctx.Done():
	}
}

// Seen says that a file was read, with whatever success: that text is not told any
// more. It returns as Follow does.
func (w *Watch) Seen(ctx context.Context, f RulesFile) {
	select {
	case w.seen <- f:
	case <-ctx.Done():
	}
}

// Run watches until ctx ends. When the system allows no watching it says so, and the
// rules file is read again on SIGHUP only.
func (w *Watch) Run(ctx context.Context) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("the rules file is not watched: reload with SIGHUP", "err", err)
		for {
			select {
			case <-w.follow:
			case <-w.seen:
			case <-ctx.Done():
				return
			}
		}
	}
	defer func() {
		if err := events.Close(); err != nil {
			w.log.Warn("end of watching", "err", err)
		}
	}()
	v := vigil{Watch: w, events: events}
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	quiet.Stop()
	var since time.Time // the first event that was not looked into
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-w.follow:
			v.file = f
			v.post()
		case f := <-w.seen:
			if f.Path == v.file.Path {
				v.file.Sum = f.Sum
			}
			continue
		case e := <-events.Events:
			if e.Op == fsnotify.Chmod || !slices.Contains(v.trail, e.Name) {
				continue
			}
			v.post()
		case err := <-events.Errors:
			// Events may have been lost.
			w.log.Warn("watching the rules file", "path", v.file.Path, "err", err)
		case <-quiet.C:
			since = time.Time{}
			v.look()
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		quiet.Reset(min(watchQuiet, watchPatience-time.Since(since)))
	}
}

// vigil is a Watch that runs.
type vigil struct {
	*Watch
	events *fsnotify.Watcher
	file   RulesFile
	trail  []string // the names on which depends what the file's path means
	failed string   // the last error of post, so that it is told once
}

// post watches the directories of the trail, which may have changed, and no others.
func (v *vigil) post() {
	var dirs []string
	// What was made before its directory was watched was not told: so until nothing
	// is new.
	for range maxLinks {
		names, more := trailOf(v.file.Path)
		v.trail = slices.Concat(names, more)
		if slices.Equal(more, dirs) {
			break
		}
		dirs = more
		var failed string
		for _, dir := range dirs {
			if err := v.events.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = err.Error()
				if v.failed != failed {
					v.log.Warn("a directory is not watched: after changes there reload with SIGHUP", "path", dir, "err", err)
				}
			}
		}
		v.failed = failed
	}
	for _, dir := range v.events.WatchList() {
		if slices.Contains(dirs, dir) {
			continue
		}
		if err := v.events.Remove(dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
			v.log.Warn("a directory is watched in vain", "path", dir, "err", err)
		}
	}
}

// look reads the file and tells if there is something new.
func (v *vigil) look() {
	v.post()
	if v.file.Path == "" {
		return
	}
	sum := sumOf(readLimited(v.file.Path))
	if sum == v.file.Sum {
		return
	}
	v.file.Sum = sum
	v.log.Info("the rules file has changed", "path", v.file.Path)
	v.changed()
}

// trailOf follows a path through its symbolic links. names are the links and the file
// at the end, or the first name that is missing; dirs are the directories that these
// stand in.
func trailOf(path string) (names, dirs []string) {
	if path == "" {
		return nil, nil
	}
	rest := split(path)
	root := filepath.VolumeName(path) + string(filepath.Separator)
	at, links := root, 0
	note := func(name string) {
		names = append(names, name)
		if !slices.Contains(dirs, at) {
			dirs = append(dirs, at)
		}
	}
	for len(rest) > 0 {
		name := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(name)
		switch {
		case err != nil, len(rest) == 0 && info.Mode()&fs.ModeSymlink == 0:
			note(name)
			return names, dirs
		case info.Mode()&fs.ModeSymlink == 0:
			at = name
			continue
		}
		note(name)
		target, err := os.Readlink(name)
		if links++; err != nil || links > maxLinks {
			return names, dirs
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(at, target)
		}
		rest, at = append(split(target), rest...), root
	}
	return names, dirs
}

// split is the names in an absolute path.
func split(path string) []string {
	path = filepath.Clean(path)[len(filepath.VolumeName(path)):]
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}
