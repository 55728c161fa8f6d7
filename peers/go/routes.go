package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"
)

const page = "This is the regular page. It should answer at once.\n"

// maxBody is the longest body, in bytes.
const maxBody = 1 << 20

type routes struct {
	maxBlock time.Duration
	draining *atomic.Bool
}

var worker = strconv.Itoa(os.Getpid())

func (routes routes) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	answer, allow := routes.answer(writer, request)
	header := writer.Header()
	header.Set("Content-Type", answer.contentType)
	header.Set("Content-Length", strconv.Itoa(len(answer.body)))
	header.Set("X-Worker", worker)
	if allow != "" {
		header.Set("Allow", allow)
	}
	if routes.draining.Load() {
		header.Set("Connection", "close")
	}
	writer.WriteHeader(answer.status)
	writer.Write(answer.body)
}

// known lists the methods that each path takes.
var known = map[string]string{
	"/": "GET, HEAD", "/healthz": "GET, HEAD", "/timer": "GET, HEAD", "/sleep": "GET, HEAD", "/json/stringify": "GET, HEAD",
	"/json/parse": "POST", "/sort": "GET, HEAD", "/pbkdf2": "GET, HEAD", "/panic": "GET, HEAD",
}

// answer handles a request. The second result is the value of Allow if the path does not take the method, and otherwise empty.
func (routes routes) answer(writer http.ResponseWriter, request *http.Request) (answer, string) {
	path := request.URL.Path
	if path == "" {
		path = "/"
	}
	allow, ok := known[path]
	if !ok {
		return text(404, "there is nothing here; try /, /timer?ms=9000, /sleep?ms=1000 or /healthz\n"), ""
	}
	isRead := request.Method == "GET" || request.Method == "HEAD"
	if isRead != (allow != "POST") || (!isRead && request.Method != "POST") {
		return text(405, "%s takes %s\n", path, allow), allow
	}
	if path == "/json/parse" {
		document, err := io.ReadAll(http.MaxBytesReader(writer, request.Body, maxBody))
		if err != nil {
			return text(413, "%v\n", err), ""
		}
		return parse(document), ""
	}
	values, err := url.ParseQuery(request.URL.RawQuery)
	if err != nil {
		return text(400, "query: %v\n", err), ""
	}
	return routes.get(path, &query{values, nil}), ""
}

func (routes routes) get(path string, query *query) answer {
	var do func() answer
	switch path {
	case "/":
		return text(200, page)
	case "/healthz":
		if routes.draining.Load() {
			return text(503, "draining\n")
		}
		return text(200, "ready\n")
	case "/timer":
		length, clock := query.length(routes.maxBlock), query.clock()
		do = func() answer {
			spin(length, clock)
			return text(200, "spun for %v ms\n", length.Seconds()*1e3)
		}
	case "/sleep":
		length := query.length(routes.maxBlock)
		do = func() answer {
			block(length)
			return text(200, "slept for %v ms\n", length.Seconds()*1e3)
		}
	case "/json/stringify":
		items := query.number("items", 10_000, 0, 1_000_000)
		do = func() answer { return stringify(items) }
	case "/sort":
		items := query.number("items", 100_000, 0, 10_000_000)
		do = func() answer { return sorted(items) }
	case "/panic":
		do = func() answer { panic("a request to /panic asked for this") }
	case "/pbkdf2":
		iterations := query.number("iterations", 100_000, 1, 10_000_000)
		do = func() answer { return pbkdf2(iterations) }
	}
	if query.refused != nil {
		return *query.refused
	}
	return guarded(do)
}

// guarded answers 500 for a handler that panics: net/http would close the connection.
func guarded(do func() answer) (result answer) {
	defer func() {
		if recover() != nil {
			result = text(500, "the handler panicked\n")
		}
	}()
	return do()
}

// plain matches numbers without signs, exponents or underscores, which strconv would take.
var plain = regexp.MustCompile(`^[0-9]*\.?[0-9]*$`)

// query reads parameters, and keeps the refusal of the first invalid one.
type query struct {
	values  url.Values
	refused *answer
}

func (query *query) refuse(name, value, takes string) {
	if query.refused == nil {
		refused := text(400, "%s: takes %s, not '%s'\n", name, takes, value)
		query.refused = &refused
	}
}

func (query *query) number(name string, otherwise, least, most int) int {
	if !query.values.Has(name) {
		return otherwise
	}
	value := query.values.Get(name)
	number, err := strconv.ParseUint(value, 10, 63)
	if err != nil || !plain.MatchString(value) || int(number) < least || int(number) > most {
		query.refuse(name, value, fmt.Sprintf("a whole number from %d to %d", least, most))
	}
	return int(number)
}

func (query *query) length(most time.Duration) time.Duration {
	if !query.values.Has("ms") {
		return min(most, 9*time.Second)
	}
	value := query.values.Get("ms")
	ms, err := strconv.ParseFloat(value, 64)
	if err != nil || !plain.MatchString(value) || !(ms >= 0 && ms <= most.Seconds()*1e3) {
		query.refuse("ms", value, fmt.Sprintf("milliseconds from 0 to %v (--max-block)", most.Seconds()*1e3))
		return 0
	}
	return time.Duration(ms * 1e6)
}

func min(a, b time.Duration) time.Duration {
	if a < b {
		return a
	}
	return b
}

func (query *query) clock() string {
	clock := query.values.Get("clock")
	if clock == "" {
		return "wall"
	}
	if clock != "wall" && clock != "cpu" {
		query.refuse("clock", clock, "wall or cpu")
	}
	return clock
}
