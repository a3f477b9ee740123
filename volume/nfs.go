package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/volume/mount"
)

const (
	// nfsPatience is how long a pod's turn waits for a server at a time.
	nfsPatience = 10 * time.Second
	// nfsLimit is how long one try may last: mount.nfs gives up by itself after two minutes.
	nfsLimit = 3 * time.Minute
)

// nfs is a directory of an NFS server, mounted for each pod by the node's own mount.nfs. Whatever may wait for the server is done by other
// programs: a thread of ours that the kernel holds up could not be ended.
type nfs struct {
	mu    sync.Mutex
	tries map[string]*nfsTry // by folder; guarded by mu
}

// nfsTry is a mount that has not come back.
type nfsTry struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once err is there
	err    error
}

func (*nfs) Name() string                 { return "kubernetes.io~nfs" }
func (*nfs) Serves(v *corev1.Volume) bool { return v.NFS != nil }

// ServesPersistent implements PersistentPlugin.
func (*nfs) ServesPersistent(pv *corev1.PersistentVolume) bool { return pv.Spec.NFS != nil }

// MountsWithOptions implements Optioned.
func (*nfs) MountsWithOptions() {}

// Measure implements Measured.
func (*nfs) Measure(ctx context.Context, _ Request, m Mounted) (Usage, error) {
	return mount.Patient(ctx, m.HostPath, func() (Usage, error) { return filesystem(m.HostPath) }, nil)
}

// Mount does not give the volume to the pod's fsGroup: who owns what is the server's affair, as upstream.
func (n *nfs) Mount(ctx context.Context, r Request) (Mounted, error) {
	there, err := mount.Listed(r.Dir)
	if err == nil && !there {
		if err = os.MkdirAll(r.Dir, 0o750); err == nil {
			err = n.try(ctx, r.Dir, nfsArguments(r))
		}
	}
	if err == nil {
		_, err = mount.Patient(ctx, r.Dir, func() (os.FileInfo, error) { return os.Stat(r.Dir) }, nil)
	}
	return Mounted{HostPath: r.Dir}, err
}

// nfsArguments are mount's for a volume.
func nfsArguments(r Request) []string {
	source, options := r.Volume.NFS, []string(nil)
	if r.Persistent != nil {
		source, options = r.Persistent.Spec.NFS, r.Persistent.Spec.MountOptions
	}
	if source.ReadOnly || r.ReadOnly {
		options = append([]string{"ro"}, options...)
	}
	server := source.Server
	if strings.Contains(server, ":") && !strings.HasPrefix(server, "[") {
		server = "[" + server + "]"
	}
	args := []string{"-t", "nfs"}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	return append(args, server+":"+source.Path, r.Dir)
}

// try mounts, or waits for the try that is under way, for a while.
func (n *nfs) try(ctx context.Context, dir string, args []string) error {
	n.mu.Lock()
	t := n.tries[dir]
	if t == nil {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), nfsLimit)
		t = &nfsTry{cancel: cancel, done: make(chan struct{})}
		if n.tries == nil {
			n.tries = map[string]*nfsTry{}
		}
		n.tries[dir] = t
		go func() { // ends with the program, which long bounds
			defer cancel()
			t.err = program(long, "mount", args...)
			n.mu.Lock()
			delete(n.tries, dir)
			n.mu.Unlock()
			close(t.done)
		}()
	}
	n.mu.Unlock()
	limit := time.NewTimer(nfsPatience)
	defer limit.Stop()
	select {
	case <-t.done:
		return t.err
	case <-limit.C:
		return fmt.Errorf("%s is not mounted yet: its server does not answer; still trying", args[len(args)-2])
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// program runs mount or umount, and ends it with what it started when ctx ends. The words of the error are upstream's.
func program(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	hint := ""
	if _, none := exec.LookPath("mount.nfs"); none != nil {
		if _, none := os.Stat("/sbin/mount.nfs"); none != nil {
			hint = "\nThis node has no mount.nfs: install nfs-common (Debian, Ubuntu) or nfs-utils (others)"
		}
	}
	return fmt.Errorf("%s failed: %w\nMounting command: %s\nMounting arguments: %s\nOutput: %s%s", name, err, name, strings.Join(args, " "), strings.TrimSpace(out.String()), hint)
}

// Unmount lets the server have what was written, for a while; then the mount goes all the same, and what waits for the server is ended.
func (n *nfs) Unmount(ctx context.Context, _ types.UID, _, dir string) error {
	n.mu.Lock()
	t := n.tries[dir]
	n.mu.Unlock()
	if t != nil {
		t.cancel()
		select {
		case <-t.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var errs []error
	for _, how := range [][]string{{"-c", "-i", dir}, {"-l", "-c", "-i", dir}, {"-l", dir}} {
		there, err := mount.Listed(dir)
		if !there || err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, nfsPatience)
		errs = append(errs, program(short, "umount", how...))
		cancel()
	}
	if there, err := mount.Listed(dir); !there || err != nil {
		return err
	}
	return errors.Join(errs...)
}
