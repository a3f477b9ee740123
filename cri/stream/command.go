package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// run is an exec or attach over streams that are open.
type run func(context.Context, IO) error

// exitError is how the library learns of a process that ended with a code.
func exitError(code int32) error {
	return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: int(code)}
}

func (s *Server) command(w http.ResponseWriter, r *http.Request, o remotecommand.Options, do run) {
	if wsstream.IsWebSocketRequest(r) {
		s.webSocket(w, r, o, do)
		return
	}
	remotecommand.ServeExec(w, r, executor{do}, "", "", "", nil, &o, s.cfg.Idle, s.cfg.Creation, remotecommand.SupportedStreamingProtocols)
}

// executor lets the library's SPDY server run either kind: an attach differs in
// nothing that it sees.
type executor struct{ do run }

func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return e.do(ctx, IO{Stdin: in, Stdout: out, Stderr: err, TTY: tty, Resize: resize})
}

const (
	channelStdin = iota
	channelStdout
	channelStderr
	channelError
	channelResize
	channels
)

// subprotocols are the forms of channel.k8s.io; v5 is v4 with a close message
// for one channel, which the connection itself handles.
func subprotocols(o remotecommand.Options) map[string]wsstream.ChannelProtocolConfig {
	pick := func(on bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	list := make([]wsstream.ChannelType, channels)
	list[channelStdin] = pick(o.Stdin, wsstream.ReadChannel)
	list[channelStdout] = pick(o.Stdout, wsstream.WriteChannel)
	list[channelStderr] = pick(o.Stderr, wsstream.WriteChannel)
	list[channelError] = wsstream.WriteChannel
	list[channelResize] = wsstream.ReadChannel
	out := map[string]wsstream.ChannelProtocolConfig{}
	for _, name := range []string{"", "channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"} {
		out[name] = wsstream.ChannelProtocolConfig{Binary: true, Channels: list}
	}
	for _, name := range []string{"base64.channel.k8s.io", "v4.base64.channel.k8s.io"} {
		out[name] = wsstream.ChannelProtocolConfig{Channels: list}
	}
	return out
}

// webSocket serves one exec or attach. The library's own server knows no v5.
func (s *Server) webSocket(w http.ResponseWriter, r *http.Request, o remotecommand.Options, do run) {
	conn := wsstream.NewConn(subprotocols(o))
	conn.SetIdleTimeout(s.cfg.Idle)
	protocol, streams, err := conn.Open(w, r)
	if err != nil {
		s.cfg.Log.Debug("websocket upgrade failed", "err", err)
		return
	}
	defer conn.Close()
	// An empty message tells the client that the connection stands.
	first := channelError
	if o.Stderr {
		first = channelStderr
	}
	if o.Stdout {
		first = channelStdout
	}
	_, _ = streams[first].Write(nil)

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	pipes := IO{TTY: o.TTY}
	if o.Stdin {
		pipes.Stdin = streams[channelStdin]
	}
	if o.Stdout {
		pipes.Stdout = streams[channelStdout]
	}
	if o.Stderr {
		pipes.Stderr = streams[channelStderr]
	}
	resize := make(chan Size)
	pipes.Resize = resize
	// Ends with the connection or with ctx, both of which end here.
	go readSizes(ctx, streams[channelResize], resize)
	writeStatus(streams[channelError], protocol, do(ctx, pipes))
}

func readSizes(ctx context.Context, from io.Reader, to chan<- Size) {
	defer close(to)
	for dec := json.NewDecoder(from); ; {
		var size Size
		if dec.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// outcome is the part of a Kubernetes Status that clients read.
type outcome struct {
	Status  string   `json:"status"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Details *details `json:"details,omitempty"`
	Code    int32    `json:"code,omitempty"`
}

type details struct {
	Causes []cause `json:"causes,omitempty"`
}

type cause struct {
	Type    string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// writeStatus tells the client how it ended: from v4 on as a Status, before as
// the bare message of a failure.
func writeStatus(w io.Writer, protocol string, err error) {
	if protocol != "v4.channel.k8s.io" && protocol != "v4.base64.channel.k8s.io" && protocol != "v5.channel.k8s.io" {
		if err != nil {
			_, _ = io.WriteString(w, err.Error())
		}
		return
	}
	b, merr := json.Marshal(statusOf(err))
	if merr == nil {
		_, _ = w.Write(b)
	}
}

func statusOf(err error) outcome {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return outcome{Status: "Success"}
	case errors.As(err, &exit) && exit.Exited():
		code := fmt.Sprint(exit.ExitStatus())
		return outcome{
			Status: "Failure", Reason: remotecommand.NonZeroExitCodeReason,
			Message: "command terminated with non-zero exit code: " + err.Error(),
			Details: &details{Causes: []cause{{Type: remotecommand.ExitCodeCauseType, Message: code}}},
		}
	}
	return outcome{Status: "Failure", Reason: "InternalError", Code: http.StatusInternalServerError, Message: "Internal error occurred: " + err.Error()}
}
