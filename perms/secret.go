package perms

import (
	"strings"
	"unicode"
)

// secretParts make a key a secret one wherever they stand in it, and secretWords
// where they are a word of it.
var (
	secretParts = []string{"password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "authorization", "apikey", "privatekey", "accesskey"}
	secretWords = map[string]bool{"pass": true, "pwd": true, "pin": true, "key": true, "keys": true, "auth": true, "jwt": true, "bearer": true,
		"cookie": true, "cookies": true, "otp": true, "cvv": true, "cvc": true, "iban": true, "ssn": true, "salt": true, "hash": true, "signature": true}
)

// secretKey says whether the value of a key looks like something that not everybody
// who reads an explanation should see: password, accessToken, api_key.
func secretKey(key string) bool {
	flat := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, key)
	for _, part := range secretParts {
		if strings.Contains(flat, part) {
			return true
		}
	}
	for _, word := range words(key) {
		if secretWords[word] {
			return true
		}
	}
	return false
}

// words are the words of a key in lower case: of apiKey, API_KEY and api-key alike.
func words(key string) []string {
	var b strings.Builder
	lower := false // the letter before is a small one
	for _, r := range key {
		switch {
		case !unicode.IsLetter(r):
			b.WriteByte(' ')
		case unicode.IsUpper(r) && lower:
			b.WriteByte(' ')
			fallthrough
		default:
			b.WriteRune(unicode.ToLower(r))
		}
		lower = unicode.IsLower(r)
	}
	return strings.Fields(b.String())
}
