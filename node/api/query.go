package api

import (
	"encoding/json"
	"net/http"

	"github.com/tidwall/gjson"
)

// serveGet answers one command that only reads, whose properties are those of the query;
// names may stand there several times. deepstream has nothing of the kind (spec 04 §4).
func (s *Server) serveGet(w http.ResponseWriter, r *http.Request) {
	fields := make(map[string]any)
	for key, values := range r.URL.Query() {
		switch {
		case key == s.deps.TokenQuery && key != "": // it is for the login
		case key == "names":
			fields[key] = values
		case len(values) > 1:
			s.refuse(w, r, problem(http.StatusBadRequest, "INVALID_MESSAGE", "the query has a parameter twice"))
			return
		default:
			fields[key] = values[0]
		}
	}
	if len(fields) == 0 {
		s.refuse(w, r, problem(http.StatusBadRequest, "INVALID_MESSAGE", "ask by the query, such as ?topic=record&action=read&recordName=…, or use POST"))
		return
	}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // texts always marshal
	}
	q := &request{params: "{}", body: gjson.Parse("[" + string(text) + "]")}
	if p := q.parse(); p != nil {
		s.refuse(w, r, p)
		return
	}
	if !q.reads() {
		s.refuse(w, r, problem(http.StatusBadRequest, "INVALID_MESSAGE", "GET only reads: use POST"))
		return
	}
	share := s.newShare()
	defer share.give()
	s.perform(w, r, q, share)
}
