package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// peer is Debian's containerd, with runc and crun, on a root and socket of its own.
type peer struct {
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}
	socket string
}

// containerdConfig: overlayfs, two runtimes, no CNI configuration of the host's.
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
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun.options]
      BinaryName = "crun"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
`

// cniConfig: a bridge with host-local addresses, as a small cluster would have.
const cniConfig = `{"cniVersion": "0.4.0", "name": "bench", "plugins": [
  {"type": "bridge", "bridge": "kbench0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "%s/ipam", "ranges": [[{"subnet": "10.127.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

// startPeer starts containerd; an error says what the machine lacks. Its sandboxes are made from the image pause.
func startPeer(ctx context.Context, pause string) (*peer, error) {
	binary, err := exec.LookPath("containerd")
	if err != nil {
		return nil, errors.New("no containerd on this machine: apt-get install containerd runc crun containernetworking-plugins")
	}
	dir, err := os.MkdirTemp("", "keelson-bench-peer-")
	if err != nil {
		return nil, err
	}
	p := &peer{dir: dir, socket: filepath.Join(dir, "containerd.sock"), ended: make(chan struct{})}
	config := filepath.Join(dir, "config.toml")
	err = errors.Join(os.MkdirAll(filepath.Join(dir, "cni"), 0o700),
		os.WriteFile(config, fmt.Appendf(nil, containerdConfig, dir, pause), 0o600),
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
	if err := waitRuntime(ctx, p.socket, p.ended); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, errors.Join(fmt.Errorf("containerd: %w\n%s", err, text[max(0, len(text)-2000):]), p.stop())
	}
	return p, nil
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
