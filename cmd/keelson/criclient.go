package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const dialLimit = 3 * time.Second

// runtimeClient is the runtime's socket: all that the commands below need, whether the API is up or not.
type runtimeClient struct {
	conn    *grpc.ClientConn
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
}

// dialNode connects to the runtime of the instance at these places.
func dialNode(ctx context.Context, p places) (*runtimeClient, error) {
	conn, err := grpc.NewClient("unix://"+p.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	n := &runtimeClient{conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn), images: runtimeapi.NewImageServiceClient(conn)}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if _, err := n.runtime.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("no runtime answers at %s: is keelson running with this --run-dir? (%w)", p.socket(), err)
	}
	return n, nil
}

func (n *runtimeClient) Close() error { return n.conn.Close() }
