package auth

import "testing"

func BenchmarkLoginWithClearText(b *testing.B) {
	a, err := New([]Config{{Type: "file", Options: Options{Users: map[string]Entry{"egon": {Password: "pw"}}}}}, false, Deps{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(b.Context(), &Attempt{Params: `{"username":"egon","password":"pw"}`}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkArgon2idOfALogin(b *testing.B) {
	h, err := HashArgon2id("pw")
	if err != nil {
		b.Fatal(err)
	}
	s, err := parseSecret(h, Digest{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.matches("pw")
	}
}
