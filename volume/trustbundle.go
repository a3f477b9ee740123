package volume

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Roots are the trust anchors that a projection selects, each once, as PEM; nil if it selects no bundle (KEP-3257).
func (s sources) Roots(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	if s.deps.TrustBundles == nil {
		return nil, errors.New("this node has no way to read ClusterTrustBundles")
	}
	var name, signer string
	selector := labels.Everything()
	switch {
	case p.Name != nil:
		name = *p.Name
	case p.SignerName != nil:
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(p.LabelSelector); err != nil { // without one: nothing
			return nil, err
		}
		signer = *p.SignerName
	default:
		return nil, errors.New("neither name nor signerName of a ClusterTrustBundle is set")
	}
	list, err := s.deps.TrustBundles(ctx, name, signer)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read ClusterTrustBundles: %w", err)
	}
	return anchors(list, selector), nil
}

// anchors are those of the bundles that are selected, in an order that does not depend on theirs.
func anchors(list []certificatesv1.ClusterTrustBundle, selector labels.Selector) []byte {
	var blocks [][]byte
	for _, b := range list {
		if !selector.Matches(labels.Set(b.Labels)) {
			continue
		}
		for rest := []byte(b.Spec.TrustBundle); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			blocks = append(blocks, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})) // without headers and comments
		}
	}
	if len(blocks) == 0 {
		return nil
	}
	slices.SortFunc(blocks, bytes.Compare)
	return bytes.Join(slices.CompactFunc(blocks, bytes.Equal), nil)
}
