package observe

import (
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func instant(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// sandbox turns a CRI sandbox status into a value.
func sandbox(s *runtimeapi.PodSandboxStatus) Sandbox {
	out := Sandbox{
		ID:        s.GetId(),
		Attempt:   s.GetMetadata().GetAttempt(),
		Ready:     s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt: instant(s.GetCreatedAt()),
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		out.IPs = append(out.IPs, ip)
		for _, more := range s.GetNetwork().GetAdditionalIps() {
			out.IPs = append(out.IPs, more.GetIp())
		}
	}
	return out
}

func state(s runtimeapi.ContainerState) State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

// container turns a CRI container status into a value. sandboxID comes from the list, which is the only place that
// says it.
func container(s *runtimeapi.ContainerStatus, sandboxID string) Container {
	lin := s.GetResources().GetLinux()
	id := s.GetImageId()
	if id == "" || s.GetImageRef() != "" {
		id = s.GetImageRef()
	}
	image := s.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = s.GetImage().GetImage()
	}
	out := Container{
		ID: s.GetId(), SandboxID: sandboxID,
		Name: s.GetLabels()[LabelContainerName], Attempt: s.GetMetadata().GetAttempt(),
		State:     state(s.GetState()),
		CreatedAt: instant(s.GetCreatedAt()), StartedAt: instant(s.GetStartedAt()), FinishedAt: instant(s.GetFinishedAt()),
		ExitCode: s.GetExitCode(), Reason: s.GetReason(), Message: s.GetMessage(),
		Image: image, ImageID: id,
		Hash: s.GetAnnotations()[AnnotationHash], Details: Details{LogPath: s.GetLogPath()},
		CPUShares: lin.GetCpuShares(), CPUQuota: lin.GetCpuQuota(), CPUPeriod: lin.GetCpuPeriod(),
		MemoryLimit: lin.GetMemoryLimitInBytes(),
	}
	if u := s.GetUser().GetLinux(); u != nil {
		out.User = &User{UID: u.GetUid(), GID: u.GetGid(), Groups: u.GetSupplementalGroups()}
	}
	if n, err := strconv.ParseUint(s.GetAnnotations()[AnnotationRound], 10, 32); err == nil {
		out.Round = uint32(n)
	}
	for _, m := range s.GetMounts() {
		if m.GetRecursiveReadOnly() {
			out.Recursive = append(out.Recursive, m.GetContainerPath())
		}
	}
	return out
}
