package cri

import "keelson.dev/keelson/runtime/failpoint"

// The places where a request has written a record and not its effect, or the
// other way round: a test ends the
// program at each (test/crash).
var (
	atPodReserved        = failpoint.New("cri.pod.reserved")
	atPodNetworked       = failpoint.New("cri.pod.networked")
	atPodBoxed           = failpoint.New("cri.pod.boxed")
	atPodFiled           = failpoint.New("cri.pod.filed")
	atPodCommitted       = failpoint.New("cri.pod.committed")
	atPodStopping        = failpoint.New("cri.pod.stopping")
	atPodKilled          = failpoint.New("cri.pod.killed")
	atPodUnwired         = failpoint.New("cri.pod.unwired")
	atPodUnboxed         = failpoint.New("cri.pod.unboxed")
	atPodEmptied         = failpoint.New("cri.pod.emptied")
	atPodUnfiled         = failpoint.New("cri.pod.unfiled")
	atContainerReserved  = failpoint.New("cri.container.reserved")
	atContainerMounted   = failpoint.New("cri.container.mounted")
	atContainerMade      = failpoint.New("cri.container.made")
	atContainerCommitted = failpoint.New("cri.container.committed")
	atContainerStarted   = failpoint.New("cri.container.started")
	atContainerUpdated   = failpoint.New("cri.container.updated")
	atContainerKilled    = failpoint.New("cri.container.killed")
	atContainerRemoved   = failpoint.New("cri.container.removed")
	atContainerUnmounted = failpoint.New("cri.container.unmounted")
)
