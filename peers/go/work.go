package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// answer is the answer to a request.
type answer struct {
	status      int
	contentType string
	body        []byte
}

func text(status int, format string, args ...any) answer {
	return answer{status, "text/plain; charset=utf-8", []byte(fmt.Sprintf(format, args...))}
}

// digest returns an answer with a digest of the result, which proves that the work was done and lets clients check it.
func digest(what string, amount int, data []byte) answer {
	body := fmt.Sprintf(`{"work":"%s","amount":%d,"bytes":%d,"sha256":"%x"}`, what, amount, len(data), sha256.Sum256(data))
	return answer{200, "application/json", []byte(body)}
}

// spin keeps the goroutine busy until the time has passed, on the wall clock or on the clock of its thread.
func spin(length time.Duration, clock string) {
	if clock == "wall" {
		for end := time.Now().Add(length); time.Now().Before(end); {
		}
		return
	}
	// The clock belongs to the thread, so lock the goroutine to its thread. Other goroutines run on other threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for end := threadTime() + length; threadTime() < end; {
		for pause := time.Now().Add(200 * time.Microsecond); time.Now().Before(pause); {
		}
	}
}

const clockThreadCPU = 3

func threadTime() time.Duration {
	var now syscall.Timespec
	// The kernel writes the structure, which lives until the call returns.
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPU, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

// block keeps the thread in a system call without using the CPU, as a synchronous disk or database call does.
func block(length time.Duration) {
	wait := syscall.NsecToTimespec(length.Nanoseconds())
	for syscall.Nanosleep(&wait, &wait) == syscall.EINTR {
	}
}

type record struct {
	FlightNumber int      `json:"flight_number"`
	Mission      string   `json:"mission"`
	Rocket       string   `json:"rocket"`
	Target       string   `json:"target"`
	Customers    []string `json:"customers"`
	Upcoming     bool     `json:"upcoming"`
	Success      bool     `json:"success"`
}

func stringify(items int) answer {
	records := make([]record, items)
	for n := range records {
		mission, customers := fmt.Sprintf("Mission %d", n), []string{"ZTM", "NASA"}
		records[n] = record{n, mission, "Explorer IS1", "Kepler-442 b", customers, n%2 == 0, n%3 == 0}
	}
	data, err := json.Marshal(records)
	if err != nil {
		return text(500, "stringify: %v\n", err)
	}
	return digest("stringified", items, data)
}

func parse(document []byte) answer {
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		return text(400, "body: not JSON: %v\n", err)
	}
	return digest("parsed", count(value), document)
}

// count counts the values in a document, the document itself included.
func count(value any) int {
	sum := 1
	switch value := value.(type) {
	case []any:
		for _, part := range value {
			sum += count(part)
		}
	case map[string]any:
		for _, part := range value {
			sum += count(part)
		}
	}
	return sum
}

// sorted sorts the same numbers every time (SplitMix64 from 0).
func sorted(items int) answer {
	numbers, state := make([]uint64, items), uint64(0)
	for n := range numbers {
		state += 0x9e3779b97f4a7c15
		mixed := (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9
		mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb
		numbers[n] = mixed ^ (mixed >> 31)
	}
	sortNumbers(numbers)
	data := make([]byte, 0, 8*items)
	for _, number := range numbers {
		data = binary.LittleEndian.AppendUint64(data, number)
	}
	return digest("sorted", items, data)
}

const password, salt = "correct horse battery staple", "stallbench"

// pbkdf2 derives a key of 64 bytes, one block of HMAC-SHA512; the standard library has no PBKDF2 before Go 1.24.
func pbkdf2(iterations int) answer {
	mac := hmac.New(sha512.New, []byte(password))
	next := func(data []byte) []byte {
		mac.Reset()
		mac.Write(data)
		return mac.Sum(nil)
	}
	block := next(append([]byte(salt), 0, 0, 0, 1))
	key := append([]byte(nil), block...)
	for n := 1; n < iterations; n++ {
		block = next(block)
		for i := range key {
			key[i] ^= block[i]
		}
	}
	return digest("pbkdf2", iterations, key)
}
