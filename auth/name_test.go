package auth

import (
	"strings"
	"testing"
)

func TestNamesThatNobodyCanHave(t *testing.T) {
	for name, fine := range map[string]bool{
		"ann": true, "a b/ü": true, strings.Repeat("x", maxUserName): true,
		"": false, "open": false, "OPEN": false, "hadal/x": false, "\xff": false, strings.Repeat("x", maxUserName+1): false,
	} {
		if err := CheckName(name); (err == nil) != fine {
			t.Errorf("CheckName(%.20q) = %v", name, err)
		}
	}
}
