package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

// webhook serves the admission hooks and the converter that the suite registers, one a path.
func webhook(f *flag.FlagSet, args []string) error {
	certFile, keyFile := f.String("tls-cert-file", "", "PEM"), f.String("tls-private-key-file", "", "PEM")
	port := f.Int("port", 8444, "to listen on")
	_ = f.Parse(args)
	for path, admit := range map[string]admitter{
		"/always-deny": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return deny("this webhook denies all requests")
		},
		"/always-allow-delay-5s":    delayed,
		"/pods":                     admitPod,
		"/pods/attach":              denyAttach,
		"/mutating-pods":            addInitContainer,
		"/configmaps":               unwantedData("the configmap contains unwanted key and value"),
		"/mutating-configmaps":      stages,
		"/custom-resource":          unwantedData("the custom resource contains unwanted data"),
		"/mutating-custom-resource": stages,
		"/crd":                      denyCRD,
	} {
		http.HandleFunc(path, review(admit))
	}
	http.HandleFunc("/crdconvert", convert)
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	return http.ListenAndServeTLS(fmt.Sprint(":", *port), *certFile, *keyFile, nil)
}

type admitter func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

func review(admit admitter) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body admissionv1.AdmissionReview
		if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, &body) != nil || body.Request == nil {
			http.Error(w, "not a review", http.StatusBadRequest)
			return
		}
		body.Response = admit(body.Request)
		body.Response.UID, body.Request = body.Request.UID, nil
		say(w, body)
	}
}

func deny(why string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: why}}
}

func allow() *admissionv1.AdmissionResponse { return &admissionv1.AdmissionResponse{Allowed: true} }

func patch(p string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(p), PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
}

func delayed(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	time.Sleep(5 * time.Second) // its purpose
	return allow()
}

// admitPod refuses a container and a label, and lets a third kind of pod wait for ever.
func admitPod(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	var pod corev1.Pod
	if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
		return deny(err.Error())
	}
	var why []string
	for _, c := range pod.Spec.Containers {
		if strings.Contains(c.Name, "webhook-disallow") {
			why = append(why, "the pod contains unwanted container name; ")
		}
		if c.Name == "wait-forever" {
			<-make(chan struct{})
		}
	}
	if pod.Labels["webhook-e2e-test"] == "webhook-disallow" {
		why = append(why, "the pod contains unwanted label; ")
	}
	if why != nil {
		return deny(strings.Join(why, ""))
	}
	return allow()
}

func denyAttach(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	var options corev1.PodAttachOptions
	if r.SubResource != "attach" || json.Unmarshal(r.Object.Raw, &options) != nil || options.Container != "container1" {
		return allow()
	}
	return deny("attaching to pod '" + r.Name + "' is not allowed")
}

func addInitContainer(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return patch(`[{"op":"add","path":"/spec/initContainers","value":[{"image":"webhook-added-image","name":"webhook-added-init-container","resources":{}}]}]`)
}

// data is the part that the hooks look at: it is the same in ConfigMaps and in the suite's own kinds.
func data(raw []byte) map[string]string {
	var o struct {
		Data map[string]string `json:"data"`
	}
	_ = json.Unmarshal(raw, &o)
	return o.Data
}

func unwantedData(why string) admitter {
	return func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		raw := r.Object.Raw
		if r.Operation == admissionv1.Delete {
			raw = r.OldObject.Raw
		}
		if v := data(raw)["webhook-e2e-test"]; v == "webhook-disallow" || v == "webhook-nondeletable" && r.Operation == admissionv1.Delete {
			return deny(why)
		}
		return allow()
	}
}

// stages adds the second key once the first is there.
func stages(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	var ops []string
	d := data(r.Object.Raw)
	if d["mutation-start"] == "yes" && d["mutation-stage-1"] == "" {
		ops = append(ops, `{"op":"add","path":"/data/mutation-stage-1","value":"yes"}`)
	}
	if d["mutation-stage-1"] == "yes" && d["mutation-stage-2"] == "" {
		ops = append(ops, `{"op":"add","path":"/data/mutation-stage-2","value":"yes"}`)
	}
	if ops == nil {
		return allow()
	}
	return patch("[" + strings.Join(ops, ",") + "]")
}

func denyCRD(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := json.Unmarshal(r.Object.Raw, &crd); err != nil {
		return deny(err.Error())
	}
	if crd.Labels["webhook-e2e-test"] == "webhook-disallow" {
		return deny("the crd contains unwanted label")
	}
	return allow()
}

// convert splits v1's hostPort into v2's host and port, and joins them.
func convert(w http.ResponseWriter, r *http.Request) {
	var body apiextensionsv1.ConversionReview
	if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, &body) != nil || body.Request == nil {
		http.Error(w, "not a review", http.StatusBadRequest)
		return
	}
	answer := &apiextensionsv1.ConversionResponse{UID: body.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	for _, o := range body.Request.Objects {
		var u unstructured.Unstructured
		if err := u.UnmarshalJSON(o.Raw); err != nil {
			answer.Result = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
			break
		}
		if strings.HasSuffix(body.Request.DesiredAPIVersion, "/v2") {
			if joined, ok := u.Object["hostPort"].(string); ok {
				host, port, _ := strings.Cut(joined, ":")
				delete(u.Object, "hostPort")
				u.Object["host"], u.Object["port"] = host, port
			}
		} else if host, ok := u.Object["host"].(string); ok {
			port, _ := u.Object["port"].(string)
			delete(u.Object, "host")
			delete(u.Object, "port")
			u.Object["hostPort"] = host + ":" + port
		}
		u.SetAPIVersion(body.Request.DesiredAPIVersion)
		answer.ConvertedObjects = append(answer.ConvertedObjects, runtime.RawExtension{Object: &u})
	}
	body.Response, body.Request = answer, nil
	say(w, body)
}
