package deepstream

import (
	"strings"
	"testing"
)

func TestLinesHoldRecords(t *testing.T) {
	got := read(t, func(each Each) error {
		return Lines(t.Context(), strings.NewReader(strings.Join([]string{
			`{"name":"a","version":3,"data":{"x": 1.50}}`,
			"",
			`  {"data":["a"],"name":"list \u00fc\n"}  `,
			`{"name":"old","_v":0,"_d":null}`,
			`{"name64":"/w==","version":2,"data64":"eyJhIjoKMX0="}`,
			`{"name":"users/ada","data":{"username":"ada","password":"hash","clientData":{"id":"1"}}}`,
			`{"name":"users/eve","data":{"username":"ada","password":"hash","clientData":{"id":"1"}}}`,
			`{"end":true,"records":3,"checksum":"00"}`,
			`{"name":"last","data":1}`,
		}, "\r\n")), each)
	})
	want := map[string]Record{}
	for _, r := range []Record{
		{"a", 3, `{"x": 1.50}`}, {"list ü\n", 1, `["a"]`}, {"old", 0, `null`}, {"\xff", 2, "{\"a\":\n1}"},
		{"users/eve", 1, `{"username":"ada","password":"hash","clientData":{"id":"1"}}`}, {"last", 1, `1`},
	} {
		want[r.Name] = r
	}
	differ(t, got.records, want)
	differ(t, got.reasons(), map[string]string{"users/ada": ErrUser.Error()})
}

func TestALineThatIsNoRecordIsToldAndTheRestIsRead(t *testing.T) {
	tests := []struct{ line, name, want string }{
		{`{"name":"a"`, "", "line 2: it is no object of JSON"},
		{`["a"]`, "", "line 2: it is no object of JSON"},
		{`{"name":"a","data":1} {}`, "", "line 2: it is no object of JSON"},
		{`{"data":1}`, "", "line 2: it has no name"},
		{`{"name":1,"data":1}`, "", "line 2: its name is no text"},
		{`{"name":"a"}`, "a", "its data is missing"},
		{`{"name":"a","data":1,"verison":3}`, "", `line 2: it has a key "verison", which no record has`},
		{`{"name":"a","data":1,"data":2}`, "", `line 2: "data" says again what another key says`},
		{`{"name":"a","data":1,"version":"3"}`, "a", `version "3" is none`},
		{`{"name":"a","data":1,"version":-1}`, "a", "version -1 is none"},
		{`{"name":"a","data":1,"version":2147483648}`, "a", "version 2147483648 is none"},
		{`{"name":"a","data64":"?"}`, "", "line 2: data64 is no base64"},
		{`{"name":"a","data64":"ew=="}`, "a", "its data is not JSON"},
		{`{"name":"a","data":1,"end":true}`, "", "line 2: it is a record and the end of an export"},
		{`{"name":"` + strings.Repeat("n", maxName+1) + `","data":1}`, strings.Repeat("n", maxName), "its name has 65537 bytes"},
		{`{"name":"long","data":1}` + strings.Repeat(" ", maxLine), "", "line 2: it has more than 90527060 bytes"},
	}
	for _, tt := range tests {
		got := read(t, func(each Each) error {
			return Lines(t.Context(), strings.NewReader(`{"name":"first","data":1}`+"\n"+tt.line+"\n"+`{"name":"last","data":1}`), each)
		})
		if len(got.records) != 2 || got.records["first"].Data != "1" || got.records["last"].Data != "1" {
			t.Errorf("%.100s: of the others there is %v", tt.line, got.records)
		}
		differ(t, got.reasons(), map[string]string{tt.name: tt.want})
	}
}

func TestValuesOfDeepstream3AreUnwrapped(t *testing.T) {
	for text, want := range map[string]struct {
		version int64
		data    string
		ok      bool
	}{
		`{"_v":3,"_d":{"a":1}}`:              {3, `{"a":1}`, true},
		` {"_d":["a","b"],"_v":0}`:           {0, `["a","b"]`, true},
		`{"a":1, "b": [2] ,"__ds":{"_v":7}}`: {7, `{"a":1,"b":[2]}`, true},
		`{"__ds":{"_v":7},"__dsList":["x"]}`: {7, `["x"]`, true},
		`{"__ds":{"_v":7}}`:                  {7, `{}`, true},
		`{"__ds":{"_v":7},"_v":1,"_d":2}`:    {7, `{"_v":1,"_d":2}`, true},
		`{"a":1}`:                            {},
		`{"_v":1}`:                           {},
		`{"_v":"1","_d":{}}`:                 {},
		`{"_v":1.5,"_d":{}}`:                 {},
		`[1]`:                                {},
		`{"_v":1,"_d":`:                      {},
		``:                                   {},
	} {
		version, data, ok := unwrap(text)
		if ok != want.ok || ok && (version != want.version || data != want.data) {
			t.Errorf("%s: got %d %s %v, want %+v", text, version, data, ok, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add(`{"name":"a","version":3,"data":{"x":1}}` + "\n" + `{"name64":"/w==","_v":2,"data64":"e30="}`)
	f.Add(`{"end":true,"records":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		if err := Lines(t.Context(), strings.NewReader(text), func(r Record, reason error) error {
			if reason == nil && (r.Name == "" || r.Data == "" || r.Version < 0) {
				t.Errorf("a record without something: %q", r)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}
