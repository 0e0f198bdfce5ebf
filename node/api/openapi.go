package api

import (
	_ "embed" // openapi.json
	"encoding/json"
	"fmt"
	"net/http"
)

//go:embed openapi.json
var openAPI []byte

// The paths of openapi.json, which the configuration may have changed.
const (
	documentedPath = "/api"
	documentedAuth = "/api/auth"
)

// serveOpenAPI answers with the document that describes the API.
func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET, OPTIONS")
		s.refuse(w, r, problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "use GET"))
		return
	}
	s.answer(w, s.document)
}

// documentOf is openapi.json with the paths of a configuration.
func documentOf(cfg Config) []byte {
	var doc map[string]json.RawMessage
	var paths map[string]map[string]json.RawMessage
	err := json.Unmarshal(openAPI, &doc)
	if err == nil {
		err = json.Unmarshal(doc["paths"], &paths)
	}
	if err != nil {
		panic(fmt.Sprintf("openapi.json: %v", err)) // a mistake of ours
	}
	post, get, auth := paths[documentedPath]["post"], paths[documentedPath]["get"], paths[documentedAuth]["post"]
	delete(paths, documentedPath)
	delete(paths, documentedAuth)
	put := func(path, method string, operation json.RawMessage) {
		if paths[path] == nil {
			paths[path] = make(map[string]json.RawMessage)
		}
		paths[path][method] = operation
	}
	put(cfg.PostPath, "post", post)
	if cfg.GetPath != "" {
		put(cfg.GetPath, "get", get)
	}
	if cfg.EnableAuthEndpoint {
		put(cfg.AuthPath, "post", auth)
	}
	if doc["paths"], err = json.Marshal(paths); err != nil {
		panic(err) // it was JSON before
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // likewise
	}
	return text
}
