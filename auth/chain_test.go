package auth

import (
	"context"
	"errors"
	"testing"
)

type fixed struct {
	v     Verdict
	err   error
	asked int
}

func (f *fixed) Authenticate(context.Context, *Attempt) (Verdict, error) {
	f.asked++
	return f.v, f.err
}

func TestFirstOpinionInAChainDecides(t *testing.T) {
	broken := errors.New("broken")
	yes := Verdict{Opinion: Accepted, User: &User{ID: "u"}}
	no := Verdict{Opinion: Refused, Reason: `{"error":"x"}`}
	for _, c := range []struct {
		name  string
		chain []*fixed
		want  Verdict
		err   error
		asked int // how many strategies are asked
	}{
		{"nobody at all", nil, Verdict{Opinion: Refused}, nil, 0},
		{"nobody has an opinion", []*fixed{{}, {}}, Verdict{Opinion: Refused}, nil, 2},
		{"a yes ends the chain", []*fixed{{}, {v: yes}, {v: no}}, yes, nil, 2},
		{"a no ends the chain", []*fixed{{v: no}, {v: yes}}, no, nil, 1},
		{"an error ends the chain", []*fixed{{err: broken}, {v: yes}}, Verdict{}, broken, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var chain Chain
			for _, f := range c.chain {
				chain = append(chain, f)
			}
			got, err := chain.Authenticate(t.Context(), &Attempt{})
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, c.want, c.err)
			}
			asked := 0
			for _, f := range c.chain {
				asked += f.asked
			}
			if asked != c.asked {
				t.Errorf("asked %d strategies, want %d", asked, c.asked)
			}
		})
	}
}

func TestReplacingALiveAuthenticatorChangesTheNextLogin(t *testing.T) {
	l := NewLive(&fixed{v: Verdict{Opinion: Refused}})
	if v, err := l.Authenticate(t.Context(), &Attempt{}); v.Opinion != Refused || err != nil {
		t.Fatalf("got %+v, %v, want a refusal", v, err)
	}
	l.Replace(&fixed{v: Verdict{Opinion: Accepted}})
	if v, err := l.Authenticate(t.Context(), &Attempt{}); v.Opinion != Accepted || err != nil {
		t.Errorf("after Replace: got %+v, %v, want accepted", v, err)
	}
}
