// A worker in Go, standard library only: claims ten at a time, keeps their leases, reports.
//
//	go run worker.go        lineshaft enqueue add '[1, 2, 3]' --wait
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

type task struct {
	ID       string          `json:"task_id"`
	Token    string          `json:"lease_token"`
	Name     string          `json:"name"`
	Payload  json.RawMessage `json:"payload"`
	LeaseTTL float64         `json:"lease_ttl"`
}

type answer struct {
	Tasks     []task `json:"tasks"`
	Directive string `json:"directive"`
	Error     *struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	} `json:"error"`
}

type object = map[string]any

var handlers = map[string]func(context.Context, json.RawMessage) (any, error){
	"add": func(_ context.Context, payload json.RawMessage) (any, error) {
		var numbers []int64
		if err := json.Unmarshal(payload, &numbers); err != nil {
			return nil, err
		}
		var sum int64
		for _, number := range numbers {
			sum += number
		}
		return sum, nil
	},
}

var base = "http://127.0.0.1:7077"

// call repeats a request until it is answered. Every call here may be: an outcome by its lease token, a claim
// by its claim_id.
func call(ctx context.Context, path string, body object) answer {
	encoded, err := json.Marshal(body)
	if err != nil {
		log.Fatal(err)
	}
	for wait := 100 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		request, err := http.NewRequestWithContext(ctx, "POST", base+path, bytes.NewReader(encoded))
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			var found answer
			err = json.NewDecoder(response.Body).Decode(&found)
			response.Body.Close()
			if code := response.StatusCode; err == nil && code != 408 && code != 429 && code != 503 {
				return found
			}
		}
		time.Sleep(wait)
	}
	return answer{}
}

func execute(t task) {
	say := func(verb string, body object) answer {
		body["lease_token"] = t.Token
		return call(context.Background(), "/_tasks/"+url.PathEscape(t.ID)+"/"+verb, body)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(time.Duration(t.LeaseTTL * float64(time.Second) / 3))
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				if a := say("_heartbeat", object{}); a.Directive == "cancel" || a.Error != nil {
					cancel() // cancelled, or somebody else's by now
				}
			}
		}
	}()
	result, err := handlers[t.Name](ctx, t.Payload)
	close(done)
	switch {
	case ctx.Err() != nil:
		say("_cancel", object{})
	case err != nil:
		say("_fail", object{"error": object{"type": fmt.Sprintf("%T", err), "message": err.Error()}})
	default:
		say("_complete", object{"result": result})
	}
	cancel()
}

func main() {
	if given := os.Getenv("LINESHAFT_URL"); given != "" {
		base = given
	}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	host, _ := os.Hostname()
	worker := object{"id": fmt.Sprintf("go-%s-%d", host, os.Getpid()), "incarnation": unique(), "pid": os.Getpid()}
	names := []string{}
	for name := range handlers {
		names = append(names, name)
	}
	for stop.Err() == nil {
		claim := object{"claim_id": unique(), "worker": worker, "names": names, "max": 10, "wait": "30s", "lease": "30s"}
		// A claim that is cut off here before its answer has left gives its tasks back at once.
		found := call(stop, "/_tasks/_claim", claim)
		if found.Error != nil {
			log.Fatalf("%s: %s", found.Error.Type, found.Error.Reason)
		}
		var group sync.WaitGroup
		for _, t := range found.Tasks {
			group.Add(1)
			go func(t task) { defer group.Done(); execute(t) }(t)
		}
		group.Wait()
		if found.Directive == "drain" {
			return
		}
	}
}

func unique() string {
	random := make([]byte, 16)
	rand.Read(random)
	return hex.EncodeToString(random)
}
