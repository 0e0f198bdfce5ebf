package admin

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
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
	// Check returns an ErrInvalid if Restore would, whatever is there.
	Check(rec Record) error
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

const (
	// importers is how many records of an import are written at once, so that they
	// share commits.
	importers = 1024
	// importBytes bounds what they hold in memory, one larger record excepted.
	importBytes = 32 << 20
)

// recordsAPI answers the requests about records, and copies what logins keep.
type recordsAPI struct {
	answers
	records Records
	logins  Logins // nil: there are none
}

// answers are what requests about things that are kept have in common.
type answers struct{ log *slog.Logger }

func newRecordsAPI(r Records, l Logins, log *slog.Logger) *recordsAPI {
	return &recordsAPI{answers{log}, r, l}
}

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

// fail answers with an error of Records or Users.
func (a answers) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status == http.StatusInternalServerError && r.Context().Err() == nil {
		a.log.Error("admin request failed", "path", r.URL.Path, "err", err)
	}
	refuse(w, status, err.Error())
}

// statusOf is the only place where an error of Records or Users becomes HTTP.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNoUser):
		return http.StatusNotFound
	case errors.Is(err, ErrUserExists):
		return http.StatusConflict
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
	a.stream(w, r, func(to io.Writer) error {
		out := bufio.NewWriterSize(to, 64<<10)
		var line []byte
		err := a.records.Names(r.Context(), r.URL.Query().Get("prefix"), func(name string) (err error) {
			if line, err = AppendName(line[:0], name); err != nil {
				return err
			}
			_, err = out.Write(line)
			return err
		})
		return errors.Join(err, out.Flush())
	})
}

// export answers with records, and with ?logins=true with what logins keep before them.
func (a *recordsAPI) export(w http.ResponseWriter, r *http.Request) {
	logins, err := strconv.ParseBool(cmp.Or(r.URL.Query().Get("logins"), "false"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "logins is true or false")
		return
	}
	a.stream(w, r, func(to io.Writer) error {
		out := NewExporter(to)
		var err error
		if logins && a.logins != nil {
			err = a.logins.ScanLogins(r.Context(), out.AddLogin)
		}
		if err == nil {
			err = a.records.Scan(r.Context(), r.URL.Query().Get("prefix"), out.Add)
		}
		if err != nil {
			return errors.Join(err, out.out.Flush())
		}
		return out.End()
	})
}

// stream answers with what write writes. An error after the beginning can be
// told only by a last line and a broken answer.
func (a answers) stream(w http.ResponseWriter, r *http.Request, write func(io.Writer) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := &begun{w: w}
	err := write(out)
	switch {
	case err == nil:
		return
	case !out.yes:
		a.fail(w, r, err)
		return
	}
	if r.Context().Err() == nil {
		a.log.Error("admin request failed", "path", r.URL.Path, "err", err)
	}
	b, jsonErr := json.Marshal(failure{Error: err.Error()})
	if jsonErr == nil {
		// Whether these reach the client does not matter: the abort does.
		_, _ = w.Write(append(b, '\n'))
		_ = http.NewResponseController(w).Flush()
	}
	panic(http.ErrAbortHandler)
}

// begun knows whether anything was written.
type begun struct {
	w   io.Writer
	yes bool
}

// Write implements io.Writer.
func (b *begun) Write(p []byte) (int, error) {
	b.yes = b.yes || len(p) > 0
	return b.w.Write(p)
}

// imports writes the records of the body, and what logins keep. They are spread over writers by name,
// so that of several lines for one record the last one stays. It stops at the
// first mistake; what was written until then stays written. With ?partial=true the
// body needs no end line. With ?merge it does what Merge says.
func (a *recordsAPI) imports(w http.ResponseWriter, r *http.Request) {
	partial, err := strconv.ParseBool(cmp.Or(r.URL.Query().Get("partial"), "false"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "partial is true or false")
		return
	}
	merge, err := mergeOf(r.URL.Query(), a.records)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if merge != nil {
		merge.look(r.Context(), a.log)
	}
	ctx, stop := context.WithCancelCause(r.Context())
	defer stop(nil)
	type work struct {
		rec   Record
		login *Login // in the place of rec
		line  int
		size  int64
	}
	memory := semaphore.NewWeighted(importBytes)
	var imported, logins atomic.Int64
	restore := func(job *work) (err error) {
		written := &imported
		switch {
		case job.login == nil && merge != nil:
			err = merge.take(ctx, job.rec)
		case job.login == nil:
			err = a.records.Restore(ctx, job.rec)
		case a.logins == nil || merge != nil:
			err = fmt.Errorf("what logins keep cannot be written here: %w", ErrInvalid)
		default:
			written, err = &logins, a.logins.RestoreLogin(ctx, *job.login)
		}
		if err == nil {
			written.Add(1)
		}
		return err
	}
	var failing sync.Once
	failedLine := 0 // read when all writers have ended
	var wg sync.WaitGroup
	var queues [importers]chan work
	for i := range queues {
		queue := make(chan work, 4)
		queues[i] = queue
		wg.Go(func() {
			for job := range queue {
				if ctx.Err() == nil { // else only to let the reader end
					if err := restore(&job); err != nil {
						failing.Do(func() {
							failedLine = job.line
							stop(err)
						})
					}
				}
				memory.Release(job.size)
			}
		})
	}
	seed := maphash.MakeSeed()
	line := 0
	var check exportCheck
	readErr := eachLine(r.Body, func(text []byte) error {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		l, err := parseLine(text)
		if err != nil {
			return err
		}
		if l.End {
			return check.end(&l)
		}
		job := work{line: line, size: min(int64(len(text)), importBytes)}
		name := ""
		if l.Login != nil {
			login, err := l.login()
			if err != nil {
				return err
			}
			job.login, name = &login, "login "+login.Key
		} else {
			if job.rec, err = l.record(); err != nil {
				return err
			}
			name = job.rec.Name
		}
		check.line(text, job.login != nil)
		if memory.Acquire(ctx, job.size) != nil {
			return context.Cause(ctx)
		}
		select {
		case queues[maphash.String(seed, name)%importers] <- job:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	for _, queue := range queues {
		close(queue)
	}
	wg.Wait()

	fail := func(status, line int, err error) {
		count := int(imported.Load())
		if merge != nil {
			count = merge.result().Written
		}
		text := fmt.Sprintf("%v; %d records are written, and the import may be repeated", err, count)
		if line > 0 {
			text = fmt.Sprintf("line %d: %s", line, text)
		}
		// A client that still sends would hear of a broken pipe instead of this.
		full := http.NewResponseController(w).EnableFullDuplex()
		answer(w, status, failure{Error: text, Line: line, Imported: count})
		if full == nil && http.NewResponseController(w).Flush() == nil {
			// It ends when the client has read the answer, or goes away.
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}
	switch {
	case failedLine != 0:
		err := context.Cause(ctx)
		fail(statusOf(err), failedLine, err)
	case readErr != nil:
		fail(http.StatusBadRequest, max(line, 1), readErr)
	case !partial && check.verdict() != nil:
		fail(http.StatusBadRequest, 0, check.verdict())
	case merge != nil:
		answer(w, http.StatusOK, merge.result())
	default:
		answer(w, http.StatusOK, struct {
			Imported int `json:"imported"`
			Logins   int `json:"logins"`
		}{int(imported.Load()), int(logins.Load())})
	}
}

// eachLine calls fn for every line of r, which it may use until it returns.
func eachLine(r io.Reader, fn func(line []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("the next line has more than %d bytes, which no record needs", maxLine)
	}
	return lines.Err()
}
