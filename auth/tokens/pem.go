package tokens

import (
	"crypto"
	"errors"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// readPrivate reads a private key of the kind that the method takes, and derives what
// verifies.
func (k *signingKey) readPrivate(pem []byte) error {
	var private crypto.PrivateKey
	var err error
	switch alg := k.method.Alg(); {
	case strings.HasPrefix(alg, "RS"), strings.HasPrefix(alg, "PS"):
		private, err = jwt.ParseRSAPrivateKeyFromPEM(pem)
	case strings.HasPrefix(alg, "ES"):
		private, err = jwt.ParseECPrivateKeyFromPEM(pem)
	default:
		private, err = jwt.ParseEdPrivateKeyFromPEM(pem)
	}
	if err != nil {
		return err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return errors.New("it cannot sign")
	}
	k.sign, k.verifies = private, signer.Public()
	return nil
}
