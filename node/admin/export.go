package admin

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// An export is lines of JSON, one for each record, and one at the end:
//
//	{"name":"users/ada","version":3,"data":{"name":"Ada"}}
//	{"end":true,"records":1,"checksum":"3c6d2f5a9b7e8d10"}
//
// A backup has lines of what logins keep as well, each with a key, a value in base64, and
// when it ends, in Unix time, if it does; and their number in the last line:
//
//	{"login":"user/YWRh","value64":"eyJoYXNoIjoi4oCmIn0=","ends":1790000000}
//	{"end":true,"records":1,"logins":1,"checksum":"3c6d2f5a9b7e8d10"}
//
// Data stands there byte for byte. Where that cannot be (it holds an end of a
// line, begins or ends with space, or is no UTF-8) its base64 stands under data64
// instead; so does a name that is no UTF-8, under name64.
//
// The checksum is the sum, modulo 2^64, of the XXH64 of every other line without
// its end. So the lines may be sorted, and exports put together one behind the
// other: the counts and checksums of all end lines add up to those of all records.
const (
	// maxRecord is the most bytes of one record that are read at all; how large a
	// record may be, Records decides.
	maxRecord = 64 << 20
	// maxLine has room for that in base64, and a name.
	maxLine = maxRecord/3*4 + 1<<20
)

// appendLine appends the record as one line of JSON.
func (r Record) appendLine(b []byte) ([]byte, error) {
	var err error
	if utf8.ValidString(r.Name) {
		if b, err = appendJSON(append(b, `{"name":`...), r.Name); err != nil {
			return nil, err
		}
	} else {
		b = appendBase64(append(b, `{"name64":`...), r.Name)
	}
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	if strings.ContainsAny(r.Data, "\r\n") || strings.Trim(r.Data, " \t") != r.Data || !utf8.ValidString(r.Data) {
		b = appendBase64(append(b, `,"data64":`...), r.Data)
	} else {
		b = append(append(b, `,"data":`...), r.Data...)
	}
	return append(b, '}', '\n'), nil
}

// AppendName appends a name as one line of a listing: a string of JSON, or an object with
// name64 when it is no UTF-8.
func AppendName(b []byte, name string) ([]byte, error) {
	if !utf8.ValidString(name) {
		return append(appendBase64(append(b, `{"name64":`...), name), '}', '\n'), nil
	}
	b, err := appendJSON(b, name)
	return append(b, '\n'), err
}

func appendJSON(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(b, text...), err
}

func appendBase64(b []byte, s string) []byte {
	b = base64.StdEncoding.AppendEncode(append(b, '"'), []byte(s))
	return append(b, '"')
}

// exportLine is a line of an import: a record, or an end.
type exportLine struct {
	Name     *string         `json:"name"`
	Name64   *[]byte         `json:"name64"`
	Version  *int32          `json:"version"`
	Data     json.RawMessage `json:"data"`
	Data64   *[]byte         `json:"data64"`
	Login    *string         `json:"login"`
	Value64  *[]byte         `json:"value64"`
	Ends     *int64          `json:"ends"`
	End      bool            `json:"end"`
	Records  *uint64         `json:"records"`
	Logins   uint64          `json:"logins"`
	Checksum *string         `json:"checksum"`
}

// parseLine reads one line. Other keys than those of an export are mistakes.
func parseLine(line []byte) (l exportLine, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(&l); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return l, errors.New("not a record as JSON: it is cut off")
	case err != nil:
		return l, fmt.Errorf("not a record as JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return l, errors.New("something follows the record")
	}
	isEnd := l.Records != nil && l.Checksum != nil
	if l.End != isEnd || (l.Records != nil) != (l.Checksum != nil) || l.Logins > 0 && !isEnd {
		return l, errors.New("not the last line of an export: that has end, records and checksum")
	}
	return l, nil
}

// record is the record that a line holds.
func (l *exportLine) record() (r Record, err error) {
	switch {
	case l.Value64 != nil || l.Ends != nil:
		return r, errors.New("has value64 or ends, and no login")
	case l.Name != nil && l.Name64 != nil:
		return r, errors.New("has two names")
	case l.Name != nil:
		r.Name = *l.Name
	case l.Name64 != nil:
		r.Name = string(*l.Name64)
	}
	if r.Name == "" {
		return r, errors.New("has no name")
	}
	if l.Version == nil || *l.Version < 0 {
		return r, fmt.Errorf("record %q: version is missing or negative", r.Name)
	}
	r.Version = *l.Version
	switch {
	case l.Data != nil && l.Data64 != nil:
		return r, fmt.Errorf("record %q: data is there twice", r.Name)
	case l.Data != nil:
		r.Data = string(l.Data)
	case l.Data64 != nil && !json.Valid(*l.Data64):
		return r, fmt.Errorf("record %q: data64 is no JSON", r.Name)
	case l.Data64 != nil:
		r.Data = string(*l.Data64)
	default:
		return r, fmt.Errorf("record %q: data is missing", r.Name)
	}
	return r, nil
}

// parseRecord reads a line that holds a record.
func parseRecord(line []byte) (Record, error) {
	l, err := parseLine(line)
	if err != nil {
		return Record{}, err
	}
	return l.record()
}

// Exporter writes an export. Records are put into it with Add, then End is called.
type Exporter struct {
	out    *bufio.Writer
	line   []byte
	count  uint64 // of records
	logins uint64
	sum    uint64
}

// NewExporter makes an Exporter that writes to w, in pieces of its own choosing.
func NewExporter(w io.Writer) *Exporter { return &Exporter{out: bufio.NewWriterSize(w, 256<<10)} }

// Add writes a record.
func (e *Exporter) Add(r Record) (err error) {
	if e.line, err = r.appendLine(e.line[:0]); err != nil {
		return err
	}
	e.count++
	return e.write()
}

// AddLogin writes an entry of what logins keep.
func (e *Exporter) AddLogin(l Login) (err error) {
	if e.line, err = l.appendLine(e.line[:0]); err != nil {
		return err
	}
	e.logins++
	return e.write()
}

func (e *Exporter) write() error {
	e.sum += xxhash.Sum64(e.line[:len(e.line)-1])
	_, err := e.out.Write(e.line)
	return err
}

// End writes the end line, and everything that is not yet written.
func (e *Exporter) End() error {
	logins := ""
	if e.logins > 0 {
		logins = fmt.Sprintf(`"logins":%d,`, e.logins)
	}
	if _, err := fmt.Fprintf(e.out, `{"end":true,"records":%d,%s"checksum":"%016x"}`+"\n", e.count, logins, e.sum); err != nil {
		return err
	}
	return e.out.Flush()
}

// exportCheck compares the lines of an import with its end lines.
type exportCheck struct {
	ended                          bool
	count, sum, wantCount, wantSum uint64
	logins, wantLogins             uint64
}

// line notes a line of a record, or of what logins keep.
func (c *exportCheck) line(text []byte, login bool) {
	if login {
		c.logins++
	} else {
		c.count++
	}
	c.sum += xxhash.Sum64(text)
}

// end notes an end line.
func (c *exportCheck) end(l *exportLine) error {
	sum, err := strconv.ParseUint(*l.Checksum, 16, 64)
	if err != nil {
		return fmt.Errorf("the checksum %q is none", *l.Checksum)
	}
	c.ended = true
	c.wantCount += *l.Records
	c.wantLogins += l.Logins
	c.wantSum += sum
	return nil
}

// verdict says what is wrong with the whole.
func (c *exportCheck) verdict() error {
	const partial = "; import it as a partial one if that is meant (--partial)"
	switch {
	case !c.ended:
		return errors.New("there is no end line, as if the export was cut off" + partial)
	case c.count != c.wantCount:
		return fmt.Errorf("there are %d records, and the end line says %d: lines are missing or were added%s", c.count, c.wantCount, partial)
	case c.logins != c.wantLogins:
		return fmt.Errorf("there are %d entries of logins, and the end line says %d: lines are missing or were added%s", c.logins, c.wantLogins, partial)
	case c.sum != c.wantSum:
		return errors.New("the checksum of the end line is another one: a line is damaged or was changed" + partial)
	}
	return nil
}
