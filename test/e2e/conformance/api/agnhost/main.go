package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// verbs are the roles. Each parses its own flags and returns only when it is done or has failed.
var verbs = map[string]func(f *flag.FlagSet, args []string) error{
	"pause":                                 pause,
	"netexec":                               netexec,
	"logs-generator":                        logsGenerator,
	"guestbook":                             guestbook,
	"webhook":                               webhook,
	"test-service-account-issuer-discovery": issuerDiscovery,
	"flunders":                              flunders,
}

func main() {
	verb, args := "pause", []string(nil)
	if len(os.Args) > 1 {
		verb, args = os.Args[1], os.Args[2:]
	}
	run := verbs[verb]
	if run == nil {
		log.Fatalf("%q is no verb", verb)
	}
	if err := run(flag.NewFlagSet(verb, flag.ExitOnError), args); err != nil {
		log.Fatalf("%s: %v", verb, err)
	}
}

// pause waits to be ended.
func pause(*flag.FlagSet, []string) error {
	fmt.Println("Paused")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
	return nil
}

// netexec answers with its host's name, and with what it is asked to say.
func netexec(f *flag.FlagSet, args []string) error {
	port := f.Int("http-port", 8080, "to listen on")
	_ = f.Parse(args)
	http.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprint(w, name)
	})
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.FormValue("msg")) })
	return http.ListenAndServe(fmt.Sprint(":", *port), nil)
}

// logsGenerator prints lines that look like a server's, evenly over a time.
func logsGenerator(f *flag.FlagSet, args []string) error {
	lines := f.Int("log-lines-total", 10, "to print")
	over := f.Duration("run-duration", time.Second, "from the first to the end")
	_ = f.Parse(args)
	for i := range *lines {
		fmt.Printf("%s %d GET /api/v1/namespaces/kube-system/pods/p%d 200\n", time.Now().Format(time.StampMilli), i, i)
		time.Sleep(*over / time.Duration(*lines))
	}
	return nil
}
