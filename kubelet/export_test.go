package kubelet

import (
	"context"
	"time"
)

// A look of the kubelet's own, which comes sooner or later in a test by how fast the machine is, would evict one pod more.
func init() { watchEvery = time.Hour }

// RotateLogs and CheckPressure run one round of what runs from time to time.
func (k *Kubelet) RotateLogs(ctx context.Context)    { k.rotateLogs(ctx) }
func (k *Kubelet) CheckPressure(ctx context.Context) { k.checkPressure(ctx) }
