package auth

// ClientTLS says how a server that a strategy asks is known, and what it is shown.
type ClientTLS struct {
	// CAFile holds the authorities in PEM that may have signed the server's
	// certificate, instead of those of the system.
	CAFile string `yaml:"caFile"`
	// CertFile is a certificate in PEM that is shown to the server, followed by its
	// chain.
	CertFile string `yaml:"certFile"`
	// KeyFile is the private key of CertFile.
	KeyFile string `yaml:"keyFile"`
}

// JWTKey is one key of the jwt strategy.
type JWTKey struct {
	// ID is the key's id: a token that names one (kid) is checked with this key only
	// if it is this one. A key without id, and a token that names none, fit all.
	ID string `yaml:"id"`
	// Alg is the one algorithm that the key is for: HS256, HS384, HS512, RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA.
	Alg string `yaml:"alg"`
	// Secret is the shared secret of an HS algorithm, at least as long as its digest
	// (32, 48 or 64 bytes).
	Secret string `yaml:"secret"`
	// Key is the public key, or a certificate, of any other algorithm, in PEM.
	Key string `yaml:"key"`
	// KeyFile is the path of a file with that.
	KeyFile string `yaml:"keyFile"`
}

// ClaimsConfig says which claims of a token become what of a user. The name of a
// claim is one at the top of the token, or else a path into it, such as
// realm_access.roles.
type ClaimsConfig struct {
	// ID is the claim that is the user's id. Default: sub.
	ID string `yaml:"id"`
	// Role is the claim that becomes the user's serverData.role, if it is a text.
	// Default: role.
	Role string `yaml:"role"`
	// ServerData is what rules see as user.data: a list of claims; or a mapping of
	// names to claims; or the name of one claim that is an object, taken whole.
	ServerData any `yaml:"serverData"`
	// ClientData is what the client is sent, in the same ways.
	ClientData any `yaml:"clientData"`
}
