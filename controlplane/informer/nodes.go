package informer

import (
	autoscalingapi "k8s.io/api/autoscaling/v2"
	coordinationapi "k8s.io/api/coordination/v1"
	nodeapi "k8s.io/api/node/v1"
	resourceapi "k8s.io/api/resource/v1"
	schedulingapi "k8s.io/api/scheduling/v1"
	storageapi "k8s.io/api/storage/v1"
	autoscalinggroup "k8s.io/client-go/informers/autoscaling"
	autoscalinginformers "k8s.io/client-go/informers/autoscaling/v2"
	coordinationgroup "k8s.io/client-go/informers/coordination"
	coordinationinformers "k8s.io/client-go/informers/coordination/v1"
	nodegroup "k8s.io/client-go/informers/node"
	nodeinformers "k8s.io/client-go/informers/node/v1"
	resourcegroup "k8s.io/client-go/informers/resource"
	resourceinformers "k8s.io/client-go/informers/resource/v1"
	schedulinggroup "k8s.io/client-go/informers/scheduling"
	schedulinginformers "k8s.io/client-go/informers/scheduling/v1"
	storagegroup "k8s.io/client-go/informers/storage"
	storageinformers "k8s.io/client-go/informers/storage/v1"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	nodelisters "k8s.io/client-go/listers/node/v1"
	resourcelisters "k8s.io/client-go/listers/resource/v1"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
)

type autoscaling struct {
	autoscalinggroup.Interface
	f *factory
}

// Autoscaling implements informers.SharedInformerFactory.
func (f *factory) Autoscaling() autoscalinggroup.Interface { return autoscaling{f: f} }

func (g autoscaling) V2() autoscalinginformers.Interface { return autoscalingV2{f: g.f} }

type autoscalingV2 struct {
	autoscalinginformers.Interface
	f *factory
}

func (g autoscalingV2) HorizontalPodAutoscalers() autoscalinginformers.TypedHorizontalPodAutoscalerInformer {
	return kindOf[autoscalinginformers.HorizontalPodAutoscalerIndexInformer](g.f, &autoscalingapi.HorizontalPodAutoscaler{}, autoscalinglisters.NewHorizontalPodAutoscalerLister)
}

type coordination struct {
	coordinationgroup.Interface
	f *factory
}

// Coordination implements informers.SharedInformerFactory.
func (f *factory) Coordination() coordinationgroup.Interface { return coordination{f: f} }

func (g coordination) V1() coordinationinformers.Interface { return coordinationV1{f: g.f} }

type coordinationV1 struct {
	coordinationinformers.Interface
	f *factory
}

func (g coordinationV1) Leases() coordinationinformers.TypedLeaseInformer {
	return kindOf[coordinationinformers.LeaseIndexInformer](g.f, &coordinationapi.Lease{}, coordinationlisters.NewLeaseLister)
}

type node struct {
	nodegroup.Interface
	f *factory
}

// Node implements informers.SharedInformerFactory.
func (f *factory) Node() nodegroup.Interface { return node{f: f} }

func (g node) V1() nodeinformers.Interface { return nodeV1{f: g.f} }

type nodeV1 struct {
	nodeinformers.Interface
	f *factory
}

func (g nodeV1) RuntimeClasses() nodeinformers.TypedRuntimeClassInformer {
	return kindOf[nodeinformers.RuntimeClassIndexInformer](g.f, &nodeapi.RuntimeClass{}, nodelisters.NewRuntimeClassLister)
}

type resource struct {
	resourcegroup.Interface
	f *factory
}

// Resource implements informers.SharedInformerFactory.
func (f *factory) Resource() resourcegroup.Interface { return resource{f: f} }

func (g resource) V1() resourceinformers.Interface { return resourceV1{f: g.f} }

type resourceV1 struct {
	resourceinformers.Interface
	f *factory
}

func (g resourceV1) DeviceClasses() resourceinformers.TypedDeviceClassInformer {
	return kindOf[resourceinformers.DeviceClassIndexInformer](g.f, &resourceapi.DeviceClass{}, resourcelisters.NewDeviceClassLister)
}
func (g resourceV1) DeviceTaintRules() resourceinformers.TypedDeviceTaintRuleInformer {
	return kindOf[resourceinformers.DeviceTaintRuleIndexInformer](g.f, &resourceapi.DeviceTaintRule{}, resourcelisters.NewDeviceTaintRuleLister)
}
func (g resourceV1) ResourceClaims() resourceinformers.TypedResourceClaimInformer {
	return kindOf[resourceinformers.ResourceClaimIndexInformer](g.f, &resourceapi.ResourceClaim{}, resourcelisters.NewResourceClaimLister)
}
func (g resourceV1) ResourceClaimTemplates() resourceinformers.TypedResourceClaimTemplateInformer {
	return kindOf[resourceinformers.ResourceClaimTemplateIndexInformer](g.f, &resourceapi.ResourceClaimTemplate{}, resourcelisters.NewResourceClaimTemplateLister)
}
func (g resourceV1) ResourceSlices() resourceinformers.TypedResourceSliceInformer {
	return kindOf[resourceinformers.ResourceSliceIndexInformer](g.f, &resourceapi.ResourceSlice{}, resourcelisters.NewResourceSliceLister)
}

type scheduling struct {
	schedulinggroup.Interface
	f *factory
}

// Scheduling implements informers.SharedInformerFactory.
func (f *factory) Scheduling() schedulinggroup.Interface { return scheduling{f: f} }

func (g scheduling) V1() schedulinginformers.Interface { return schedulingV1{f: g.f} }

type schedulingV1 struct {
	schedulinginformers.Interface
	f *factory
}

func (g schedulingV1) PriorityClasses() schedulinginformers.TypedPriorityClassInformer {
	return kindOf[schedulinginformers.PriorityClassIndexInformer](g.f, &schedulingapi.PriorityClass{}, schedulinglisters.NewPriorityClassLister)
}

type storage struct {
	storagegroup.Interface
	f *factory
}

// Storage implements informers.SharedInformerFactory.
func (f *factory) Storage() storagegroup.Interface { return storage{f: f} }

func (g storage) V1() storageinformers.Interface { return storageV1{f: g.f} }

type storageV1 struct {
	storageinformers.Interface
	f *factory
}

func (g storageV1) CSIDrivers() storageinformers.TypedCSIDriverInformer {
	return kindOf[storageinformers.CSIDriverIndexInformer](g.f, &storageapi.CSIDriver{}, storagelisters.NewCSIDriverLister)
}
func (g storageV1) CSINodes() storageinformers.TypedCSINodeInformer {
	return kindOf[storageinformers.CSINodeIndexInformer](g.f, &storageapi.CSINode{}, storagelisters.NewCSINodeLister)
}
func (g storageV1) CSIStorageCapacities() storageinformers.TypedCSIStorageCapacityInformer {
	return kindOf[storageinformers.CSIStorageCapacityIndexInformer](g.f, &storageapi.CSIStorageCapacity{}, storagelisters.NewCSIStorageCapacityLister)
}
func (g storageV1) StorageClasses() storageinformers.TypedStorageClassInformer {
	return kindOf[storageinformers.StorageClassIndexInformer](g.f, &storageapi.StorageClass{}, storagelisters.NewStorageClassLister)
}
func (g storageV1) VolumeAttachments() storageinformers.TypedVolumeAttachmentInformer {
	return kindOf[storageinformers.VolumeAttachmentIndexInformer](g.f, &storageapi.VolumeAttachment{}, storagelisters.NewVolumeAttachmentLister)
}
func (g storageV1) VolumeAttributesClasses() storageinformers.TypedVolumeAttributesClassInformer {
	return kindOf[storageinformers.VolumeAttributesClassIndexInformer](g.f, &storageapi.VolumeAttributesClass{}, storagelisters.NewVolumeAttributesClassLister)
}
