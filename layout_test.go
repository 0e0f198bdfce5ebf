// Package hadal_test holds the house to its plan: which rooms there are and
// which of them may import which. docs/architecture.md explains the plan.
package hadal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the import path of the repository.
const module = "hadal"

// anything is the arrow of programs, which may import every room.
const anything = "*"

// features are what the rooms of one feature share.
var features = []string{"node/sub", "node/listen", "cluster", "auth", "protocol"}

// arrows is the plan: each room, and the rooms that it may import. Arrows point
// down, and the leaf is protocol. A room in a folder that is not listed does not
// exist; draw it here first.
var arrows = map[string][]string{
	// Programs.
	"cmd/hadal": {anything},
	"bench":     {anything},
	"e2e":       {anything},
	"examples":  {anything},

	// The server.
	"node":          {anything},
	"node/admin":    {"auth", "perms", "protocol"},
	"node/api":      {"node/sub", "auth", "auth/vault", "auth/web", "protocol"},
	"node/endpoint": {"node/nonblock", "node/rate", "auth", "protocol"},
	"node/mqtt":     {"node/endpoint", "node/sub", "auth", "protocol"},
	"node/sse":      {"node/endpoint", "auth", "protocol"},
	"node/nonblock": {},
	"node/rate":     {},
	"node/sub":      {"auth", "protocol"},
	"node/listen":   {"node/sub", "cluster", "auth", "protocol"},
	"node/event":    features,
	"node/rpc":      features,
	"node/presence": features,
	"node/record":   append(slices.Clone(features), "store"),

	// Services.
	"perms":                {"perms/expr", "auth", "protocol"},
	"perms/expr":           {},
	"auth":                 {"auth/hasher", "auth/users", "auth/vault", "store"},
	"auth/hasher":          {},
	"auth/users":           {"auth/vault"},
	"auth/users/pgtest":    {"cluster/freeport"},
	"auth/vault":           {},
	"auth/vault/vaulttest": {"auth/vault"},
	"auth/web":             {"auth", "auth/vault"},
	"auth/tokens":          {"auth", "auth/vault", "auth/web"},
	"auth/register":        {"auth", "auth/hasher", "auth/vault", "auth/web"},
	"store":                {},
	"store/deepstream":     {"protocol"},
	"store/jetstream":      {"auth/vault", "store"},
	"store/postgres":       {"store"},
	"store/storetest":      {"store"},
	"cluster":              {"protocol"},
	"cluster/clustertest":  {"cluster", "protocol"},
	"cluster/freeport":     {},
	"client":               {"protocol"},
	"web":                  {},

	// The leaf.
	"protocol":          {"protocol/jsonpath"},
	"protocol/jsonpath": {},
}

// companions come with a room: whoever may import the room may import these.
var companions = map[string][]string{"protocol": {"protocol/jsonpath"}}

// testHelpers may be imported by every test and by nothing else.
var testHelpers = []string{"store/storetest", "cluster/clustertest", "cluster/freeport", "auth/vault/vaulttest", "auth/users/pgtest"}

// programs may be split into as many packages as they like below their folder.
var programs = []string{"cmd/hadal", "bench", "e2e", "examples"}

// entries are the files and folders at the top, beside hidden ones.
var entries = []string{
	"node", "cluster", "protocol", "auth", "perms", "store", "client", "web",
	"bench", "e2e", "cmd", "conf", "docs", "examples", "deploy",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "layout_test.go",
}

// made is what building and running leaves behind; git ignores it.
var made = []string{"bin", "data", "hadal-data", "tmp"}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == module {
			continue // this test
		}
		room := roomOf(p.ImportPath)
		if _, ok := arrows[room]; !ok {
			t.Errorf("%s is a new room: draw it in the table of layout_test.go and in docs/architecture.md first", p.ImportPath)
			continue
		}
		for _, imported := range ours(p.Imports) {
			switch {
			case slices.Contains(testHelpers, imported) && !slices.Contains(testHelpers, room):
				t.Errorf("%s imports %s outside of its tests; a test helper is for tests only", p.ImportPath, imported)
			case !mayImport(room, imported):
				t.Errorf("%s imports %s, an arrow that is not drawn: turn the dependency round (style: interfaces live where they are used), "+
					"or draw it in the table of layout_test.go and in docs/architecture.md and say why", p.ImportPath, imported)
			}
		}
		for _, imported := range ours(append(p.TestImports, p.XTestImports...)) {
			if !mayImport(room, imported) && !slices.Contains(testHelpers, imported) {
				t.Errorf("a test of %s imports %s, an arrow that is not drawn: test it from the room that may know both, "+
					"or draw it in the table of layout_test.go and in docs/architecture.md and say why", p.ImportPath, imported)
			}
		}
	}
}

func TestArrowsHaveNoCycle(t *testing.T) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(room string, trail []string)
	visit = func(room string, trail []string) {
		switch state[room] {
		case visiting:
			t.Errorf("the plan has a cycle: %s", strings.Join(append(trail, room), " → "))
			return
		case done:
			return
		}
		state[room] = visiting
		for _, to := range arrows[room] {
			if to == anything {
				continue
			}
			if _, ok := arrows[to]; !ok {
				t.Errorf("the plan lets %s import %s, which is no room", room, to)
			}
			visit(to, append(trail, room))
		}
		state[room] = done
	}
	for room := range arrows {
		visit(room, nil)
	}
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	found, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains(entries, name) || slices.Contains(made, name) {
			continue
		}
		t.Errorf("%s is new at the top level: put it into the room it belongs to, "+
			"or draw it in the entries of layout_test.go and in docs/architecture.md first", name)
	}
}

// packages lists every package of the module.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list = append(list, p)
	}
	if len(list) < 2 {
		t.Fatalf("go list names %d packages; this test must run at the root of the module", len(list))
	}
	return list
}

// roomOf is the room that a package belongs to: its folder, or for a program the
// folder of the program.
func roomOf(importPath string) string {
	folder := strings.TrimPrefix(importPath, module+"/")
	for _, p := range programs {
		if folder == p || strings.HasPrefix(folder, p+"/") {
			return p
		}
	}
	return folder
}

// ours are the rooms among the imports, each once.
func ours(imports []string) []string {
	var rooms []string
	for _, i := range imports {
		if strings.HasPrefix(i, module+"/") {
			rooms = append(rooms, roomOf(i))
		}
	}
	slices.Sort(rooms)
	return slices.Compact(rooms)
}

// mayImport says whether the plan draws an arrow from one room to the other. A
// room may always import itself, which is how its external tests see it, and its
// companions.
func mayImport(from, to string) bool {
	if from == to {
		return true
	}
	for _, arrow := range arrows[from] {
		if arrow == anything || arrow == to || slices.Contains(companions[arrow], to) {
			return true
		}
	}
	return false
}
