package imagetest

import (
	"archive/tar"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const hostArch = runtime.GOARCH

const busyboxPath = "/usr/bin/busybox"

// Base is the layer under the ready-made images: BaseOf Debian's busybox-static.
func Base() (Layer, error) { return BaseOf(busyboxPath) }

// BaseOf is a layer with /etc, users, /tmp, and the static busybox at the given
// path with its applets as hard links in /bin, which tests that mask single
// commands need.
func BaseOf(busybox string) (Layer, error) {
	bb, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("install busybox-static: %w", err)
	}
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox applets: %w", err)
	}
	applets := strings.Fields(string(out))
	slices.Sort(applets)
	l := Layer{
		{Name: "bin/", Type: tar.TypeDir},
		{Name: "bin/busybox", Mode: 0o755, Data: bb},
	}
	for _, a := range slices.Compact(applets) {
		if a != "busybox" && !strings.Contains(a, "/") {
			l = append(l, Entry{Name: "bin/" + a, Type: tar.TypeLink, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	for _, d := range []string{"dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/log", "var/run", "var/www"} {
		l = append(l, Entry{Name: d + "/", Type: tar.TypeDir})
	}
	return append(l,
		Entry{Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
		Entry{Name: "etc/passwd", Data: []byte(passwd)},
		Entry{Name: "etc/group", Data: []byte(group)},
		Entry{Name: "etc/nsswitch.conf", Data: []byte("hosts: files dns\n")},
	), nil
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
default-user:x:1000:1000::/home/default-user:/bin/sh
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
default-user:x:1000:
group-defined-in-image:x:50000:default-user
nogroup:x:65534:
`

// Busybox is a shell and its commands; Cmd is sh. cfg, if given, replaces the config.
func Busybox(cfg ...v1.Config) (v1.Image, error) {
	base, err := Base()
	if err != nil {
		return nil, err
	}
	c := v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if len(cfg) > 0 {
		c = cfg[0]
	}
	return Build(Spec{Layers: []Layer{base}, Config: c})
}

// Nginx is Debian's nginx with the libraries it needs, over Base, serving a page
// on port. It runs in the foreground.
func Nginx(port int) (v1.Image, error) {
	base, err := Base()
	if err != nil {
		return nil, err
	}
	return nginx(base, port)
}

func nginx(base Layer, port int) (v1.Image, error) {
	bin, err := HostFiles(append(libraries("/usr/sbin/nginx"), "/usr/sbin/nginx")...)
	if err != nil {
		return nil, fmt.Errorf("install nginx: %w", err)
	}
	conf := fmt.Sprintf(`user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen %d; location / { root /usr/share/nginx/html; index index.html; } }
}
`, port)
	files := Files(map[string]string{
		"etc/nginx/nginx.conf":            conf,
		"usr/share/nginx/html/index.html": "<html><body><h1>Welcome to nginx!</h1></body></html>\n",
		"var/lib/nginx/.keep":             "",
		"var/log/nginx/.keep":             "",
	})
	return Build(Spec{Layers: []Layer{base, bin, files}, Config: v1.Config{
		Cmd:          []string{"/usr/sbin/nginx", "-g", "daemon off;"},
		Env:          []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		ExposedPorts: map[string]struct{}{fmt.Sprintf("%d/tcp", port): {}},
		StopSignal:   "SIGQUIT",
	}})
}

// libraries lists the shared objects that a program loads, by their paths.
func libraries(program string) []string {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil
	}
	var libs []string
	for f := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(f, "/") {
			libs = append(libs, f)
		}
	}
	return libs
}

// Program is an image of one static executable with the given mode (0o4755 for a
// set-uid one), at /<name>, its default command. binary is the file's bytes.
func Program(name string, mode int64, binary []byte) (v1.Image, error) {
	return Build(Spec{Layers: []Layer{{{Name: name, Mode: mode, Data: binary}}}, Config: v1.Config{Entrypoint: []string{"/" + name}}})
}
