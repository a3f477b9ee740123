package kubelet

import "context"

// RotateLogs and CheckPressure run one round of what runs from time to time.
func (k *Kubelet) RotateLogs(ctx context.Context)    { k.rotateLogs(ctx) }
func (k *Kubelet) CheckPressure(ctx context.Context) { k.checkPressure(ctx) }
