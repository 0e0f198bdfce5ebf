package protocol

import (
	"math"
	"strconv"
	"strings"

	"hadal/protocol/jsonpath"
)

// Text is the codec of the text dialect (spec 02), that of clients 2.x and 3.x. A
// message is a line of words, and a frame from a client holds any number of lines.
// Nothing is escaped: neither words nor data can hold one of the two separators.
//
// Many requests carry no correlation id there, but their answers have to name what
// was asked. So Decode makes up ids that say it: the name for a subscription, the
// version for a write. The id comes back with the answer, and nothing has to be
// remembered: all connections may share one codec, from anywhere.
type Text struct{}

// Form is FormText.
func (Text) Form() Form { return FormText }

// Frame is an answer as a complete frame, or nil where there are no words for it.
func (Text) Frame(m *Message) []byte { return textFrame(m, "") }

const (
	lineEnd = "\x1e"
	wordEnd = "\x1f"
)

// sayable says whether s can be a word.
func sayable(s string) bool {
	return strings.IndexByte(s, lineEnd[0]) < 0 && strings.IndexByte(s, wordEnd[0]) < 0
}

// acked is the last word of a write that wants to be acknowledged.
const acked = `{"writeSuccess":true}`

// shortNames are the actions that clients send, as the text dialect calls them. A
// refusal repeats them.
var shortNames = map[Topic]map[Action]string{
	TopicEvent: {
		EventEmit: "EVT", EventSubscribe: "S", EventUnsubscribe: "US",
		EventListen: "L", EventUnlisten: "UL", EventListenAccept: "LA", EventListenReject: "LR",
	},
	TopicRecord: {
		RecordSubscribeCreateAndRead: "CR", RecordRead: "SN", RecordHead: "HD", RecordSubscribe: "S", RecordUnsubscribe: "US",
		RecordDelete: "D", RecordUpdate: "U", RecordPatch: "P", RecordErase: "P", RecordCreateAndUpdate: "CU", RecordCreateAndPatch: "CU",
		RecordListen: "L", RecordUnlisten: "UL", RecordListenAccept: "LA", RecordListenReject: "LR",
	},
	TopicRPC: {
		RPCProvide: "S", RPCUnprovide: "US", RPCRequest: "REQ", RPCAccept: "REQ", RPCResponse: "RES", RPCReject: "REJ", RPCRequestError: "E",
	},
	TopicPresence: {PresenceSubscribe: "S", PresenceUnsubscribe: "US", PresenceQuery: "Q"},
}

// firstError is where the errors begin among the actions of every topic (spec 01 §6).
const firstError Action = 100

// notTyped begins the data of a message whose typed value cannot be read. No JSON
// begins so: whoever handles the message refuses it.
const notTyped = "?"

// untyped is the JSON text of a typed value, which says its type with its first
// character (spec 02 §2). It is empty for undefined and for no value at all.
func untyped(s string) string {
	if s == "" {
		return ""
	}
	rest := s[1:]
	switch s[0] {
	case 'S':
		return string(appendQuoted(make([]byte, 0, len(rest)+2), rest))
	case 'N':
		if plainNumber(rest) {
			return rest
		}
		f := parseFloat(rest)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return "null" // what JSON has instead
		}
		return string(appendNumber(nil, f))
	case 'O':
		switch rest {
		case "null":
			return ""
		case "":
			return notTyped
		}
		return rest
	case 'T':
		return "true"
	case 'F':
		return "false"
	case 'L':
		return "null"
	case 'U':
		return ""
	}
	if s == "null" {
		return s
	}
	return notTyped + s
}

// appendTyped appends a JSON text as a typed value; none is undefined.
func appendTyped(dst []byte, data string) []byte {
	s := strings.Trim(data, " \t\r\n")
	if s == "" {
		return append(dst, 'U')
	}
	switch s[0] {
	case '"':
		text, ok := jsonpath.Unquote(s)
		if !ok {
			return append(dst, 'U')
		}
		if !sayable(text) {
			break // what is JSON may be a string too, and has it escaped
		}
		return append(append(dst, 'S'), text...)
	case '{', '[':
	case 't':
		return append(dst, 'T')
	case 'f':
		return append(dst, 'F')
	case 'n':
		return append(dst, 'L')
	default:
		dst = append(dst, 'N')
		if plainNumber(s) {
			return append(dst, s...)
		}
		return appendNumber(dst, parseFloat(s))
	}
	return append(append(dst, 'O'), s...)
}

// plainNumber says whether s is a number that JavaScript would write in just this
// way. There are more than it knows.
func plainNumber(s string) bool {
	positive := strings.TrimPrefix(s, "-")
	whole, fraction, point := strings.Cut(positive, ".")
	if len(positive) > 15 || !digits(whole) { // 15 digits survive a float64
		return false
	}
	if whole[0] == '0' { // -0 is 0, and a very small one has an exponent
		return s == "0"
	}
	return !point || digits(fraction) && fraction[len(fraction)-1] != '0'
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// appendNumber appends f as JavaScript writes it.
func appendNumber(dst []byte, f float64) []byte {
	switch abs := math.Abs(f); {
	case f == 0:
		return append(dst, '0')
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	case abs >= 1e-6 && abs < 1e21:
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
		dst = append(dst[:n-2], dst[n-1]) // 1e-07 is 1e-7
	}
	return dst
}

// parseFloat reads the number that s begins with, as JavaScript's does; NaN when
// there is none.
func parseFloat(s string) float64 {
	s = strings.TrimLeft(s, " \t\r\n\v\f")
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	if strings.HasPrefix(s[i:], "Infinity") {
		if s[0] == '-' {
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	end := skipDigits(s, i)
	some := end > i
	if end < len(s) && s[end] == '.' {
		fraction := skipDigits(s, end+1)
		if some = some || fraction > end+1; some {
			end = fraction
		}
	}
	if !some {
		return math.NaN()
	}
	if end < len(s) && (s[end] == 'e' || s[end] == 'E') {
		i = end + 1
		if i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		if exponent := skipDigits(s, i); exponent > i {
			end = exponent
		}
	}
	f, _ := strconv.ParseFloat(s[:end], 64) // the error is a range's, and f its infinity
	return f
}

func skipDigits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// appendQuoted appends text as a JSON string. The text is UTF-8.
func appendQuoted(dst []byte, text string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := range len(text) {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, text[done:]...), '"')
}
