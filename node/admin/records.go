package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Records is the record room as operators use it. No rule applies, and nobody
// is told of changes.
type Records interface {
	// Get reads a record, or returns ErrNotFound.
	Get(ctx context.Context, name string) (Record, error)
	// Set makes data, JSON text, the record's next version, and returns that.
	Set(ctx context.Context, name, data string) (version int32, err error)
	// Restore makes a record what rec says, its version included.
	Restore(ctx context.Context, rec Record) error
	// Delete removes a record, or returns ErrNotFound.
	Delete(ctx context.Context, name string) error
	// Names calls fn for every name that begins with prefix, until it fails.
	Names(ctx context.Context, prefix string, fn func(name string) error) error
	// Scan is Names with the whole record.
	Scan(ctx context.Context, prefix string, fn func(Record) error) error
}

// ErrNotFound means that there is no record of that name.
var ErrNotFound = errors.New("record not found")

// ErrInvalid means that a record cannot be what it was asked to be: it is too
// large, say. The error around it says why.
var ErrInvalid = errors.New("record is not valid")

// Record is a record as operators see it. Data is JSON text.
type Record struct {
	Name    string
	Version int32
	Data    string
}

// appendLine appends the record as one line of JSON.
func (r Record) appendLine(b []byte) ([]byte, error) {
	name, err := json.Marshal(r.Name)
	if err != nil {
		return nil, err
	}
	b = append(b, `{"name":`...)
	b = append(b, name...)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(r.Version), 10)
	b = append(b, `,"data":`...)
	// Line ends in JSON text are always space between its parts.
	b = append(b, oneLine.Replace(r.Data)...)
	return append(b, '}', '\n'), nil
}

var oneLine = strings.NewReplacer("\n", " ", "\r", " ")

// parseRecord reads one line of an import. Other keys than those of an export
// are mistakes.
func parseRecord(line []byte) (Record, error) {
	var raw struct {
		Name    *string         `json:"name"`
		Version *int32          `json:"version"`
		Data    json.RawMessage `json:"data"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&raw); err != nil {
		return Record{}, fmt.Errorf("not a record as JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Record{}, errors.New("something follows the record")
	}
	switch {
	case raw.Name == nil || *raw.Name == "":
		return Record{}, errors.New("has no name")
	case raw.Version == nil || *raw.Version < 0:
		return Record{}, fmt.Errorf("record %q: version is missing or negative", *raw.Name)
	case raw.Data == nil:
		return Record{}, fmt.Errorf("record %q: data is missing", *raw.Name)
	}
	return Record{Name: *raw.Name, Version: *raw.Version, Data: string(raw.Data)}, nil
}

const (
	// maxRecord is the most bytes of one record that are read at all; how large a
	// record may be, Records decides.
	maxRecord = 64 << 20
	// importers is how many records of an import are written at once, so that
	// they share commits.
	importers = 256
)

// recordsAPI answers the requests about records.
type recordsAPI struct {
	records Records
	log     *slog.Logger
}

func newRecordsAPI(r Records, log *slog.Logger) *recordsAPI { return &recordsAPI{r, log} }

func (a *recordsAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /record", a.named(a.get))
	mux.HandleFunc("PUT /record", a.named(a.set))
	mux.HandleFunc("DELETE /record", a.named(a.delete))
	mux.HandleFunc("GET /records", a.list)
	mux.HandleFunc("GET /export", a.export)
	mux.HandleFunc("POST /import", a.imports)
}

// named hands on requests that name a record.
func (a *recordsAPI) named(next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("name")
		if name == "" {
			refuse(w, http.StatusBadRequest, "name the record: ?name=…")
			return
		}
		next(w, r, name)
	}
}

// fail answers with an error of Records.
func (a *recordsAPI) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status == http.StatusInternalServerError && r.Context().Err() == nil {
		a.log.Error("admin request failed", "path", r.URL.Path, "err", err)
	}
	refuse(w, status, err.Error())
}

// statusOf is the only place where an error of Records becomes HTTP.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

func (a *recordsAPI) get(w http.ResponseWriter, r *http.Request, name string) {
	rec, err := a.records.Get(r.Context(), name)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	line, err := rec.appendLine(nil)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answerText(w, http.StatusOK, line)
}

func (a *recordsAPI) set(w http.ResponseWriter, r *http.Request, name string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRecord))
	switch {
	case err != nil:
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status, fmt.Sprintf("read the data: %v", err))
		return
	case !json.Valid(body):
		refuse(w, http.StatusBadRequest, "the data is not JSON")
		return
	}
	version, err := a.records.Set(r.Context(), name, string(body))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Version int32 `json:"version"`
	}{version})
}

func (a *recordsAPI) delete(w http.ResponseWriter, r *http.Request, name string) {
	if err := a.records.Delete(r.Context(), name); err != nil {
		a.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func (a *recordsAPI) list(w http.ResponseWriter, r *http.Request) {
	a.stream(w, r, func(line func([]byte) error) error {
		return a.records.Names(r.Context(), r.URL.Query().Get("prefix"), func(name string) error {
			b, err := json.Marshal(name)
			if err != nil {
				return err
			}
			return line(append(b, '\n'))
		})
	})
}

func (a *recordsAPI) export(w http.ResponseWriter, r *http.Request) {
	var buf []byte
	a.stream(w, r, func(line func([]byte) error) error {
		return a.records.Scan(r.Context(), r.URL.Query().Get("prefix"), func(rec Record) (err error) {
			if buf, err = rec.appendLine(buf[:0]); err != nil {
				return err
			}
			return line(buf)
		})
	})
}

// stream answers with lines as they come. An error after the first ones can be
// told only by a last line and a broken answer.
func (a *recordsAPI) stream(w http.ResponseWriter, r *http.Request, lines func(line func([]byte) error) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, 64<<10)
	began := false
	err := lines(func(b []byte) error {
		began = true
		_, err := out.Write(b)
		return err
	})
	switch {
	case err == nil:
		err = out.Flush()
	case !began:
		a.fail(w, r, err)
		return
	}
	if err == nil {
		return
	}
	if r.Context().Err() == nil {
		a.log.Error("admin request failed", "path", r.URL.Path, "err", err)
	}
	b, jsonErr := json.Marshal(failure{Error: err.Error()})
	if jsonErr == nil {
		// Whether these reach the client does not matter: the abort does.
		_, _ = out.Write(append(b, '\n'))
		_ = out.Flush()
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

// imports writes the records of the body. They are spread over writers by name,
// so that of several lines for one record the last one stays. It stops at the
// first mistake; what was written until then stays written.
func (a *recordsAPI) imports(w http.ResponseWriter, r *http.Request) {
	ctx, stop := context.WithCancelCause(r.Context())
	defer stop(nil)
	type work struct {
		rec  Record
		line int
	}
	var imported atomic.Int64
	var failedLine atomic.Int64
	var wg sync.WaitGroup
	var queues [importers]chan work
	for i := range queues {
		queue := make(chan work, 4)
		queues[i] = queue
		wg.Go(func() {
			for job := range queue {
				if ctx.Err() != nil {
					continue // to let the reader end
				}
				if err := a.records.Restore(ctx, job.rec); err != nil {
					failedLine.CompareAndSwap(0, int64(job.line))
					stop(err)
					continue
				}
				imported.Add(1)
			}
		})
	}
	seed := maphash.MakeSeed()
	line := 0
	readErr := eachLine(r.Body, func(text []byte) error {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		rec, err := parseRecord(text)
		if err != nil {
			return err
		}
		select {
		case queues[maphash.String(seed, rec.Name)%importers] <- work{rec, line}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	for _, queue := range queues {
		close(queue)
	}
	wg.Wait()

	count := int(imported.Load())
	if at := int(failedLine.Load()); at != 0 {
		err := context.Cause(ctx)
		answer(w, statusOf(err), failure{Error: fmt.Sprintf("line %d: %v", at, err), Line: at, Imported: count})
		return
	}
	if readErr != nil {
		at := max(line, 1)
		answer(w, http.StatusBadRequest, failure{Error: fmt.Sprintf("line %d: %v", at, readErr), Line: at, Imported: count})
		return
	}
	answer(w, http.StatusOK, struct {
		Imported int `json:"imported"`
	}{count})
}

// eachLine calls fn for every line of r, which it may use until it returns.
func eachLine(r io.Reader, fn func(line []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxRecord)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}
