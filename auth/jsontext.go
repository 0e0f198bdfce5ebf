package auth

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
)

// jsonText writes a value as it was decoded from YAML or JSON as JSON text.
// The order of keys is kept where the decoder kept it; nil is null.
func jsonText(v any) (string, error) {
	b, err := appendJSON(nil, v)
	return string(b), err
}

func appendJSON(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case yaml.MapSlice:
		b = append(b, '{')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			// JSON's keys are strings: YAML's numbers and booleans become theirs.
			if b, err = appendScalar(b, fmt.Sprint(item.Key)); err != nil {
				return nil, err
			}
			b = append(b, ':')
			if b, err = appendJSON(b, item.Value); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, item := range v {
			m[fmt.Sprint(k)] = item
		}
		return appendJSON(b, m)
	case map[string]any:
		m := make(map[string]json.RawMessage, len(v))
		for k, item := range v {
			if m[k], err = appendJSON(nil, item); err != nil {
				return nil, err
			}
		}
		return appendScalar(b, m)
	}
	return appendScalar(b, v)
}

// appendScalar appends what encoding/json makes of v, leaving <, > and & as
// they are.
func appendScalar(b []byte, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot be written as JSON: %w", err)
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), nil
}
