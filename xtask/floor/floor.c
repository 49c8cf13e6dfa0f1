/*
 * The floor: the system calls that are needed to run one command in a container of the shape of `runc spec`, and
 * nothing else. `cargo xtask bench runtime` measures container runtimes against it.
 *
 *   floor [-s] ROOTFS CGROUP_PARENT PROGRAM [ARGUMENT...]
 *
 * Six new namespaces (pid, mount, uts, ipc, net, cgroup), seven mounts, six devices, masked and read-only paths,
 * capabilities dropped, no_new_privs. No state, no config, no filter, no check: this is a ruler, not a runtime.
 * With FLOOR_TIMINGS in the environment it prints how long its stages took.
 * With -s it first executes itself from a read-only overlay, as a runtime must whose binary nobody in a container
 * shall write to (CVE-2019-5736).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(111);
	}
	return result;
}

static void seal(char **arguments)
{
	char path[4096], folder[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);

	must(length < 0 ? -1 : 0, "readlink /proc/self/exe");
	path[length] = 0;
	strcpy(folder, path);
	int context = must(syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC), "fsopen overlay");
	must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir+", dirname(folder), 0), "lowerdir+");
	/* Without an upper layer overlayfs wants two lower ones. */
	must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "lowerdir+", "/dev", 0), "lowerdir+ /dev");
	must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0), "fsconfig create");
	int mounted = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY), "fsmount");
	int binary = must(openat(mounted, basename(path), O_PATH | O_CLOEXEC), "openat");
	close(mounted);
	close(context);
	setenv("FLOOR_SEALED", "1", 1);
	syscall(SYS_execveat, binary, "", arguments, environ, AT_EMPTY_PATH);
	must(-1, "execveat");
}

struct filesystem { const char *source, *target, *type; unsigned long flags; const char *data; };

static void mount_all(void)
{
	const unsigned long strict = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	const struct filesystem first[] = {
		{ "proc", "proc", "proc", strict, 0 },
		{ "tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k" },
	}, then[] = {
		{ "devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5" },
		{ "shm", "dev/shm", "tmpfs", strict, "mode=1777,size=65536k" },
		{ "mqueue", "dev/mqueue", "mqueue", strict, 0 },
		{ "sysfs", "sys", "sysfs", strict | MS_RDONLY, 0 },
		{ "cgroup", "sys/fs/cgroup", "cgroup2", strict | MS_RDONLY, 0 },
	};

	for (size_t i = 0; i < LENGTH(first); i++)
		must(mount(first[i].source, first[i].target, first[i].type, first[i].flags, first[i].data), first[i].target);
	mkdir("dev/pts", 0755);
	mkdir("dev/shm", 0755);
	mkdir("dev/mqueue", 0755);
	for (size_t i = 0; i < LENGTH(then); i++)
		must(mount(then[i].source, then[i].target, then[i].type, then[i].flags, then[i].data), then[i].target);
}

static void make_devices(void)
{
	static const struct { const char *path; int major, minor; } devices[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};

	for (size_t i = 0; i < LENGTH(devices); i++)
		must(mknod(devices[i].path, S_IFCHR | 0666, devices[i].major << 8 | devices[i].minor), devices[i].path);
	symlink("/proc/self/fd", "dev/fd");
	symlink("/proc/self/fd/0", "dev/stdin");
	symlink("/proc/self/fd/1", "dev/stdout");
	symlink("/proc/self/fd/2", "dev/stderr");
	symlink("pts/ptmx", "dev/ptmx");
}

/* Not every kernel has all of these paths: what is not there needs no cover. */
static void hide(void)
{
	static const char *const files[] = { "proc/kcore", "proc/keys", "proc/timer_list", "proc/latency_stats" };
	static const char *const folders[] = { "proc/acpi", "sys/firmware", "proc/scsi" };
	static const char *const fixed[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };

	for (size_t i = 0; i < LENGTH(files); i++)
		mount("dev/null", files[i], 0, MS_BIND, 0);
	for (size_t i = 0; i < LENGTH(folders); i++)
		mount("tmpfs", folders[i], "tmpfs", MS_RDONLY, 0);
	for (size_t i = 0; i < LENGTH(fixed); i++)
		if (!mount(fixed[i], fixed[i], 0, MS_BIND | MS_REC, 0))
			mount(0, fixed[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
}

static void enter(void)
{
	int old = must(open("/", O_DIRECTORY | O_RDONLY | O_CLOEXEC), "open /");

	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(fchdir(old), "fchdir");
	must(umount2(".", MNT_DETACH), "umount");
	must(chdir("/"), "chdir /");
	must(mount(0, "/", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0), "remount /");
}

static void confine(void)
{
	must(sethostname("floor", 5), "sethostname");
	/* `runc spec` keeps CAP_KILL (5), CAP_NET_BIND_SERVICE (10) and CAP_AUDIT_WRITE (29). */
	for (int capability = 0; capability < 41; capability++)
		if (capability != 5 && capability != 10 && capability != 29)
			prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
}

/* Clock readings, in memory that init shares; none without FLOOR_TIMINGS. */
enum { BEGUN, CGROUP, CLONED, INIT, ROOTED, READY, ENDED, REMOVED, TIMES };
static long *times;

static void mark(int at)
{
	struct timespec now;

	if (!times)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	times[at] = now.tv_sec * 1000000000L + now.tv_nsec;
}

static void print_stage(const char *name, int from, int to)
{
	fprintf(stderr, "timings: %-32s %7ld us\n", name, (times[to] - times[from]) / 1000);
}

static void print_times(void)
{
	if (!times)
		return;
	print_stage("cgroup", BEGUN, CGROUP);
	print_stage("clone", CGROUP, CLONED);
	print_stage("(init) mounts, until it has its root", INIT, ROOTED);
	print_stage("(init) what is the process's", ROOTED, READY);
	print_stage("wait for init and the program", CLONED, ENDED);
	print_stage("cgroup removed", ENDED, REMOVED);
	print_stage("total", BEGUN, REMOVED);
}

static void contain(const char *rootfs, char **program)
{
	mark(INIT);
	must(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "make / private");
	must(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0), rootfs);
	must(chdir(rootfs), rootfs);
	mount_all();
	make_devices();
	hide();
	enter();
	mark(ROOTED);
	confine();
	mark(READY);
	execv(program[0], program);
	perror(program[0]);
	_exit(127);
}

int main(int count, char **words)
{
	if (count > 1 && !strcmp(words[1], "-s")) {
		if (!getenv("FLOOR_SEALED"))
			seal(words);
		unsetenv("FLOOR_SEALED");
		words++, count--;
	}
	if (count < 4)
		return 2;
	if (getenv("FLOOR_TIMINGS"))
		times = mmap(0, TIMES * sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mark(BEGUN);
	char cgroup[4096];
	snprintf(cgroup, sizeof cgroup, "%s/floor-%d", words[2], getpid());
	must(mkdir(cgroup, 0755), cgroup);
	struct clone_args how = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP |
			CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = must(open(cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC), cgroup),
	};
	mark(CGROUP);
	pid_t child = must(syscall(SYS_clone3, &how, sizeof how), "clone3");
	if (!child)
		contain(words[1], words + 3);
	mark(CLONED);
	int status;
	must(waitpid(child, &status, 0), "waitpid");
	mark(ENDED);
	must(rmdir(cgroup), cgroup);
	mark(REMOVED);
	print_times();
	return WEXITSTATUS(status);
}
