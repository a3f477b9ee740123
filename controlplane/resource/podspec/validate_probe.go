package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"keelson.dev/keelson/controlplane/resource/check"
)

// lifecycle checks hooks and probes of a container that goes on running.
func (r containerRules) lifecycle(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	grace := r.spec.TerminationGracePeriodSeconds
	if l := c.Lifecycle; l != nil {
		if l.PostStart != nil {
			errs = append(errs, hookHandler(l.PostStart).validate(grace, path.Child("lifecycle", "postStart"))...)
		}
		if l.PreStop != nil {
			errs = append(errs, hookHandler(l.PreStop).validate(grace, path.Child("lifecycle", "preStop"))...)
		}
	}
	if p, at := c.LivenessProbe, path.Child("livenessProbe"); p != nil {
		errs = append(errs, validateProbe(p, at)...)
		errs = append(errs, oneSuccess(p, at)...)
	}
	if p, at := c.ReadinessProbe, path.Child("readinessProbe"); p != nil {
		errs = append(errs, validateProbe(p, at)...)
		if p.TerminationGracePeriodSeconds != nil {
			errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
		}
	}
	if p, at := c.StartupProbe, path.Child("startupProbe"); p != nil {
		errs = append(errs, validateProbe(p, at)...)
		errs = append(errs, oneSuccess(p, at)...)
	}
	return errs
}

func oneSuccess(p *corev1.Probe, path *field.Path) field.ErrorList {
	if p.SuccessThreshold != 1 {
		return field.ErrorList{field.Invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")}
	}
	return nil
}

func validateProbe(p *corev1.Probe, path *field.Path) field.ErrorList {
	h := handler{exec: p.Exec, httpGet: p.HTTPGet, tcpSocket: p.TCPSocket, grpc: p.GRPC}
	errs := h.validate(nil, path)
	errs = append(errs, check.NonNegative(p.InitialDelaySeconds, path.Child("initialDelaySeconds"))...)
	errs = append(errs, check.NonNegative(p.TimeoutSeconds, path.Child("timeoutSeconds"))...)
	errs = append(errs, check.NonNegative(p.PeriodSeconds, path.Child("periodSeconds"))...)
	errs = append(errs, check.NonNegative(p.SuccessThreshold, path.Child("successThreshold"))...)
	errs = append(errs, check.NonNegative(p.FailureThreshold, path.Child("failureThreshold"))...)
	if grace := p.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0"))
	}
	return errs
}

// handler is the union of what probes and hooks can do.
type handler struct {
	exec      *corev1.ExecAction
	httpGet   *corev1.HTTPGetAction
	tcpSocket *corev1.TCPSocketAction
	grpc      *corev1.GRPCAction
	sleep     *corev1.SleepAction
}

func hookHandler(h *corev1.LifecycleHandler) handler {
	return handler{exec: h.Exec, httpGet: h.HTTPGet, tcpSocket: h.TCPSocket, sleep: h.Sleep}
}

// validate checks that there is one action, and that one. Grace is the pod's, nil if it does not matter.
func (h handler) validate(grace *int64, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	take := func(set bool, name string, found func(*field.Path) field.ErrorList) {
		switch {
		case !set:
		case count > 0:
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
		default:
			count++
			errs = append(errs, found(path.Child(name))...)
		}
	}
	take(h.exec != nil, "exec", func(p *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(p.Child("command"), "")}
		}
		return nil
	})
	take(h.httpGet != nil, "httpGet", func(p *field.Path) field.ErrorList { return validateHTTPGet(h.httpGet, p) })
	take(h.tcpSocket != nil, "tcpSocket", func(p *field.Path) field.ErrorList { return portOrName(h.tcpSocket.Port, p.Child("port")) })
	take(h.grpc != nil, "grpc", func(p *field.Path) field.ErrorList { return portOrName(intstr.FromInt32(h.grpc.Port), p.Child("port")) })
	take(h.sleep != nil, "sleep", func(p *field.Path) field.ErrorList {
		if s := h.sleep.Seconds; grace != nil && (s < 0 || s > *grace) {
			return field.ErrorList{field.Invalid(p, s, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))}
		}
		return nil
	})
	if count == 0 {
		errs = append(errs, field.Required(path, "must specify a handler type"))
	}
	return errs
}

func validateHTTPGet(a *corev1.HTTPGetAction, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if a.Path == "" {
		errs = append(errs, field.Required(path.Child("path"), ""))
	}
	errs = append(errs, portOrName(a.Port, path.Child("port"))...)
	errs = append(errs, check.OneOf(a.Scheme, path.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, h := range a.HTTPHeaders {
		errs = append(errs, check.Strings(validation.IsHTTPHeaderName(h.Name), path.Child("httpHeaders"), h.Name)...)
	}
	return errs
}

func portOrName(port intstr.IntOrString, path *field.Path) field.ErrorList {
	switch port.Type {
	case intstr.Int:
		return check.Strings(validation.IsValidPortNum(port.IntValue()), path, port.IntValue())
	case intstr.String:
		return check.Strings(validation.IsValidPortName(port.StrVal), path, port.StrVal)
	}
	return field.ErrorList{field.InternalError(path, fmt.Errorf("unknown type: %v", port.Type))}
}
