package protocol

import (
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// messages draws messages that a frame can carry: fields that the topic has,
// Has as Decode would set it.
func messages() *rapid.Generator[Message] {
	return rapid.Custom(func(t *rapid.T) Message {
		m := Message{Topic: Topic(rapid.IntRange(1, 7).Draw(t, "topic"))}
		for n := range byte(16) {
			f := numbers[m.Topic][n]
			if f == fieldNone || (f != fieldAction && !rapid.Bool().Draw(t, "present")) {
				continue
			}
			switch {
			case f == fieldVersions:
				names := rapid.SliceOfNDistinct(texts(), 1, 4, rapid.ID).Draw(t, "versions")
				slices.Sort(names)
				for _, name := range names {
					if isArrayIndex(name) {
						continue // a JavaScript object would put it first
					}
					m.Versions = append(m.Versions, NameVersion{name, rapid.Int32().Draw(t, "version")})
					m.Has |= HasVersions
				}
			case f == fieldNames:
				m.Names = rapid.SliceOfN(texts(), 1, 4).Draw(t, "names")
			case f > fieldVersions:
				s := texts().Draw(t, "text")
				if s == "" && (f == fieldData || f >= fieldURL) {
					s = "null" // never written empty
				}
				m.setText(f, s)
			case f == fieldIsError || f == fieldIsAck || f == fieldIsWriteAck:
				m.setNumber(f, 1)
			default:
				m.setNumber(f, uint64(rapid.Int32().Draw(t, "number")))
			}
		}
		return m
	})
}

// texts draws texts of all plane widths, and some long ones.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.Just(""), rapid.Just(strings.Repeat("ü", 70)), rapid.Just(strings.Repeat("x", 20000)))
}

func isArrayIndex(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }
