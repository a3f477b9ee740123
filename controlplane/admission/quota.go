package admission

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"

	"keelson.dev/keelson/controlplane/admission/quota"
)

// quotaWorkers bound how many requests are charged at a time; those of one namespace wait for each other anyway.
const quotaWorkers = 5

// newQuota charges each write to its namespace's quotas. It comes last: what anything else refuses is not charged.
func (c *cluster) newQuota() (admission.Interface, error) {
	q, err := resourcequota.NewResourceQuota(nil, quotaWorkers)
	if err != nil {
		return nil, err
	}
	q.SetDrainedNotification(c.deps.Stop)
	q.SetExternalKubeClientSet(c.client)
	q.SetExternalKubeInformerFactory(c.deps.Informers)
	q.SetQuotaConfiguration(quota.New(nil, c.deviceClasses, time.Now))
	return q, q.ValidateInitialization()
}

// deviceClasses are those that are known: a quota of devices that nobody can name yet is not charged.
func (c *cluster) deviceClasses() []*resourcev1.DeviceClass {
	list, err := c.devices.List(context.Background(), "")
	if err != nil {
		return nil
	}
	return list
}
