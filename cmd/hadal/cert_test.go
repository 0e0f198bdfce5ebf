package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestACertificateIsGoodForItsHostsAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	var out, errs bytes.Buffer
	if code := run([]string{"cert", "--cert", cert, "--key", key, "--host", "example.test,10.1.2.3", "--host", "*.example.test", "--days", "7"},
		strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for host, want := range map[string]bool{"example.test": true, "a.example.test": true, "10.1.2.3": true, "localhost": false, "127.0.0.1": false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots})
		if (err == nil) != want {
			t.Errorf("%s: got %v, want good %v", host, err, want)
		}
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now().AddDate(0, 0, 8)})
	if err == nil {
		t.Error("the certificate is good after its days")
	}
}

func TestACheckTellsOfACertificateThatHasExpired(t *testing.T) {
	cert, key, err := selfSigned([]string{"localhost"}, time.Now().AddDate(0, 0, -9), 7)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writePair(filepath.Join(dir, "c.pem"), cert, filepath.Join(dir, "k.pem"), key, false); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte("httpServer: {options: {ssl: {cert: file(c.pem), key: file(k.pem)}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run([]string{"config", "check", file}, strings.NewReader(""), &out, &errs)
	if code != 0 || !strings.Contains(errs.String(), "certificate has expired") || !strings.Contains(out.String(), "is valid") {
		t.Errorf("exit code %d, %q, %q; want a warning and 0", code, &out, &errs)
	}
}
