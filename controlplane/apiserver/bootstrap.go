package apiserver

import "context"

// bootstrap makes the objects without which a cluster is not one.
func (s *Server) bootstrap(ctx context.Context) error { return nil }
