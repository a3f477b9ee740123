package image

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUser is wrapped by errors about a user or group that cannot be used.
var ErrUser = errors.New("invalid user")

const (
	maxUserFile = 4 << 20 // bytes of /etc/passwd or /etc/group; real ones have kilobytes
	maxUserSpec = 512     // bytes of "user:group"
	maxID       = math.MaxInt32
)

type passwdEntry struct {
	name, home string
	uid, gid   uint32
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

func resolveUser(rootfs, spec string) (User, error) {
	if err := checkUserSpec(spec); err != nil {
		return User{}, err
	}
	root, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return User{}, fmt.Errorf("resolve user %q: %w", spec, err)
	}
	defer root.Close()
	passwd, err := readInRoot(root, "etc/passwd")
	if err != nil {
		return User{}, fmt.Errorf("resolve user %q: %w", spec, err)
	}
	group, err := readInRoot(root, "etc/group")
	if err != nil {
		return User{}, fmt.Errorf("resolve user %q: %w", spec, err)
	}
	return lookupUser(spec, parsePasswd(passwd), parseGroup(group))
}

// checkUserSpec refuses what could become a line or a field of its own in
// somebody's passwd file (CVE-2022-4318), and absurd lengths.
func checkUserSpec(spec string) error {
	if len(spec) > maxUserSpec {
		return fmt.Errorf("%w %.40q...: longer than %d bytes", ErrUser, spec, maxUserSpec)
	}
	for _, c := range []byte(spec) {
		if c <= ' ' || c == 0x7f {
			return fmt.Errorf("%w %q: control character or space", ErrUser, spec)
		}
	}
	if strings.Count(spec, ":") > 1 {
		return fmt.Errorf("%w %q: more than one colon", ErrUser, spec)
	}
	return nil
}

// lookupUser is the decision; entries come in file order and the first match wins.
func lookupUser(spec string, users []passwdEntry, groups []groupEntry) (User, error) {
	userPart, groupPart, _ := strings.Cut(spec, ":")
	if userPart == "" {
		userPart = "0"
	}
	var u User
	id, numeric, err := parseID(userPart)
	if err != nil {
		return User{}, fmt.Errorf("%w %q: %w", ErrUser, spec, err)
	}
	i := slices.IndexFunc(users, func(e passwdEntry) bool {
		return e.name == userPart || numeric && e.uid == id
	})
	switch {
	case i >= 0:
		u = User{UID: users[i].uid, GID: users[i].gid, Name: users[i].name, Home: users[i].home}
	case numeric:
		u.UID = id
	default:
		return User{}, fmt.Errorf("%w %q: no user %q in the image's /etc/passwd", ErrUser, spec, userPart)
	}
	if groupPart != "" {
		if u.GID, err = lookupGroup(groupPart, groups); err != nil {
			return User{}, fmt.Errorf("%w %q: %w", ErrUser, spec, err)
		}
	}
	for _, g := range groups {
		if u.Name != "" && g.gid != u.GID && slices.Contains(g.members, u.Name) {
			u.AdditionalGIDs = append(u.AdditionalGIDs, g.gid)
		}
	}
	slices.Sort(u.AdditionalGIDs)
	u.AdditionalGIDs = slices.Compact(u.AdditionalGIDs)
	return u, nil
}

func lookupGroup(part string, groups []groupEntry) (uint32, error) {
	id, numeric, err := parseID(part)
	if err != nil {
		return 0, err
	}
	for _, g := range groups {
		if g.name == part {
			return g.gid, nil
		}
	}
	if !numeric {
		return 0, fmt.Errorf("no group %q in the image's /etc/group", part)
	}
	return id, nil
}

// parseID reads an id. What looks like a number in any notation but is not a
// plain decimal one in range is an error, never a name: a wrapped or misread
// number would be root (CVE-2024-40635).
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	c := s[0]
	if c != '+' && c != '-' && (c < '0' || c > '9') {
		for _, r := range s {
			if r > 0x7f {
				return 0, false, fmt.Errorf("%q is neither a number nor a plain name", s)
			}
		}
		return 0, false, nil
	}
	digits := strings.Trim(s, "0123456789") == ""
	if !digits && c != '+' && c != '-' && !strings.HasPrefix(s, "0x") && !strings.HasPrefix(s, "0X") {
		return 0, false, nil // a login name may begin with a digit
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || !digits || n > maxID {
		return 0, false, fmt.Errorf("id %q is not a decimal number from 0 to %d", s, maxID)
	}
	return uint32(n), true, nil
}

// readInRoot reads a regular file below root, symlinks resolved inside root. A
// missing file is empty. Anything else than a regular file is an error before it
// is opened for reading: opening a FIFO would hang, a device may act.
func readInRoot(root *os.File, name string) ([]byte, error) {
	fd, err := openInRoot(int(root.Fd()), name, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open /%s in the image: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat /%s in the image: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%w: /%s in the image is not a regular file", ErrUser, name)
	}
	if st.Size > maxUserFile {
		return nil, fmt.Errorf("%w: /%s in the image has %d bytes, more than %d", ErrUser, name, st.Size, maxUserFile)
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("open /%s in the image: %w", name, err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxUserFile))
}

// openInRoot opens name below dirfd with every symlink, absolute ones too,
// resolved below dirfd. EAGAIN (a rename raced) is tried again a few times.
func openInRoot(dirfd int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dirfd, name, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && try < 64 {
			continue
		}
		return fd, err
	}
}

func parsePasswd(b []byte) []passwdEntry {
	var out []passwdEntry
	eachLine(b, func(f []string) {
		if len(f) < 4 {
			return
		}
		uid, ok1, err1 := parseID(f[2])
		gid, ok2, err2 := parseID(f[3])
		if f[0] == "" || !ok1 || !ok2 || err1 != nil || err2 != nil {
			return
		}
		e := passwdEntry{name: f[0], uid: uid, gid: gid}
		if len(f) > 5 {
			e.home = f[5]
		}
		out = append(out, e)
	})
	return out
}

func parseGroup(b []byte) []groupEntry {
	var out []groupEntry
	eachLine(b, func(f []string) {
		if len(f) < 3 {
			return
		}
		gid, ok, err := parseID(f[2])
		if f[0] == "" || !ok || err != nil {
			return
		}
		e := groupEntry{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			e.members = strings.Split(f[3], ",")
		}
		out = append(out, e)
	})
	return out
}

func eachLine(b []byte, fn func(fields []string)) {
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxUserFile)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line != "" && line[0] != '#' {
			fn(strings.Split(line, ":"))
		}
	}
}
