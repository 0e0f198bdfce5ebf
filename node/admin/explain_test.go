package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hadal/perms"
)

// shelf is the harness's records as rules read them.
type shelf struct{ records *memory }

func (s shelf) Read(ctx context.Context, name string) (string, bool, error) {
	if name == "broken" {
		return "", false, errors.New("block is damaged")
	}
	rec, err := s.records.Get(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return "", false, nil
	}
	return rec.Data, err == nil, err
}

func TestTheNodeExplainsWithItsOwnRecords(t *testing.T) {
	h := serve(t, Config{})
	c, ctx := h.client(t), t.Context()
	for name, data := range map[string]string{"users/ada": `{"version":3}`, "item/1": `{"stock":1}`} {
		if _, err := c.Set(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []struct {
		query   perms.Query
		verdict string
		says    string
	}{
		{perms.Query{User: "ada", Action: "record.update", Name: "users/ada", Data: json.RawMessage(`{"version":3}`)}, "deny", `oldData = {"version":3}`},
		{perms.Query{User: "ada", Action: "record.update", Name: "users/ada", Data: json.RawMessage(`{"version":3}`), OldData: json.RawMessage(`{"version":2}`)}, "allow", ""},
		{perms.Query{User: "ada", Action: "record.update", Name: "shop/1", Data: json.RawMessage(`{"item":"1"}`)}, "allow", `"item/1" = {"stock":1}`},
		{perms.Query{User: "ada", Action: "record.read", Name: "shop/1"}, "error", "block is damaged"},
		{perms.Query{Action: "rpc.request", Name: "r", Data: json.RawMessage(`{"token":"hush"}`), UserData: json.RawMessage(`{"token":"hush"}`)}, "allow", `"***"`},
	} {
		x, err := c.Explain(ctx, q.query)
		if err != nil {
			t.Errorf("%+v: %v", q.query, err)
			continue
		}
		if text := x.Text(); x.Verdict != q.verdict || !strings.Contains(text, q.says) || strings.Contains(text, "hush") {
			t.Errorf("got %s, want %s and %q, in\n%s", x.Verdict, q.verdict, q.says, text)
		}
		want, err := h.explained.Explain(ctx, q.query)
		if diff := cmp.Diff(want, x); err != nil || diff != "" {
			t.Errorf("over the socket it is not the same: %v\n%s", err, diff)
		}
	}
	for action, want := range map[string]string{
		"record.drop": "the action \"record.drop\"",
		"record.read": "a name is missing",
	} {
		if _, err := c.Explain(ctx, perms.Query{Action: action}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", action, err, want)
		}
	}
	if _, err := c.Explain(ctx, perms.Query{Action: "record.read", Name: "broken"}); err == nil || !strings.Contains(err.Error(), "block is damaged") {
		t.Errorf("a record that cannot be read: got %v", err)
	}
}

func TestQuestionsThatCannotBeReadAreRefused(t *testing.T) {
	h := serve(t, Config{})
	for body, want := range map[string]struct {
		status int
		text   string
	}{
		"":                                   {http.StatusBadRequest, "read the question: EOF"},
		"{":                                  {http.StatusBadRequest, "read the question"},
		`{"acton":"record.read"}`:            {http.StatusBadRequest, `unknown field \"acton\"`},
		`{"action":"record.read"}{}`:         {http.StatusBadRequest, "there is more than one"},
		`{"action":"event.emit","name":"n"}`: {http.StatusOK, `"verdict":"allow"`},
		`{"name":"` + strings.Repeat("x", maxQuery) + `"}`: {http.StatusRequestEntityTooLarge, "too large"},
	} {
		resp, err := h.client(t).http.Post("http://localhost/explain", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want.status || !strings.Contains(string(got), want.text) {
			t.Errorf("%.40s: got %d %s, want %d and %q", body, resp.StatusCode, got, want.status, want.text)
		}
	}
}

func TestOverTCPExplanationsNeedTheToken(t *testing.T) {
	h := serve(t, Config{Listen: "127.0.0.1:0", Token: "sesame"})
	for token, want := range map[string]string{"": "send admin.token as a bearer token", "sesame": ""} {
		c, err := OverTCP("http://"+h.Addr().String(), token)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		_, err = c.Explain(t.Context(), perms.Query{Action: "event.emit", Name: "n"})
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("token %q: got %v, want %q", token, err, want)
		}
	}
}
