package observe

// Labels and annotations on sandboxes and containers, as every tool that reads a runtime knows them.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	AnnotationHash         = "io.kubernetes.container.hash"
	AnnotationRestartCount = "io.kubernetes.container.restartCount"
	AnnotationTermPath     = "io.kubernetes.container.terminationMessagePath"
	AnnotationTermPolicy   = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPorts        = "io.kubernetes.container.ports"
	AnnotationGrace        = "io.kubernetes.pod.terminationGracePeriod"

	// AnnotationRound is ours alone.
	AnnotationRound = "keelson.dev/round"
)
