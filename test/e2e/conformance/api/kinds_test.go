package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// issued is a PodCertificateRequest and the status of one that got its certificate.
var issued = podCertificate()

func podCertificate() (out struct{ request, status string }) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		panic(err)
	}
	from := time.Now().Add(-time.Minute).Truncate(time.Second).UTC()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "e2e.example.com"}, NotBefore: from, NotAfter: from.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	status, err := json.Marshal(map[string]any{
		"certificateChain": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"notBefore":        at(from), "notAfter": at(from.Add(time.Hour)), "beginRefreshAt": at(from.Add(15 * time.Minute)),
		"conditions": []map[string]string{{"type": "Issued", "status": "True", "reason": "E2E", "message": "Set from a test", "lastTransitionTime": at(from)}},
	})
	if err != nil {
		panic(err)
	}
	out.status = string(status)
	out.request = fmt.Sprintf(`
kind: PodCertificateRequest
spec:
  signerName: example.com/e2e
  podName: test-pod
  podUID: 12345678-1234-1234-1234-123456789012
  serviceAccountName: default
  serviceAccountUID: 12345678-1234-1234-1234-123456789013
  nodeName: test-node
  nodeUID: 12345678-1234-1234-1234-123456789014
  maxExpirationSeconds: 86400
  stubPKCS10Request: %s`, base64.StdEncoding.EncodeToString(csr))
	return out
}

// condition is one that every list of conditions takes.
const condition = `{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`

const podTemplate = `
  template:
    metadata: {labels: {app: x}}
    spec: {containers: [{name: c, image: "docker.io/library/busybox:1.28"}]}`

var kinds = []kind{
	{resource: "flowcontrol.apiserver.k8s.io/v1/flowschemas", cluster: true, status: `{"conditions":[{"type":"Dangling","status":"True","reason":"E2E","message":"Set from a test"}]}`, object: `
kind: FlowSchema
spec:
  matchingPrecedence: 10000
  priorityLevelConfiguration: {name: "nonexistent-%s"}
  distinguisherMethod: {type: ByUser}
  rules: [{subjects: [{kind: User, user: {name: "nobody-%s"}}], nonResourceRules: [{verbs: [get], nonResourceURLs: ["*"]}]}]`},
	{resource: "flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", cluster: true, status: `{"conditions":[{"type":"PatchStatusFailed","status":"True","reason":"E2E","message":"Set from a test"}]}`, object: `
kind: PriorityLevelConfiguration
spec: {type: Limited, limited: {nominalConcurrencyShares: 2, limitResponse: {type: Reject}}}`},
	{resource: "admissionregistration.k8s.io/v1/validatingadmissionpolicies", cluster: true, status: `{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, object: `
kind: ValidatingAdmissionPolicy
spec:
  validations: [{expression: "object.spec.replicas <= 100"}]
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}`},
	{resource: "admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", cluster: true, object: `
kind: ValidatingAdmissionPolicyBinding
spec: {policyName: "replicalimit-%s.example.com", validationActions: [Deny]}`},
	{resource: "admissionregistration.k8s.io/v1/mutatingadmissionpolicies", cluster: true, object: `
kind: MutatingAdmissionPolicy
spec:
  reinvocationPolicy: Never
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{metadata: Object.metadata{annotations: {"a": "b"}}}'}}]
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}`},
	{resource: "admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings", cluster: true, object: `
kind: MutatingAdmissionPolicyBinding
spec: {policyName: "mutate-%s.example.com"}`},
	{resource: "certificates.k8s.io/v1/podcertificaterequests", status: issued.status, object: issued.request},
	{resource: "storagemigration.k8s.io/v1/storageversionmigrations", cluster: true, status: condition, object: `
kind: StorageVersionMigration
spec: {resource: {group: "", resource: "foo%s"}}`},
	{resource: "storage.k8s.io/v1/storageclasses", cluster: true, object: `
kind: StorageClass
provisioner: e2e-fake-provisioner
parameters: {foo: bar}`},
	{resource: "storage.k8s.io/v1/volumeattributesclasses", cluster: true, object: `
kind: VolumeAttributesClass
driverName: e2e-fake-csi-driver
parameters: {foo: bar}`},
	{resource: "storage.k8s.io/v1/csidrivers", cluster: true, named: "%s.example.com", object: `
kind: CSIDriver
spec: {attachRequired: true}`},
	{resource: "storage.k8s.io/v1/csinodes", cluster: true, object: `
kind: CSINode
spec: {drivers: [{name: "%s.example.com", nodeID: "one", topologyKeys: []}]}`},
	{resource: "storage.k8s.io/v1/csistoragecapacities", object: `
kind: CSIStorageCapacity
storageClassName: "class-%s"`},
	{resource: "storage.k8s.io/v1/volumeattachments", cluster: true, status: `{"attached":true}`, object: `
kind: VolumeAttachment
spec: {attacher: e2e.example.com, nodeName: "nowhere-%s", source: {persistentVolumeName: "pv-%s"}}`},
	{resource: "networking.k8s.io/v1/ingresses", status: `{"loadBalancer":{"ingress":[{"ip":"169.1.1.1"}]}}`, object: `
kind: Ingress
spec: {defaultBackend: {service: {name: default-backend, port: {number: 80}}}, rules: [{host: foo.bar.com, http: {paths: [{path: /, pathType: ImplementationSpecific, backend: {service: {name: test-backend, port: {number: 8080}}}}]}}]}`},
	{resource: "networking.k8s.io/v1/ingressclasses", cluster: true, object: `
kind: IngressClass
spec: {controller: "example.com/controller-%s"}`},
	{resource: "networking.k8s.io/v1/networkpolicies", object: `
kind: NetworkPolicy
spec: {podSelector: {matchLabels: {pod: test}}, policyTypes: [Ingress]}`},
	{resource: "networking.k8s.io/v1/servicecidrs", cluster: true, status: `{"conditions":[{"type":"CountDown","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, object: `
kind: ServiceCIDR
spec: {cidrs: ["2001:db8:1::/112"]}`},
	{resource: "node.k8s.io/v1/runtimeclasses", cluster: true, object: `
kind: RuntimeClass
handler: "handler-%s"`},
	{resource: "discovery.k8s.io/v1/endpointslices", object: `
kind: EndpointSlice
addressType: IPv4
endpoints: [{addresses: ["1.2.3.4"]}]`},
	{resource: "coordination.k8s.io/v1/leases", object: `
kind: Lease
spec: {holderIdentity: holder, leaseDurationSeconds: 30, acquireTime: "2026-01-01T00:00:00.000000Z", renewTime: "2026-01-01T00:00:05.000000Z", leaseTransitions: 0}`},
	{resource: "batch/v1/cronjobs", status: `{"lastScheduleTime":"2026-01-01T00:00:00Z"}`, object: `
kind: CronJob
spec: {schedule: "0 0 31 2 *", suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: "docker.io/library/busybox:1.28"}]}}}}}`},
	{resource: "batch/v1/jobs", status: `{"startTime":"2026-01-01T00:00:00Z"}`, object: `
kind: Job
spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: "docker.io/library/busybox:1.28"}]}}}`},
	{resource: "apps/v1/controllerrevisions", object: `
kind: ControllerRevision
data: {a: b}
revision: 1`},
	{resource: "apps/v1/deployments", status: condition, object: `
kind: Deployment
spec:
  replicas: 0
  selector: {matchLabels: {app: x}}` + podTemplate},
	{resource: "apps/v1/replicasets", status: condition, object: `
kind: ReplicaSet
spec:
  replicas: 0
  selector: {matchLabels: {app: x}}` + podTemplate},
	{resource: "apps/v1/statefulsets", status: `{"replicas":0,"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, object: `
kind: StatefulSet
spec:
  replicas: 0
  serviceName: none
  selector: {matchLabels: {app: x}}` + podTemplate},
	{resource: "apps/v1/daemonsets", status: `{"currentNumberScheduled":0,"numberMisscheduled":0,"desiredNumberScheduled":0,"numberReady":0,"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, object: `
kind: DaemonSet
spec:
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec: {nodeSelector: {none: none}, containers: [{name: c, image: "docker.io/library/busybox:1.28"}]}`},
	{resource: "policy/v1/poddisruptionbudgets", status: `{"currentHealthy":0,"desiredHealthy":0,"expectedPods":0,"disruptionsAllowed":0,"observedGeneration":1,"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`, object: `
kind: PodDisruptionBudget
spec: {minAvailable: 1, selector: {matchLabels: {"life": "%s"}}}`},
	{resource: "autoscaling/v1/horizontalpodautoscalers", object: `
kind: HorizontalPodAutoscaler
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: "none-%s"}}`},
	{resource: "autoscaling/v2/horizontalpodautoscalers", object: `
kind: HorizontalPodAutoscaler
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: "none-%s"}}`},
	{resource: "scheduling.k8s.io/v1/priorityclasses", cluster: true, object: `
kind: PriorityClass
value: 1000`},
	{resource: "events.k8s.io/v1/events", object: `
kind: Event
regarding: {namespace: NAMESPACE}
eventTime: "2026-01-01T00:00:00.000000Z"
note: a note
action: Do
reason: Test
type: Normal
reportingController: test-controller
reportingInstance: "test-%s"`},
	{resource: "resource.k8s.io/v1/deviceclasses", cluster: true, object: `
kind: DeviceClass
spec: {selectors: [{cel: {expression: 'device.driver == "%s.example.com"'}}]}`},
	{resource: "resource.k8s.io/v1/resourceclaims", status: `{"allocation":{"devices":{"results":[{"request":"r","driver":"e2e.example.com","pool":"p","device":"d"}]}}}`, object: `
kind: ResourceClaim
spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c.example.com}}]}}`},
	{resource: "resource.k8s.io/v1/resourceclaimtemplates", object: `
kind: ResourceClaimTemplate
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c.example.com}}]}}}`},
	{resource: "resource.k8s.io/v1/resourceslices", cluster: true, object: `
kind: ResourceSlice
spec: {driver: "e2e.example.com", nodeName: "nowhere", pool: {name: "pool-%s", generation: 1, resourceSliceCount: 1}, devices: [{name: d}]}`},
	{resource: "rbac.authorization.k8s.io/v1/roles", object: `
kind: Role
rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]`},
	{resource: "rbac.authorization.k8s.io/v1/clusterroles", cluster: true, object: `
kind: ClusterRole
rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]`},
	{resource: "networking.k8s.io/v1/ipaddresses", cluster: true, named: "192.168.7.NUMBER", object: `
kind: IPAddress
spec: {parentRef: {resource: services, name: "none-%s", namespace: default}}`},
	{resource: "/v1/events", object: "kind: Event\ninvolvedObject: {namespace: NAMESPACE}\nreason: Test\nmessage: a message\ntype: Normal"},
	{resource: "/v1/endpoints", object: "kind: Endpoints\nsubsets: [{addresses: [{ip: 10.0.0.24}], ports: [{name: http, port: 80}]}]"},
	{resource: "/v1/pods", status: `{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test"}]}`, object: "kind: Pod\nspec: {nodeSelector: {none: none}, containers: [{name: c, image: \"docker.io/library/busybox:1.28\"}]}"},
	{resource: "/v1/nodes", cluster: true, status: `{"conditions":[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"Set from a test"}]}`, object: "kind: Node\nspec: {unschedulable: true}"},
	{resource: "/v1/configmaps", object: "kind: ConfigMap\ndata: {a: b}"},
	{resource: "/v1/secrets", object: "kind: Secret\nstringData: {a: b}"},
	{resource: "/v1/serviceaccounts", object: "kind: ServiceAccount\nautomountServiceAccountToken: false"},
	{resource: "/v1/podtemplates", object: "kind: PodTemplate" + strings.ReplaceAll(podTemplate, "\n  ", "\n")},
	{resource: "/v1/limitranges", object: "kind: LimitRange\nspec: {limits: [{type: Pod, max: {cpu: 3}}]}"},
	{resource: "/v1/resourcequotas", status: `{"hard":{"cpu":"1"}}`, object: "kind: ResourceQuota\nspec: {hard: {cpu: 1, memory: 400Mi}}"},
	{resource: "/v1/replicationcontrollers", status: condition, object: "kind: ReplicationController\nspec:\n  replicas: 0\n  selector: {app: x}" + podTemplate},
	{resource: "/v1/services", status: `{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}`, object: "kind: Service\nspec: {type: LoadBalancer, loadBalancerClass: example.com/none, ports: [{name: http, port: 80, targetPort: 80}]}"},
	{resource: "/v1/persistentvolumeclaims", status: condition, object: "kind: PersistentVolumeClaim\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}"},
	{resource: "/v1/persistentvolumes", cluster: true, status: `{"message":"StatusUpdate","reason":"E2E"}`, object: "kind: PersistentVolume\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, capacity: {storage: 1Gi}, hostPath: {path: /tmp}}"},
}
