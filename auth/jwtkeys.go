package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// allAlgorithms are those that a token may be signed by. "none" is not among them.
var allAlgorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// minRSA is the size in bits of the smallest RSA key that is taken (RFC 7518 §3.3).
const minRSA = 2048

// errNoKeys says that the key of a token may be in a set that could not be loaded yet.
var errNoKeys = errors.New("the keys of tokens could not be loaded")

// signingKey is a key, with the one algorithm that it is for: a public key must never be
// taken for the secret of an HS algorithm.
type signingKey struct {
	id, alg string
	key     any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// newSigningKey reads one of keys. Its error opens with the key that is wrong, and holds
// no secret.
func newSigningKey(c *JWTKey) (signingKey, error) {
	k := signingKey{id: c.ID, alg: c.Alg}
	if !slices.Contains(allAlgorithms, c.Alg) {
		return k, fmt.Errorf("alg: %q is not an algorithm of keys here: use one of %s", c.Alg, strings.Join(allAlgorithms, ", "))
	}
	if strings.HasPrefix(c.Alg, "HS") {
		return k, k.secret(c)
	}
	switch {
	case c.Secret != "":
		return k, fmt.Errorf("secret: is for HS algorithms: %s has a public key, in key or keyFile", c.Alg)
	case c.Key == "" && c.KeyFile == "":
		return k, errors.New("key: is missing: put the public key there in PEM, or name a file with it in keyFile")
	case c.Key != "" && c.KeyFile != "":
		return k, errors.New("keyFile: key is set as well: keep one of them")
	}
	name, text := "key", []byte(c.Key)
	if c.KeyFile != "" {
		name = "keyFile"
		var err error
		if text, err = os.ReadFile(c.KeyFile); err != nil {
			return k, fmt.Errorf("keyFile: %w", err)
		}
	}
	public, err := parsePublicKey(text)
	if err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	if err := fits(c.Alg, public); err != nil {
		return k, fmt.Errorf("%s: %w", name, err)
	}
	k.key = public
	return k, nil
}

// secret reads the secret of an HS algorithm.
func (k *signingKey) secret(c *JWTKey) error {
	least := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[c.Alg]
	switch {
	case c.Key != "" || c.KeyFile != "":
		return fmt.Errorf("alg: %s has a secret, and not a key", c.Alg)
	case c.Secret == "":
		return errors.New("secret: is missing")
	case strings.Contains(c.Secret, "-----BEGIN"):
		return errors.New("secret: is a key in PEM: put a public key into key, with the alg that it is for")
	case len(c.Secret) < least:
		return fmt.Errorf("secret: is shorter than the %d bytes that %s needs (RFC 7518, 3.2)", least, c.Alg)
	}
	k.key = []byte(c.Secret)
	return nil
}

// parsePublicKey reads a public key, or that of a certificate, from PEM.
func parsePublicKey(text []byte) (any, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is not in PEM")
	}
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	}
	if strings.Contains(block.Type, "PRIVATE KEY") {
		return nil, errors.New("is a private key, which only the signer should have: put the public one here (openssl pkey -in key.pem -pubout)")
	}
	return nil, fmt.Errorf("is a PEM block of type %q: a PUBLIC KEY or a CERTIFICATE is needed", block.Type)
}

// curves are those of the ES algorithms.
var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

// fits says why a public key is not one for an algorithm; nil if it is.
func fits(alg string, public any) error {
	var kind, want string
	switch public := public.(type) {
	case *rsa.PublicKey:
		if kind = "RSA"; public.N.BitLen() < minRSA {
			return fmt.Errorf("is an RSA key of %d bits: it needs %d", public.N.BitLen(), minRSA)
		}
	case *ecdsa.PublicKey:
		kind = public.Params().Name
	case ed25519.PublicKey:
		kind = "Ed25519"
	default:
		return fmt.Errorf("is a key of type %T, which no algorithm here has", public)
	}
	switch {
	case strings.HasPrefix(alg, "RS"), strings.HasPrefix(alg, "PS"):
		want = "RSA"
	case curves[alg] != nil:
		want = curves[alg].Params().Name
	case alg == "EdDSA":
		want = "Ed25519"
	default:
		want = "secret"
	}
	if kind != want {
		return fmt.Errorf("is a key of type %s, but %s needs %s", kind, alg, want)
	}
	return nil
}

// candidates finds the keys that a token may be signed with: those for its very algorithm,
// and the one it names, if it does.
func (j *jwtStrategy) candidates(ctx context.Context) jwt.Keyfunc {
	return func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, errors.New("the token has extensions that must be understood, and are not")
		}
		kid, ok := t.Header["kid"].(string)
		if _, named := t.Header["kid"]; named && !ok {
			return nil, errors.New("the token names its key by no text")
		}
		alg := t.Method.Alg()
		var found jwt.VerificationKeySet
		for _, k := range j.keys {
			if k.alg == alg && (k.id == "" || kid == "" || k.id == kid) {
				found.Keys = append(found.Keys, k.key)
			}
		}
		if j.set == nil || strings.HasPrefix(alg, "HS") {
			return found, nil
		}
		public, err := j.set.find(ctx, t, kid)
		found.Keys = append(found.Keys, public...)
		if len(found.Keys) == 0 && err != nil {
			return nil, err
		}
		return found, nil
	}
}
