package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthy is how long the liveness verb answers well.
const healthy = 10 * time.Second

func main() {
	verb := "pause"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch verb {
	case "args":
		fmt.Println(strings.Join(os.Args, " "))
	case "pause":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
	case "netexec":
		go serveUDP()
		log.Fatal(http.ListenAndServe(":8080", netexec()))
	case "liveness":
		log.Fatal(http.ListenAndServe(":8080", liveness(time.Now())))
	case "grpc":
		log.Fatal(serveHealth())
	case "porter":
		porter(len(os.Args) > 2 && os.Args[2] == "--json-response")
	case "get":
		get(os.Args[2:])
	case "udp":
		say, err := udp(os.Args[2], os.Args[3])
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(say)
	case "hook":
		log.Fatal(serveHook())
	default:
		log.Fatalf("no verb %q: args, pause, netexec, liveness, grpc, porter, hook, get, udp", verb)
	}
}

// netexec says who it is, who asks, and what was said.
func netexec() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, hostname()) })
	mux.HandleFunc("/clientip", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.FormValue("msg")) })
	return mux
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		log.Fatal("read the host's name: ", err)
	}
	return name
}

func serveUDP() {
	conn, err := net.ListenPacket("udp", ":8081")
	if err != nil {
		log.Fatal(err)
	}
	buffer := make([]byte, 1024)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		answer := hostname()
		if said, ok := strings.CutPrefix(strings.TrimSpace(string(buffer[:n])), "echo "); ok {
			answer = said
		}
		if _, err := conn.WriteTo([]byte(answer), from); err != nil {
			log.Print(err)
		}
	}
}

func liveness(start time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && time.Since(start) > healthy {
			http.Error(w, "unwell", http.StatusInternalServerError)
		}
	})
}

func serveHealth() error {
	listener, err := net.Listen("tcp", ":5000")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	services := health.NewServer() // "" serves
	services.SetServingStatus("well", healthpb.HealthCheckResponse_SERVING)
	services.SetServingStatus("unwell", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, services)
	return server.Serve(listener)
}

// porter serves the values of SERVE_PORT_<n> and SERVE_TLS_PORT_<n>.
func porter(inJSON bool) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	for _, pair := range os.Environ() {
		name, text, _ := strings.Cut(pair, "=")
		var listener net.Listener
		var err error
		if port, ok := strings.CutPrefix(name, "SERVE_PORT_"); ok {
			listener, err = net.Listen("tcp", ":"+port)
		} else if port, ok := strings.CutPrefix(name, "SERVE_TLS_PORT_"); ok {
			listener, err = tls.Listen("tcp", ":"+port, config)
		} else {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		go func() { log.Fatal(http.Serve(listener, say(text, inJSON))) }()
	}
	select {}
}

func say(text string, inJSON bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !inJSON {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, text)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"Method": r.Method, "Body": text})
	})
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveHook remembers who asked for what, on 8080 and, by TLS, on 9090; /asked tells it.
func serveHook() error {
	var mu sync.Mutex
	var asked []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/asked" {
			_, _ = io.WriteString(w, strings.Join(asked, "\n"))
			return
		}
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("X-Hook"))
	})
	go func() {
		server := &http.Server{Addr: ":9090", Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}}}
		log.Fatal(server.ListenAndServeTLS("", ""))
	}()
	return http.ListenAndServe(":8080", handler)
}

// patience is how long a client waits for an answer.
const patience = 3 * time.Second

// get asks each address on a connection of its own and prints the answers, one a line.
func get(urls []string) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range urls {
		answer, err := client.Get(url)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(body))
	}
}

// udp sends one datagram and returns the answer to it.
func udp(address, message string) (string, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return "", err
	}
	buffer := make([]byte, 1024)
	n, err := conn.Read(buffer)
	return string(buffer[:n]), err
}
