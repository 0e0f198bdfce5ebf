package expr

import (
	"strings"
	"testing"
)

// record200 is a record of 200 bytes, with its value in the middle.
func record200(value string) string {
	return `{"id":"item/4711","owner":"ada","title":"a record of some two hundred bytes","tags":["a","b","c"],"value":` + value +
		`,"address":{"city":"Berlin","zip":"10115"},"note":"` + strings.Repeat("x", 39) + `"}`
}

func BenchmarkEval(b *testing.B) {
	long := `user.isAuthenticated && (user.data.role === 'admin' || user.id === $userid && data.owner === oldData.owner) ` +
		`&& typeof data.value === 'number' && data.value >= 0 && data.value <= 100 && ['Berlin', 'Hamburg'].includes(data.address.city) ` +
		`&& data.title.length < 100 && !data.title.includes('<')`
	for _, c := range []struct {
		name, rule string
		doc        func(string) Doc
	}{
		{"constant", "true", Unchecked},
		{"user", "user.id === $userid", Unchecked},
		{"payload", "typeof data.title === 'string' && data.title.length < 100000", Unchecked},
		{"increment checked", "data.value > oldData.value", Checked},
		{"increment", "data.value > oldData.value", Unchecked},
		{"long checked", long, Checked},
		{"long", long, Unchecked},
		{"match", `name.match(/^users\/[a-z0-9-]+$/)`, Unchecked},
		{"match with look-ahead", `name.match(/^users\/(?!admin)[a-z0-9-]+$/)`, Unchecked},
		{"match and group", `name.match(/^users\/([a-z0-9-]+)$/)[1] === user.id`, Unchecked},
		{"reference", "_('perm/' + user.id).allowed", Checked},
		{"lower case", "$topic.toLowerCase() === data.address.city.toLowerCase()", Checked},
		{"failure", "data.address.nothing.city === 'x'", Checked},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := compile(b, c.rule, all)
			env := ada("", "")
			data, old := record200("17"), record200("16")
			if len(data) != 200 {
				b.Fatalf("the record has %d bytes", len(data))
			}
			env.Answer("perm/ada", Checked(`{"allowed":true}`))
			b.ReportAllocs()
			for b.Loop() {
				if r.UsesData() { // as for a new message
					env.Data, env.OldData = c.doc(data), c.doc(old)
				}
				if ok, err := r.Eval(env); !ok && c.name != "lower case" && err == nil {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		compile(b, "user.id === $userid && data.value > oldData.value", all)
	}
}

func BenchmarkExplain(b *testing.B) {
	r := compile(b, "user.id === $userid && data.value > oldData.value", all)
	env := ada(record200("17"), record200("16"))
	b.ReportAllocs()
	for b.Loop() {
		r.Explain(env)
	}
}
