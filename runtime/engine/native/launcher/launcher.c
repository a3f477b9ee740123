#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The forms of native/image.go and launcher.go, in C. */

#define BASE ((void *)0x2000000000UL)
#define REGISTERS 48
#define MAX_FDS 10

struct insn {
	uint32_t nr;
	uint8_t is_reg, out, soft, pad;
	uint16_t only, ok_skip, err_skip, pad2;
	uint64_t what;
	uint64_t args[6];
};

struct header {
	char magic[8];
	uint64_t length, first;
	uint32_t count, pad;
	uint64_t clone_flags, pid_path, cgroup_dir, pad2;
};

/* A request: descriptors go beside it in the order of these fields, those that
 * are there; each field is the descriptor's place among them, or -1. */
struct request {
	uint64_t clone_flags, length;
	int32_t program, pid_ns, cgroup, status, in, out, err, console, target;
	int32_t pad;
};

struct reply {
	int32_t pid, error;
};

struct failure {
	uint64_t what;
	int32_t error, index;
};

enum { STORE32 = 0x10000, LOAD32, SET, FAIL, NEED, LOAD8 };

static long step(const struct insn *i, const uint64_t *a)
{
	switch (i->nr) {
	case STORE32:
		*(uint32_t *)a[0] = (uint32_t)a[1];
		return 0;
	case LOAD32:
		return (long)*(uint32_t *)a[0];
	case LOAD8:
		return (long)*(uint8_t *)a[0];
	case SET:
		return (long)a[0];
	case FAIL:
		errno = (int)a[0];
		return -1;
	case NEED:
		errno = (int)a[2];
		return a[0] == a[1] ? 0 : -1;
	}
	return syscall(i->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void die(int status, uint64_t what, int error, int index)
{
	struct failure f = {what, error, index};

	(void)!write(status, &f, sizeof f);
	_exit(127);
}

static void interpret(int64_t *reg)
{
	const struct header *h = BASE;
	const struct insn *code = (const void *)((const char *)BASE + h->first);

	for (uint32_t at = 0; at < h->count; at++) {
		const struct insn *i = &code[at];
		uint64_t a[6];
		long result;

		for (int n = 0; n < 6; n++) {
			a[n] = i->args[n];
			if (i->is_reg & (1 << n))
				a[n] = (uint64_t)reg[i->args[n] % REGISTERS];
		}
		do
			result = step(i, a);
		while (result == -1 && errno == EINTR && i->nr < STORE32);
		if (result != -1) {
			if (i->out < REGISTERS)
				reg[i->out] = result;
			at += i->ok_skip;
			continue;
		}
		if (!i->soft || (i->only && i->only != errno))
			die((int)reg[0], i->what, errno, (int)at);
		at += i->err_skip;
	}
	die((int)reg[0], 0, ENOEXEC, (int)h->count);
}

static int at(const int *fds, int32_t place)
{
	return place < 0 ? -1 : fds[place];
}

/* What a child does. Everything it has is its own copy. */
static void child(const struct request *r, const int *fds)
{
	int64_t reg[REGISTERS];
	int status = at(fds, r->status);

	memset(reg, 0xff, sizeof reg);
	reg[0] = status;
	reg[1] = at(fds, r->in);
	reg[2] = at(fds, r->out);
	reg[3] = at(fds, r->err);
	reg[4] = at(fds, r->console);
	reg[5] = at(fds, r->target);
	if (mmap(BASE, r->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED_NOREPLACE, at(fds, r->program), 0) != BASE)
		die(status, 0, errno, -1);
	interpret(reg);
}

/* launch clones a child with the request's namespaces and cgroup. A PID
 * namespace is joined by the launcher for its next child, and left again. */
static int launch(const struct request *r, const int *fds, int own_pid_ns, int *pidfd)
{
	struct clone_args args = {
		.flags = r->clone_flags | CLONE_PARENT | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
	};
	int join = r->pid_ns >= 0 ? at(fds, r->pid_ns) : at(fds, r->target);
	int pid, error;

	if (r->cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)at(fds, r->cgroup);
	}
	if (join >= 0 && setns(join, CLONE_NEWPID) < 0)
		return -errno;
	pid = (int)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0) {
		child(r, fds);
		_exit(127);
	}
	error = errno;
	if (join >= 0 && setns(own_pid_ns, CLONE_NEWPID) < 0)
		_exit(1); /* further children would be born in a container */
	return pid < 0 ? -error : pid;
}

static int receive(int sock, struct request *r, int *fds)
{
	char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
	struct iovec iov = {r, sizeof *r};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c;
	ssize_t n;
	int count = 0;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != sizeof *r)
		_exit(0); /* the keeper is gone */
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
	}
	return count;
}

static void answer(int sock, int result, int pidfd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct reply reply = {result > 0 ? result : 0, result < 0 ? -result : 0};
	struct iovec iov = {&reply, sizeof reply};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (result > 0) {
		struct cmsghdr *c;

		memset(control, 0, sizeof control);
		msg.msg_control = control;
		msg.msg_controllen = sizeof control;
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pidfd, sizeof(int));
	}
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		_exit(0);
}

static void serve(int sock)
{
	int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);

	if (own < 0)
		_exit(1);
	for (;;) {
		struct request r;
		int fds[MAX_FDS];
		int pidfd = -1;
		int count = receive(sock, &r, fds);
		int pid = launch(&r, fds, own, &pidfd);

		answer(sock, pid, pidfd);
		if (pidfd >= 0)
			close(pidfd);
		while (count > 0)
			close(fds[--count]);
	}
}

/* Runs before the Go runtime would start, and takes the process over if it is
 * to be the launcher. Its socket is descriptor 3. */
static void __attribute__((constructor)) launcher_mode(int argc, char **argv)
{
	if (argc != 1 || strcmp(argv[0], "keelson-launcher") != 0)
		return;
	fcntl(3, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_NAME, "keelson-launch", 0, 0, 0);
	/* Containers' processes cannot look into one that is on its way to
	 * becoming one of them (CVE-2016-9962). */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	serve(3);
}
