// Command keelson-hello is the first pod of a new cluster: a web server that says where it runs.
// It has no dependencies, so that its image is one small static file that travels inside keelson.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	address   = ":80"
	idleLimit = 30 * time.Second
	headLimit = 16 << 10 // bytes of a request's head
)

func main() {
	err := error(nil)
	if len(os.Args) == 3 && os.Args[1] == "scrub" {
		err = scrub(os.Args[2])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keelson-hello:", err)
		os.Exit(1)
	}
}

func run() error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { // ended by the process's exit
		<-stop
		listener.Close()
	}()
	fmt.Println("keelson-hello listens on", address)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

// serve answers requests on one connection. net/http would do it in 4 MB more.
func serve(conn net.Conn) {
	defer conn.Close()
	for {
		if err := conn.SetDeadline(time.Now().Add(idleLimit)); err != nil {
			return
		}
		line, again, err := head(bufio.NewReader(io.LimitReader(conn, headLimit)))
		if err != nil {
			return
		}
		host, _ := os.Hostname()
		body := fmt.Sprintf("Hello from keelson.\npod: %s\naddress: %s\nyou: %s\n", host, conn.LocalAddr(), conn.RemoteAddr())
		fmt.Println(conn.RemoteAddr(), line)
		connection := "close"
		if again {
			connection = "keep-alive"
		}
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s",
			len(body), connection, body)
		if err != nil || !again {
			return
		}
	}
}

// head reads a request's head and returns its first line and whether the connection stays open. Bodies are not accepted.
func head(r *bufio.Reader) (line string, again bool, err error) {
	if line, err = r.ReadString('\n'); err != nil {
		return "", false, err
	}
	line = strings.TrimSpace(line)
	again = strings.HasSuffix(line, "HTTP/1.1")
	for {
		header, err := r.ReadString('\n')
		if err != nil {
			return "", false, err
		}
		name, value, found := strings.Cut(strings.TrimSpace(header), ":")
		if !found {
			return line, again, nil
		}
		value = strings.ToLower(strings.TrimSpace(value))
		if strings.EqualFold(name, "Connection") && value == "close" || strings.EqualFold(name, "Content-Length") && value != "0" {
			again = false
		}
	}
}
