package workloads

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// kinds are those whose API operations the profile walks through: an object, a change of its spec, and of its status where there is one.
var kinds = []struct {
	gvr        schema.GroupVersionResource
	cluster    bool
	object     string // without metadata
	change     string // merge patch of what may change; "" for labels alone
	status     string // merge patch of the status; "" if there is no status to write
	statusPath string // where the patch shows in the object, a dotted path
	statusWant string
}{
	{gvr: gvr("networking.k8s.io", "v1", "ingresses"), object: `{"kind":"Ingress","spec":{"defaultBackend":{"service":{"name":"default-backend","port":{"number":80}}},"rules":[{"host":"foo.bar.com","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"test-backend","port":{"number":8080}}}}]}}]}}`,
		change: `{"spec":{"tls":[{"secretName":"a"}]}}`, status: `{"status":{"loadBalancer":{"ingress":[{"ip":"169.1.1.1"}]}}}`, statusPath: "status.loadBalancer.ingress", statusWant: "[map[ip:169.1.1.1]]"},
	{gvr: gvr("networking.k8s.io", "v1", "ingressclasses"), cluster: true, object: `{"kind":"IngressClass","spec":{"controller":"example.com/controller"}}`},
	{gvr: gvr("networking.k8s.io", "v1", "networkpolicies"), object: `{"kind":"NetworkPolicy","spec":{"podSelector":{"matchLabels":{"pod-name":"test-pod"}},"ingress":[]}}`, change: `{"spec":{"policyTypes":["Ingress","Egress"]}}`},
	{gvr: gvr("networking.k8s.io", "v1", "ipaddresses"), cluster: true, object: `{"kind":"IPAddress","spec":{"parentRef":{"resource":"services","name":"a","namespace":"b"}}}`},
	{gvr: gvr("networking.k8s.io", "v1", "servicecidrs"), cluster: true, object: `{"kind":"ServiceCIDR","spec":{"cidrs":["10.255.99.0/24"]}}`, status: `{"status":{"conditions":[{"type":"Tested","status":"True","reason":"E2E","message":"Set by a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, statusPath: "status.conditions", statusWant: "Set by a test"},
	{gvr: gvr("discovery.k8s.io", "v1", "endpointslices"), object: `{"kind":"EndpointSlice","addressType":"IPv4","endpoints":[{"addresses":["1.2.3.4","5.6.7.8"]}],"ports":[{"port":80}]}`, change: `{"endpoints":[{"addresses":["9.9.9.9"]}]}`},
	{gvr: gvr("", "v1", "endpoints"), object: `{"kind":"Endpoints","subsets":[{"addresses":[{"ip":"10.0.0.24"}],"ports":[{"name":"http","port":80,"protocol":"TCP"}]}]}`, change: `{"subsets":[{"addresses":[{"ip":"10.0.0.25"}],"ports":[{"name":"http-test","port":8080,"protocol":"TCP"}]}]}`},
	{gvr: gvr("", "v1", "services"), object: `{"kind":"Service","spec":{"type":"LoadBalancer","ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":80}]}}`, change: `{"spec":{"ports":[{"name":"http","protocol":"TCP","port":81,"targetPort":80}]}}`,
		status: `{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]},"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("", "v1", "podtemplates"), object: `{"kind":"PodTemplate","template":{"spec":{"containers":[{"name":"nginx","image":"nginx"}]}}}`, change: `{"template":{"spec":{"restartPolicy":"Always"},"metadata":{"labels":{"a":"b"}}}}`},
	{gvr: gvr("", "v1", "configmaps"), object: `{"kind":"ConfigMap","data":{"valueName":"value"}}`, change: `{"data":{"valueName":"value1"}}`},
	{gvr: gvr("", "v1", "secrets"), object: `{"kind":"Secret","type":"Opaque","data":{"key":"dmFsdWU="}}`, change: `{"data":{"key":"dmFsdWUx"}}`},
	{gvr: gvr("", "v1", "limitranges"), object: `{"kind":"LimitRange","spec":{"limits":[{"type":"Container","max":{"cpu":"500m"},"default":{"cpu":"100m"}}]}}`, change: `{"spec":{"limits":[{"type":"Container","max":{"cpu":"400m"},"default":{"cpu":"100m"}}]}}`},
	{gvr: gvr("", "v1", "events"), object: `{"kind":"Event","message":"This is a test","reason":"Test","type":"Normal","involvedObject":{"namespace":"NS"}}`, change: `{"message":"This is a test event - patched"}`},
	{gvr: gvr("events.k8s.io", "v1", "events"), object: `{"kind":"Event","eventTime":"2026-01-01T00:00:00.000000Z","note":"This is a test","reason":"Test","type":"Normal","action":"Do","reportingController":"test-controller","reportingInstance":"test-node","regarding":{"namespace":"NS"}}`, change: `{"series":{"count":100,"lastObservedTime":"2026-01-01T00:00:01.000000Z"}}`},
	{gvr: gvr("coordination.k8s.io", "v1", "leases"), object: `{"kind":"Lease","spec":{"holderIdentity":"holder","leaseDurationSeconds":30,"leaseTransitions":0,"acquireTime":"2026-01-01T00:00:00.000000Z","renewTime":"2026-01-01T00:00:00.000000Z"}}`, change: `{"spec":{"holderIdentity":"holder2","leaseTransitions":1}}`},
	{gvr: gvr("node.k8s.io", "v1", "runtimeclasses"), cluster: true, object: `{"kind":"RuntimeClass","handler":"runc-ext"}`},
	{gvr: gvr("scheduling.k8s.io", "v1", "priorityclasses"), cluster: true, object: `{"kind":"PriorityClass","value":4,"globalDefault":false}`, change: `{"description":"a description"}`},
	{gvr: gvr("storage.k8s.io", "v1", "storageclasses"), cluster: true, object: `{"kind":"StorageClass","provisioner":"e2e-fake-provisioner","reclaimPolicy":"Delete"}`},
	{gvr: gvr("storage.k8s.io", "v1", "csidrivers"), cluster: true, object: `{"kind":"CSIDriver","spec":{"attachRequired":false}}`},
	{gvr: gvr("storage.k8s.io", "v1", "csinodes"), cluster: true, object: `{"kind":"CSINode","spec":{"drivers":[]}}`},
	{gvr: gvr("storage.k8s.io", "v1", "csistoragecapacities"), object: `{"kind":"CSIStorageCapacity","storageClassName":"some","nodeTopology":{},"capacity":"50Gi"}`, change: `{"capacity":"40Gi"}`},
	{gvr: gvr("storage.k8s.io", "v1", "volumeattachments"), cluster: true, object: `{"kind":"VolumeAttachment","spec":{"attacher":"e2e-fake","nodeName":"lab","source":{"persistentVolumeName":"pv-none"}}}`, status: `{"status":{"attached":true}}`, statusPath: "status.attached", statusWant: "true"},
	{gvr: gvr("storage.k8s.io", "v1", "volumeattributesclasses"), cluster: true, object: `{"kind":"VolumeAttributesClass","driverName":"e2e-fake","parameters":{"a":"b"}}`},
	{gvr: gvr("", "v1", "persistentvolumes"), cluster: true, object: `{"kind":"PersistentVolume","spec":{"storageClassName":"none-such","accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Mi"},"hostPath":{"path":"/tmp"},"persistentVolumeReclaimPolicy":"Retain"}}`, change: `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`,
		status: `{"status":{"message":"StatusPatched","reason":"E2E patchStatus"}}`, statusPath: "status.reason", statusWant: "E2E patchStatus"},
	{gvr: gvr("", "v1", "persistentvolumeclaims"), object: `{"kind":"PersistentVolumeClaim","spec":{"storageClassName":"none-such","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}`,
		status: `{"status":{"conditions":[{"type":"StatusPatched","status":"True","reason":"E2E patchedStatus","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "E2E patchedStatus"},
	{gvr: gvr("", "v1", "resourcequotas"), object: `{"kind":"ResourceQuota","spec":{"hard":{"services":"10"}}}`, change: `{"spec":{"hard":{"services":"11"}}}`, status: `{"status":{"hard":{"count/e2e":"1"}}}`, statusPath: "kind", statusWant: "ResourceQuota"},
	{gvr: gvr("policy", "v1", "poddisruptionbudgets"), object: `{"kind":"PodDisruptionBudget","spec":{"minAvailable":1,"selector":{"matchLabels":{"foo":"bar"}}}}`, change: `{"spec":{"minAvailable":"90%"}}`, status: `{"status":{"disruptedPods":{"x":"2026-01-01T00:00:00Z"}}}`, statusPath: "kind", statusWant: "PodDisruptionBudget"},
	{gvr: gvr("apps", "v1", "controllerrevisions"), object: `{"kind":"ControllerRevision","revision":3,"data":{"spec":{}}}`, change: `{"revision":4}`},
	{gvr: gvr("apps", "v1", "deployments"), object: `{"kind":"Deployment","spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"paused":true}}`, status: `{"status":{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("apps", "v1", "replicasets"), object: `{"kind":"ReplicaSet","spec":{"replicas":0,"selector":{"matchLabels":{"a":"c"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"minReadySeconds":2}}`, status: `{"status":{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("apps", "v1", "statefulsets"), object: `{"kind":"StatefulSet","spec":{"serviceName":"s","replicas":0,"selector":{"matchLabels":{"a":"d"}},"template":{"metadata":{"labels":{"a":"d"}},"spec":{"containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"minReadySeconds":2}}`, status: `{"status":{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("apps", "v1", "daemonsets"), object: `{"kind":"DaemonSet","spec":{"selector":{"matchLabels":{"a":"e"}},"template":{"metadata":{"labels":{"a":"e"}},"spec":{"nodeSelector":{"no":"such"},"containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"minReadySeconds":2}}`, status: `{"status":{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("", "v1", "replicationcontrollers"), object: `{"kind":"ReplicationController","spec":{"replicas":0,"selector":{"a":"f"},"template":{"metadata":{"labels":{"a":"f"}},"spec":{"containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"minReadySeconds":2}}`, status: `{"status":{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from e2e test"}]}}`, statusPath: "status.conditions", statusWant: "Set from e2e test"},
	{gvr: gvr("batch", "v1", "jobs"), object: `{"kind":"Job","spec":{"suspend":true,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"nginx"}]}}}}`, change: `{"spec":{"parallelism":2}}`, status: `{"status":{"startTime":null,"conditions":[{"type":"CustomConditionType","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, statusPath: "status.conditions", statusWant: "CustomConditionType"},
	{gvr: gvr("batch", "v1", "cronjobs"), object: `{"kind":"CronJob","spec":{"schedule":"0 0 1 1 *","suspend":true,"concurrencyPolicy":"Allow","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"OnFailure","containers":[{"name":"c","image":"nginx"}]}}}}}}`, change: `{"spec":{"schedule":"0 0 2 1 *"}}`, status: `{"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}`, statusPath: "status.lastScheduleTime", statusWant: "2026-01-01T00:00:00Z"},
	{gvr: gvr("", "v1", "nodes"), cluster: true, object: `{"kind":"Node","spec":{"unschedulable":true}}`},
}

func gvr(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

// TestKinds: create, get, list in the namespace and everywhere, watch, patch, update, status by get, patch and update, delete and deletecollection of each kind.
func TestKinds(t *testing.T) {
	whole := begin(t)
	for i, kind := range kinds {
		t.Run(kind.gvr.Resource+"."+kind.gvr.Group, func(t *testing.T) {
			t.Parallel()
			one := *whole
			s := &one
			s.T = t
			all := s.any.Resource(kind.gvr)
			var here dynamic.ResourceInterface = all
			if !kind.cluster {
				here = all.Namespace(s.ns)
			}
			label := fmt.Sprintf("spec=%s-%d", s.ns, i)
			make := func(name string) *unstructured.Unstructured {
				t.Helper()
				if kind.gvr.Resource == "ipaddresses" {
					name = fmt.Sprintf("10.254.%d.%d", i, len(name)+int(name[len(s.ns)+1]))
				}
				o := &unstructured.Unstructured{}
				s.must(json.Unmarshal([]byte(strings.ReplaceAll(kind.object, `"NS"`, `"`+s.ns+`"`)), &o.Object))
				o.SetAPIVersion(kind.gvr.GroupVersion().String())
				o.SetName(name)
				o.SetLabels(map[string]string{"spec": fmt.Sprintf("%s-%d", s.ns, i)})
				made, err := here.Create(t.Context(), o, metav1.CreateOptions{})
				s.must(err)
				return made
			}
			w, err := here.Watch(t.Context(), metav1.ListOptions{LabelSelector: label})
			s.must(err)
			o := make(fmt.Sprint(s.ns, "-a", i))
			got, err := here.Get(t.Context(), o.GetName(), metav1.GetOptions{})
			s.must(err)
			s.equal("uid", got.GetUID(), o.GetUID())
			count := func(in dynamic.ResourceInterface, want int) string {
				list, err := in.List(t.Context(), metav1.ListOptions{LabelSelector: label})
				s.must(err)
				if len(list.Items) != want {
					return fmt.Sprintf("%d are listed, want %d", len(list.Items), want)
				}
				return ""
			}
			s.equal("in the namespace", count(here, 1), "")
			s.equal("in all namespaces", count(all, 1), "")
			s.patchAndUpdate(here, o.GetName(), kind.change)
			if kind.status != "" {
				s.statusOf(here, o.GetName(), kind.status, kind.statusPath, kind.statusWant)
			}
			s.must(here.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)}))
			s.eventually("it goes", func() string {
				if _, err := here.Get(t.Context(), o.GetName(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
					return fmt.Sprint(err)
				}
				return ""
			})
			s.sees(w, watch.Added, watch.Modified, watch.Modified, watch.Deleted)
			make(fmt.Sprint(s.ns, "-b", i))
			make(fmt.Sprint(s.ns, "-c", i))
			s.equal("two more", count(here, 2), "")
			s.must(here.DeleteCollection(t.Context(), metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)}, metav1.ListOptions{LabelSelector: label}))
			s.eventually("the collection goes", func() string { return count(all, 0) })
		})
	}
}

func (s *spec) patchAndUpdate(here dynamic.ResourceInterface, name, change string) {
	s.Helper()
	patched, err := here.Patch(s.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{})
	s.must(err)
	s.equal("the patched annotation", patched.GetAnnotations()["patched"], "true")
	if change != "" {
		before := patched.GetResourceVersion()
		patched, err = here.Patch(s.Context(), name, types.MergePatchType, []byte(change), metav1.PatchOptions{})
		s.must(err)
		if patched.GetResourceVersion() == before {
			s.Errorf("the change %s changes nothing", change)
		}
	}
	s.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		o, err := here.Get(s.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		o.SetAnnotations(map[string]string{"patched": "true", "updated": "true"})
		updated, err := here.Update(s.Context(), o, metav1.UpdateOptions{})
		if err == nil {
			s.equal("the updated annotation", updated.GetAnnotations()["updated"], "true")
		}
		return err
	}))
}

// statusOf writes the status by merge patch and by update, and reads it back.
func (s *spec) statusOf(here dynamic.ResourceInterface, name, patch, path, want string) {
	s.Helper()
	shows := func(how string, o *unstructured.Unstructured) {
		s.Helper()
		v, _, err := unstructured.NestedFieldNoCopy(o.Object, strings.Split(path, ".")...)
		s.must(err)
		s.contains("the status by "+how, fmt.Sprint(v), want)
	}
	_, err := here.Get(s.Context(), name, metav1.GetOptions{}, "status")
	s.must(err)
	patched, err := here.Patch(s.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	s.must(err)
	shows("patch", patched)
	var change map[string]any
	s.must(json.Unmarshal([]byte(patch), &change))
	s.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		o, err := here.Get(s.Context(), name, metav1.GetOptions{}, "status")
		if err != nil {
			return err
		}
		status, _ := o.Object["status"].(map[string]any)
		if status == nil {
			status = map[string]any{}
		}
		for k, v := range change["status"].(map[string]any) {
			status[k] = v
		}
		o.Object["status"] = status
		updated, err := here.UpdateStatus(s.Context(), o, metav1.UpdateOptions{})
		if err == nil {
			shows("update", updated)
		}
		return err
	}))
}
