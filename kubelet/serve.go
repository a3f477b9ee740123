package kubelet

import "context"

func (k *Kubelet) serve(ctx context.Context, run func(string, func(context.Context) error)) {}

func (k *Kubelet) housekeeping(run func(string, func(context.Context) error)) {}
