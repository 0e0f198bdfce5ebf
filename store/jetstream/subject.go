package jetstream

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Subjects keep the slashes of a name as token separators, so that listing by
// prefix is a subject filter and operators can look into the stream with NATS
// tools: `users/a b/1.x` is `users.a=20b.1=2Ex`. In a token, letters, digits and
// - _ : @ + , stand for themselves and every other byte is =XX; an empty token
// is a single =. A name that would need more than maxSubject bytes or maxTokens
// tokens keeps its leading whole tokens, as many as fit, and ends in `=~` and a
// hash of the whole name. No two names share a subject. The name in the payload is
// the truth; that it belongs to its subject is checked at every read.
const (
	// maxSubject bounds the encoded name; NATS ends a protocol line at 4096 bytes.
	maxSubject = 1000
	maxTokens  = 64

	hashMark = "=~"
	hashSize = len(hashMark) + 43 // base64url of 32 bytes, unpadded
	// maxKept bounds the leading tokens of a hashed name, each with its dot.
	maxKept = maxSubject - hashSize
)

const hexDigits = "0123456789ABCDEF"

// plain says whether a byte stands for itself in a token.
var plain = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_:@+,") {
		t[c] = true
	}
	return t
}()

// appendSubject appends the subject tokens of a name, which is not empty.
func appendSubject(dst []byte, name string) []byte {
	start := len(dst)
	tokens, empty := 1, true
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '/':
			if empty {
				dst = append(dst, '=')
			}
			dst = append(dst, '.')
			tokens, empty = tokens+1, true
			continue
		case plain[c]:
			dst = append(dst, c)
		default:
			dst = append(dst, '=', hexDigits[c>>4], hexDigits[c&15])
		}
		empty = false
		if len(dst)-start > maxSubject {
			break
		}
	}
	if empty {
		dst = append(dst, '=')
	}
	if len(dst)-start <= maxSubject && tokens <= maxTokens {
		return dst
	}
	dst = appendKept(dst[:start], name)
	sum := sha256.Sum256([]byte(name))
	dst = append(dst, hashMark...)
	return base64.RawURLEncoding.AppendEncode(dst, sum[:])
}

// appendKept appends the leading tokens of name that a hashed subject keeps,
// each followed by a dot: those that a slash ends, as many as fit.
func appendKept(dst []byte, name string) []byte {
	start, tokens := len(dst), 0
	for {
		token, rest, ended := strings.Cut(name, "/")
		if !ended {
			return dst
		}
		before := len(dst)
		if token == "" {
			dst = append(dst, '=')
		}
		for i := 0; i < len(token) && len(dst)-start <= maxKept; i++ {
			if c := token[i]; plain[c] {
				dst = append(dst, c)
			} else {
				dst = append(dst, '=', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		dst = append(dst, '.')
		if tokens++; tokens >= maxTokens || len(dst)-start > maxKept {
			return dst[:before]
		}
		name = rest
	}
}

// appendFilter appends a filter that matches the subjects of all names that
// begin with prefix, and others: the names must be checked.
func appendFilter(dst []byte, prefix string) []byte {
	return append(appendKept(dst, prefix), '>')
}
