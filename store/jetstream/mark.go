package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// mark remembers beside the stream how far it was acknowledged. After a crash
// the server reads its files again, takes the first damaged message for the end
// of what was written, and cuts off all that follows without a word, be it ever
// so old. Only somebody who knows what was there can tell.
//
// The file is written after every append and not synced: what a kill leaves in
// the page cache is enough, and after a power cut it says too little, never too
// much, as long as the stream itself is synced before an append is acknowledged.
//
// With replicas the streams may be made anew while the file stays, as when the cluster
// is: then it also says when the stream was made that it is about.
type mark struct {
	name string
	f    *os.File
	// born is when the stream was made, in nanoseconds, 0 when it does not matter. The file
	// says nothing when it was written for another one.
	born int64
}

const (
	markSize     = 12
	bornMarkSize = 20
)

func openMark(name string) (*mark, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &mark{name: name, f: f}, nil
}

// read returns the sequence, 0 when there is none. A torn file is none.
func (m *mark) read() (uint64, error) {
	b := make([]byte, m.size())
	switch _, err := m.f.ReadAt(b, 0); {
	case errors.Is(err, io.EOF):
		return 0, nil
	case err != nil:
		return 0, err
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return 0, nil
	}
	if m.born != 0 && binary.LittleEndian.Uint64(b[8:]) != uint64(m.born) {
		return 0, nil
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (m *mark) write(seq uint64) error {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, bornMarkSize), seq)
	if m.born != 0 {
		b = binary.LittleEndian.AppendUint64(b, uint64(m.born))
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := m.f.WriteAt(b, 0)
	return err
}

func (m *mark) size() int {
	if m.born != 0 {
		return bornMarkSize
	}
	return markSize
}

// checkMark compares the end of the stream with what had been acknowledged before it was
// asked for: an old owner that still writes moves both.
func (s *link) checkMark(acked, last uint64) error {
	if acked > last {
		return s.doubted(s.subjects+">", last, fmt.Sprintf("the stream ends here, but was acknowledged up to sequence %d; %s", acked, s.remedy()))
	}
	return nil
}

// missingEnd is the error for a stream whose last message cannot be found, or
// nil when that one was never acknowledged. The last message is the newest of its
// subject and nothing removes it, so others before it are likely gone as well:
// a server that finds less than its index says goes on where the index ended.
func (s *link) missingEnd(last uint64) error {
	acked, err := s.acknowledged()
	if err != nil || acked < last {
		return err
	}
	return s.doubted(s.subjects+">", last, "the last message was acknowledged and cannot be found, and perhaps others before it; "+s.remedy())
}

// acknowledged is the sequence that the mark says; 0 without a mark.
func (s *link) acknowledged() (uint64, error) {
	if s.mark == nil {
		return 0, nil
	}
	return s.mark.read()
}

// remedy is what an operator can do about a stream that lacks messages.
func (s *link) remedy() string {
	return fmt.Sprintf("restore it, or remove the file %s to go on without what is lost", s.mark.name)
}

// setMark notes an acknowledged sequence. The append has happened, so a failure
// is told and changes nothing.
func (s *link) setMark(seq uint64) {
	if s.mark == nil {
		return
	}
	if err := s.mark.write(seq); err != nil {
		s.log.Error("the acknowledged sequence could not be noted", "stream", s.stream, "err", err)
	}
}
