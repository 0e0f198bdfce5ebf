package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// noRootEnv leaves out, deliberately, the tests that mount a file system.
const noRootEnv = "HADAL_NO_ROOT_TESTS"

// volume is a small file system of its own, in a file.
type volume struct {
	t     *testing.T
	image string
	path  string // where it is mounted
}

func newVolume(t *testing.T, mib int) *volume {
	t.Helper()
	if os.Getenv(noRootEnv) == "1" {
		t.Skipf("left out by %s=1: it mounts a file system", noRootEnv)
	}
	v := &volume{t: t, image: filepath.Join(t.TempDir(), "image"), path: t.TempDir()}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.image, int64(mib)<<20); err != nil {
		t.Fatal(err)
	}
	v.run("mkfs.ext4", "-q", "-F", "-m", "0", v.image)
	v.mount()
	t.Cleanup(v.unmount)
	return v
}

func (v *volume) run(command ...string) {
	v.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s: %v: %s\nthis test needs root, loop devices, mkfs.ext4 and chattr (e2fsprogs); run it so, or set %s=1 to leave it out",
			strings.Join(command, " "), err, out, noRootEnv)
	}
}

func (v *volume) mount() { v.t.Helper(); v.run("mount", "-o", "loop", v.image, v.path) }

// unmount detaches the volume; it goes when its last file is closed.
func (v *volume) unmount() {
	v.t.Helper()
	if out, err := exec.Command("umount", "-l", v.path).CombinedOutput(); err != nil {
		v.t.Errorf("umount: %v: %s", err, out)
	}
}

// copied is a volume with what is on the disk now, and not with what the system has
// in memory only, as after a power cut.
func (v *volume) copied() *volume {
	v.t.Helper()
	c := &volume{t: v.t, image: filepath.Join(v.t.TempDir(), "copy"), path: v.t.TempDir()}
	v.run("cp", "--sparse=always", v.image, c.image)
	c.mount()
	v.t.Cleanup(c.unmount)
	return c
}

// fill takes all space but so many bytes, and returns what gives it back.
func (v *volume) fill(leave int64) (free func()) {
	v.t.Helper()
	name := filepath.Join(v.path, "filler")
	f, err := os.Create(name)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	for {
		s, err := look(v.path)
		if err != nil {
			v.t.Fatal(err)
		}
		size := min(s.free-leave, 1<<20)
		if size <= 0 {
			break
		}
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			v.t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			v.t.Error(err)
		}
	}
}

// writer publishes messages one after the other, waiting for each, and knows which
// were acknowledged.
type writer struct {
	js    jetstream.JetStream
	quiet sync.RWMutex // held for reading while a message is on its way
	mu    sync.Mutex
	acked map[string]uint64 // guarded by mu; the sequence of each subject
	last  error             // guarded by mu; of the last publish
	stop  context.CancelFunc
	done  sync.WaitGroup
}

// pad makes messages large enough to fill blocks.
var pad = strings.Repeat("x", 20_000)

func startWriter(t *testing.T, nc *nats.Conn) *writer {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxMsgsPerSubject: 1}); err != nil {
		t.Fatal(err)
	}
	w := &writer{js: js, acked: make(map[string]uint64)}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(t.Context())
	for i := range 4 {
		w.done.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				w.write(ctx, fmt.Sprintf("s.%d.%d", i, n%100))
			}
		})
	}
	t.Cleanup(w.end)
	return w
}

func (w *writer) end() { w.stop(); w.done.Wait() }

func (w *writer) write(ctx context.Context, subject string) {
	w.quiet.RLock()
	defer w.quiet.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ack, err := w.js.Publish(ctx, subject, []byte(subject+pad), jetstream.WithRetryAttempts(0))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = err
	if err == nil {
		w.acked[subject] = ack.Sequence
	}
}

func (w *writer) state() (acked uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seq := range w.acked {
		acked = max(acked, seq)
	}
	return acked, w.last
}

// failing waits until writes fail, writing until they succeed and one more is
// acknowledged.
func (w *writer) failing(t *testing.T) {
	t.Helper()
	eventually(t, "writes fail", func() error {
		if _, err := w.state(); err == nil {
			return errors.New("they do not")
		}
		return nil
	})
}

func (w *writer) writing(t *testing.T) {
	t.Helper()
	before, _ := w.state()
	eventually(t, "writes succeed", func() error {
		if seq, err := w.state(); seq <= before {
			return fmt.Errorf("sequence %d: %w", seq, err)
		}
		return nil
	})
}

// check has every subject read back: with the sequence that was acknowledged last or
// a later one, whose outcome is unknown.
func (w *writer) check(t *testing.T, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	acked := maps.Clone(w.acked)
	w.mu.Unlock()
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
	for subject, seq := range acked {
		m, err := stream.GetLastMsgForSubject(t.Context(), subject)
		if err != nil || m.Sequence < seq || string(m.Data) != subject+pad {
			t.Fatalf("%s, acknowledged with %d, is %+v, %v", subject, seq, m, err)
		}
	}
}

// supervised starts a server and its supervision on the volume.
func (v *volume) supervised(opts Options) (*Dir, *Server) {
	v.t.Helper()
	dir := openDir(v.t, filepath.Join(v.path, "data"))
	opts.SyncAlways = true
	s := startServer(v.t, dir, opts)
	supervise(v.t, s)
	return dir, s
}

func TestADiskThatFillsUpUnderTheServerLosesNothing(t *testing.T) {
	v := newVolume(t, 160)
	dir, s := v.supervised(Options{DiskReserve: 24 << 20})
	w := startWriter(t, s.Conn())
	w.writing(t)
	for range 2 {
		free := v.fill(0)
		w.failing(t)
		eventually(t, "the server says why", func() error {
			err := s.Ready()
			if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "no space left") {
				return fmt.Errorf("Ready = %w", err)
			}
			return nil
		})
		if err := s.Room(1); !errors.Is(err, ErrDiskFull) {
			t.Errorf("Room = %v, want ErrDiskFull", err)
		}
		// What was stored can be read.
		w.check(t, s.Conn())
		restarts := s.Stats().Restarts
		free()
		began := time.Now()
		w.writing(t)
		t.Logf("writes were back after %v", time.Since(began))
		eventually(t, "the server is well", s.Ready)
		if got := s.Stats().Restarts; got != restarts+1 {
			t.Errorf("%d restarts, want one", got-restarts)
		}
	}
	w.end()
	// What a power cut would leave now.
	c := v.copied()
	after := startServer(t, openDir(t, filepath.Join(c.path, "data")), Options{SyncAlways: true})
	w.check(t, after.Conn())
	s.Close()
	after = startServer(t, dir, Options{SyncAlways: true})
	w.check(t, after.Conn())
}

func TestAFileSystemThatTurnsReadOnlyIsWaitedFor(t *testing.T) {
	v := newVolume(t, 160)
	_, s := v.supervised(Options{DiskReserve: 16 << 20})
	w := startWriter(t, s.Conn())
	w.writing(t)
	// As ext4 does after an error. A sync under way at that moment is told that all
	// is well though the data is gone (Linux 6.18: one in ten, without us): there
	// shall be none.
	w.quiet.Lock()
	v.run("mount", "-o", "remount,abort", v.path)
	w.quiet.Unlock()
	w.failing(t)
	eventually(t, "the server says why", func() error {
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "read-only file system; mount it writable") {
			return fmt.Errorf("Ready = %w", err)
		}
		return nil
	})
	w.check(t, s.Conn())
	if got := s.Stats(); got.Restarts+got.FailedRestarts > 0 || got.TroubledSince.IsZero() {
		t.Errorf("Stats = %+v, want no attempt of a restart", got)
	}
	// The operator repairs it: the old file system goes, one with what had reached
	// the disk comes in its place.
	v.unmount()
	v.run("cp", "--sparse=always", v.image, v.image+"2")
	v.image += "2"
	v.mount()
	w.writing(t)
	w.end()
	w.check(t, s.Conn())
}

// JetStream stops altogether when it may not write a file.
func TestADirectoryThatMayNotBeWrittenStopsJetStreamUntilItMay(t *testing.T) {
	v := newVolume(t, 160)
	_, s := v.supervised(Options{DiskReserve: 16 << 20})
	w := startWriter(t, s.Conn())
	w.writing(t)
	v.run("chattr", "-R", "+i", s.dir)
	// Else the volume could not be unmounted cleanly; it is no error to do it twice.
	t.Cleanup(func() { v.run("chattr", "-R", "-i", s.dir) })
	w.failing(t)
	eventually(t, "the server says why", func() error {
		if err := s.Ready(); !errors.Is(err, errStopped) || !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("Ready = %w", err)
		}
		return nil
	})
	v.run("chattr", "-R", "-i", s.dir)
	w.writing(t)
	w.end()
	w.check(t, s.Conn())
}

// Sync calls that take seconds delay writes, and nothing else.
func TestASlowDiskIsWaitedFor(t *testing.T) {
	v := newVolume(t, 160)
	_, s := v.supervised(Options{DiskReserve: 16 << 20})
	w := startWriter(t, s.Conn())
	w.writing(t)
	v.run("fsfreeze", "-f", v.path)
	thaw := sync.OnceFunc(func() { v.run("fsfreeze", "-u", v.path) })
	t.Cleanup(thaw)
	w.failing(t)
	if err := s.Room(1); err != nil {
		t.Errorf("Room of a slow disk = %v", err)
	}
	time.AfterFunc(3*time.Second, thaw)
	w.writing(t)
	w.end()
	w.check(t, s.Conn())
	if st := s.Stats(); st.Restarts+st.FailedRestarts > 0 {
		t.Errorf("Stats = %+v, want no restart", st)
	}
}

func TestAStartOnADiskThatCannotBeWrittenSaysSo(t *testing.T) {
	v := newVolume(t, 64)
	path := filepath.Join(v.path, "data")
	dir := openDir(t, path)
	startServer(t, dir, Options{}).Close()
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	wants := func(what string, err error, words ...string) {
		t.Helper()
		for _, word := range append(words, path) {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s = %v, want %q", what, err, word)
			}
		}
	}
	free := v.fill(0)
	_, err := OpenDir(path)
	wants("OpenDir on a full disk", err, "no space left on device; make room on that disk")
	free()
	if _, err := os.Stat(filepath.Join(path, metaFile+".new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a file is left: %v", err)
	}

	dir = openDir(t, path)
	free = v.fill(0)
	_, err = Start(t.Context(), Options{Dir: dir})
	wants("Start on a full disk", err, "no space left on device; make room on that disk")
	free()
	// Room for the server itself is enough: what is there can be read.
	free = v.fill(2 << 20)
	s := startServer(t, dir, Options{})
	if err := s.Ready(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Ready = %v, want ErrDiskFull", err)
	}
	s.Close()
	free()
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}

	v.run("mount", "-o", "remount,ro", v.path)
	_, err = OpenDir(path)
	wants("OpenDir, read-only", err, "read-only file system; mount it writable")
	d := disk{dir: path}
	if err := d.room(0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("room = %v, want EROFS", err)
	}
}

// Our own high-water mark holds: whatever is written as long as Room grants it, the
// server never meets the end of the disk.
func TestWritersThatAskForRoomNeverFillTheDisk(t *testing.T) {
	v := newVolume(t, 128)
	_, s := v.supervised(Options{})
	js, err := jetstream.New(s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxMsgsPerSubject: 1}); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for n := 0; refused < 2; n++ {
		if err := s.Room(2 * 200_000); err != nil {
			if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "records.diskReserve") {
				t.Fatalf("Room = %v", err)
			}
			refused++
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := stream.Purge(ctx)
			if cancel(); err != nil {
				t.Fatalf("purge on the full disk: %v", err)
			}
			eventually(t, "the purge gives room", func() error { return s.Room(2 * 200_000) })
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience) // of the library's own, a busy disk needs more
		_, err := js.Publish(ctx, "s."+strconv.Itoa(n), make([]byte, 200_000))
		if cancel(); err != nil {
			t.Fatalf("message %d: %v, %v", n, err, s.Ready())
		}
	}
	if st := s.Stats(); st.Restarts > 0 || !st.TroubledSince.IsZero() {
		t.Errorf("Stats = %+v, want no trouble", st)
	}
}
