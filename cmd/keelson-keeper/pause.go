package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// The first process of a shared PID namespace. It runs before the Go runtime
// starts and never lets it: a few pages, no threads. Descriptor 3 takes "ok" or
// the step that failed. Then it waits for a byte on descriptor 4, which says
// that its namespace can be found by others: without it, nobody could end a
// process whose daemon was killed.
//
// Its root becomes an empty, read-only tmpfs in a mount namespace of its own:
// containers that share its PID namespace see it as /proc/1, and must not find
// the host's files there. With SELinux it has the label that they have.

static void fail(const char *step) {
	char text[128];
	int n = snprintf(text, sizeof text, "%s: %s", step, strerror(errno));
	if (n > 0)
		(void)!write(3, text, (size_t)n);
	_exit(1);
}

static void empty_root(const char *label) {
	char options[1024] = "size=4k,nr_inodes=2,mode=555";

	if (label && *label)
		snprintf(options, sizeof options, "size=4k,nr_inodes=2,mode=555,context=\"%s\"", label);
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fail("make mounts private");
	if (mount("pause", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0)
		fail("mount root");
	if (chdir("/proc") < 0)
		fail("enter root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		fail("pivot root");
	if (umount2(".", MNT_DETACH) < 0)
		fail("leave old root");
	if (chdir("/") < 0)
		fail("enter new root");
}

static void drop_rights(void) {
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2];
	int cap;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail("set no_new_privs");
	for (cap = 0; cap < 64; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	memset(none, 0, sizeof none);
	if (syscall(SYS_capset, &header, none) < 0)
		fail("drop capabilities");
}

static void __attribute__((constructor)) pause_mode(int argc, char **argv) {
	if (argc < 2 || argc > 3 || strcmp(argv[0], "pause") != 0 || strcmp(argv[1], "pause") != 0)
		return;
	char go;
	ssize_t got;

	signal(SIGCHLD, SIG_IGN); // orphans are reaped by the kernel
	prctl(PR_SET_NAME, "pause", 0, 0, 0);
	empty_root(argc == 3 ? argv[2] : NULL);
	drop_rights();
	(void)!write(3, "ok", 2);
	close(3);
	while ((got = read(4, &go, 1)) < 0 && errno == EINTR)
		;
	if (got != 1)
		_exit(1);
	close(4);
	for (;;)
		pause();
}
*/
import "C"
