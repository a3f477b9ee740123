package informer

import (
	appsapi "k8s.io/api/apps/v1"
	batchapi "k8s.io/api/batch/v1"
	coreapi "k8s.io/api/core/v1"
	discoveryapi "k8s.io/api/discovery/v1"
	appsgroup "k8s.io/client-go/informers/apps"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	batchgroup "k8s.io/client-go/informers/batch"
	batchinformers "k8s.io/client-go/informers/batch/v1"
	coregroup "k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoverygroup "k8s.io/client-go/informers/discovery"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	appslisters "k8s.io/client-go/listers/apps/v1"
	batchlisters "k8s.io/client-go/listers/batch/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

type apps struct {
	appsgroup.Interface
	f *factory
}

// Apps implements informers.SharedInformerFactory.
func (f *factory) Apps() appsgroup.Interface { return apps{f: f} }

func (g apps) V1() appsinformers.Interface { return appsV1{f: g.f} }

type appsV1 struct {
	appsinformers.Interface
	f *factory
}

func (g appsV1) ControllerRevisions() appsinformers.TypedControllerRevisionInformer {
	return kindOf[appsinformers.ControllerRevisionIndexInformer](g.f, &appsapi.ControllerRevision{}, appslisters.NewControllerRevisionLister)
}
func (g appsV1) DaemonSets() appsinformers.TypedDaemonSetInformer {
	return kindOf[appsinformers.DaemonSetIndexInformer](g.f, &appsapi.DaemonSet{}, appslisters.NewDaemonSetLister)
}
func (g appsV1) Deployments() appsinformers.TypedDeploymentInformer {
	return kindOf[appsinformers.DeploymentIndexInformer](g.f, &appsapi.Deployment{}, appslisters.NewDeploymentLister)
}
func (g appsV1) ReplicaSets() appsinformers.TypedReplicaSetInformer {
	return kindOf[appsinformers.ReplicaSetIndexInformer](g.f, &appsapi.ReplicaSet{}, appslisters.NewReplicaSetLister)
}
func (g appsV1) StatefulSets() appsinformers.TypedStatefulSetInformer {
	return kindOf[appsinformers.StatefulSetIndexInformer](g.f, &appsapi.StatefulSet{}, appslisters.NewStatefulSetLister)
}

type batch struct {
	batchgroup.Interface
	f *factory
}

// Batch implements informers.SharedInformerFactory.
func (f *factory) Batch() batchgroup.Interface { return batch{f: f} }

func (g batch) V1() batchinformers.Interface { return batchV1{f: g.f} }

type batchV1 struct {
	batchinformers.Interface
	f *factory
}

func (g batchV1) CronJobs() batchinformers.TypedCronJobInformer {
	return kindOf[batchinformers.CronJobIndexInformer](g.f, &batchapi.CronJob{}, batchlisters.NewCronJobLister)
}
func (g batchV1) Jobs() batchinformers.TypedJobInformer {
	return kindOf[batchinformers.JobIndexInformer](g.f, &batchapi.Job{}, batchlisters.NewJobLister)
}

type core struct {
	coregroup.Interface
	f *factory
}

// Core implements informers.SharedInformerFactory.
func (f *factory) Core() coregroup.Interface { return core{f: f} }

func (g core) V1() coreinformers.Interface { return coreV1{f: g.f} }

type coreV1 struct {
	coreinformers.Interface
	f *factory
}

func (g coreV1) ConfigMaps() coreinformers.TypedConfigMapInformer {
	return kindOf[coreinformers.ConfigMapIndexInformer](g.f, &coreapi.ConfigMap{}, corelisters.NewConfigMapLister)
}
func (g coreV1) Endpoints() coreinformers.TypedEndpointsInformer {
	return kindOf[coreinformers.EndpointsIndexInformer](g.f, &coreapi.Endpoints{}, corelisters.NewEndpointsLister)
}
func (g coreV1) LimitRanges() coreinformers.TypedLimitRangeInformer {
	return kindOf[coreinformers.LimitRangeIndexInformer](g.f, &coreapi.LimitRange{}, corelisters.NewLimitRangeLister)
}
func (g coreV1) Namespaces() coreinformers.TypedNamespaceInformer {
	return kindOf[coreinformers.NamespaceIndexInformer](g.f, &coreapi.Namespace{}, corelisters.NewNamespaceLister)
}
func (g coreV1) Nodes() coreinformers.TypedNodeInformer {
	return kindOf[coreinformers.NodeIndexInformer](g.f, &coreapi.Node{}, corelisters.NewNodeLister)
}
func (g coreV1) PersistentVolumes() coreinformers.TypedPersistentVolumeInformer {
	return kindOf[coreinformers.PersistentVolumeIndexInformer](g.f, &coreapi.PersistentVolume{}, corelisters.NewPersistentVolumeLister)
}
func (g coreV1) PersistentVolumeClaims() coreinformers.TypedPersistentVolumeClaimInformer {
	return kindOf[coreinformers.PersistentVolumeClaimIndexInformer](g.f, &coreapi.PersistentVolumeClaim{}, corelisters.NewPersistentVolumeClaimLister)
}
func (g coreV1) Pods() coreinformers.TypedPodInformer {
	return kindOf[coreinformers.PodIndexInformer](g.f, &coreapi.Pod{}, corelisters.NewPodLister)
}
func (g coreV1) PodTemplates() coreinformers.TypedPodTemplateInformer {
	return kindOf[coreinformers.PodTemplateIndexInformer](g.f, &coreapi.PodTemplate{}, corelisters.NewPodTemplateLister)
}
func (g coreV1) ReplicationControllers() coreinformers.TypedReplicationControllerInformer {
	return kindOf[coreinformers.ReplicationControllerIndexInformer](g.f, &coreapi.ReplicationController{}, corelisters.NewReplicationControllerLister)
}
func (g coreV1) ResourceQuotas() coreinformers.TypedResourceQuotaInformer {
	return kindOf[coreinformers.ResourceQuotaIndexInformer](g.f, &coreapi.ResourceQuota{}, corelisters.NewResourceQuotaLister)
}
func (g coreV1) Secrets() coreinformers.TypedSecretInformer {
	return kindOf[coreinformers.SecretIndexInformer](g.f, &coreapi.Secret{}, corelisters.NewSecretLister)
}
func (g coreV1) Services() coreinformers.TypedServiceInformer {
	return kindOf[coreinformers.ServiceIndexInformer](g.f, &coreapi.Service{}, corelisters.NewServiceLister)
}
func (g coreV1) ServiceAccounts() coreinformers.TypedServiceAccountInformer {
	return kindOf[coreinformers.ServiceAccountIndexInformer](g.f, &coreapi.ServiceAccount{}, corelisters.NewServiceAccountLister)
}

type discovery struct {
	discoverygroup.Interface
	f *factory
}

// Discovery implements informers.SharedInformerFactory.
func (f *factory) Discovery() discoverygroup.Interface { return discovery{f: f} }

func (g discovery) V1() discoveryinformers.Interface { return discoveryV1{f: g.f} }

type discoveryV1 struct {
	discoveryinformers.Interface
	f *factory
}

func (g discoveryV1) EndpointSlices() discoveryinformers.TypedEndpointSliceInformer {
	return kindOf[discoveryinformers.EndpointSliceIndexInformer](g.f, &discoveryapi.EndpointSlice{}, discoverylisters.NewEndpointSliceLister)
}
