package deepstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/tidwall/gjson"

	"hadal/protocol/jsonpath"
)

// maxLine has room for a record of MaxData in base64, and its name.
const maxLine = MaxData/3*4 + 1<<20

// Lines reads records as lines of JSON: {"name":…,"version":…,"data":…}, where without a
// version it is 1, and _v and _d may stand for version and data. Lines of an export of
// Hadal are such lines; its end is not asked for. A line that is none is told by its
// number.
func Lines(ctx context.Context, r io.Reader, each Each) error {
	in := bufio.NewReaderSize(r, 1<<20)
	for number := 1; ; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, whole, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		ended := err != nil
		if line = bytes.TrimSpace(line); len(line) > 0 || !whole {
			if err := giveLine(string(line), whole, number, each); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// readLine reads a line, or, not whole, over one that is longer than maxLine. The error is io.EOF
// with the last one.
func readLine(in *bufio.Reader) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := in.ReadSlice('\n')
		if whole = whole && len(line)+len(part) <= maxLine; whole {
			line = append(line, part...)
		} else {
			line = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, whole, err
		}
	}
}

func giveLine(line string, whole bool, number int, each Each) error {
	wrong := func(format string, args ...any) error {
		return each(Record{}, fmt.Errorf("line %d: "+format, append([]any{number}, args...)...))
	}
	switch {
	case !whole:
		return wrong("it has more than %d bytes", maxLine)
	case line[0] != '{' || !jsonpath.ValidJSON(line):
		return wrong("it is no object of JSON")
	}
	f, err := fieldsOf(line)
	switch {
	case err != nil:
		return wrong("%w", err)
	case f.end:
		return nil
	case f.name == "":
		return wrong("it has no name")
	case f.data == "":
		return each(Record{Name: f.name}, errors.New("its data is missing"))
	}
	version := int64(1)
	if f.version != "" {
		if version, err = strconv.ParseInt(f.version, 10, 64); err != nil {
			return each(Record{Name: f.name}, fmt.Errorf("version %s is none", f.version))
		}
	}
	return each.give(f.name, version, f.data)
}

// fields are those of a line.
type fields struct {
	name, version, data string
	end                 bool
}

func fieldsOf(line string) (f fields, err error) {
	gjson.Parse(line).ForEach(func(key, value gjson.Result) bool {
		var into *string
		text := value.Raw
		switch key.Str {
		case "name", "name64":
			into, text = &f.name, value.Str
			if value.Type != gjson.String {
				err = errors.New("its name is no text")
			}
		case "version", "_v":
			into = &f.version
		case "data", "_d":
			into = &f.data
		case "data64":
			into, text = &f.data, value.Str
		case "end":
			f.end = true
			return true
		default:
			if !f.end { // whose line has others
				err = fmt.Errorf("it has a key %q, which no record has", key.Str)
			}
			return err == nil
		}
		if key.Str == "name64" || key.Str == "data64" {
			var raw []byte
			if raw, err = base64.StdEncoding.DecodeString(text); err != nil {
				err = fmt.Errorf("%s is no base64", key.Str)
			}
			text = string(raw)
		}
		if *into != "" {
			err = fmt.Errorf("%q says again what another key says", key.Str)
		}
		*into = text
		return err == nil
	})
	if err == nil && f.end && f != (fields{end: true}) {
		err = errors.New("it is a record and the end of an export")
	}
	return f, err
}
