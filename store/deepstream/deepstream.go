// Package deepstream reads the records that a deepstream server has left behind: in the
// tables of its PostgreSQL connector, in the dump of a redis that its redis connector wrote
// to, and as lines of JSON. It changes nothing there, holds one record in memory at a time,
// and knows of no node.
//
// What the connectors write is in their sources: @deepstream/storage-postgres 3,
// @deepstream/cache-redis 2, and those of deepstream 3, deepstream.io-storage-postgres and
// deepstream.io-cache-redis 1.
package deepstream

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"hadal/protocol/jsonpath"
)

// Record is a record as it was kept there. Data is JSON text.
type Record struct {
	Name    string
	Version int32
	Data    string
}

// Each is called for every record, one after the other. With a reason the record is one that is
// left out, and has a name at most. An error of Each ends the reading, and is returned.
type Each func(r Record, reason error) error

// Reasons that are nobody's mistake; any other reason means that a record was meant and
// cannot be taken.
var (
	// ErrUser: it is a user of deepstream's logins (type storage), with a hash.
	ErrUser = errors.New("a user of deepstream's logins")
	// ErrExpired: its time to live is over.
	ErrExpired = errors.New("its time to live is over")
	// ErrForeign: deepstream did not write it.
	ErrForeign = errors.New("not written by deepstream")
	// ErrElsewhere: it is in another database of the redis than the one that is read.
	ErrElsewhere = errors.New("in another database")
)

const (
	// MaxData is the most bytes of one record that are read.
	MaxData = 64 << 20
	// maxName bounds names far above what a node takes, which says so itself.
	maxName = 64 << 10
)

// give hands a record to each, or what is wrong with it.
func (each Each) give(name string, version int64, data string) error {
	r := Record{Name: name}
	switch {
	case len(name) > maxName:
		r.Name = name[:maxName]
		return each(r, fmt.Errorf("its name has %d bytes", len(name)))
	case version < 0 || version > math.MaxInt32:
		return each(r, fmt.Errorf("version %d is none", version))
	case len(data) > MaxData:
		return each(r, tooLarge(int64(len(data))))
	case !jsonpath.ValidJSON(data):
		return each(r, errors.New("its data is not JSON"))
	}
	r.Version, r.Data = int32(version), data
	if isUser(&r) {
		return each(r, ErrUser)
	}
	return each(r, nil)
}

func tooLarge(bytes int64) error {
	return fmt.Errorf("it has %d bytes, and at most %d are read", bytes, MaxData)
}

// isUser says whether deepstream's logins of type storage have written the record: under
// table/username, with the hash of the password.
func isUser(r *Record) bool {
	if !strings.HasPrefix(r.Data, "{") {
		return false
	}
	username := gjson.Get(r.Data, "username")
	return username.Type == gjson.String && strings.HasSuffix(r.Name, "/"+username.Str) &&
		gjson.Get(r.Data, "password").Type == gjson.String && gjson.Get(r.Data, "clientData.id").Exists()
}

// unwrap reads a value that holds version and data in one, as connectors wrote it until
// deepstream 3: {"_v":1,"_d":…}, or, where a database is to be searched, the version beside the data,
// {"__ds":{"_v":1},"key":…}, and a list as {"__ds":{"_v":1},"__dsList":[…]}.
func unwrap(text string) (version int64, data string, ok bool) {
	if !strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") || !jsonpath.ValidJSON(text) {
		return 0, "", false
	}
	var rest strings.Builder
	var list, wrapped, number, inside string
	gjson.Parse(text).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "_v":
			number = value.Raw
		case "_d":
			wrapped = value.Raw
		case "__dsList":
			list = value.Raw
		case "__ds":
			inside = value.Get("_v").Raw
			return true
		}
		if rest.Len() > 0 {
			rest.WriteByte(',')
		}
		rest.WriteString(key.Raw + ":" + value.Raw)
		return true
	})
	switch {
	case inside != "" && list != "":
		data = list
	case inside != "":
		data = "{" + rest.String() + "}"
	case number != "" && wrapped != "":
		inside, data = number, wrapped
	}
	version, err := strconv.ParseInt(inside, 10, 64)
	return version, data, err == nil
}
