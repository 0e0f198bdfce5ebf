package auth

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// salt is the text after the key in every stored hash of these tests.
const salt = "c2FsdHNhbHRzYWx0c2FsdA=="

// stored are hashes of "pässword", computed with another PBKDF2 (Python's).
var stored = []struct {
	digest Digest
	key    string
}{
	{Digest{"md5", 100, 32}, "6nu37tWeUU/enz7PU7csI+3qHI1nBRyebf5QFp+rhmY="},
	{Digest{"sha1", 1, 20}, "gZ8sSlZ9ii6rx5Nu/9us7GxMhM8="},
	{Digest{"sha256", 1000, 32}, "JJm1jM7UglqFk04Tw+j5rxADOX/qqg2HUBQbMkM1cbA="},
	{Digest{"sha512", 10, 64}, "R+JR6gdKCPygb0bJeXzq271t/luCirra1PcsnR+YKAVmrh0GxeV0EA5grGKQ2IImzlql7HS/pvP+Nwk6nx//0A=="},
	{Digest{"SHA512", 10, 31}, "R+JR6gdKCPygb0bJeXzq271t/luCirra1PcsnR+YKA=="},
}

func TestDeepstreamHashesAreVerified(t *testing.T) {
	for _, c := range stored {
		s, err := parseSecret(c.key+salt, c.digest)
		if err != nil {
			t.Errorf("%+v: %v", c.digest, err)
			continue
		}
		if !s.matches("pässword") {
			t.Errorf("%+v: the right password does not match", c.digest)
		}
		if s.matches("password") || s.matches("") {
			t.Errorf("%+v: a wrong password matches", c.digest)
		}
		other := c.digest
		other.Iterations++
		if s, err := parseSecret(c.key+salt, other); err != nil || s.matches("pässword") {
			t.Errorf("%+v: matches with other iterations (%v)", other, err)
		}
	}
}

func TestNewHashesMatchTheirPasswordOnly(t *testing.T) {
	d := Digest{"sha256", 10, 32}
	for _, c := range []struct {
		name   string
		hash   func(string) (string, error)
		prefix string
		kind   secretKind
	}{
		{"argon2id", HashArgon2id, "$argon2id$v=19$m=19456,t=2,p=1$", kindArgon2id},
		{"bcrypt", func(p string) (string, error) {
			b, err := bcrypt.GenerateFromPassword([]byte(p), bcrypt.MinCost) // HashBcrypt's cost is for people
			return string(b), err
		}, "$2a$", kindBcrypt},
		{"deepstream", d.Hash, "", kindPBKDF2},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := c.hash("correct horse")
			if err != nil {
				t.Fatal(err)
			}
			b, err := c.hash("correct horse")
			if err != nil {
				t.Fatal(err)
			}
			if a == b {
				t.Error("two hashes of one password are equal: the salt is not random")
			}
			if !strings.HasPrefix(a, c.prefix) {
				t.Errorf("got %q, want the prefix %q", a, c.prefix)
			}
			s, err := parseSecret(a, d)
			if err != nil {
				t.Fatal(err)
			}
			if s.kind() != c.kind || !s.cost().slow() {
				t.Errorf("got kind %d, slow %v, want kind %d, slow", s.kind(), s.cost().slow(), c.kind)
			}
			if !s.matches("correct horse") || s.matches("correct horse ") || s.matches("") {
				t.Error("the hash does not match exactly its password")
			}
		})
	}
}

func TestADeepstreamHashEndsInTheSaltText(t *testing.T) {
	d := Digest{"md5", 100, 32}
	h, err := d.Hash("password")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(h), 44+24; got != want {
		t.Errorf("hash %q has %d characters, want %d", h, got, want)
	}
}

func TestHashBcryptRefusesWhatBcryptWouldCutOff(t *testing.T) {
	if _, err := HashBcrypt(strings.Repeat("x", 73)); err == nil {
		t.Error("73 bytes were hashed")
	}
	h, err := HashBcrypt(strings.Repeat("x", 72))
	if err != nil {
		t.Fatal(err)
	}
	if cost, err := bcrypt.Cost([]byte(h)); cost != 12 || err != nil {
		t.Errorf("got cost %d, %v, want 12", cost, err)
	}
}

func TestHashesNobodyCouldLogInWithAreRefused(t *testing.T) {
	pbkdf2 := Digest{"sha256", 10, 32}
	for _, c := range []struct {
		name, stored string
		digest       Digest
		want         string // part of the error
	}{
		{"clear text among PBKDF2 hashes", "secret", pbkdf2, "no sha256 hash with keyLength 32"},
		{"long clear text among PBKDF2 hashes", strings.Repeat("not base64! ", 9), pbkdf2, "no sha256 hash"},
		{"key of another length", stored[3].key + salt, pbkdf2, "no sha256 hash"},
		{"argon2i", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$NQWjMI4Bhu0k9xrgtOJMzA", Digest{}, "variant"},
		{"argon2id cut off", "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ", Digest{}, "not in the correct format"},
		{"argon2id without rounds", "$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$NQWjMI4Bhu0k9xrgtOJMzA", Digest{}, "out of bounds"},
		{"argon2id without lanes", "$argon2id$v=19$m=64,t=1,p=0$c2FsdHNhbHQ$NQWjMI4Bhu0k9xrgtOJMzA", Digest{}, "out of bounds"},
		{"argon2id with all the memory", "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$NQWjMI4Bhu0k9xrgtOJMzA", Digest{}, "out of bounds"},
		{"argon2id with a short key", "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$NQ", Digest{}, "too short"},
		{"bcrypt cut off", "$2a$10$N9qo8uLOickgx2ZMRZoMye", Digest{}, "bcrypt"},
		{"bcrypt with a tail", "$2a$04$" + strings.Repeat("a", 54), Digest{}, "61 characters"},
		{"bcrypt for ever", "$2b$31$" + strings.Repeat("a", 53), Digest{}, "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseSecret(c.stored, c.digest)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestEveryBcryptPrefixIsRead(t *testing.T) {
	b, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		s, err := parseSecret(prefix+string(b[4:]), Digest{})
		if err != nil || !s.matches("pw") || s.matches("pW") {
			t.Errorf("%s: does not match exactly its password (%v)", prefix, err)
		}
	}
}

func TestWeakPasswordsAreNoticed(t *testing.T) {
	for password, weak := range map[string]bool{
		"": true, "ünïcödé": true, "aaaaaaaaaaaa": true, "PassWord": true, "123456789": true,
		"correct horse": false, "iloveyou sunshine": false, "Tr0ub4dor&3": false,
	} {
		if got := Weakness(password); (got != "") != weak {
			t.Errorf("%q: got %q, want weak %v", password, got, weak)
		}
	}
}

func FuzzAnyStoredPasswordIsReadOrRefused(f *testing.F) {
	for _, c := range stored {
		f.Add(c.key+salt, true)
	}
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$NQWjMI4Bhu0k9xrgtOJMzAvVHlCEEHjJ2vKWw8L1l2E", false)
	f.Add("$2a$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", false)
	f.Fuzz(func(t *testing.T, text string, hashed bool) {
		d := Digest{}
		if hashed {
			d = Digest{"md5", 1, 16}
		}
		s, err := parseSecret(text, d)
		if err != nil {
			return
		}
		// Costly settings are fine to read, and too slow to try here.
		if a, ok := s.(argon2idSecret); ok && a.params.Memory*a.params.Iterations > 1<<12 {
			return
		}
		if _, ok := s.(bcryptSecret); ok {
			return
		}
		if s.matches("a password " + text) {
			t.Errorf("%q matches a password it was not made from", text)
		}
	})
}
