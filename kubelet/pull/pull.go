package pull

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/kubelet/criclient"
)

// Config of a Puller.
type Config struct {
	// Parallel is how many pulls may go on at once; 1 pulls one after the other, 0 means no limit.
	Parallel int
	// Timeout ends a pull that takes longer. Progress is the runtime's to watch; this is the last resort.
	// Default 1 hour.
	Timeout time.Duration
	// Ledger is the directory in which is kept by which credentials images came; "" lets every pod use every image.
	Ledger string
}

// Secrets reads pull secrets.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Events tells of pulls, on one container of a pod.
type Events interface {
	ContainerEvent(pod *corev1.Pod, container, kind, reason, format string, args ...any)
}

// Puller brings images.
type Puller struct {
	cfg     Config
	cri     *criclient.Client
	secrets Secrets
	events  Events
	slots   chan struct{} // nil without limit
	ledger  ledger
}

// Failure is why an image is not there, as the container's waiting state shows it.
type Failure struct {
	Reason string // ErrImagePull, InvalidImageName, ErrImageNeverPull, ImageInspectError, RegistryUnavailable, ...
	Err    error
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Message() }

// Message is the text without the reason.
func (f *Failure) Message() string { return criclient.Message(f.Err) }

func (f *Failure) Unwrap() error { return f.Err }

// New makes a Puller.
func New(cfg Config, cri *criclient.Client, secrets Secrets, events Events) *Puller {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Hour
	}
	p := &Puller{cfg: cfg, cri: cri, secrets: secrets, events: events, ledger: ledger{cfg.Ledger}}
	if cfg.Parallel > 0 {
		p.slots = make(chan struct{}, cfg.Parallel)
	}
	return p
}

// Normalize checks an image reference and gives one without tag or digest the tag latest.
func Normalize(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		return image + ":latest", nil
	}
	return image, nil
}

// Policy is the pull policy in force: as written, or Always for the tag latest and IfNotPresent for all others.
func Policy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	named, err := reference.ParseNormalizedNamed(c.Image)
	if err != nil {
		return corev1.PullIfNotPresent
	}
	tagged, is := reference.TagNameOnly(named).(reference.Tagged)
	if is && tagged.Tag() == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// Ensure returns the runtime's reference of the container's image, pulling it if the policy says so. The error is
// a *Failure, or the context's.
func (p *Puller) Ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, box *runtimeapi.PodSandboxConfig) (string, error) {
	image, err := Normalize(c.Image)
	if err != nil {
		f := &Failure{"InvalidImageName", fmt.Errorf("Failed to apply default image tag %q: %w", c.Image, err)}
		p.failed(pod, c, "InspectFailed", f.Message())
		p.failed(pod, c, "Failed", "Error: "+f.Reason)
		return "", f
	}
	spec := &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: c.Image, Annotations: box.GetAnnotations()}
	ref, err := p.present(ctx, spec)
	if err != nil {
		f := &Failure{"ImageInspectError", fmt.Errorf("Failed to inspect image %q: %w", image, err)}
		p.failed(pod, c, "InspectFailed", f.Message())
		return "", f
	}
	mine := ref != "" && p.ledger.allows(ref, p.credentials(ctx, pod, image))
	switch policy := Policy(c); {
	case mine && policy != corev1.PullAlways:
		p.events.ContainerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulled",
			"Container image %q already present on machine and can be accessed by the pod", c.Image)
		return ref, nil
	case policy == corev1.PullNever:
		f := &Failure{"ErrImageNeverPull", fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image)}
		p.failed(pod, c, "ErrImageNeverPull", f.Message())
		p.failed(pod, c, "Failed", "Error: "+f.Reason)
		return "", f
	}
	return p.pull(ctx, pod, c, spec, box)
}

// BackingOff tells, once per failure, that a pull waits for its next try.
func (p *Puller) BackingOff(pod *corev1.Pod, c *corev1.Container) {
	p.events.ContainerEvent(pod, c.Name, corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.Image)
	p.failed(pod, c, "Failed", "Error: ImagePullBackOff")
}

func (p *Puller) failed(pod *corev1.Pod, c *corev1.Container, reason, message string) {
	p.events.ContainerEvent(pod, c.Name, corev1.EventTypeWarning, reason, "%s", message)
}

// present returns the reference of an image that is on the node, "" for one that is not.
func (p *Puller) present(ctx context.Context, spec *runtimeapi.ImageSpec) (string, error) {
	s, err := p.cri.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return "", err
	}
	return s.GetImage().GetId(), nil
}

func (p *Puller) pull(ctx context.Context, pod *corev1.Pod, c *corev1.Container, spec *runtimeapi.ImageSpec, box *runtimeapi.PodSandboxConfig) (string, error) {
	asked := time.Now()
	if p.slots != nil {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	p.events.ContainerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulling", "Pulling image %q", c.Image)
	begin := time.Now()
	img, err := p.tryAll(ctx, pod, spec, box)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		f := &Failure{reason(err), err}
		p.failed(pod, c, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, criclient.Message(err)))
		p.failed(pod, c, "Failed", "Error: "+f.Reason)
		return "", f
	}
	p.events.ContainerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulled",
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", c.Image,
		time.Since(begin).Truncate(time.Millisecond), time.Since(asked).Truncate(time.Millisecond), img.GetSize())
	return img.GetId(), nil
}

// keep looks the pulled image up under its ID, the name that later asks find it by, and records how it came. Without a
// record it would be everybody's, so a pull that leaves none has failed.
func (p *Puller) keep(ctx context.Context, ref string, auth *runtimeapi.AuthConfig) (*runtimeapi.Image, error) {
	s, err := p.cri.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return nil, err
	}
	if s.GetImage() == nil {
		return nil, fmt.Errorf("image %s is not there after its pull", ref)
	}
	return s.GetImage(), p.ledger.record(s.GetImage().GetId(), auth)
}

// tryAll pulls with each credential that fits the registry, and without any if none does.
func (p *Puller) tryAll(ctx context.Context, pod *corev1.Pod, spec *runtimeapi.ImageSpec, box *runtimeapi.PodSandboxConfig) (*runtimeapi.Image, error) {
	creds := p.credentials(ctx, pod, spec.GetImage())
	if len(creds) == 0 {
		creds = []*runtimeapi.AuthConfig{nil}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	var errs []error
	for _, auth := range creds {
		res, err := p.cri.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: box})
		if err == nil {
			return p.keep(ctx, res.GetImageRef(), auth)
		}
		errs = append(errs, errors.New(criclient.Message(err)))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// reason maps the errors that CRI gives a name of its own (cri-api/pkg/errors) to it.
func reason(err error) string {
	for _, known := range []string{"RegistryUnavailable", "SignatureValidationFailed"} {
		if strings.HasPrefix(criclient.Message(err), known) {
			return known
		}
	}
	return "ErrImagePull"
}
