package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/utils/ptr"
)

const (
	defaultAccount = "default"
	tokenPath      = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume    = "kube-api-access-"
	rootCA         = "kube-root-ca.crt"
	// tokenSeconds is an hour and a bit: the odd number tells the token issuer that the token is one of these.
	tokenSeconds = 3607
	// mountableAnnotation on a service account limits pods to the secrets that the account lists.
	mountableAnnotation = "kubernetes.io/enforce-mountable-secrets"
	// accountPatience is how long a pod waits for the default account of a namespace just made.
	accountPatience = 2 * time.Second
)

// newServiceAccount gives every pod an account, and its containers the means to speak to the API as that account.
func newServiceAccount(c *cluster) admission.Interface {
	return both{
		admitter: admitter{admission.NewHandler(admission.Create, admission.Update), c.admitAccount},
		validate: c.validateAccount,
	}
}

func (c *cluster) admitAccount(ctx context.Context, a admission.Attributes) error {
	pod, ok := object[*corev1.Pod](a, pods)
	if !ok || a.GetOperation() != admission.Create || isMirror(pod) {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := c.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if automounts(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		for _, s := range account.ImagePullSecrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s.Name})
		}
	}
	return nil
}

// account waits a moment for the default account, which a controller makes soon after its namespace.
func (c *cluster) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	account, err := c.accounts.Get(ctx, namespace, name)
	if !notFound(err) {
		return account, err
	}
	err = apierrors.NewNotFound(corev1.Resource("serviceaccount"), name)
	if name != defaultAccount {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, accountPatience)
	defer cancel()
	w, watchErr := c.client.CoreV1().ServiceAccounts(namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	})
	if watchErr != nil {
		return nil, err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return nil, err
			}
			if made, ok := e.Object.(*corev1.ServiceAccount); ok && e.Type != watch.Deleted {
				return made, nil
			}
		case <-ctx.Done():
			return nil, err
		}
	}
}

// automounts: the pod decides, else the account, else yes.
func automounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if m := pod.Spec.AutomountServiceAccountToken; m != nil {
		return *m
	}
	return ptr.Deref(account.AutomountServiceAccountToken, true)
}

// mountToken mounts token, CA and namespace into every container that has nothing at that path yet.
func mountToken(pod *corev1.Pod) {
	mount := corev1.VolumeMount{ReadOnly: true, MountPath: tokenPath}
	at := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, tokenVolume) })
	if at >= 0 { // as in a pod copied from one that ran
		mount.Name = pod.Spec.Volumes[at].Name
	} else {
		mount.Name = names.SimpleNameGenerator.GenerateName(tokenVolume)
	}
	needed := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !mounted(&list[i], tokenPath) {
				list[i].VolumeMounts = append(list[i].VolumeMounts, mount)
				needed = true
			}
		}
	}
	if needed && at < 0 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name: mount.Name, VolumeSource: corev1.VolumeSource{Projected: tokenSources()},
		})
	}
}

func mounted(c *corev1.Container, path string) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == path {
			return true
		}
	}
	return false
}

func tokenSources() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		// Defaulting is over when admission comes, so the mode is set here.
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}
}

func (c *cluster) validateAccount(ctx context.Context, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || a.GetResource().GroupResource() != pods {
		return nil
	}
	switch {
	case a.GetOperation() == admission.Update && a.GetSubresource() == "ephemeralcontainers":
		return c.validateEphemeral(ctx, a, pod)
	case a.GetOperation() != admission.Create || a.GetSubresource() != "":
		return nil
	}
	if isMirror(pod) {
		return validateMirror(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		return admission.NewForbidden(a, fmt.Errorf("no service account specified for pod %s/%s", a.GetNamespace(), pod.Name))
	}
	account, err := c.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	if err := onlyListed(account, secretsMounted(pod)); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

// validateMirror: a mirror pod stands for one that runs without asking; it must gain no access by being shown.
func validateMirror(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference service accounts"))
	}
	for range secretsOf(pod) {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference secrets"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return admission.NewForbidden(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

func (c *cluster) validateEphemeral(ctx context.Context, a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName == "" {
		return admission.NewForbidden(a, fmt.Errorf("no service account specified for pod %s/%s", a.GetNamespace(), pod.Name))
	}
	account, err := c.account(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
	}
	var refs []secretRef
	for _, e := range pod.Spec.EphemeralContainers {
		refs = append(refs, secretsRead("ephemeral container "+e.Name, e.Env, e.EnvFrom)...)
	}
	if err := onlyListed(account, refs); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

// secretRef is a secret's name, where it is referred to, and whether it is one to pull images with.
type secretRef struct {
	where, name string
	pulls       bool
}

// secretsMounted are those that an account's list holds a new pod to.
func secretsMounted(pod *corev1.Pod) []secretRef {
	var refs []secretRef
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			refs = append(refs, secretRef{where: "volume with", name: v.Secret.SecretName})
		}
	}
	for _, c := range pod.Spec.InitContainers {
		refs = append(refs, secretsRead("init container "+c.Name, c.Env, c.EnvFrom)...)
	}
	for _, c := range pod.Spec.Containers {
		refs = append(refs, secretsRead("container "+c.Name, c.Env, c.EnvFrom)...)
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		refs = append(refs, secretRef{where: fmt.Sprintf("imagePullSecrets[%d]", i), name: s.Name, pulls: true})
	}
	return refs
}

func secretsRead(who string, env []corev1.EnvVar, from []corev1.EnvFromSource) []secretRef {
	var refs []secretRef
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			refs = append(refs, secretRef{where: who + " with envVar " + e.Name + " referencing", name: e.ValueFrom.SecretKeyRef.Name})
		}
	}
	for _, f := range from {
		if f.SecretRef != nil {
			refs = append(refs, secretRef{where: who + " with envFrom referencing", name: f.SecretRef.Name})
		}
	}
	return refs
}

// onlyListed holds a pod to the secrets that its account lists, if the account asks for that.
func onlyListed(account *corev1.ServiceAccount, refs []secretRef) error {
	if enforced, err := strconv.ParseBool(account.Annotations[mountableAnnotation]); err != nil || !enforced {
		return nil
	}
	for _, ref := range refs {
		switch {
		case ref.pulls && !slices.Contains(account.ImagePullSecrets, corev1.LocalObjectReference{Name: ref.name}):
			return fmt.Errorf("%s.name=%q is not allowed because service account %s does not reference that imagePullSecret", ref.where, ref.name, account.Name)
		case !ref.pulls && !slices.ContainsFunc(account.Secrets, func(s corev1.ObjectReference) bool { return s.Name == ref.name }):
			return fmt.Errorf("%s secret.secretName=%q is not allowed because service account %s does not reference that secret", ref.where, ref.name, account.Name)
		}
	}
	return nil
}
