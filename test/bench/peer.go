package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// peer is Debian's containerd with runc, on a root and socket of its own.
type peer struct {
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}
	name   string
	socket string
}

// containerdConfig: overlayfs, runc, no CNI configuration of the host's.
const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
`

// cniConfig: a bridge with host-local addresses, as a small cluster would have.
const cniConfig = `{"cniVersion": "0.4.0", "name": "bench", "plugins": [
  {"type": "bridge", "bridge": "kbench0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "%s/ipam", "ranges": [[{"subnet": "10.127.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

// startPeer starts containerd and imports the archive; an error says what the machine lacks.
func startPeer(ctx context.Context, archive string) (*peer, error) {
	binary, err := exec.LookPath("containerd")
	if err != nil {
		return nil, errors.New("no containerd on this machine: apt-get install containerd runc containernetworking-plugins")
	}
	dir, err := os.MkdirTemp("", "keelson-bench-peer-")
	if err != nil {
		return nil, err
	}
	p := &peer{dir: dir, socket: filepath.Join(dir, "containerd.sock"), ended: make(chan struct{})}
	config := filepath.Join(dir, "config.toml")
	err = errors.Join(os.MkdirAll(filepath.Join(dir, "cni"), 0o700),
		os.WriteFile(config, fmt.Appendf(nil, containerdConfig, dir, pauseImage), 0o600),
		os.WriteFile(filepath.Join(dir, "cni", "10-bench.conflist"), fmt.Appendf(nil, cniConfig, dir), 0o600))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(binary, "--config", config)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with containerd, which stop ends
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	if err := p.prepare(ctx, archive); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):]), p.stop())
	}
	return p, nil
}

func (p *peer) prepare(ctx context.Context, archive string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, "ctr", "--address", p.socket, "--namespace", "k8s.io", "images", "import", archive).CombinedOutput()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("import into containerd: %w: %s", err, out)
		case <-p.ended:
			return errors.New("containerd ended")
		case <-time.After(100 * time.Millisecond): // its socket is not there yet
		}
	}
	containerd, err := exec.CommandContext(ctx, "containerd", "--version").Output()
	if err != nil {
		return err
	}
	runc, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if err != nil {
		return err
	}
	p.name = "containerd " + word(containerd, 2) + " + runc " + word(runc, 2)
	return nil
}

func word(text []byte, n int) string {
	if fields := strings.Fields(string(text)); len(fields) > n {
		return fields[n]
	}
	return "?"
}

// stop ends containerd and removes what it left.
func (p *peer) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
	_ = exec.Command("ip", "link", "delete", "kbench0").Run() // not there if no pod ran
	return os.RemoveAll(p.dir)
}

// owns: containerd and its shims.
func (p *peer) owns(pid int, exe string) bool {
	if pid == p.cmd.Process.Pid {
		return true
	}
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Contains(exe, "containerd-shim") && strings.Contains(string(data), p.socket)
}
