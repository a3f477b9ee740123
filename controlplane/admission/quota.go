package admission

import (
	"time"

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
	q.SetQuotaConfiguration(quota.New(nil, time.Now))
	return q, q.ValidateInitialization()
}
