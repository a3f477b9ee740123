package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/observe"
	"keelson.dev/keelson/kubelet/plan"
	"keelson.dev/keelson/kubelet/podworker"
	"keelson.dev/keelson/kubelet/server"
	"keelson.dev/keelson/kubelet/source"
)

// serve starts the HTTPS API and the plain health page, as configured. When it returns, both are listened for.
func (k *Kubelet) serve(ctx context.Context, run func(string, func(context.Context) error)) error {
	if addr := k.cfg.Server.HealthAddr; addr != "" {
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("kubelet: listen for health checks on %s: %w", addr, err)
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/healthz", server.Healthy)
		run("health page", func(ctx context.Context) error {
			return server.Serve(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, lis)
		})
	}
	if k.cfg.Server.Addr == "" {
		return nil
	}
	h, err := k.apiServer()
	if err != nil {
		return err
	}
	lis, err := h.Listen(ctx)
	if err != nil {
		return err
	}
	run("API server", func(ctx context.Context) error { return h.Run(ctx, lis) })
	return nil
}

// apiServer wires the server with authentication, pages and this kubelet.
func (k *Kubelet) apiServer() (*server.Server, error) {
	c := k.cfg.Server
	if c.Authn == nil || c.Authz == nil {
		authn, authz, err := server.Delegated(k.client, c.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("kubelet: set up authentication: %w", err)
		}
		if c.Authn == nil {
			c.Authn = authn
		}
		if c.Authz == nil {
			c.Authz = authz
		}
	}
	return server.New(server.Config{
		Node: k.cfg.Node.Name, Addr: c.Addr, TLS: c.TLS, LogRoot: k.cfg.Paths.PodLogs, HostLogs: "/var/log",
		Authn: c.Authn, Authz: c.Authz, CRI: k.parts.cri, Log: k.log,
		Extra: map[string]http.Handler{
			"/metrics":          page(k.parts.metrics.registry),
			"/metrics/resource": page(fresh(k.usage.Resource())),
			"/metrics/cadvisor": page(fresh(k.usage.CAdvisor())),
			"/metrics/probes":   page(fresh(probeCollector{k})),
			"/stats/summary":    k.usage.Summary(),
			"/configz":          http.HandlerFunc(k.configz),
		},
	}, nodeView{k}), nil
}

func page(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func fresh(c prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	return r
}

// configz shows the settings in force, in the words of the KubeletConfiguration that tools parse.
func (k *Kubelet) configz(w http.ResponseWriter, _ *http.Request) {
	dns := k.dns().Servers
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kubeletconfig": map[string]any{ // the client may be gone
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"staticPodPath": k.cfg.Paths.Manifests, "clusterDomain": k.cfg.ClusterDomain, "clusterDNS": dns,
		"maxPods": k.cfg.Node.MaxPods, "cgroupRoot": k.cfg.CgroupRoot, "cgroupDriver": k.parts.tree.Driver(),
		"cgroupsPerQOS": true, "enforceNodeAllocatable": []string{"pods"}, "readOnlyPort": 0,
		"podPidsLimit": k.cfg.Node.PidsPerPod, "singleProcessOOMKill": !k.parts.tree.OOMGroup(), "resolvConf": k.cfg.Paths.ResolvConf,
		"containerLogMaxSize": fmt.Sprint(k.cfg.Logs.MaxBytes), "containerLogMaxFiles": k.cfg.Logs.MaxFiles,
		"imageGCHighThresholdPercent": k.cfg.ImageGC.High, "imageGCLowThresholdPercent": k.cfg.ImageGC.Low,
		"seccompDefault": !k.cfg.NoSeccompDefault, "nodeStatusReportFrequency": k.cfg.StatusEvery.String(),
		"authentication": map[string]any{"anonymous": map[string]bool{"enabled": false}, "webhook": map[string]bool{"enabled": true}},
		"authorization":  map[string]string{"mode": "Webhook"},
	}})
}

// nodeView is the kubelet as its server sees it. It implements server.Node.
type nodeView struct{ k *Kubelet }

// Pods are all pods with a worker, with the status that is on its way to the API.
func (v nodeView) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	v.k.parts.workers.Each(func(r podworker.Request, _ podworker.State) {
		if !r.Gone {
			out = append(out, v.newest(r.Pod))
		}
	})
	return out
}

func (v nodeView) newest(pod *corev1.Pod) *corev1.Pod {
	s, known := v.k.parts.writer.Wanted(pod.UID)
	if !known {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Status = s
	return pod
}

// Pod finds a pod by name; a static pod answers to its mirror's.
func (v nodeView) Pod(namespace, name string) *corev1.Pod {
	v.k.mu.Lock()
	static := v.k.statics[namespace+"/"+name]
	v.k.mu.Unlock()
	if static != nil {
		return v.newest(static)
	}
	if p := v.k.parts.pods.Get(namespace, name); p != nil && !source.IsMirror(p) {
		return v.newest(p)
	}
	return nil
}

// Container finds an instance of a container.
func (v nodeView) Container(ctx context.Context, pod *corev1.Pod, name string, previous bool) (observe.Container, error) {
	if plan.Find(pod, name) == nil {
		return observe.Container{}, fmt.Errorf("container %s is not valid for pod %s", name, pod.Name)
	}
	seen, err := v.k.parts.cache.Get(ctx, pod.UID)
	if err != nil {
		return observe.Container{}, err
	}
	all := seen.Instances(name)
	if previous {
		if len(all) > 0 && (all[0].State == observe.Running || len(all) > 1) {
			all = all[1:]
		}
		if len(all) == 0 || all[0].State != observe.Exited {
			return observe.Container{}, fmt.Errorf("previous terminated container %q in pod %q not found", name, pod.Name)
		}
		return all[0], nil
	}
	for _, c := range all {
		if c.State != observe.Created {
			return c, nil
		}
	}
	why := "ContainerCreating"
	if s := plan.PreviousStatus(pod, name); s != nil && s.State.Waiting != nil {
		why = s.State.Waiting.Reason
		if s.State.Waiting.Message != "" && why != "ContainerCreating" && why != "PodInitializing" {
			why = s.State.Waiting.Message
		}
	}
	return observe.Container{}, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, pod.Name, why)
}

// Sandbox finds the pod's ready sandbox.
func (v nodeView) Sandbox(ctx context.Context, pod *corev1.Pod) (string, error) {
	seen, err := v.k.parts.cache.Get(ctx, pod.UID)
	if err != nil {
		return "", err
	}
	if box := seen.Sandbox(); box != nil && box.Ready {
		return box.ID, nil
	}
	return "", fmt.Errorf("pod %s has no running sandbox", pod.Name)
}

// Ended is closed when the container has ended.
func (v nodeView) Ended(uid types.UID, id string) (<-chan struct{}, func()) {
	ch := make(chan struct{})
	rec, _ := v.k.known(uid)
	if rec == nil {
		close(ch)
		return ch, func() {}
	}
	rec.with(func() { rec.exits[id] = append(rec.exits[id], ch) })
	// Looked at after the channel was entered: an end in between is seen here or by the pod's worker.
	if seen, err := v.k.parts.cache.Get(v.k.background(), uid); err == nil {
		rec.with(func() { rec.announce(seen) })
	}
	return ch, func() {
		rec.with(func() {
			for i, c := range rec.exits[id] {
				if c == ch {
					rec.exits[id] = append(rec.exits[id][:i:i], rec.exits[id][i+1:]...)
				}
			}
		})
	}
}

// announce closes the channels of containers that have ended or are gone. Preconditions: mu is held.
func (r *podRecord) announce(seen observe.Pod) {
	for id := range r.exits {
		alive := false
		for _, c := range seen.Live() {
			alive = alive || c.ID == id
		}
		if !alive {
			r.exits.close(id)
		}
	}
}

// probeCollector counts probe results. It implements prometheus.Collector.
type probeCollector struct{ k *Kubelet }

// Describe implements prometheus.Collector.
func (probeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p probeCollector) Collect(ch chan<- prometheus.Metric) {
	desc := prometheus.NewDesc("prober_probe_total", "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}, nil)
	p.k.parts.probes.Each(func(namespace, pod, uid, container, kind, result string, n float64) {
		m, err := prometheus.NewConstMetric(desc, prometheus.CounterValue, n, kind, result, container, pod, namespace, uid)
		if err == nil {
			ch <- m
		}
	})
}
