package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"hadal/auth"
)

func TestAPasswordIsTheFirstLineHoweverItEnds(t *testing.T) {
	for _, input := range []string{"pass word", "pass word\n", "pass word\r\n", "pass word\nmore\n"} {
		var out, errs bytes.Buffer
		if code := run([]string{"hash"}, strings.NewReader(input), &out, &errs); code != 0 {
			t.Fatalf("%q: exit code %d: %s", input, code, errs.String())
		}
		users := map[string]auth.Entry{"u": {Password: strings.TrimSpace(out.String())}}
		a, err := auth.New([]auth.Config{{Type: "file", Options: auth.Options{Users: users}}}, false, auth.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := a.Authenticate(t.Context(), &auth.Attempt{Params: fmt.Sprintf(`{"username":"u","password":%q}`, "pass word")})
		if err != nil || v.Opinion != auth.Accepted {
			t.Errorf("%q: got %+v, %v, want accepted", input, v, err)
		}
	}
}
