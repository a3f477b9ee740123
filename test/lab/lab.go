package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// HelloImage is the first pod's image, which every server brings along.
const HelloImage = "keelson.dev/hello:v1"

// StartLimit is how long a server may take to become ready before a test gives up on it.
const StartLimit = 2 * time.Minute

// Cluster is one instance. Start it with Start; end it with Remove.
type Cluster struct {
	Dir        string // everything of the instance is below
	Kubeconfig string
	CRISocket  string
	NodeIP     string
	NodeName   string
	Port       int
	Bridge     string       // pods' links begin with its name
	PodCIDR    string       // of the node
	Outside    netip.Prefix // a network for machines beside the node, of this instance alone; its addresses from .16 on are for load balancers

	claim  io.Closer // of the instance's number
	health int       // the kubelet's health port
	binary string
	verb   string // server or cri
	flags  []string
	before []string
	log    string
	mu     sync.Mutex
	server *exec.Cmd
	ended  chan struct{}
}

// Options of Start; the zero value is a fresh server in a directory of its own.
type Options struct {
	// Dir to use; empty: a fresh one under the system's temporary directory.
	Dir string
	// Runtime starts `keelson cri`, the runtime alone, instead of a server.
	Runtime bool
	// Flags are added to the command.
	Flags []string
	// Before is a command that the server is started with, and its arguments: prlimit, unshare. It must become the server by exec.
	Before []string
	// Balancer gives Services of type LoadBalancer addresses of Outside.
	Balancer bool
	// DualStack gives Services addresses of both families; those of IPv6 are known to the API alone.
	DualStack bool
}

// Binary is the built keelson: bin/keelson above this folder, or $KEELSON.
func Binary() (string, error) {
	if path := os.Getenv("KEELSON"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "keelson")
		if _, statErr := os.Stat(path); statErr == nil {
			return path, nil
		}
	}
	return "", errors.New("no bin/keelson: run `make build` first")
}

// New prepares an instance without starting it: folders, free ports, ranges.
func New(o Options) (*Cluster, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "keelson-lab-"); err != nil {
			return nil, err
		}
		if err := os.Chmod(o.Dir, 0o711); err != nil { // as /var/lib is: root of a user namespace must find its way to its files
			return nil, err
		}
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	n, claim := claimNumber(ports[0])
	ip, err := nodeIP()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: o.Dir, claim: claim, health: ports[2], binary: binary, before: o.Before, NodeIP: ip, NodeName: "lab", Port: ports[0], Outside: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n), 0}), 24),
		Kubeconfig: filepath.Join(o.Dir, "etc", "keelson.yaml"), CRISocket: filepath.Join(o.Dir, "run", "cri.sock"),
		log: filepath.Join(o.Dir, "server.log")}
	c.Bridge, c.PodCIDR = fmt.Sprintf("klab%d", n), fmt.Sprintf("10.%d.0.0/24", 128+n)
	c.verb, c.flags = "cri", append(c.placeFlags(), "--nri-socket", c.NRISocket(), "--nri-plugin-dir", filepath.Join(c.Dir, "nri"),
		"--bridge", c.Bridge, "--pod-cidr", c.PodCIDR, "--cluster-cidr", fmt.Sprintf("10.%d.0.0/16", 128+n),
		"--cgroup-root", fmt.Sprintf("/keelson-lab-%d", ports[0]))
	if !o.Runtime {
		services := fmt.Sprintf("10.%d.0.0/16", 16+n)
		if o.DualStack {
			services += ",fd00:43::/112"
		}
		c.verb, c.flags = "server", append(c.flags, "--node-name", c.NodeName, "--node-ip", ip, "--service-cidr", services,
			"--https-port", strconv.Itoa(ports[0]), "--kubelet-port", strconv.Itoa(ports[1]), "--healthz-port", strconv.Itoa(ports[2]),
			"--proxy-healthz-port", strconv.Itoa(ports[3]), "--proxy-metrics-port", strconv.Itoa(ports[4]))
	}
	if o.Balancer {
		c.flags = append(c.flags, "--load-balancer-range", fmt.Sprintf("198.18.%d.16/28", n))
	}
	c.flags = append(c.flags, o.Flags...)
	return c, os.MkdirAll(c.CertsDir(), 0o755)
}

// CertsDir is where hosts.toml files of the instance's registries go.
func (c *Cluster) CertsDir() string { return filepath.Join(c.Dir, "etc", "certs.d") }

// NRISocket is where the instance's node plugins connect.
func (c *Cluster) NRISocket() string { return filepath.Join(c.Dir, "run", "nri.sock") }

// PodLogs is the instance's /var/log/pods.
func (c *Cluster) PodLogs() string { return filepath.Join(c.Dir, "logs") }

// Manifests is the instance's folder of static pods.
func (c *Cluster) Manifests() string { return filepath.Join(c.Dir, "etc", "manifests") }

func (c *Cluster) placeFlags() []string {
	return []string{"--data-dir", filepath.Join(c.Dir, "data"), "--run-dir", filepath.Join(c.Dir, "run"), "--config-dir", filepath.Join(c.Dir, "etc"),
		"--kubelet-dir", filepath.Join(c.Dir, "kubelet"), "--pod-logs-dir", c.PodLogs(), "--kubeconfig", c.Kubeconfig}
}

// Start starts the server and returns at once; see WaitReady.
func (c *Cluster) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	line := slices.Concat(c.before, []string{c.binary, c.verb}, c.flags)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	c.server, c.ended = cmd, ended
	go func() { // ends with the server, which Kill or Remove ends
		_ = cmd.Wait()
		close(ended)
	}()
	return nil
}

// WaitReady waits until the node is Ready, or says what the server's log says.
func (c *Cluster) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	for {
		out, _, err := c.Kubectl(ctx, "wait", "--for=condition=Ready", "node/"+c.NodeName, "--timeout=30s")
		// After a restart the API says Ready of the kubelet that was: ask the one that is.
		if err == nil && strings.Contains(out, "condition met") && c.healthy(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node did not become ready: %w\n%s", ctx.Err(), c.Log())
		case <-c.ended:
			return fmt.Errorf("the server ended:\n%s", c.Log())
		case <-time.After(20 * time.Millisecond): // the kubeconfig or the node is not there yet: nothing to wait on
		}
	}
}

// WaitRuntime waits until the runtime takes calls, or says what its log says.
func (c *Cluster) WaitRuntime(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	for {
		if conn, err := net.Dial("unix", c.CRISocket); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the runtime did not start: %w\n%s", ctx.Err(), c.Log())
		case <-c.ended:
			return fmt.Errorf("the runtime ended:\n%s", c.Log())
		case <-time.After(20 * time.Millisecond): // the socket's folder is not there yet: nothing to wait on
		}
	}
}

// healthy asks the kubelet itself.
func (c *Cluster) healthy(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/healthz", c.health), nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Pid of the server.
func (c *Cluster) Pid() int { return c.server.Process.Pid }

// Kill ends the server with SIGKILL, if it was started, and waits for its end. Pods go on.
func (c *Cluster) Kill() error {
	if c.server == nil {
		return nil
	}
	if err := c.server.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.ended
	return nil
}

// Use has later starts run another build of keelson.
func (c *Cluster) Use(binary string) { c.binary = binary }

// Stop ends the server as an administrator does. Pods go on.
func (c *Cluster) Stop() error {
	if err := c.server.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-time.After(StartLimit):
		return errors.Join(errors.New("the server did not stop on SIGTERM"), c.Kill())
	}
}

// Keeper returns the pid of the instance's keeper: it runs from a sealed copy of its program, and its folder is its argument.
func (c *Cluster) Keeper() (int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range procs {
		args, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(args, []byte("keelson-keeper\x00--dir\x00"+filepath.Join(c.Dir, "run")+"/")) {
			return strconv.Atoi(strings.Split(path, "/")[2])
		}
	}
	return 0, errors.New("no keeper of this instance runs")
}

// Run runs keelson with the instance's places.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.binary, append(args, c.placeFlags()...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Kubectl runs keelson's kubectl against the instance.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	return c.KubectlIn(ctx, nil, args...)
}

// KubectlIn runs kubectl with a standard input.
func (c *Cluster) KubectlIn(ctx context.Context, in io.Reader, args ...string) (stdout, stderr string, err error) {
	cmd := c.KubectlCommand(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// KubectlCommand returns a kubectl that is not started yet.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binary, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "HOME="+c.Dir)
	return cmd
}

// Log returns the end of the server's log.
func (c *Cluster) Log() string {
	data, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	const most = 16 << 10
	return string(data[max(0, len(data)-most):])
}

// Remove uninstalls the instance and deletes its directory.
func (c *Cluster) Remove(ctx context.Context) error {
	out, err := c.Run(ctx, "uninstall", "--yes")
	if err != nil {
		return fmt.Errorf("uninstall: %w\n%s", err, out)
	}
	if c.server != nil {
		<-c.ended
	}
	c.claim.Close()
	return os.RemoveAll(c.Dir)
}

// claimNumber finds a number between 1 and 99 that no instance of the lab has, of this process or another: instances of one
// number would share a bridge and a range. A socket of that name is the claim, since its bridge comes only later; a
// bridge that is there is of an instance that outlives its test.
func claimNumber(from int) (int, io.Closer) {
	for n := from%99 + 1; ; n = n%99 + 1 {
		claim, err := net.Listen("unix", fmt.Sprintf("@keelson-lab-%d", n))
		if err != nil {
			continue
		}
		if _, err := net.InterfaceByName(fmt.Sprintf("klab%d", n)); err != nil {
			return n, claim
		}
		claim.Close()
	}
}

// freePorts finds ports that nobody listens on. They are below those that the kernel gives to connections (from 32768 on) and to
// node ports: one of those may be somebody's before the server takes it, or while it is started again.
func freePorts(n int) ([]int, error) {
	const first, count = 10000, 20000
	var out []int
	for range 100 * n {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", first+rand.IntN(count)))
		if err != nil {
			continue
		}
		defer l.Close() // all are held until the last is found, so that they differ
		if out = append(out, l.Addr().(*net.TCPAddr).Port); len(out) == n {
			return out, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, first, first+count)
}

// nodeIP is an address of this machine that is not loopback if there is one.
func nodeIP() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "127.0.0.1", nil
}
