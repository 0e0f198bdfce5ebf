package node

import (
	"path/filepath"
	"testing"
)

func TestTheStatusSaysWhichNodeCannotWrite(t *testing.T) {
	for reserve, unfit := range map[int64]bool{0: false, 1 << 60: true} {
		n := run(t, func(c *Config) {
			c.DataDir = filepath.Join(c.DataDir, "data")
			c.Records.DiskReserve = reserve
		})
		s, err := members{n.Node}.Status(t.Context())
		if err != nil || len(s.Nodes) != 1 || s.Nodes[0].Unfit != unfit || s.Logins != nil {
			t.Errorf("with %d bytes to be kept free: %+v, %v, want unfit to be %v", reserve, s, err, unfit)
		}
	}
}
