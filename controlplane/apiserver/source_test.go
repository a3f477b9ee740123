package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"keelson.dev/keelson/controlplane/informer"
)

// live is the heap in use, in bytes, after what is garbage has gone.
func live() int64 {
	runtime.GC()
	runtime.GC() // what had a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// alone is set for the process of TestOneCopy.
const alone = "KEELSON_TEST_ONE_COPY"

// fatOnes is how many of them a test makes.
const fatOnes = 200

// fat is large once decoded and small in the database.
func fat(i int) *corev1.ConfigMap {
	o := configMap(fmt.Sprintf("fat-%d", i))
	o.Data = map[string]string{}
	for k := range 300 {
		o.Data[fmt.Sprintf("k%d", k)] = fmt.Sprint(k % 10)
	}
	return o
}

// TestOneCopy: objects that were there before an informer of this process, that came after it, and that have changed, are in memory once.
// It measures the heap, so it has a process of its own: in this one, servers of tests that are over give theirs back at any time.
func TestOneCopy(t *testing.T) {
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOneCopy$", "-test.v")
		cmd.Env = append(os.Environ(), alone+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestOneCopy")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const n = fatOnes
	r := start(t, "")
	maps := r.client.CoreV1().ConfigMaps("default")
	began := live()
	for i := range n / 2 {
		if _, err := maps.Create(t.Context(), fat(i), createOptions); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kubernetes.NewForConfig(r.ClientConfig(&user.DefaultInfo{Name: "reader", Groups: []string{user.SystemPrivilegedGroup}}))
	if err != nil {
		t.Fatal(err)
	}
	f := informer.New(client, informer.Options{Namespace: "default", Transform: r.Shared()})
	lister := f.Core().V1().ConfigMaps().Lister()
	ctx, stop := context.WithCancel(t.Context())
	f.Start(ctx.Done())
	t.Cleanup(func() { stop(); f.Shutdown() })
	f.WaitForCacheSync(ctx.Done())
	for i := n / 2; i < n; i++ {
		if _, err := maps.Create(t.Context(), fat(i), createOptions); err != nil {
			t.Fatal(err)
		}
	}
	r.shared(t, lister, func(i int) string {
		o, err := maps.Get(t.Context(), fmt.Sprintf("fat-%d", i), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return o.ResourceVersion
	})
	copies := make([]corev1.ConfigMap, n)
	before := live()
	for i := range n {
		o, err := maps.Get(t.Context(), fmt.Sprintf("fat-%d", i), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		copies[i] = *o
	}
	one := live() - before
	runtime.KeepAlive(copies)
	copies = nil
	grown := live() - began
	// The encoded form, which the log of changes and the database keep for a while, is in it, so what decides is whose objects they are.
	t.Logf("%d objects: %d kB for each, one decoded copy is %d kB", n, grown/n>>10, one/n>>10)
	r.shared(t, lister, func(i int) string {
		o, err := maps.Patch(t.Context(), fmt.Sprintf("fat-%d", i), types.MergePatchType, []byte(`{"data":{"k0":"x"}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return o.ResourceVersion
	})
}

// shared waits until an informer has the objects in their versions, and fails the test if what it has is not the watch cache's.
func (r *running) shared(t *testing.T, lister corelisters.ConfigMapLister, version func(i int) string) {
	t.Helper()
	ctx := apirequest.WithNamespace(t.Context(), "default")
	for i := range fatOnes {
		want := version(i)
		var have *corev1.ConfigMap
		err := wait.PollUntilContextTimeout(ctx, time.Millisecond, startTimeout, true, func(context.Context) (_ bool, err error) {
			have, err = lister.ConfigMaps("default").Get(fmt.Sprintf("fat-%d", i))
			return err == nil && have.ResourceVersion == want, nil
		})
		if err != nil {
			t.Fatalf("the informer has not seen version %s of object %d: %v", want, i, err)
		}
		own, err := r.stores[corev1.Resource("configmaps")].Get(ctx, have.Name, &metav1.GetOptions{ResourceVersion: "0"})
		if err != nil {
			t.Fatal(err)
		}
		if reflect.ValueOf(have.Data).Pointer() != reflect.ValueOf(own.(*corev1.ConfigMap).Data).Pointer() {
			t.Fatalf("%s of the informer is a copy of its own", have.Name)
		}
	}
}
