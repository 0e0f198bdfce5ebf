package main

import (
	"regexp"
	"strings"
	"testing"

	"hadal/node/admin"
)

func TestTheClusterIsPrinted(t *testing.T) {
	var out strings.Builder
	err := printCluster(&out, admin.ClusterStatus{
		ID: "1", Name: "prod", Self: "x", Leader: "x", Term: 7,
		Nodes: []admin.NodeStatus{
			{ID: "x", Name: "a", Role: "core", Voter: true, Alive: true, Partitions: 1},
			{ID: "y", Name: "b", Role: "core", Alive: true, Linked: true, Unfit: true},
			{ID: "z", Name: "c", Role: "edge", Unfit: true},
			{ID: "v", Name: "d", Role: "edge", Alive: true},
		},
		Partitions: []admin.PartitionStatus{{Owner: "x", Epoch: 3, Replicas: []string{"x", "y"}}},
		Logins:     &admin.StreamStatus{Name: "HADAL_VAULT", Leader: "y", Replicas: 3, Current: 1, Lag: 5, Behind: []admin.Behind{{Node: "x", Lag: 5}, {Node: "z", Offline: true}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`cluster +prod`, `leader +a \(term 7\)`, `a +core, votes +alive +1 .*`, `b +core +cannot write +0 .*`, `c +edge +dead .*`, `d +edge +alive, no link .*`,
		`0 +a +3 +a b *`, `logins +HADAL_VAULT: leader b, 1 of 3 current, lag 5, a lacks 5, c lacks 0 and is not heard of`,
	} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(out.String()) {
			t.Errorf("there is no line like %q in\n%s", line, out.String())
		}
	}
}
