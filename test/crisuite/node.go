package crisuite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keelson.dev/keelson/cri"
	"keelson.dev/keelson/cri/nri"
	"keelson.dev/keelson/image"
	"keelson.dev/keelson/image/imagetest"
	"keelson.dev/keelson/network"
	"keelson.dev/keelson/network/netfilter"
	"keelson.dev/keelson/runtime/cgroup"
	"keelson.dev/keelson/runtime/container"
	"keelson.dev/keelson/runtime/keeper"
	"keelson.dev/keelson/runtime/sandbox"
)

// BusyboxImage is what a Node's registry serves and its store has pulled.
const BusyboxImage = "registry.test/busybox:1"

// Node is the real stack under a directory of its own.
type Node struct {
	Dir      string
	Socket   string
	Cgroup   string
	Bridge   string
	Registry *imagetest.Registry
	Log      *slog.Logger
	// Systemd selects the systemd cgroup driver.
	Systemd bool
	// Spares is the network's pool of attachments made in advance.
	Spares int

	url        string
	images     *image.Store
	containers *container.Manager
	sandboxes  *sandbox.Manager
	network    *network.Network
	server     *cri.Server
	stop       context.CancelFunc
	served     chan error
}

// Need skips the test with the reason if this machine cannot run containers.
func Need(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: containers are made with namespaces, mounts and cgroups")
	}
	for _, p := range []string{"/usr/bin/busybox", "/usr/sbin/iptables"} {
		if _, err := os.Stat(p); err != nil {
			tb.Skip("needs busybox-static and iptables: ", err)
		}
	}
}

// NewNode starts a node whose store has BusyboxImage. What it logs goes to log;
// change tailors it before the start.
func NewNode(tb testing.TB, log *slog.Logger, change ...func(*Node)) *Node {
	tb.Helper()
	Need(tb)
	dir, err := os.MkdirTemp("/tmp", "keelson-test-cri-")
	if err != nil {
		tb.Fatal(err)
	}
	// Container inits of any user must reach their things; TempDir is 0700.
	if err := os.Chmod(dir, 0o711); err != nil {
		tb.Fatal(err)
	}
	// The suffix is the pid in base 36: a bridge's name has nine bytes at most.
	n := &Node{
		Dir: dir, Socket: filepath.Join(dir, "cri.sock"), Cgroup: fmt.Sprintf("/keelson-test-cri-%d", os.Getpid()),
		Bridge: fmt.Sprintf("kt%x", os.Getpid()&0xffffff), Registry: imagetest.NewRegistry(), Log: log,
	}
	for _, f := range change {
		f(n)
	}
	srv := httptest.NewServer(n.Registry)
	tb.Cleanup(srv.Close)
	n.url = srv.URL
	if _, err := n.Registry.Add(BusyboxImage, imagetest.Must(imagetest.Busybox())); err != nil {
		tb.Fatal(err)
	}
	if err := imagetest.WriteHosts(filepath.Join(dir, "certs.d"), srv.URL, "registry.test"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { n.remove(tb) })
	if err := n.Start(Keeper(tb)); err != nil {
		tb.Fatal(err)
	}
	if _, err := n.images.Pull(tb.Context(), BusyboxImage, nil); err != nil {
		tb.Fatal(err)
	}
	return n
}

// Start opens every part and serves, as a daemon does; what an earlier Start
// left is taken over.
func (n *Node) Start(keeperPath string) (err error) {
	sub := func(p string) string { return filepath.Join(n.Dir, p) }
	if n.images, err = image.Open(image.Config{Root: sub("images"), CertsDirs: []string{sub("certs.d")}, Log: n.Log}); err != nil {
		return err
	}
	if n.containers, err = container.Open(container.ManagerConfig{StateDir: sub("ctr"), KeeperPath: keeperPath, Systemd: n.Systemd, Log: n.Log}); err != nil {
		return err
	}
	if n.sandboxes, err = sandbox.New(sandbox.ManagerConfig{StateDir: sub("box"), KeeperPath: keeperPath, Systemd: n.Systemd, Log: n.Log}); err != nil {
		return err
	}
	if n.network, err = n.openNetwork(); err != nil {
		return err
	}
	n.server, err = cri.New(cri.Config{RunDir: sub("cri"), Version: "1.37.2+test", CgroupParent: n.Cgroup, Systemd: n.Systemd, Handlers: []string{"keelson"}, CDIDirs: []string{sub("cdi")}, NRI: nri.Config{Socket: n.NRISocket(), Plugins: sub("plugins")}, Log: n.Log}, cri.Deps{
		Images: n.images, Rootfs: n.images, Containers: n.containers, Sandboxes: n.sandboxes, Network: n.network, ResolveUser: image.ResolveUser,
	})
	if err != nil {
		return err
	}
	ln, err := cri.Listen(n.Socket)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop, n.served = stop, make(chan error, 1)
	// Ends when Stop cancels ctx, and is waited for there.
	go func(served chan<- error, s *cri.Server, ln net.Listener) { served <- s.Serve(ctx, ln) }(n.served, n.server, ln)
	return nil
}

// NRISocket is where node plugins connect.
func (n *Node) NRISocket() string { return filepath.Join(n.Dir, "nri.sock") }

func (n *Node) openNetwork() (*network.Network, error) {
	// 100.64.0.0/10 is for carriers; the third byte keeps two runs apart.
	pods := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 127, byte(os.Getpid()), 0}), 24)
	return network.New(network.Config{
		Bridge: n.Bridge, PodCIDR: pods, StateDir: filepath.Join(n.Dir, "net-state"), RunDir: filepath.Join(n.Dir, "net"), Spares: n.Spares,
		Filter: netfilter.NewIPTables(netfilter.Config{Prefix: fmt.Sprintf("K%06X", os.Getpid()&0xffffff)}), Log: n.Log,
	})
}

// Stop ends the daemon's part in good order; pods go on.
func (n *Node) Stop() error {
	var errs []error
	if n.stop != nil {
		n.stop()
		errs = append(errs, <-n.served)
		n.stop = nil
	}
	if n.server != nil {
		errs = append(errs, n.server.Close())
	}
	if n.network != nil {
		errs = append(errs, n.network.Close())
	}
	if n.containers != nil {
		errs = append(errs, n.containers.Close())
	}
	if n.images != nil {
		errs = append(errs, n.images.Close())
	}
	n.server, n.network, n.containers, n.images = nil, nil, nil, nil
	return errors.Join(errs...)
}

// remove stops the node and checks that nothing of it is left.
func (n *Node) remove(tb testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if c, err := Dial(n.Socket); err == nil {
		c.RemoveAll(ctx, tb)
		_ = c.Close()
	}
	pid := keeper.Find(filepath.Join(n.Dir, "ctr", ".keeper"))
	if n.network != nil {
		if err := n.network.Uninstall(ctx); err != nil {
			tb.Errorf("uninstall the network: %v", err)
		}
	}
	if err := n.Stop(); err != nil {
		tb.Errorf("stop the node: %v", err)
	}
	awaitEnd(tb, pid)
	if h, err := cgroup.Detect(); err != nil {
		tb.Error(err)
	} else if err := h.Group(n.Cgroup).Remove(ctx); err != nil {
		tb.Error(err)
	}
	n.CheckNothingLeft(tb)
	if err := os.RemoveAll(n.Dir); err != nil {
		tb.Error(err)
	}
}

// awaitEnd waits for the keeper to see that nobody needs it any more.
func awaitEnd(tb testing.TB, pid int) {
	if pid == 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for range 30 {
		if count, err := unix.Poll(set, 1000); err == nil && count > 0 {
			return
		}
	}
	tb.Errorf("keeper %d does not end though nothing needs it", pid)
}

// CheckNothingLeft fails the test for every mount, link, rule, cgroup and
// process of the node that is still there.
func (n *Node) CheckNothingLeft(tb testing.TB) {
	tb.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.Dir) {
			tb.Errorf("mount left: %s", line)
		}
	}
	if links, _ := filepath.Glob("/sys/class/net/" + n.Bridge + "*"); len(links) > 0 {
		tb.Errorf("links left: %v", links)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + n.Cgroup)
	if more, _ := filepath.Glob("/sys/fs/cgroup" + n.Cgroup); len(more)+len(groups) > 0 {
		tb.Errorf("cgroups left: %v", append(more, groups...))
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), n.Cgroup+"/") {
			tb.Errorf("process left: %s", p)
		}
	}
}

var buildKeeper = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("KEELSON_KEEPER"); path != "" {
		return path, nil
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("keelson-test-cri-keeper-%d", os.Getpid()))
	// As `make build` builds it, so that its packages are compiled once.
	cmd := exec.Command("go", "build", "-tags", "netgo osusergo seccomp runc_nocriu", "-ldflags", "-s -w", "-o", path, "./cmd/keelson-keeper")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the keeper: %w\n%s", err, out)
	}
	return path, nil
})

// Keeper is the path of the keeper program: $KEELSON_KEEPER, or one built for
// this run; see RemoveKeeper.
func Keeper(tb testing.TB) string {
	tb.Helper()
	path, err := buildKeeper()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// RemoveKeeper removes what Keeper built; TestMain calls it.
func RemoveKeeper() {
	if os.Geteuid() != 0 || os.Getenv("KEELSON_KEEPER") != "" {
		return
	}
	if path, err := buildKeeper(); err == nil {
		_ = os.Remove(path)
	}
}

var _ http.Handler = (*imagetest.Registry)(nil)
