package expr

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var outlookScope = Scope{Data: true, OldData: true, Vars: []string{"$id"}}

func ofRole(role string) User {
	return User{ID: "ann", Authenticated: true, Data: Checked(`{"role":"` + role + `"}`)}
}

func TestOutlookIsWhatFollowsFromTheUserAlone(t *testing.T) {
	for rule, want := range map[string]Outlook{ // to somebody of the role member
		`user.data.role === 'member'`:                                   Always,
		`user.data?.role === 'admin'`:                                   Never,
		`['guest', 'member'].includes(user.data?.role)`:                 Always,
		`user.isAuthenticated`:                                          Always,
		`user.id === 'ann'`:                                             Sometimes,
		`user.id === $id`:                                               Sometimes,
		`data.author === user.id`:                                       Sometimes,
		`user.data.role === 'member' || data.author === user.id`:        Always,
		`data.author === user.id || user.data.role === 'member'`:        Sometimes, // data.author may fail
		`user.data.role === 'admin' || data.author === user.id`:         Sometimes,
		`user.data.role === 'admin' && data.author === user.id`:         Never,
		`data.author === user.id && user.data.role === 'admin'`:         Never,
		`data.author === user.id && user.data.role === 'member'`:        Sometimes,
		`!(user.data.role === 'admin')`:                                 Always,
		`!(data.open && user.data.role === 'admin')`:                    Sometimes,
		`user.data.role === 'member' ? true : data.open`:                Always,
		`user.data.role === 'admin' ? true : data.open`:                 Sometimes,
		`data.open ? user.data.role === 'admin' : false`:                Never,
		`data.open ? true : true`:                                       Sometimes, // data.open may fail
		`user.data.team.id === 1`:                                       Never,     // fails
		`!(user.data.team.id === 1)`:                                    Never,
		`user.data.team.id === 1 || true`:                               Never,
		`(data.a && user.data.role === 'x') || user.data.team.id === 1`: Never,
		`(data.a && user.data.role === 'x') || user.data.role !== 'x'`:  Sometimes,
		`(data.a && user.data.role === 'x') ? true : false`:             Never,
		`user.data.team.id ? true : true`:                               Never,
		`_('perm/' + user.id)?.open`:                                    Sometimes,
		`now > 0`:                                                       Sometimes,
		`name === 'x'`:                                                  Sometimes,
		`action === 18`:                                                 Sometimes,
		`user['data'].role === 'member'`:                                Always,
		`user.data[data.key] === 'member'`:                              Sometimes,
		`user.data ?? data.open`:                                        Sometimes, // ?? is not taken apart
		`'x'`:                                                           Always,
	} {
		r, err := Compile(rule, outlookScope)
		if err != nil {
			t.Fatalf("%s: %v", rule, err)
		}
		if got := r.Outlook(ofRole("member"), true, outlookScope); got != want {
			t.Errorf("%s: outlook %d, want %d", rule, got, want)
		}
	}
	r, err := Compile(`user.id === 'open'`, outlookScope)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Outlook(User{ID: "open"}, false, outlookScope); got != Always {
		t.Errorf("of a known id: outlook %d, want always", got)
	}
}

// Whatever rule it is, what is said to be certain holds for all that may be sent and
// stored.
func TestOutlooksHoldForWhateverIsSent(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 0))
	leaves := []string{
		`user.data.role === 'member'`, `user.data?.role === 'admin'`, `data.a`, `data.a.b === 1`, `oldData?.a === user.id`, `oldData.a`,
		`user.id === $id`, `user.data.team.id === 1`, `user.isAuthenticated`, `true`, `false`, `now > 5`, `name === $id`,
	}
	var rule func(depth int) string
	rule = func(depth int) string {
		if depth == 0 || rnd.IntN(5) == 0 {
			return leaves[rnd.IntN(len(leaves))]
		}
		switch rnd.IntN(4) {
		case 0:
			return "!(" + rule(depth-1) + ")"
		case 1:
			return "((" + rule(depth-1) + ") ? (" + rule(depth-1) + ") : (" + rule(depth-1) + "))"
		case 2:
			return "((" + rule(depth-1) + ") && (" + rule(depth-1) + "))"
		}
		return "((" + rule(depth-1) + ") || (" + rule(depth-1) + "))"
	}
	docs := []Doc{Null(), {}, Checked(`{}`), Checked(`{"a":0}`), Checked(`{"a":"ann"}`), Checked(`{"a":{"b":1}}`), Checked(`5`), Unchecked(`{`)}
	certain := 0
	for range 1500 {
		text := rule(4)
		r, err := Compile(text, outlookScope)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		outlook := r.Outlook(ofRole("member"), true, outlookScope)
		if outlook == Sometimes {
			continue
		}
		certain++
		for _, data := range docs {
			for _, old := range docs {
				for _, id := range []string{"ann", "bob"} {
					u := ofRole("member")
					u.ID = id
					env := &Env{User: u, Data: data, OldData: old, Now: int64(rnd.IntN(10)), Name: "ann", Vars: []string{"ann"}}
					if got, err := r.Eval(env); got != (outlook == Always) {
						t.Fatalf("seed %d: %s is said to be %d, and is %v (%v) of %s", seed, text, outlook, got, err, fmt.Sprint(data, old, id))
					}
				}
			}
		}
	}
	if certain < 250 {
		t.Errorf("only %d rules were certain", certain)
	}
}

func TestComparedFindsTheRoles(t *testing.T) {
	for rule, want := range map[string]string{
		`user.data.role === 'a'`:                                             "a",
		`'a' == user.data?.role || user['data'].role !== 'b'`:                "a b",
		`['x', 'y', 'x'].includes(user.data?.role) && data.kind === 'z'`:     "x y",
		`data.role === 'no' || user.data.team === 'no'`:                      "",
		`user.data && (data.a ? user.data.role === "q" : false)`:             "q",
		`['a'].includes(data.role) || 'abc'.includes(user.data?.role)`:       "",
		`user.data.role === data.role || [user.id].includes(user.data.role)`: "",
	} {
		got, err := Compared(rule, outlookScope, "user.data.role")
		if err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %v, %v, want %q", rule, got, err, want)
		}
	}
	if _, err := Compared(`nonsense(`, outlookScope, "user.data.role"); err == nil {
		t.Error("what is no rule has no error")
	}
}
