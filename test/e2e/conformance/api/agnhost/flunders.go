package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// group is what the aggregated server serves, with the old discovery documents alone.
var group = schema.GroupVersion{Group: "wardle.example.com", Version: "v1alpha1"}

// server is an aggregated API server for Flunders, in memory. Who asks it is proven by the front proxy's certificate and told by its
// headers; whether they may is asked of the cluster.
type server struct {
	client kubernetes.Interface

	mu   sync.Mutex
	kept map[string]*unstructured.Unstructured // by namespace and name; guarded by mu
}

func flunders(f *flag.FlagSet, args []string) error {
	certFile, keyFile := f.String("tls-cert-file", "", "PEM"), f.String("tls-private-key-file", "", "PEM")
	port := f.Int("secure-port", 443, "to listen on")
	_ = f.Parse(args)
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	proxy, err := client.CoreV1().ConfigMaps("kube-system").Get(context.Background(), "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(proxy.Data["requestheader-client-ca-file"])) {
		return errors.New("the front proxy's authority is not told")
	}
	s := &server{client: client, kept: map[string]*unstructured.Unstructured{}}
	listener := &http.Server{Addr: fmt.Sprint(":", *port), Handler: s, TLSConfig: &tls.Config{ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}}
	return listener.ListenAndServeTLS(*certFile, *keyFile)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, code, err := s.answer(r)
	if err != nil {
		var status apierrors.APIStatus
		if !errors.As(err, &status) {
			status = apierrors.NewInternalError(err)
		}
		what := status.Status()
		what.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		answer, code = what, int(what.Code)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) answer(r *http.Request) (any, int, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.Header.Get("X-Remote-User") == "" {
		return nil, 0, apierrors.NewUnauthorized("not by the front proxy")
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: group.String(), Version: group.Version}
	about := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: group.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/apis":
		return metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{about}}, http.StatusOK, nil
	case "/apis/" + group.Group:
		return about, http.StatusOK, nil
	case "/apis/" + group.String():
		return metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: group.String(), APIResources: []metav1.APIResource{{
			Name: "flunders", SingularName: "flunder", Namespaced: true, Kind: "Flunder", Verbs: metav1.Verbs{"create", "delete", "get", "list"}}}}, http.StatusOK, nil
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/"+group.String()+"/namespaces/"), "/") // NS, flunders, NAME
	if len(parts) < 2 || len(parts) > 3 || parts[1] != "flunders" {
		return nil, 0, apierrors.NewNotFound(group.WithResource("").GroupResource(), r.URL.Path)
	}
	parts = append(parts, "")
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodDelete: "delete"}[r.Method]
	if verb == "get" && parts[2] == "" {
		verb = "list"
	}
	if err := s.may(r, verb, parts[0], parts[2]); err != nil {
		return nil, 0, err
	}
	return s.act(r, verb, parts[0], parts[2])
}

// may asks the cluster, as who the front proxy says.
func (s *server) may(r *http.Request, verb, ns, name string) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Header.Get("X-Remote-User"), Groups: r.Header.Values("X-Remote-Group"),
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group.Group, Version: group.Version, Resource: "flunders", Namespace: ns, Name: name}}}
	review, err := s.client.AuthorizationV1().SubjectAccessReviews().Create(r.Context(), review, metav1.CreateOptions{})
	if err == nil && !review.Status.Allowed {
		err = apierrors.NewForbidden(group.WithResource("flunders").GroupResource(), name, errors.New(review.Status.Reason))
	}
	return err
}

func (s *server) act(r *http.Request, verb, ns, name string) (any, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := ns + "/" + name
	found, there := s.kept[key]
	if name != "" && !there {
		return nil, 0, apierrors.NewNotFound(group.WithResource("flunders").GroupResource(), name)
	}
	switch verb {
	case "get":
		return found, http.StatusOK, nil
	case "delete":
		delete(s.kept, key)
		return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}, http.StatusOK, nil
	case "list":
		list := &unstructured.UnstructuredList{Object: map[string]any{"kind": "FlunderList", "apiVersion": group.String(), "metadata": map[string]any{"resourceVersion": "1"}}}
		for k, o := range s.kept {
			if strings.HasPrefix(k, ns+"/") {
				list.Items = append(list.Items, *o)
			}
		}
		slices.SortFunc(list.Items, func(a, b unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
		return list.UnstructuredContent(), http.StatusOK, nil
	case "create":
		body, err := io.ReadAll(r.Body)
		o := &unstructured.Unstructured{}
		if err == nil {
			err = o.UnmarshalJSON(body)
		}
		if err != nil {
			return nil, 0, apierrors.NewBadRequest(err.Error())
		}
		o.SetNamespace(ns)
		o.SetUID(types.UID(uuid.NewUUID()))
		o.SetCreationTimestamp(metav1.Now())
		s.kept[ns+"/"+o.GetName()] = o
		return o, http.StatusCreated, nil
	}
	return nil, 0, apierrors.NewMethodNotSupported(group.WithResource("flunders").GroupResource(), verb)
}
