package labtest

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"keelson.dev/keelson/test/lab"
)

// Admin is a user with clients of either shape and the warnings that the server gave.
type Admin struct {
	*kubernetes.Clientset
	Dyn    dynamic.Interface
	Config *rest.Config

	mu       sync.Mutex
	warnings []string // guarded by mu
}

// NewAdmin returns the cluster's administrator.
func NewAdmin(c *lab.Cluster) (*Admin, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return AdminOf(config)
}

// AdminOf returns the user that config logs in, which may ask as often as it likes.
func AdminOf(config *rest.Config) (*Admin, error) {
	a := &Admin{Config: config}
	config.QPS, config.WarningHandler = -1, a
	var err error
	if a.Clientset, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	a.Dyn, err = dynamic.NewForConfig(config)
	return a, err
}

// HandleWarningHeader implements rest.WarningHandler.
func (a *Admin) HandleWarningHeader(_ int, _, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = append(a.warnings, text)
}

// Warnings are those that the server gave.
func (a *Admin) Warnings() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.warnings)
}

// Warned tells whether the server gave a warning with the text.
func (a *Admin) Warned(text string) bool {
	return slices.ContainsFunc(a.Warnings(), func(w string) bool { return strings.Contains(w, text) })
}
