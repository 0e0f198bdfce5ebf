package cluster

import (
	"context"
	"log/slog"
	"testing"
)

func TestAPlaceIsNobodysBeforeItIsOpen(t *testing.T) {
	p := NewPlace(DefaultConfig(), slog.New(slog.DiscardHandler))
	if p.Owner(0) != (Ownership{}) || p.Holds(0) || p.Partitions() != 0 || p.Members() != nil || p.Send("x", KindRPC, nil) || p.Linked("x") {
		t.Error("a place that is not open has something to say")
	}
	changed := p.Changed()
	if err := p.Run(t.Context()); err == nil {
		t.Error("it runs without being open")
	}
	if err := p.Open(t.Context(), PlaceOptions{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	select {
	case <-changed:
	default:
		t.Error("that it was opened is not told")
	}
	if o := p.Owner(0); !o.Here || !p.Holds(0) || p.Self().Name != "a" || p.Changed() != nil || p.Server() != nil {
		t.Errorf("alone it is %+v, %+v", o, p.Self())
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a room may begin to listen when it is too late")
		}
	}()
	p.Handle(KindRPC, nil)
}
