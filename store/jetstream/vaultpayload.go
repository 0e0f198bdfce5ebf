package jetstream

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"hadal/auth/vault"
)

// A message of the vault begins with a byte that says what it is, and five numbers of eight
// bytes: a random one; the sequence of the message that it has replaced, and that one's
// random number; and in Unix time when the entry ends and until when the history of its
// key may come back (vaultMessage). The value follows. The server's own marker of an entry
// that it has deleted is empty.
const (
	vaultEntryFormat   = 'E'
	vaultRemovalFormat = 'R'
	vaultHeader        = 1 + 5*8
)

// forever is the time of what does not end.
const forever = math.MaxInt64

// vaultMessage is the last message of a key.
type vaultMessage struct {
	vault.Entry
	// gone says that there is no entry: it was removed, or the server has deleted it.
	gone bool
	// marker says that the server has deleted it; it knows nothing else.
	marker bool
	// grows says that it may need more room than what it replaces; not part of the payload.
	grows bool
	// nonce is the writer's random number, replaced the revision that it named, 0 for
	// none, and before the nonce of that.
	nonce, replaced, before uint64
	// ends and until are seconds of Unix time, ends for an entry only.
	ends, until int64
}

// early says that the entry ends before the messages of its key that came before it: the
// server may not delete it then, or one of those could come back. Who reads it ends it by
// his own clock.
func (m *vaultMessage) early() bool { return !m.gone && m.ends < m.until }

// live says whether the entry is there.
func (m *vaultMessage) live() bool {
	return !m.gone && (!m.early() || time.Now().Unix() < m.ends)
}

// keep is how long the server keeps the message of an entry from now on, or 0 for ever.
// A removal is kept longer than that by as much as clocks may differ.
func (m *vaultMessage) keep(now time.Time) time.Duration {
	if m.until == forever {
		return 0
	}
	left := time.Duration(max(m.until-now.Unix(), 1)) * time.Second
	if m.gone {
		left += vaultMarkers
	}
	return left
}

// appendVault appends the payload.
func appendVault(b []byte, m *vaultMessage) []byte {
	format := byte(vaultEntryFormat)
	if m.gone {
		format = vaultRemovalFormat
	}
	b = append(b, format)
	for _, n := range [...]uint64{m.nonce, m.replaced, m.before, uint64(m.ends), uint64(m.until)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, m.Value...)
}

// decodeVault reads a payload. The value is a part of it.
func decodeVault(b []byte) (m vaultMessage, err error) {
	if len(b) == 0 {
		m.gone, m.marker = true, true
		return m, nil
	}
	if len(b) < vaultHeader {
		return m, errors.New("it is too short")
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	m.nonce, m.replaced, m.before = number(0), number(1), number(2)
	m.ends, m.until = int64(number(3)), int64(number(4))
	switch b[0] {
	case vaultEntryFormat:
		if m.ends <= 0 || m.until < m.ends {
			return m, errors.New("its times are none")
		}
		m.Value = b[vaultHeader:len(b):len(b)]
		if m.ends != forever {
			m.Ends = time.Unix(m.ends, 0)
		}
	case vaultRemovalFormat:
		m.gone = true
	default:
		return m, errors.New("it is of a format that this version does not know")
	}
	return m, nil
}
