package act

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"keelson.dev/keelson/kubelet/observe"
)

// Limits of termination messages (API documentation of terminationMessagePath).
const (
	messageBytes  = 4096
	fallbackBytes = 2048
	fallbackLines = 80
)

// TerminationMessage reads what a dead container left in its termination log; with the policy
// FallbackToLogsOnError, an empty one is replaced by the end of its log if it failed. policy is looked up by the
// caller. A container may have made the file anything: only a regular file is read, and only its beginning.
func (e *Executor) TerminationMessage(uid types.UID, c observe.Container, policy corev1.TerminationMessagePolicy) string {
	msg := strings.ToValidUTF8(string(readRegular(e.terminationPath(string(uid), c.Name, c.Attempt), messageBytes, false)), "\uFFFD")
	if msg == "" && policy == corev1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && c.LogPath != "" {
		msg = logTail(readRegular(c.LogPath, 4*fallbackBytes, true))
	}
	return msg
}

// readRegular reads the first, or last, n bytes of a regular file; nothing of anything else. It does not follow a
// link and does not wait for the writer of a FIFO.
func readRegular(path string, n int64, end bool) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	if end && st.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return nil
	}
	return b
}

// logTail strips the CRI prefix (time, stream, tag) of each record and keeps the last lines within the limits. A partial
// record (tag P) has no newline of its own: the next one goes on with it, or the container ended without one.
func logTail(b []byte) string {
	records := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	var out []string
	size, lines := 0, 0
	for i := len(records) - 1; i >= 0; i-- {
		parts := bytes.SplitN(records[i], []byte(" "), 4)
		if len(parts) < 4 { // cut in half by the read
			break
		}
		text := string(parts[3])
		if !bytes.HasPrefix(parts[2], []byte("P")) {
			text += "\n"
			lines++
		}
		if size += len(text); size > fallbackBytes || lines > fallbackLines {
			break
		}
		out = append(out, text)
	}
	slices.Reverse(out)
	return strings.ToValidUTF8(strings.Join(out, ""), "\uFFFD")
}
