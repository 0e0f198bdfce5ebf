package protocol

import "testing"

func TestRefusalsHaveTheNameOfTheirTopic(t *testing.T) {
	for topic := range Topic(codecTopics) {
		denied, failed := "0", "0"
		switch topic {
		case TopicEvent, TopicRecord, TopicRPC, TopicPresence:
			denied, failed = "MESSAGE_DENIED", "MESSAGE_PERMISSION_ERROR"
		}
		if got := Denied(topic).Name(topic); got != denied {
			t.Errorf("%v: Denied = %s, want %s", topic, got, denied)
		}
		if got := PermissionError(topic).Name(topic); got != failed {
			t.Errorf("%v: PermissionError = %s, want %s", topic, got, failed)
		}
	}
}

func TestUnknownActionsHaveTheirNumberAsName(t *testing.T) {
	tests := []struct {
		topic  Topic
		action Action
		want   string
		known  bool
	}{
		{TopicRecord, RecordPatch, "PATCH", true},
		{TopicRecord, 999, "999", false},
		{TopicRPC, 3, "3", false}, // the gap in the numbers
		{TopicEvent, ActionUnknown, "0", false},
		{TopicLock, 2, "2", false},
		{99, -1, "-1", false},
	}
	for _, tt := range tests {
		if got := tt.action.Name(tt.topic); got != tt.want {
			t.Errorf("%v: Name of %d = %s, want %s", tt.topic, tt.action, got, tt.want)
		}
		if got := tt.action.Known(tt.topic); got != tt.known {
			t.Errorf("%v: Known of %d = %v, want %v", tt.topic, tt.action, got, tt.known)
		}
	}
}

func TestTopicNames(t *testing.T) {
	want := []string{
		"UNKNOWN", "PARSER", "CONNECTION", "AUTH", "EVENT", "RECORD", "RPC", "PRESENCE",
		"MONITORING", "CLUSTER", "LOCK", "UNKNOWN",
	}
	for topic, name := range want {
		if got := Topic(topic).String(); got != name {
			t.Errorf("topic %d = %s, want %s", topic, got, name)
		}
	}
}

func TestMessageCarriesAllTheFieldsAskedFor(t *testing.T) {
	m := Message{Has: HasName | HasPath}
	for fields, want := range map[Fields]bool{HasName: true, HasName | HasPath: true, HasName | HasData: false, HasVersion: false} {
		if got := m.Carries(fields); got != want {
			t.Errorf("Carries(%b) = %v, want %v", fields, got, want)
		}
	}
}
