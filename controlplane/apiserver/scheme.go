package apiserver

import (
	"fmt"
	"net/url"

	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"keelson.dev/keelson/controlplane/resource"
)

// codecs is a scheme with what encodes and decodes by it.
type codecs struct {
	scheme  *runtime.Scheme
	factory serializer.CodecFactory
	params  runtime.ParameterCodec
}

// newCodecs registers the groups. The Go types of a kind's preferred version are its internal version too, so
// conversion between the two is a no-op; only kinds in several versions bring conversions (Group.Convert).
func newCodecs(groups []resource.Group) (codecs, error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	utilruntime.Must(metainternalversion.AddToScheme(scheme))
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"},
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	if err := registerOptions(scheme); err != nil {
		return codecs{}, err
	}
	for _, g := range groups {
		if err := registerGroup(scheme, g); err != nil {
			return codecs{}, fmt.Errorf("register group %q: %w", g.Name, err)
		}
	}
	return codecs{
		scheme: scheme,
		factory: serializer.NewCodecFactory(scheme,
			serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf()),
		params: runtime.NewParameterCodec(scheme),
	}, nil
}

func registerGroup(scheme *runtime.Scheme, g resource.Group) error {
	for _, add := range g.AddToScheme {
		if err := add(scheme); err != nil {
			return err
		}
	}
	internal := schema.GroupVersion{Group: g.Name, Version: runtime.APIVersionInternal}
	for i := range g.Kinds {
		k := &g.Kinds[i]
		scheme.AddKnownTypeWithName(internal.WithKind(k.Kind), k.New())
		if k.NewList != nil {
			scheme.AddKnownTypeWithName(internal.WithKind(k.Kind+"List"), k.NewList())
		}
		if k.Default != nil {
			scheme.AddTypeDefaultingFunc(k.New(), func(obj any) { k.Default(obj.(runtime.Object)) })
		}
		if err := registerFields(scheme, g, k); err != nil {
			return err
		}
	}
	if g.Convert != nil {
		if err := g.Convert(scheme); err != nil {
			return err
		}
	}
	if len(g.Versions) == 0 {
		return nil
	}
	versions := make([]schema.GroupVersion, len(g.Versions))
	for i, v := range g.Versions {
		versions[i] = schema.GroupVersion{Group: g.Name, Version: v}
	}
	return scheme.SetVersionPriority(versions...)
}

// registerFields lets a client select by the kind's fields; others are refused with the list of none.
func registerFields(scheme *runtime.Scheme, g resource.Group, k *resource.Kind) error {
	if k.Fields == nil {
		return nil
	}
	known := k.Fields(k.New())
	for _, v := range versionsOf(g, *k) {
		gvk := schema.GroupVersionKind{Group: g.Name, Version: v, Kind: k.Kind}
		err := scheme.AddFieldLabelConversionFunc(gvk, func(label, value string) (string, string, error) {
			if alias, ok := k.FieldAliases[label]; ok {
				label = alias
			}
			if _, ok := known[label]; ok || label == "metadata.name" || label == "metadata.namespace" {
				return label, value, nil
			}
			return "", "", fmt.Errorf("field label not supported: %s", label)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func versionsOf(g resource.Group, k resource.Kind) []string {
	if k.Versions != nil {
		return k.Versions
	}
	return g.Versions
}

// registerOptions teaches the scheme to read the options of connect subresources from a query.
func registerOptions(scheme *runtime.Scheme) error {
	for _, o := range connectOptions {
		err := scheme.AddConversionFunc((*url.Values)(nil), o.object, o.read)
		if err != nil {
			return err
		}
	}
	return nil
}
