package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"keelson.dev/keelson/cri"
	"keelson.dev/keelson/runtime/sandbox"
	"keelson.dev/keelson/volume/local"
)

const stopLimit = 20 * time.Second

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Stop keelson; pods go on running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if systemd() && exists(unitPath) {
				return systemctl("stop keelson")
			}
			return stopServer(cmd.Context(), runningPid(o.place))
		}}
}

func uninstallCommand(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop everything and remove every process, mount, link, rule, cgroup and file that is keelson's", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("uninstall needs root")
			}
			if !yes {
				fmt.Fprintf(cmd.OutOrStdout(), "This ends all pods and deletes %s with all cluster data. Type yes: ", o.place.Data)
				answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
				if strings.TrimSpace(answer) != "yes" {
					return errors.New("nothing was removed")
				}
			}
			return uninstall(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	o.nodeFlags(cmd) // for an instance whose record is lost
	return cmd
}

// uninstall goes on over errors, so that one stuck thing does not leave the rest behind, and reports them together.
func uninstall(ctx context.Context, o *options, out io.Writer) error {
	i, pid, err := readInstance(o.place)
	if err == nil {
		o.place, o.node, o.plane = i.Options.Place, i.Options.Node, i.Options.Plane
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var all []error
	step := func(name string, f func() error) {
		if err := f(); err != nil {
			all = append(all, fmt.Errorf("%s: %w", name, err))
			return
		}
		fmt.Fprintln(out, "removed:", name)
	}
	if o.place.Data == defaultData {
		step("systemd unit", removeUnit)
	}
	step("server", func() error { return stopServer(ctx, pid) })
	if i != nil { // without a record of ours, a kubepods cgroup here is somebody else's
		step("containers", func() error {
			return errors.Join(endContainers(ctx, podsCgroups(o.node.CgroupRoot)), endStrays(ctx, o))
		})
	}
	step("keeper", func() error { return endKeeper(ctx, o.place) })
	step("mounts", func() error { return unmountUnder(o.place.Run, o.place.Data, o.place.KubeletRoot) })
	step("loop devices", func() error { return local.DetachAll(o.place.volumes()) })
	step("network", func() error { return removeNetwork(ctx, o) })
	if i != nil {
		step("AppArmor profile", cri.UnloadAppArmor)
		step("cgroups", func() error { return removeCgroups(o.node.CgroupRoot) })
	}
	if len(all) > 0 { // the record of what to remove stays for another try
		return fmt.Errorf("%w\nfiles are kept: mend this and run uninstall again", errors.Join(all...))
	}
	step("files", func() error {
		removeSocketFolder(o.node.Runtime.NRISocket)
		return removeFiles(o.place)
	})
	return errors.Join(all...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func removeUnit() error {
	if systemd() && exists(unitPath) {
		if err := systemctl("disable --now keelson"); err != nil {
			return err
		}
	}
	errs := []error{remove(unitPath)}
	link := filepath.Join(filepath.Dir(binaryPath), "kubectl")
	if target, err := os.Readlink(link); err == nil && target == binaryPath {
		errs = append(errs, remove(link))
	}
	return errors.Join(append(errs, remove(binaryPath))...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stopServer asks a server to stop and kills it if it does not.
func stopServer(ctx context.Context, pid int) error {
	if pid == 0 {
		return nil
	}
	return endProcess(ctx, pid, unix.SIGTERM)
}

// endProcess signals a process through a pidfd, so that a reused pid is never hit, and waits for its end.
func endProcess(ctx context.Context, pid int, first unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, sig := range []unix.Signal{first, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		}
		if waitFd(ctx, fd, stopLimit) {
			return nil
		}
	}
	return fmt.Errorf("pid %d does not end", pid)
}

// waitFd waits until the pidfd is readable: the process has ended.
func waitFd(ctx context.Context, fd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for ctx.Err() == nil {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(min(left, time.Second).Milliseconds())+1)
		if n > 0 && err == nil {
			return true
		}
	}
	return false
}

// podsCgroups returns every cgroup below root that holds pods, the kubelet's or (of pods that name none) the runtime's
// own: one in v2, one per hierarchy in v1.
func podsCgroups(root string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		tops, _ := filepath.Glob(pattern)
		for _, top := range tops {
			for _, name := range []string{"kubepods", "kubepods.slice", ownPods, ownPods + ".slice"} {
				if dir := filepath.Join(top, root, name); exists(dir) {
					out = append(out, dir)
				}
			}
		}
	}
	return out
}

// endStrays ends the containers whose cgroups a client of the runtime put elsewhere, and removes what was made for them.
func endStrays(ctx context.Context, o *options) error {
	state := filepath.Join(o.place.Run, "runtime")
	pods, err := sandbox.Left(filepath.Join(state, "sandboxes"))
	if err != nil {
		return err
	}
	containers, err := os.ReadDir(filepath.Join(state, "containers"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ours := map[string]bool{}
	for _, c := range containers {
		ours[c.Name()], ours["cri-containerd-"+c.Name()+".scope"] = true, true
	}
	for _, pod := range pods {
		ours[pod.ID] = true
		tops, _ := filepath.Glob("/sys/fs/cgroup/*")
		for _, top := range append(tops, "/sys/fs/cgroup") {
			parent := filepath.Join(top, pod.CgroupPath)
			children, err := os.ReadDir(parent)
			if pod.CgroupPath == "" || err != nil {
				continue
			}
			for _, c := range children {
				if dir := filepath.Join(parent, c.Name()); ours[c.Name()] {
					if err := endContainers(ctx, []string{dir}); err != nil {
						return err
					}
					for _, d := range below(dir) {
						_ = os.Remove(d)
					}
				}
			}
			if pod.OwnsCgroup { // what was there before the pod stays, but in a root of ours (removeCgroups)
				_ = os.Remove(parent)
			}
		}
	}
	return nil
}

// endContainers kills every process in cgroups of ours and waits until they are empty.
func endContainers(ctx context.Context, groups []string) error {
	for _, top := range groups {
		// What forks while it is killed shows up in the next round.
		for pids := cgroupPids(top); len(pids) > 0; pids = cgroupPids(top) {
			for _, pid := range pids {
				if err := endProcess(ctx, pid, unix.SIGKILL); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func cgroupPids(top string) []int {
	var pids []int
	_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, line := range strings.Fields(string(data)) {
			var pid int
			if _, err := fmt.Sscan(line, &pid); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

func removeCgroups(root string) error {
	var errs []error
	for _, top := range podsCgroups(root) {
		if unit := filepath.Base(top); strings.HasSuffix(unit, ".slice") && systemd() {
			// With the folders alone gone, systemd would go on to list the slices and those below them.
			errs = append(errs, systemctl("stop "+unit))
		}
		for _, dir := range below(top) {
			errs = append(errs, remove(dir))
		}
	}
	// The root itself and what clients of the runtime had made in it, if it is not the machine's; what is in use stays.
	if strings.Trim(root, "/") != "" {
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			tops, _ := filepath.Glob(pattern)
			for _, top := range tops {
				for _, dir := range below(filepath.Join(top, root)) {
					_ = os.Remove(dir)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// below lists a folder and all folders in it, children first.
func below(top string) []string {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	sort.Sort(sort.Reverse(sort.StringSlice(dirs)))
	return dirs
}

// endKeeper ends the keeper of these places: it runs from a sealed copy of its program, and its folder is its argument.
func endKeeper(ctx context.Context, p places) error {
	procs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range procs {
		target, err := os.Readlink(link)
		if err != nil || !strings.Contains(target, keeperFile) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/exe", &pid); err != nil {
			continue
		}
		if args, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline")); err == nil && strings.Contains(string(args), "\x00"+p.Run+"/") {
			if err := endProcess(ctx, pid, unix.SIGKILL); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmountUnder detaches every mount below the folders, the deepest first.
func unmountUnder(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return err
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			err := unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", mounts[i].Mountpoint, err))
			}
		}
	}
	return errors.Join(errs...)
}

// podLogDir is how the kubelet names a pod's log folder: namespace_name_uid.
var podLogDir = regexp.MustCompile(`^[a-z0-9.-]+_[a-z0-9.-]+_[0-9a-f-]{32,36}$`)

// removeFiles deletes what was made by us. A folder that was there before keeps what is not ours.
// Nothing is deleted through a mount: unmountUnder ran before, and a mount that stayed makes this fail.
func removeFiles(p places) error {
	if left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(p.KubeletRoot)); err != nil || len(left) > 0 {
		return fmt.Errorf("%d mounts are left below %s; not deleting through them (%v)", len(left), p.KubeletRoot, err)
	}
	errs := []error{os.RemoveAll(p.Data), removeLogs(p), remove(p.kubeconfig())}
	for _, dir := range []string{p.KubeletRoot, p.PodLogs, p.Config, p.Run} {
		if exists(filepath.Join(dir, ownedMark)) {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	errs = append(errs, os.RemoveAll(filepath.Join(p.KubeletRoot, "pods")),
		os.RemoveAll(filepath.Join(p.KubeletRoot, "plugins", "kubernetes.io", "csi")), os.RemoveAll(p.Run))
	return errors.Join(errs...)
}

// removeSocketFolder removes the folder of a socket that a server had outside of ours, unless something is in it: a socket there is
// another runtime's, as ours went with the server.
func removeSocketFolder(socket string) {
	if socket != "" {
		_ = os.Remove(filepath.Dir(socket))
	}
}

func removeLogs(p places) error {
	var errs []error
	beside := filepath.Join(filepath.Dir(p.PodLogs), "containers")
	links, _ := filepath.Glob(filepath.Join(beside, "*.log"))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, p.PodLogs+"/") {
			errs = append(errs, remove(link))
		}
	}
	_ = os.Remove(beside) // with what others have in it, it stays
	entries, err := os.ReadDir(p.PodLogs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if podLogDir.MatchString(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(p.PodLogs, e.Name())))
		}
	}
	return errors.Join(errs...)
}
