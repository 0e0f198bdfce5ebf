package endpoint

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/protocol"
)

func TestNothingIsReadOfAPlainClientThatTakesNoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		s, err := New(cfg, nil, &funcReceiver{}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		c := s.Plain(&Dialect{Name: "plain", Options: &cfg.WebSocket}, ours, nil, &auth.Attempt{})
		answers := make([]byte, cfg.WebSocket.QueueSoftLimit+1)
		if _, err := c.Write(answers); err != nil {
			t.Fatal(err)
		}
		read, sent := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := theirs.Write([]byte{1})
			sent <- err
		}()
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		select {
		case err := <-read:
			t.Errorf("read a byte (%v) while %d bytes of answers wait", err, len(answers))
			read <- err
		default:
		}
		if _, err := io.ReadFull(theirs, answers); err != nil {
			t.Error(err)
		}
		for _, done := range []chan error{read, sent} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		theirs.Close()
		c.Leave()
	})
}

func TestARevokedClientLeavesNothingToBeSaid(t *testing.T) {
	for why, want := range map[Reason]int{ConnectionLost: 1, TokenExpired: 1, Kicked: 1, TokenRevoked: 0} {
		t.Run(why.String(), func(t *testing.T) {
			said := 0
			cfg := testConfig()
			s, err := New(cfg, nil, &funcReceiver{receive: func(*Conn, *protocol.Message) { said++ }}, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := net.Pipe()
			c := s.Plain(&Dialect{Name: "plain", Options: &cfg.WebSocket, Codec: func() Codec { return wordless{} }}, ours, nil, &auth.Attempt{})
			if !c.Admit(&auth.User{ID: "u"}) {
				t.Fatal("not let in")
			}
			c.End(why)
			c.Bequeath(emit("will", "1"))
			theirs.Close()
			c.Leave()
			if said != want {
				t.Errorf("%d wills were published, want %d", said, want)
			}
		})
	}
}

// wordless is a dialect that says nothing.
type wordless struct{}

func (wordless) Form() protocol.Form                          { return protocol.FormMQTT }
func (wordless) Decode([]byte, func(*protocol.Message)) error { return nil }
func (wordless) Frame(*protocol.Message) []byte               { return nil }

func TestClientsOfATLSPortMayNameTheirProtocol(t *testing.T) {
	cert, key := newPair(t, "port", time.Now().Add(time.Hour))
	ts := serveWith(t, testConfig(), func(s *Server) {
		err := s.AddPort(Port{Host: "127.0.0.1", SSL: SSLConfig{Cert: cert, Key: key}, Serve: func(nc net.Conn, _ *auth.Attempt) {
			_, _ = io.WriteString(nc, "hello") // whoever reads it says what came
			_ = nc.Close()
		}})
		if err != nil {
			t.Fatal(err)
		}
	})
	for _, protocols := range [][]string{nil, {"mqtt"}, {"http/1.1"}} {
		nc, err := tls.Dial("tcp", ts.PortAddr(0).String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			t.Errorf("%q: %v", protocols, err)
			continue
		}
		if b, err := io.ReadAll(nc); string(b) != "hello" {
			t.Errorf("%q: got %q, %v", protocols, b, err)
		}
		_ = nc.Close()
	}
}

func TestAPanicBehindAPortEndsItsClientOnly(t *testing.T) {
	ts := serveWith(t, testConfig(), func(s *Server) {
		err := s.AddPort(Port{Host: "127.0.0.1", Serve: func(nc net.Conn, visit *auth.Attempt) {
			c := s.Plain(&Dialect{Name: "plain", Options: &s.cfg.WebSocket}, nc, nil, visit)
			defer c.Leave()
			panic("a packet that the library could not read")
		}})
		if err != nil {
			t.Fatal(err)
		}
	})
	for range 2 {
		nc, err := net.Dial("tcp", ts.PortAddr(0).String())
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(nc); len(b) > 0 { // however it ends
			t.Errorf("got %q", b)
		}
		nc.Close()
	}
	eventually(t, "both are counted", func() bool { return ts.Stats().Panics == 2 })
}
