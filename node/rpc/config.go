package rpc

import "time"

// Config configures remote procedure calls. The keys are deepstream's.
type Config struct {
	// AckTimeout is how long a provider may take to accept a call.
	AckTimeout time.Duration `yaml:"ackTimeout"`
	// ResponseTimeout is how long a provider may take to answer it.
	ResponseTimeout time.Duration `yaml:"responseTimeout"`
	// ProvideRequestorName tells the provider the caller's user id.
	ProvideRequestorName bool `yaml:"provideRequestorName"`
	// ProvideRequestorData tells the provider the caller's client data.
	ProvideRequestorData bool `yaml:"provideRequestorData"`
}

// DefaultConfig is complete.
func DefaultConfig() Config {
	return Config{AckTimeout: time.Second, ResponseTimeout: 10 * time.Second}
}
