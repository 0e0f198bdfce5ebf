//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"hadal/protocol"
)

// The volume of a node whose disk fills up.
const (
	smallVolume = 96 << 20
	ballastSize = 16 << 20
	recordSize  = 16 << 10
)

// Times of a node in trouble.
const (
	// fillIn is how long it may take to fill the volume.
	fillIn = 3 * time.Minute
	// lasting is how long nothing must be accepted for the disk to be full: longer
	// than from one checkpoint to the next.
	lasting = 8 * time.Second
	// comeBack is how long a node may take to accept writes again after its disk can
	// be written.
	comeBack = 60 * time.Second
)

// sufferer is a node on a small volume, with its clients, and what it acknowledged.
type sufferer struct {
	*settings
	volume *volume
	data   string // its data directory
	node   *node
	writer *socket
	reader *socket // subscribed to an event

	names    int                 // given away
	kept     map[string]string   // acknowledged data
	recent   []string            // the last names acknowledged
	doubtful map[string][]string // data that was refused: it may be there all the same
}

// newSufferer starts a node on a small volume.
func newSufferer(ctx context.Context, s *settings, name string) (*sufferer, error) {
	v, err := newVolume(s.work, name, smallVolume)
	if err != nil {
		return nil, err
	}
	t := &sufferer{settings: s, volume: v, data: filepath.Join(v.dir, "data"), kept: make(map[string]string), doubtful: make(map[string][]string)}
	return t, t.start(ctx)
}

func (t *sufferer) start(ctx context.Context) (err error) {
	if t.node, err = startNode(ctx, t.settings, t.data); err != nil {
		return err
	}
	if t.writer, err = t.node.dial(ctx); err != nil {
		return err
	}
	if t.reader, err = t.node.dial(ctx); err != nil {
		return err
	}
	_, err = t.reader.ask(ctx, &protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"news"}, CorrelationID: "1", Has: protocol.HasCorrelationID,
	})
	return err
}

// end stops the node, if it is there, and looks at the error that may have been its
// fault.
func (t *sufferer) end(err error) error {
	if t.node != nil {
		var said violation
		if errors.As(err, &said) && !strings.Contains(err.Error(), "its log ends") {
			err = t.node.wrong("%v", err)
		}
		err = errors.Join(err, t.node.end(syscall.SIGKILL))
	}
	return errors.Join(err, t.volume.remove())
}

// write writes a record and says what the node answered when it refused.
func (t *sufferer) write(ctx context.Context, name string) (refusal string, err error) {
	data := fmt.Sprintf(`{"once":%d,"pad":"%s"}`, rand.Uint64(), strings.Repeat("x", recordSize))
	got, err := t.writer.ask(ctx, &protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: name, Version: -1, Data: data,
		CorrelationID: "1", IsWriteAck: true, Has: protocol.HasVersion | protocol.HasData | protocol.HasCorrelationID,
	})
	switch {
	case err != nil:
		return "", err
	case got.Action == protocol.RecordWriteAcknowledgement && got.Name == name:
		t.kept[name], t.doubtful[name] = data, nil
		t.recent = append(t.recent[max(len(t.recent)-3, 0):], name)
		return "", nil
	case got.IsError && got.Name == name:
		t.doubtful[name] = append(t.doubtful[name], data)
		return got.Action.Name(got.Topic) + " " + got.Data, nil
	}
	return "", violation(fmt.Sprintf("a write was answered by %s %s of %q", got.Topic, got.Action.Name(got.Topic), got.Name))
}

// another is a name: mostly a new one, sometimes one that was written before.
func (t *sufferer) another() string {
	if n := t.names; n > 0 && n%8 == 0 && t.rand.IntN(2) == 0 {
		return fmt.Sprintf("r/%d", t.rand.IntN(n))
	}
	t.names++
	return fmt.Sprintf("r/%d", t.names-1)
}

// writeUntilRefused writes until nothing has been accepted for a while, and returns
// what the node said. A single refusal may pass: a checkpoint makes room.
func (t *sufferer) writeUntilRefused(ctx context.Context) (refusal string, err error) {
	accepted := time.Now()
	for give := accepted.Add(fillIn); time.Now().Before(give); {
		said, err := t.write(ctx, t.another())
		switch {
		case err != nil:
			return "", err
		case said == "":
			accepted = time.Now()
			continue
		case time.Since(accepted) > lasting:
			return said, nil
		}
		<-time.After(50 * time.Millisecond)
	}
	return "", violation(fmt.Sprintf("writes are still accepted after %v", fillIn))
}

// writeUntilAccepted writes until that succeeds.
func (t *sufferer) writeUntilAccepted(ctx context.Context) error {
	last := ""
	for give := time.Now().Add(comeBack); time.Now().Before(give); {
		var err error
		if last, err = t.write(ctx, t.another()); err != nil || last == "" {
			return err
		}
		<-time.After(50 * time.Millisecond)
	}
	return violation(fmt.Sprintf("writes are still refused %v after the disk can be written again: %s", comeBack, last))
}

// writes has n writes acknowledged.
func (t *sufferer) writes(ctx context.Context, n int) error {
	for range n {
		said, err := t.write(ctx, t.another())
		if err != nil {
			return err
		}
		if said != "" {
			return violation("a write was refused: " + said)
		}
	}
	return nil
}

// trouble is what a node may do while it refuses writes.
type trouble struct {
	why *regexp.Regexp // what /readyz says
	// stopped: JetStream met the error itself, and has stopped. Then only records in
	// memory can be read; others are refused, and in time.
	stopped bool
}

// suffers writes until that is refused, and looks at the node: it says why, answers
// reads, and passes events on.
func (t *sufferer) suffers(ctx context.Context, is trouble) error {
	refusal, err := t.writeUntilRefused(ctx)
	if err != nil {
		return err
	}
	say("%s acknowledged, then refused: %s", count(len(t.kept)), refusal)
	var status int
	var text string
	for give := time.Now().Add(answerIn); ; {
		var err error
		if status, text, err = t.node.ready(ctx); err != nil {
			return err
		}
		if status != 200 && is.why.MatchString(text) {
			break
		}
		if time.Now().After(give) {
			return violation(fmt.Sprintf("/readyz says %d %q, which does not tell an operator what is wrong", status, text))
		}
		<-time.After(50 * time.Millisecond)
	}
	say("/readyz: %d %s", status, strings.TrimSpace(text))
	for _, name := range t.recent {
		if err := t.look(ctx, name); err != nil {
			return err
		}
	}
	names, unread := slices.Sorted(maps.Keys(t.kept)), 0
	for range 20 {
		err := t.look(ctx, names[t.rand.IntN(len(names))])
		if is.stopped && errors.Is(err, errUnread) {
			unread++
			continue
		}
		if err != nil {
			return err
		}
	}
	say("records in memory are read, and of 20 others %d", 20-unread)
	for i := range 20 {
		if err := t.writer.say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "news", Data: fmt.Sprint(i), Has: protocol.HasData}); err != nil {
			return err
		}
		got, err := t.reader.next(ctx)
		if err != nil {
			return fmt.Errorf("an event: %w", err)
		}
		if got.Action != protocol.EventEmit || got.Data != fmt.Sprint(i) {
			return violation(fmt.Sprintf("event %d came as %s %s %q", i, got.Topic, got.Action.Name(got.Topic), got.Data))
		}
	}
	return nil
}

// errUnread means that a read was answered with an error.
var errUnread error = violation("a record that was acknowledged is not read")

// look reads a record that was acknowledged.
func (t *sufferer) look(ctx context.Context, name string) error {
	got, err := t.writer.ask(ctx, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: name, Has: protocol.HasName})
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", name, err)
	case got.Action != protocol.RecordReadResponse:
		return fmt.Errorf("%w: %s answers %s", errUnread, name, got.Action.Name(got.Topic))
	case got.Data != t.kept[name] && !slices.Contains(t.doubtful[name], got.Data):
		return violation(fmt.Sprintf("%s is not what was acknowledged", name))
	}
	return nil
}

// readyLimit is how long after the first accepted write /readyz may still say what was.
const readyLimit = 15 * time.Second

// recovers waits until writes and /readyz are well again, in the same process.
func (t *sufferer) recovers(ctx context.Context) error {
	began := time.Now()
	if err := t.writeUntilAccepted(ctx); err != nil {
		return err
	}
	say("accepted again after %v", time.Since(began).Round(10*time.Millisecond))
	if err := t.writes(ctx, 50); err != nil {
		return err
	}
	status, text, err := t.node.ready(ctx)
	// What the node asks of its store now and then, as how that of logins is, it learns a
	// moment later.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(readyLimit); err == nil && status != 200; {
		select {
		case <-tick.C:
			status, text, err = t.node.ready(ctx)
			continue
		case <-limit:
		case <-ctx.Done():
		}
		break
	}
	if err == nil && status != 200 {
		err = violation(fmt.Sprintf("writes are accepted, but /readyz says %d %q", status, text))
	}
	return err
}

// restart ends the node and looks at everything that was acknowledged.
func (t *sufferer) restart(ctx context.Context, by syscall.Signal) error {
	if err := t.node.end(by); err != nil {
		return err
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	for name := range t.kept {
		if err := t.look(ctx, name); err != nil {
			return fmt.Errorf("after %v and a start: %w", by, err)
		}
	}
	return nil
}

// fill takes all that is left of the volume, to the last block, and returns how to
// give it back.
func (t *sufferer) fill(name string, size int64) (free func() error, err error) {
	file := filepath.Join(t.volume.dir, name)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<20)
	for written := int64(0); size == 0 || written < size; {
		n, err := f.Write(buf)
		written += int64(n)
		switch {
		case err == nil:
		case errors.Is(err, syscall.ENOSPC) && size == 0 && len(buf) > 4096:
			buf = buf[:4096] // what is left is small
		case errors.Is(err, syscall.ENOSPC) && size == 0:
			size = written
		default:
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	return func() error { return os.Remove(file) }, nil
}

// fullWords is what tells an operator of a full disk.
var fullWords = regexp.MustCompile(`(?i)full|space|room|free`)

// diskFull fills the disk of a node by its own records and by somebody else's file.
func diskFull(ctx context.Context, s *settings) (summary string, err error) {
	t, err := newSufferer(ctx, s, "full")
	if t == nil {
		return "", err
	}
	defer func() { err = t.end(err) }()
	if err != nil {
		return "", err
	}
	free, err := t.fill("ballast", ballastSize)
	if err != nil {
		return "", err
	}
	if err := t.writes(ctx, 100); err != nil {
		return "", err
	}
	say("filled by its records")
	if err := t.suffers(ctx, trouble{why: fullWords}); err != nil {
		return "", err
	}
	say("and a foreign file takes what was kept free, to the last block")
	freeMore, err := t.fill("foreign", 0)
	if err != nil {
		return "", err
	}
	if err := t.suffers(ctx, trouble{why: fullWords}); err != nil {
		return "", err
	}
	if err := errors.Join(free(), freeMore(), t.recovers(ctx)); err != nil {
		return "", err
	}
	say("a foreign file takes all there is while records are written")
	filled := make(chan error, 1)
	go func() {
		var err error
		free, err = t.fill("foreign", 0)
		filled <- err
	}()
	err = t.suffers(ctx, trouble{why: fullWords, stopped: true})
	if err := errors.Join(err, <-filled); err != nil {
		return "", err
	}
	if err := errors.Join(free(), t.recovers(ctx)); err != nil {
		return "", err
	}
	for _, by := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := t.restart(ctx, by); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("disk full: by records and by a foreign file, %s records acknowledged, 0 lost; writes went on without a restart", count(len(t.kept))), nil
}

// readOnlyWords is what tells an operator of a disk that cannot be written.
var readOnlyWords = regexp.MustCompile(`(?i)read-only|not permitted|cannot be written|disk|stopped`)

// diskReadOnly makes everything that the server keeps unchangeable, files that are
// open too, and takes that back. A mount becomes read-only only when no file on it
// is open for writing, or for good, after an error.
func diskReadOnly(ctx context.Context, s *settings) (summary string, err error) {
	t, err := newSufferer(ctx, s, "readonly")
	if t == nil {
		return "", err
	}
	defer func() { err = t.end(errors.Join(err, t.protect(false))) }()
	if err != nil {
		return "", err
	}
	rounds := s.rounds(1, 3)
	for range rounds {
		if err := t.writes(ctx, 200); err != nil {
			return "", err
		}
		if err := t.protect(true); err != nil {
			return "", err
		}
		if err := t.suffers(ctx, trouble{why: readOnlyWords, stopped: true}); err != nil {
			return "", err
		}
		if err := errors.Join(t.protect(false), t.recovers(ctx)); err != nil {
			return "", err
		}
	}
	if err := t.restart(ctx, syscall.SIGKILL); err != nil {
		return "", err
	}
	return fmt.Sprintf("disk read-only: %d times, %s records acknowledged, 0 lost; writes went on without a restart", rounds, count(len(t.kept))), nil
}

// protect makes the server's files and directories unchangeable, or lifts that.
// Some may come and go meanwhile, which chattr takes for an error.
func (t *sufferer) protect(on bool) error {
	dir, flag := filepath.Join(t.data, "nats"), "-i"
	if on {
		flag = "+i"
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var err error
	for range 10 {
		if err = command("chattr", "-R", flag, dir); err == nil {
			return nil
		}
	}
	return err
}
