// The routes of Stallbench on Go's net/http: a goroutine for each connection.
//
// Goroutines look like blocking code and are cheap, like may's coroutines. But the scheduler preempts a goroutine that computes
// for more than 10 ms, and starts another thread if one blocks in a system call. So neither kind of blocking request should
// delay other clients.
//
// The knob is --threads (GOMAXPROCS). In the results, compare it with may-green-threads and std-thread-per-connection.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const about = "a goroutine for each connection, on GOMAXPROCS threads at a time"

type knobs struct {
	model, listen                             string
	threads                                   int
	maxBlock, drain, drainIdle, headerTimeout time.Duration
	requestTimeout, idleTimeout               time.Duration
	version                                   bool
}

func fail(code int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "go: "+format+"\n", args...)
	os.Exit(code)
}

func parseKnobs() (knobs knobs) {
	flags := flag.NewFlagSet("go", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&knobs.model, "model", "goroutines", "")
	flags.StringVar(&knobs.listen, "listen", "127.0.0.1:0", "")
	flags.IntVar(&knobs.threads, "threads", runtime.NumCPU(), "")
	flags.DurationVar(&knobs.maxBlock, "max-block", time.Minute, "")
	flags.DurationVar(&knobs.drain, "drain", 10*time.Second, "")
	flags.DurationVar(&knobs.drainIdle, "drain-idle", 2*time.Second, "")
	flags.DurationVar(&knobs.headerTimeout, "header-timeout", 10*time.Second, "")
	flags.DurationVar(&knobs.requestTimeout, "request-timeout", time.Minute, "")
	flags.DurationVar(&knobs.idleTimeout, "idle-timeout", 75*time.Second, "")
	flags.BoolVar(&knobs.version, "version", false, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		fail(2, "%v", err)
	}
	if knobs.model != "goroutines" {
		fail(2, "--model '%s' is unknown; the only valid value is goroutines", knobs.model)
	}
	if knobs.threads < 1 {
		fail(2, "--threads takes a whole number from 1, not %d", knobs.threads)
	}
	if _, err := net.ResolveTCPAddr("tcp", knobs.listen); err != nil {
		fail(2, "--listen '%s': %v", knobs.listen, err)
	}
	return knobs
}

// printReceipt prints the receipt, which is stored with every result.
func printReceipt(knobs knobs) {
	threads := strconv.Itoa(knobs.threads)
	receipt := map[string]any{
		"server": "go-goroutines", "runtime": "go", "runtime_version": runtime.Version(), "model": "goroutines",
		"allocator": "of Go", "compiler": runtime.Compiler + " " + runtime.Version(), "profile": "release",
		"target": runtime.GOARCH + "-" + runtime.GOOS, "rustflags": "",
		// A blocked goroutine keeps its thread, in addition to the running threads.
		"handler_threads": "1/conn", "io_threads": threads,
		"knobs": map[string]string{
			"processes": "1", "threads": threads, "max-block": knobs.maxBlock.String(), "drain": knobs.drain.String(),
			"header-timeout": knobs.headerTimeout.String(), "request-timeout": knobs.requestTimeout.String(),
			"idle-timeout": knobs.idleTimeout.String(),
		},
	}
	data, _ := json.MarshalIndent(receipt, "", "  ")
	fmt.Println(string(data))
}

func listen(address string) net.Listener {
	if os.Getenv("LISTEN_FDS") == "1" && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		listener, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			fail(1, "LISTEN_FDS: %v", err)
		}
		return listener
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = errors.New("address already in use")
	}
	if err != nil {
		fail(1, "cannot listen on %s: %v; choose another address with --listen", address, err)
	}
	return listener
}

func main() {
	knobs := parseKnobs()
	if knobs.version {
		printReceipt(knobs)
		return
	}
	runtime.GOMAXPROCS(knobs.threads)
	listener := listen(knobs.listen)
	var draining atomic.Bool
	server := &http.Server{
		Handler: routes{knobs.maxBlock, &draining}, ReadHeaderTimeout: knobs.headerTimeout,
		ReadTimeout: knobs.requestTimeout, IdleTimeout: knobs.idleTimeout,
	}
	done := make(chan struct{})
	// Before anybody hears that the server is ready: a signal would end it at once until then.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		draining.Store(true)
		// A second signal means that its sender does not want to wait.
		go func() { <-signals; os.Exit(143) }()
		limit, cancel := context.WithTimeout(context.Background(), knobs.drain)
		defer cancel()
		if err := server.Shutdown(limit); err != nil {
			fmt.Fprintln(os.Stderr, "go: drain: the --drain time is up; the remaining connections are cut off")
		}
		close(done)
	}()
	fmt.Printf("ready http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		fail(1, "%v", err)
	}
	<-done
}
