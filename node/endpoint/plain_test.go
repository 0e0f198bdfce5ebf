package endpoint

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"

	"hadal/auth"
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
