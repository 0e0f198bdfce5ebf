package deepstream

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hdt3213/rdb/model"
	"github.com/hdt3213/rdb/parser"
)

// versionsAtOnce is how many versions are held in memory, about 50 bytes each. A dump of more records is
// read several times, for a part of the names each time.
var versionsAtOnce = 4 << 20

// Dump reads database db of a redis from its dump (RDB) file. The connector keeps the
// version of a record x under x_v and its data under x_d, in no order, so the file is read
// once for its checksum, for the versions, and for the data. That of deepstream 3 keeps both
// under x.
func Dump(ctx context.Context, path string, db int, each Each) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	d := &dump{ctx: ctx, file: file, db: db, each: each, now: time.Now(), parts: 1}
	if d.size, err = checkDump(ctx, file); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for ; d.part < d.parts; d.part++ {
		if err := d.read(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// IsDump says whether a file that begins so is a dump, of whatever version.
func IsDump(head []byte) bool {
	return strings.HasPrefix(string(head), "REDIS") || strings.HasPrefix(string(head), "VALKEY")
}

// newestDump is the newest version of the format that the parser knows: Redis 7.4 and 8.0
// write it.
const newestDump = 12

// jones is the polynomial of redis's checksum, its lowest bit first.
var jones = crc64.MakeTable(0x95ac9329ac4bc9b5)

// checkDump reads the file to its end, compares the checksum, and returns the size.
func checkDump(ctx context.Context, file io.Reader) (size int64, err error) {
	in := bufio.NewReaderSize(file, 1<<20)
	head, err := in.Peek(9)
	version, notNumber := strconv.Atoi(strings.TrimPrefix(string(head), "REDIS"))
	switch {
	case err != nil || !IsDump(head):
		return 0, errors.New("not a dump of redis")
	case notNumber != nil || version > newestDump:
		return 0, fmt.Errorf("the dump has format %q, and the newest that is read is REDIS%04d: bring the records over as lines of JSON", head, newestDump)
	}
	var sum uint64
	block := make([]byte, 1<<20)
	held := 0 // at the beginning of block: perhaps the checksum itself
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := io.ReadFull(in, block[held:])
		size += int64(n)
		n += held
		if held = min(n, 8); version < 5 {
			held = 0 // there is none
		}
		// Unlike Go's, redis's does not complement before and after.
		sum = ^crc64.Update(^sum, jones, block[:n-held])
		copy(block, block[n-held:n])
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			// It is zero when redis has rdbchecksum off.
			if want := binary.LittleEndian.Uint64(block); held == 8 && want != 0 && want != sum {
				return 0, errors.New("the dump is damaged, cut off, or has something behind it: its checksum is another one")
			}
			return size, nil
		case err != nil:
			return 0, err
		}
	}
}

// dump is one that is read.
type dump struct {
	ctx  context.Context
	file *os.File
	size int64
	db   int
	each Each
	now  time.Time

	part, parts int
	versions    map[[16]byte]int32 // of names whose data is still to come
}

// partOf is a key of versions for a name, and the part in which it is read.
func (d *dump) partOf(name string) (key [16]byte, part int) {
	sum := sha256.Sum256([]byte(name))
	return [16]byte(sum[:]), int(binary.LittleEndian.Uint64(sum[16:]) % uint64(d.parts))
}

// read hands over the records of one part.
func (d *dump) read() error {
	if err := d.readVersions(); err != nil {
		return err
	}
	if err := d.keys(d.record); err != nil {
		return err
	}
	if len(d.versions) == 0 {
		return nil
	}
	return d.keys(func(o model.RedisObject) error {
		name, _, ok := d.version(o)
		if key, _ := d.partOf(name); ok {
			if _, left := d.versions[key]; left {
				return d.each(Record{Name: name}, fmt.Errorf("there is %s_v in redis, and no %s_d", name, name))
			}
		}
		return nil
	})
}

// readVersions finds the versions of the part; the first time, how many parts there are.
func (d *dump) readVersions() error {
	d.versions = map[[16]byte]int32{}
	count := 0
	if err := d.keys(func(o model.RedisObject) error {
		name, version, ok := d.version(o)
		if !ok {
			return nil
		}
		count++
		if key, part := d.partOf(name); part == d.part && (d.parts > 1 || count <= versionsAtOnce) {
			d.versions[key] = version
		}
		return nil
	}); err != nil {
		return err
	}
	if d.parts == 1 && count > versionsAtOnce {
		d.parts = count/versionsAtOnce + 1
		return d.readVersions()
	}
	return nil
}

// version reads a key that holds the version of a record.
func (d *dump) version(o model.RedisObject) (name string, version int32, ok bool) {
	text, isText := o.(*model.StringObject)
	name, isVersion := strings.CutSuffix(o.GetKey(), "_v")
	if !isText || !isVersion || o.GetDBIndex() != d.db || d.expired(o) {
		return "", 0, false
	}
	n, err := strconv.ParseInt(string(text.Value), 10, 32)
	return name, int32(n), err == nil
}

func (d *dump) expired(o model.RedisObject) bool {
	ends := o.GetExpiration()
	return ends != nil && !ends.After(d.now)
}

// record hands over what is kept under a key, if it belongs to the part. What is no record is told
// with the first part.
func (d *dump) record(o model.RedisObject) error {
	if _, _, ok := d.version(o); ok {
		return nil
	}
	key := o.GetKey()
	if name, isData := strings.CutSuffix(key, "_d"); isData && o.GetDBIndex() == d.db && !d.expired(o) {
		id, part := d.partOf(name)
		if part != d.part {
			return nil
		}
		text, isText := o.(*model.StringObject)
		if version, ok := d.versions[id]; ok && isText {
			delete(d.versions, id)
			return d.each.give(name, int64(version), string(text.Value))
		}
		if isText && !isWrapped(text) {
			return d.each(Record{Name: name}, fmt.Errorf("there is %s_d in redis, and no version under %s_v: deepstream does not find it either", name, name))
		}
	} else if d.part != 0 {
		return nil
	}
	text, isText := o.(*model.StringObject)
	switch {
	case o.GetDBIndex() != d.db:
		return d.each(Record{Name: key}, ErrElsewhere)
	case d.expired(o):
		return d.each(Record{Name: key}, ErrExpired)
	case isText:
		if version, data, ok := unwrap(string(text.Value)); ok {
			return d.each.give(key, version, data)
		}
	}
	return d.each(Record{Name: key}, ErrForeign)
}

func isWrapped(text *model.StringObject) bool {
	_, _, ok := unwrap(string(text.Value))
	return ok
}

// keys calls fn for every key of the dump.
func (d *dump) keys(fn func(model.RedisObject) error) error {
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	dec := parser.NewDecoder(bufio.NewReaderSize(d.file, 1<<20))
	var stopped error
	err := dec.Parse(func(o model.RedisObject) bool {
		if stopped = d.ctx.Err(); stopped == nil {
			stopped = fn(o)
		}
		return stopped == nil
	})
	switch {
	case stopped != nil:
		return stopped
	case err != nil:
		return fmt.Errorf("the dump cannot be read: %w", err)
	case int64(dec.GetReadCount()) != d.size: // the parser is silent about some ends
		return fmt.Errorf("the dump cannot be read: its keys end at byte %d of %d", dec.GetReadCount(), d.size)
	}
	return nil
}
