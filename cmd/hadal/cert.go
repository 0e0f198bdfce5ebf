package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newCert() *cobra.Command {
	var certFile, keyFile string
	var hosts []string
	var days int
	var force bool
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make a self-signed certificate for development",
		Long: "Make a self-signed certificate and its key, for development. Clients have to be\n" +
			"told to trust the certificate file.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 {
				return usagef("--days: %d is not a positive number", days)
			}
			if certFile == keyFile {
				return usagef("--cert and --key name the same file")
			}
			cert, key, err := selfSigned(hosts, time.Now(), days)
			if err != nil {
				return err
			}
			if err := writePair(certFile, cert, keyFile, key, force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Wrote %s and %s, valid for %d days. In a configuration beside them:\n\n"+
				"httpServer:\n  options:\n    ssl:\n      cert: file(%s)\n      key: file(%s)\n", certFile, keyFile, days, certFile, keyFile)
			return err
		},
	}
	cmd.Flags().StringVar(&certFile, "cert", "cert.pem", "`file` for the certificate")
	cmd.Flags().StringVar(&keyFile, "key", "key.pem", "`file` for the key")
	cmd.Flags().StringSliceVar(&hosts, "host", []string{"localhost", "127.0.0.1", "::1"}, "name or address that clients connect to; may be repeated")
	cmd.Flags().IntVar(&days, "days", 365, "how long the certificate is valid")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite files that exist")
	return cmd
}

// selfSigned is a certificate for hosts that signs itself, and its key, as PEM.
func selfSigned(hosts []string, now time.Time, days int) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make the serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Hadal development"}},
		NotBefore:    now.Add(-time.Hour), // for clients whose clock is behind
		NotAfter:     now.AddDate(0, 0, days),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// It is its own authority, so that it can be handed to clients as one.
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("write the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// writePair writes both files, or neither when one of them is there already.
func writePair(certFile string, cert []byte, keyFile string, key []byte, force bool) error {
	for _, path := range []string{certFile, keyFile} {
		switch _, err := os.Lstat(path); {
		case err == nil && !force:
			return fmt.Errorf("%s is there already: choose another name, or --force", path)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	// A file that is overwritten would keep its rights, and the key may have been
	// readable by all.
	for _, path := range []string{certFile, keyFile} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := writeNew(keyFile, key, 0o600); err != nil {
		return err
	}
	return writeNew(certFile, cert, 0o644)
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
