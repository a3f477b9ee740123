package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

var (
	exampleScheme = runtime.NewScheme()
	exampleCodecs = serializer.NewCodecFactory(exampleScheme)
)

func init() {
	metav1.AddToGroupVersion(exampleScheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(exampleScheme))
	utilruntime.Must(examplev1.AddToScheme(exampleScheme))
}

// podAttrs are what the suite selects by.
func podAttrs(obj runtime.Object) (labels.Set, fields.Set, error) {
	p, ok := obj.(*example.Pod)
	if !ok {
		return nil, nil, fmt.Errorf("not a pod: %T", obj)
	}
	return p.Labels, fields.Set{"metadata.name": p.Name, "metadata.namespace": p.Namespace, "spec.nodeName": p.Spec.NodeName}, nil
}

func podKey(obj runtime.Object) (string, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return "", err
	}
	if m.GetNamespace() == "" {
		return "/pods/" + m.GetName(), nil
	}
	return "/pods/" + m.GetNamespace() + "/" + m.GetName(), nil
}

// pods returns the storage of a resource as the API server gets it.
func pods(t *testing.T, s *Store, uncached bool) storage.Interface {
	return podsOf(t, s, uncached, exampleCodecs.LegacyCodec(examplev1.SchemeGroupVersion), s.secrets)
}

// podsOf is pods with a codec and an encryption that the test has a hand on.
func podsOf(t *testing.T, s *Store, uncached bool, codec runtime.Codec, transformer value.Transformer) storage.Interface {
	t.Helper()
	return podsAt(t, s, uncached, codec, transformer, podKey)
}

func podsAt(t *testing.T, s *Store, uncached bool, codec runtime.Codec, transformer value.Transformer, key func(runtime.Object) (string, error)) storage.Interface {
	t.Helper()
	getter := s.RESTOptions(func(schema.GroupResource, runtime.Object) (Resource, error) {
		return Resource{Codec: codec, Versioner: examplev1.SchemeGroupVersion, Prefix: "pods", Uncached: uncached, Secret: true}, nil
	})
	o, err := getter.GetRESTOptions(schema.GroupResource{Resource: "pods"}, &example.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	o.StorageConfig.Transformer = transformer
	st, destroy, err := o.Decorator(o.StorageConfig, "/pods/", key, func() runtime.Object { return &example.Pod{} },
		func() runtime.Object { return &example.PodList{} }, podAttrs, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(destroy)
	deadline := time.Now().Add(30 * time.Second)
	for st.ReadinessCheck() != nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	return st
}

// TestUpstreamSuite is the library's own suite over etcd in process and encryption at rest, with and without its cache.
func TestUpstreamSuite(t *testing.T) {
	type suite func(context.Context, *testing.T, storage.Interface)
	for name, run := range map[string]suite{
		"create with key":                storagetesting.RunTestCreateWithKeyExist,
		"create with TTL":                storagetesting.RunTestCreateWithTTL,
		"get":                            storagetesting.RunTestGet,
		"unconditional delete":           storagetesting.RunTestUnconditionalDelete,
		"conditional delete":             storagetesting.RunTestConditionalDelete,
		"delete with suggestion":         storagetesting.RunTestDeleteWithSuggestion,
		"delete, suggestion, conflict":   storagetesting.RunTestDeleteWithSuggestionAndConflict,
		"delete with conflict":           storagetesting.RunTestDeleteWithConflict,
		"delete, suggestion of deleted":  storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
		"validate deletion":              storagetesting.RunTestValidateDeletionWithSuggestion,
		"preconditional delete":          storagetesting.RunTestPreconditionalDeleteWithSuggestion,
		"recursive prefix":               storagetesting.RunTestGetListRecursivePrefix,
		"update with TTL":                storagetesting.RunTestGuaranteedUpdateWithTTL,
		"update with conflict":           storagetesting.RunTestGuaranteedUpdateWithConflict,
		"update, suggestion, conflict":   storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"paging":                         storagetesting.RunTestListPaging,
		"namespaced list":                storagetesting.RunTestNamespaceScopedList,
		"watch":                          storagetesting.RunTestWatch,
		"delete triggers watch":          storagetesting.RunTestDeleteTriggerWatch,
		"watch from then":                storagetesting.RunTestWatchFromNonZero,
		"delayed watch":                  storagetesting.RunTestDelayedWatchDelivery,
		"watch ends with its context":    storagetesting.RunTestWatchContextCancel,
		"watcher timeout":                storagetesting.RunTestWatcherTimeout,
		"version of a deleted object":    storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
		"cluster-wide watch":             storagetesting.RunTestClusterScopedWatch,
		"namespaced watch":               storagetesting.RunTestNamespaceScopedWatch,
		"watch list":                     storagetesting.RunWatchSemantics,
		"watch list of one":              storagetesting.RunWatchListMatchSingle,
		"watch list, all initial events": storagetesting.RunWatchSemanticInitialEventsExtended,
		"delete, only suggestion":        storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"validate, only suggestion":      storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
		"initialization signal":          storagetesting.RunTestWatchInitializationSignal,
		"initial events, older clients":  storagetesting.RunSendInitialEventsBackwardCompatibility,
		"key schema":                     storagetesting.RunTestKeySchema,
		"create": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestCreate(ctx, t, s, func(context.Context, *testing.T, string) {})
		},
		"watch from zero": func(ctx context.Context, t *testing.T, s storage.Interface) {
			storagetesting.RunTestWatchFromZero(ctx, t, s, nil)
		},
	} {
		for _, uncached := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/uncached=%v", name, uncached), func(t *testing.T) {
				s := open(t, t.TempDir())
				run(t.Context(), t, pods(t, s, uncached))
			})
		}
	}
}

// TestStats: how many objects there are and how large they are is known, which is what a list is charged by.
func TestStats(t *testing.T) {
	key := func(obj runtime.Object) (string, error) { // that of this part of the suite, whose pods are in no namespace
		return "/pods//" + obj.(*example.Pod).Name, nil
	}
	for _, uncached := range []bool{true, false} {
		t.Run(fmt.Sprintf("uncached=%v", uncached), func(t *testing.T) {
			s := open(t, t.TempDir())
			codec := exampleCodecs.LegacyCodec(examplev1.SchemeGroupVersion)
			storagetesting.RunTestStats(t.Context(), t, podsAt(t, s, uncached, codec, plain, key), codec, plain, !uncached)
		})
	}
}

// The history stays until it is compacted, and then its absence is said as such.
func TestCompaction(t *testing.T) {
	s := open(t, t.TempDir())
	st := pods(t, s, true)
	storagetesting.RunTestListInconsistentContinuation(t.Context(), t, st, func(ctx context.Context, t *testing.T, rv string) {
		rev, err := storage.APIObjectVersioner{}.ParseResourceVersion(rv)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.KV.Compact(ctx, int64(rev), clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestVersions is the part of the suite that moves the store's revision by other writes, or compacts it.
func TestVersions(t *testing.T) {
	none := func(*testing.T, uint64, uint64) {} // the suite's counting of calls is of another transformer
	for name, run := range map[string]func(t *testing.T, s storage.Interface, move storagetesting.IncreaseRVFunc, compact storagetesting.Compaction, cached bool){
		"list": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, compact storagetesting.Compaction, cached bool) {
			if cached {
				t.Skip("with the cache the suite wants to count calls of a client of its own")
			}
			storagetesting.RunTestList(t.Context(), t, s, compact, cached, nil)
		},
		"continuation": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, _ bool) {
			storagetesting.RunTestListContinuation(t.Context(), t, s, none)
		},
		"continuation with a filter": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, _ bool) {
			storagetesting.RunTestListContinuationWithFilter(t.Context(), t, s, none)
		},
		"rare objects": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, _ bool) {
			storagetesting.RunTestListPaginationRareObject(t.Context(), t, s, none)
		},
		"list of one": func(t *testing.T, s storage.Interface, move storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, _ bool) {
			storagetesting.RunTestGetListNonRecursive(t.Context(), t, move, s)
		},
		"consistent list": func(t *testing.T, s storage.Interface, move storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, cached bool) {
			storagetesting.RunTestConsistentList(t.Context(), t, s, move, cached, true, cached && utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot))
		},
		"compacted revision": func(t *testing.T, s storage.Interface, move storagetesting.IncreaseRVFunc, compact storagetesting.Compaction, _ bool) {
			storagetesting.RunTestCompactRevision(t.Context(), t, s, move, compact)
		},
		"bookmarks": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, cached bool) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(t.Context(), t, s, cached)
		},
		"bookmarks of the right version": func(t *testing.T, s storage.Interface, _ storagetesting.IncreaseRVFunc, _ storagetesting.Compaction, cached bool) {
			if !cached {
				t.Skip("bookmarks are the cache's")
			}
			storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(t.Context(), t, s)
		},
	} {
		for _, uncached := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/uncached=%v", name, uncached), func(t *testing.T) {
				s := open(t, t.TempDir())
				st := pods(t, s, uncached)
				move := func(ctx context.Context, t *testing.T) int64 {
					r, err := s.client.KV.Put(ctx, "/elsewhere", "x")
					if err != nil {
						t.Fatal(err)
					}
					return r.Header.Revision
				}
				compact := func(ctx context.Context, t *testing.T, rv string) {
					rev, err := storage.APIObjectVersioner{}.ParseResourceVersion(rv)
					if err != nil {
						t.Fatal(err)
					}
					// With the key that the library's compactor leaves, which tells storages what is gone.
					version, _, _, err := etcd3.Compact(ctx, s.client.Client, 0, int64(rev))
					if err != nil {
						_, _, _, err = etcd3.Compact(ctx, s.client.Client, version, int64(rev))
					}
					if err != nil {
						t.Fatal(err)
					}
					until(t, "the compaction is known", func() bool { return st.CompactRevision() == int64(rev) })
				}
				run(t, st, move, compact, !uncached)
			})
		}
	}
}
