package node

import "testing"

func TestClientsLeaveFilesForTheNode(t *testing.T) {
	for _, c := range []struct {
		files uint64
		want  int
	}{
		{64, 32}, {256, 160}, {1024, 928}, {4096, 3840}, {65536, 64512}, {1 << 20, 1<<20 - 1024}, {1<<63 - 1, 1 << 30},
	} {
		if got := clientLimit(c.files); got != c.want {
			t.Errorf("clientLimit(%d) = %d, want %d", c.files, got, c.want)
		}
	}
}
