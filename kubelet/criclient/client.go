package criclient

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage bounds one CRI message, in bytes; a list of ten thousand containers fits.
const maxMessage = 16 << 20

// callTimeout ends a unary call that came without a deadline. Pulls and container stops bring their own.
const callTimeout = 2 * time.Minute

// Observer is told of every finished call: its method name ("RunPodSandbox"), how long it took and its error.
type Observer func(method string, took time.Duration, err error)

// Client bundles the two CRI services of one runtime.
type Client struct {
	Runtime runtimeapi.RuntimeServiceClient
	Image   runtimeapi.ImageServiceClient
	conn    *grpc.ClientConn // nil when the connection belongs to someone else
}

// New makes a Client on a connection that stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{Runtime: runtimeapi.NewRuntimeServiceClient(conn), Image: runtimeapi.NewImageServiceClient(conn)}
}

// Dial makes a Client for an endpoint: "unix:///run/x.sock" or a bare absolute path. It does not wait for the
// runtime to be there; calls made before that fail or wait as their context says. observe may be nil.
func Dial(endpoint string, observe Observer) (*Client, error) {
	if endpoint == "" {
		return nil, errors.New("dial CRI runtime: no endpoint given")
	}
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(unary(observe)),
	)
	if err != nil {
		return nil, fmt.Errorf("dial CRI runtime %s: %w", endpoint, err)
	}
	c := New(conn)
	c.conn = conn
	return c, nil
}

// Close closes the connection that Dial made.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func unary(observe Observer) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, has := ctx.Deadline(); !has {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, callTimeout)
			defer cancel()
		}
		begin := time.Now()
		err := call(ctx, method, req, reply, cc, opts...)
		if observe != nil {
			observe(path.Base(method), time.Since(begin), err)
		}
		return err
	}
}

// Message is what the runtime itself said, without gRPC's wrapping; for Events and status messages.
func Message(err error) string {
	if err == nil {
		return ""
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
