package act

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

// environment computes a container's variables: services, then envFrom, then env, each overriding those before it.
// $(NAME) in env refers to what is known by then. The order of env is kept; the rest comes sorted before it.
func (e *Executor) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, ips []string) ([]corev1.EnvVar, error) {
	services, err := e.serviceEnv(ctx, pod)
	if err != nil {
		return nil, err
	}
	known := map[string]string{}
	for i := range c.EnvFrom {
		if err := e.envFrom(ctx, pod, &c.EnvFrom[i], known); err != nil {
			return nil, err
		}
	}
	var order []string
	for _, v := range c.Env {
		value, set, err := e.envValue(ctx, pod, c, v, ips, known, services)
		if err != nil {
			return nil, err
		}
		if !set {
			continue
		}
		known[v.Name] = value
		order = append(slices.DeleteFunc(order, func(n string) bool { return n == v.Name }), v.Name)
	}
	for name, value := range services {
		if _, has := known[name]; !has {
			known[name] = value
		}
	}
	var out []corev1.EnvVar
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !slices.Contains(order, name) {
			out = append(out, corev1.EnvVar{Name: name, Value: known[name]})
		}
	}
	for _, name := range order {
		out = append(out, corev1.EnvVar{Name: name, Value: known[name]})
	}
	return out, nil
}

// envFrom adds all keys of one ConfigMap or Secret. Keys that cannot be variable names are skipped with an event.
func (e *Executor) envFrom(ctx context.Context, pod *corev1.Pod, src *corev1.EnvFromSource, into map[string]string) error {
	data, from := map[string]string{}, ""
	switch {
	case src.ConfigMapRef != nil:
		from = "configmap " + src.ConfigMapRef.Name
		cm, err := e.API.ConfigMap(ctx, pod.Namespace, src.ConfigMapRef.Name)
		if missing(err, src.ConfigMapRef.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		data = cm.Data
	case src.SecretRef != nil:
		from = "secret " + src.SecretRef.Name
		s, err := e.API.Secret(ctx, pod.Namespace, src.SecretRef.Name)
		if missing(err, src.SecretRef.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		for k, v := range s.Data {
			data[k] = string(v)
		}
	}
	var bad []string
	for k, v := range data {
		if name := src.Prefix + k; len(validation.IsRelaxedEnvVarName(name)) == 0 {
			into[name] = v
		} else {
			bad = append(bad, k)
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		e.Event(pod, corev1.EventTypeWarning, "InvalidEnvironmentVariableNames",
			"Keys [%s] from the EnvFrom %s/%s were skipped since they are considered invalid environment variable names.",
			strings.Join(bad, ", "), pod.Namespace, from)
	}
	return nil
}

func missing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

// envValue is one entry of env. set is false for an optional reference that leads nowhere.
func (e *Executor) envValue(ctx context.Context, pod *corev1.Pod, c *corev1.Container, v corev1.EnvVar, ips []string, known, services map[string]string) (value string, set bool, err error) {
	if v.ValueFrom == nil {
		return Expand(v.Value, known, services), true, nil
	}
	switch from := v.ValueFrom; {
	case from.FieldRef != nil:
		value, err = e.field(pod, from.FieldRef.FieldPath, ips)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = e.resourceField(pod, c, from.ResourceFieldRef)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := e.API.ConfigMap(ctx, pod.Namespace, ref.Name)
		if missing(err, ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		if s, has := cm.Data[ref.Key]; has {
			return s, true, nil
		}
		return "", false, absentKey(ref.Optional, "ConfigMap", ref.Key, pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := e.API.Secret(ctx, pod.Namespace, ref.Name)
		if missing(err, ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		if b, has := s.Data[ref.Key]; has {
			return string(b), true, nil
		}
		return "", false, absentKey(ref.Optional, "Secret", ref.Key, pod.Namespace, ref.Name)
	}
	return "", false, fmt.Errorf("environment variable %q: valueFrom names no source that this node knows", v.Name)
}

func absentKey(optional *bool, kind, key, namespace, name string) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("couldn't find key %v in %s %v/%v", key, kind, namespace, name)
}

// serviceEnv are the variables in the style of Docker links. KUBERNETES_SERVICE_HOST comes whether or not the pod
// wants service links.
func (e *Executor) serviceEnv(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	static := pod.Annotations["kubernetes.io/config.source"] == "file"
	if static { // may be what brings the API up: it takes the services known by now and waits for none
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	list, err := e.API.Services(ctx, pod.Namespace)
	if static && err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("services for the environment: %w", err)
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	out := map[string]string{}
	for _, s := range list {
		master := s.Namespace == metavDefault && s.Name == "kubernetes"
		if !master && (!links || s.Namespace != pod.Namespace) {
			continue
		}
		if ip := net.ParseIP(s.Spec.ClusterIP); ip == nil || len(s.Spec.Ports) == 0 {
			continue
		}
		oneService(s, out)
	}
	return out, nil
}

const metavDefault = "default"

func oneService(s *corev1.Service, out map[string]string) {
	base := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	ip, first := s.Spec.ClusterIP, s.Spec.Ports[0]
	out[base+"_SERVICE_HOST"] = ip
	out[base+"_SERVICE_PORT"] = strconv.Itoa(int(first.Port))
	for i, p := range s.Spec.Ports {
		if p.Name != "" {
			out[base+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = strconv.Itoa(int(p.Port))
		}
		proto := corev1.ProtocolTCP
		if p.Protocol != "" {
			proto = p.Protocol
		}
		port := strconv.Itoa(int(p.Port))
		url := strings.ToLower(string(proto)) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out[base+"_PORT"] = url
		}
		prefix := base + "_PORT_" + port + "_" + strings.ToUpper(string(proto))
		out[prefix] = url
		out[prefix+"_PROTO"] = strings.ToLower(string(proto))
		out[prefix+"_PORT"] = port
		out[prefix+"_ADDR"] = ip
	}
}

// Expand replaces $(NAME) by the first value found in tables. An unknown name stays as it is; $$ is a dollar.
func Expand(s string, tables ...map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			b.WriteString(lookup(s[i+2:i+end], s[i:i+end+1], tables))
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func lookup(name, otherwise string, tables []map[string]string) string {
	for _, t := range tables {
		if v, has := t[name]; has {
			return v
		}
	}
	return otherwise
}
