/* floor: the system calls of a container start, in the cheapest known way, and nothing else.
 *
 *     floor [OPTIONS] exec|floor|full N PROGRAM [ARGS]
 *
 * Starts PROGRAM N times, one after the other, and prints the time of each from before the start to after its end, in
 * nanoseconds, one per line. What is prepared once (template, /dev tree, filter) and one warm-up start are not timed.
 *
 *     exec    posix_spawn(3), no container
 *     floor   six new namespaces, a bound root, /proc, a fresh /dev: what every container needs
 *     full    what zind asks of the kernel by default; see full_steps
 *
 *     --rootfs DIR        floor: the root. full: the lower directory of the root; without it the root is a skeleton
 *                         with a copy-on-write /usr of the host, and a PROGRAM from elsewhere is bound in.
 *     --without A,B,...   leave out steps, or namespaces by name (net, ipc, ...); the names are those of --timeline
 *     --group DIR         each start in a control group of its own, with limits, below DIR of version 2
 *     --timeline          print the median of each step instead
 *
 * Everything runs in the child of clone3(CLONE_VM | CLONE_VFORK): fine in this small program, too dangerous in a
 * library, which therefore pays one more execve(2) than this. Needs root and Linux 5.14.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define DETACH 2 /* MNT_DETACH: <sys/mount.h> and <linux/mount.h> do not go together everywhere */
#define BY_PIDFD 3 /* P_PIDFD */

struct step {
    const char *name;
    void (*run)(void);
    bool skip;
};

struct namespace {
    const char *name;
    uint64_t flag;
    bool skip;
};

static struct {
    const char *rootfs;
    const char *group;
    char **argv;
    bool timeline;
} options;

static struct namespace namespaces[] = {
    {"mount", CLONE_NEWNS, false}, {"pid", CLONE_NEWPID, false}, {"uts", CLONE_NEWUTS, false},
    {"ipc", CLONE_NEWIPC, false},  {"net", CLONE_NEWNET, false}, {"cgroup", CLONE_NEWCGROUP, false},
};

/* ---- Failures: the child shares memory with its parent, so both may only write and leave. ---- */

static _Noreturn void fail(const char *what)
{
    dprintf(STDERR_FILENO, "floor: %s: %s\n", what, strerror(errno));
    _exit(127);
}

static long check(long result, const char *what)
{
    if (result < 0)
        fail(what);
    return result;
}

/* ---- System calls without a wrapper in every C library ---- */

static void mount_fs(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    check(syscall(SYS_mount, source, target, type, flags, data), target);
}

static void bind_mount(const char *source, const char *target)
{
    mount_fs(source, target, NULL, MS_BIND, NULL);
}

static void set_attributes(int fd, const char *path, unsigned int flags, struct mount_attr attr)
{
    check(syscall(SYS_mount_setattr, fd, path, flags, &attr, sizeof attr), "mount_setattr");
}

static int clone_tree(int fd, const char *path)
{
    unsigned int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
    return (int)check(syscall(SYS_open_tree, fd, path, flags), "open_tree");
}

static void attach(int tree, const char *target)
{
    check(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
}

static int new_fs(const char *type, unsigned int attributes)
{
    int context = (int)check(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), "fsopen");
    check(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), "fsconfig");
    int tree = (int)check(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes), "fsmount");
    close(context);
    return tree;
}

/* clone3(2) as a system call in place: with CLONE_VFORK the child runs on the parent's stack, below this frame. */
static long clone3(struct clone_args *args)
{
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_clone3), "D"(args), "S"(sizeof *args) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
    result = x0;
#else
#error "add the system call instruction of this architecture"
#endif
    return result;
}

/* ---- The clock, and the time line that parent and child write together: hence volatile ---- */

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static volatile struct {
    const char *names[64];
    uint64_t times[64];
    size_t length;
} line;

/* The time since the mark before belongs to `name`. */
static void mark(const char *name)
{
    if (!options.timeline)
        return;
    line.names[line.length] = name;
    line.times[line.length++] = now();
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t median(uint64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

/* ---- Steps that floor and full share ---- */

static const struct {
    const char *name;
    unsigned int minor;
} nodes[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, {"tty", 0}};

static const struct {
    const char *name, *target;
} links[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"},      {"ptmx", "pts/ptmx"},
};

static void fill_dev(int dev)
{
    umask(0);
    for (size_t i = 0; i < LENGTH(nodes); i++) {
        dev_t device = makedev(strcmp(nodes[i].name, "tty") == 0 ? 5 : 1, nodes[i].minor);
        check(mknodat(dev, nodes[i].name, S_IFCHR | 0666, device), nodes[i].name);
    }
    for (size_t i = 0; i < LENGTH(links); i++)
        check(symlinkat(links[i].target, dev, links[i].name), links[i].name);
    check(mkdirat(dev, "pts", 0755), "pts");
    check(mkdirat(dev, "shm", 0755), "shm");
    check(mkdirat(dev, "mqueue", 0755), "mqueue");
    umask(022);
}

static void pivot(void)
{
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(syscall(SYS_umount2, ".", DETACH), "umount2");
    check(chdir("/"), "chdir");
}

/* ---- floor: the least that is a container ---- */

static void floor_private(void)
{
    set_attributes(AT_FDCWD, "/", AT_RECURSIVE, (struct mount_attr){.propagation = MS_PRIVATE});
}

static void floor_root(void)
{
    int tree = clone_tree(AT_FDCWD, options.rootfs);
    attach(tree, options.rootfs);
    check(fchdir(tree), "fchdir");
}

static void floor_proc(void)
{
    attach(new_fs("proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC), "proc");
}

static void floor_dev(void)
{
    int dev = new_fs("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    fill_dev(dev);
    attach(dev, "dev");
}

static struct step floor_steps[] = {
    {"private", floor_private, false},
    {"root", floor_root, false},
    {"proc", floor_proc, false},
    {"dev", floor_dev, false},
    {"pivot", pivot, false},
};

/* ---- full: prepared once ---- */

static struct {
    int namespace;         /* the template: a mount namespace with /usr, /lower, /empty and the payload only */
    int dev;               /* a detached, read-only /dev */
    int null;              /* stdin */
    int last_capability;
    struct sock_filter filter[256];
    struct sock_fprog program;
    const char *masked[40]; /* target and source by turns */
    const char *readonly[8];
} prepared;

static const char *const mask_candidates[] = {
    "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts",
    "/proc/acpi",  "/proc/scsi", "/sys/firmware",    "/sys/devices/virtual/powercap",
    "/proc/kallsyms", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/pagetypeinfo", "/proc/slabinfo", "/proc/vmallocinfo",
};

static const char *const readonly_candidates[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

static bool outside_usr(const char *program)
{
    return !options.rootfs && strncmp(program, "/usr/", 5) != 0;
}

static void make_file(const char *path, const char *content)
{
    int fd = (int)check(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), path);
    check(write(fd, content, strlen(content)), path);
    close(fd);
}

static void make_skeleton(void)
{
    static const char *const directories[] = {"dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var"};
    static const char *const merged[] = {"bin", "lib", "lib32", "lib64", "sbin"};
    char target[16];
    for (size_t i = 0; i < LENGTH(directories); i++)
        check(mkdir(directories[i], 0755), directories[i]);
    for (size_t i = 0; i < LENGTH(merged); i++) {
        snprintf(target, sizeof target, "usr/%s", merged[i]);
        check(symlink(target, merged[i]), merged[i]);
    }
    make_file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
    make_file("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    make_file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    make_file("etc/hostname", "floor\n");
    make_file("etc/resolv.conf", "");
}

/* In a process of its own: a new mount namespace with a tmpfs as root that holds what the starts need. */
static void make_template(void)
{
    const char *base = "/tmp"; /* any directory does: it is covered in this namespace only */
    check(syscall(SYS_unshare, CLONE_NEWNS), "unshare");
    floor_private();
    int payload = outside_usr(options.argv[0]) ? clone_tree(AT_FDCWD, options.argv[0]) : -1;
    int lower = clone_tree(AT_FDCWD, options.rootfs ? options.rootfs : "/usr");
    mount_fs("template", base, "tmpfs", 0, "mode=755");
    check(chdir(base), base);
    static const char *const directories[] = {"empty", "empty/directory", "lower", "new", "upper", "usr"};
    for (size_t i = 0; i < LENGTH(directories); i++)
        check(mkdir(directories[i], 0755), directories[i]);
    make_file("empty/file", "");
    make_file("payload", "");
    if (payload >= 0)
        attach(payload, "payload");
    attach(lower, options.rootfs ? "lower" : "usr");
    if (!options.rootfs) {
        check(chdir("lower"), "lower");
        make_skeleton();
        check(chdir(".."), "..");
    }
    bind_mount("empty", "empty");
    set_attributes(AT_FDCWD, "empty", 0, (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY});
    pivot();
}

/* The template's only owner is the returned descriptor. */
static int open_template(void)
{
    char path[64];
    int ready[2], done[2];
    check(pipe2(ready, O_CLOEXEC), "pipe2");
    check(pipe2(done, O_CLOEXEC), "pipe2");
    pid_t child = (pid_t)check(fork(), "fork");
    if (child == 0) {
        close(done[1]);
        make_template();
        check(write(ready[1], "r", 1), "write");
        _exit(read(done[0], path, 1) == 0 ? 0 : 1);
    }
    close(ready[1]);
    if (read(ready[0], path, 1) != 1)
        exit(1);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", child);
    int fd = (int)check(open(path, O_RDONLY | O_CLOEXEC), path);
    close(done[1]);
    check(waitpid(child, NULL, 0), "waitpid");
    close(ready[0]);
    close(done[0]);
    return fd;
}

static int prepare_dev(void)
{
    int dev = new_fs("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    fill_dev(dev);
    set_attributes(dev, "", AT_EMPTY_PATH, (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY});
    return dev;
}

/* A binary search over `count` borders of system call numbers, all of whose leaves allow. */
static size_t search(struct sock_filter *at, unsigned int first, size_t count)
{
    if (count == 0) {
        at[0] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        return 1;
    }
    size_t half = count / 2;
    size_t below = search(at + 1, first, half);
    unsigned int border = first + 4 * (unsigned int)half;
    at[0] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, border, (uint8_t)below, 0);
    return 1 + below + search(at + 1 + below, border + 4, count - half - 1);
}

static void prepare_filter(void)
{
    struct sock_filter *at = prepared.filter;
#if defined(__x86_64__)
    const uint32_t native = AUDIT_ARCH_X86_64;
#else
    const uint32_t native = AUDIT_ARCH_AARCH64;
#endif
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, native, 1, 0);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    at += search(at, 4, 80);
    prepared.program.filter = prepared.filter;
    prepared.program.len = (unsigned short)(at - prepared.filter);
}

static void prepare_paths(void)
{
    struct stat status;
    size_t count = 0;
    for (size_t i = 0; i < LENGTH(mask_candidates); i++)
        if (stat(mask_candidates[i], &status) == 0) {
            prepared.masked[count++] = mask_candidates[i] + 1;
            prepared.masked[count++] = S_ISDIR(status.st_mode) ? "/empty/directory" : "/empty/file";
        }
    count = 0;
    for (size_t i = 0; i < LENGTH(readonly_candidates); i++)
        if (stat(readonly_candidates[i], &status) == 0)
            prepared.readonly[count++] = readonly_candidates[i] + 1;
}

static void prepare(void)
{
    prepared.namespace = open_template();
    prepared.dev = prepare_dev();
    prepared.null = (int)check(open("/dev/null", O_RDWR | O_CLOEXEC), "/dev/null");
    while (prctl(PR_CAPBSET_READ, prepared.last_capability + 1) >= 0)
        prepared.last_capability++;
    prepare_filter();
    prepare_paths();
}

/* ---- full: the steps ---- */

static int out[2], err[2];

static void full_session(void)
{
    setsid();
}

/* Copies a handful of mounts, however many the host has. */
static void full_mounts(void)
{
    check(syscall(SYS_setns, prepared.namespace, CLONE_NEWNS), "setns");
    check(syscall(SYS_unshare, CLONE_NEWNS), "unshare");
}

static void full_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = (int)check(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
    check(ioctl(fd, SIOCSIFFLAGS, &request), "SIOCSIFFLAGS");
    close(fd);
}

static void full_upper(void)
{
    mount_fs("upper", "/upper", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    check(mkdir("/upper/root", 0755), "/upper/root");
    check(mkdir("/upper/rootwork", 0755), "/upper/rootwork");
    if (options.rootfs)
        return;
    check(mkdir("/upper/usr", 0755), "/upper/usr");
    check(mkdir("/upper/usrwork", 0755), "/upper/usrwork");
}

static void full_root(void)
{
    static const char data[] = "lowerdir=/lower,upperdir=/upper/root,workdir=/upper/rootwork";
    mount_fs("overlay", "/new", "overlay", MS_NODEV, data);
    check(chdir("/new"), "/new");
}

static void full_usr(void)
{
    static const char data[] = "lowerdir=/usr,upperdir=/upper/usr,workdir=/upper/usrwork";
    if (!options.rootfs)
        mount_fs("overlay", "usr", "overlay", MS_NODEV, data);
}

static void full_payload(void)
{
    if (!outside_usr(options.argv[0]))
        return;
    close((int)check(open("payload", O_WRONLY | O_CREAT | O_CLOEXEC, 0644), "payload"));
    bind_mount("/payload", "payload");
}

static void full_proc(void)
{
    mount_fs("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void full_dev(void)
{
    int dev = clone_tree(prepared.dev, "");
    attach(dev, "dev");
    close(dev);
}

static void full_pts(void)
{
    mount_fs("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=666,mode=620,gid=5");
}

static void full_shm(void)
{
    mount_fs("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m");
}

static void full_mqueue(void)
{
    mount_fs("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void full_sysfs(void)
{
    mount_fs("sysfs", "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void full_masks(void)
{
    for (const char **mask = prepared.masked; *mask; mask += 2)
        bind_mount(mask[1], mask[0]);
}

static void full_readonly(void)
{
    for (const char **path = prepared.readonly; *path; path++) {
        bind_mount(*path, *path);
        set_attributes(AT_FDCWD, *path, 0, (struct mount_attr){.attr_set = MOUNT_ATTR_RDONLY});
    }
}

static void full_hostname(void)
{
    check(sethostname("floor", 5), "sethostname");
}

static void full_stdio(void)
{
    check(dup2(prepared.null, STDIN_FILENO), "dup2");
    check(dup2(out[1], STDOUT_FILENO), "dup2");
    check(dup2(err[1], STDERR_FILENO), "dup2");
    check(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC), "close_range");
}

static void full_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    for (int capability = 0; capability <= prepared.last_capability; capability++)
        prctl(PR_CAPBSET_DROP, capability);
    check(syscall(SYS_capset, &header, data), "capset");
}

static void full_seccomp(void)
{
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prepared.program), "seccomp");
}

static struct step full_steps[] = {
    {"session", full_session, false},
    {"mounts", full_mounts, false},
    {"loopback", full_loopback, false},
    {"upper", full_upper, false},
    {"root", full_root, false},
    {"usr", full_usr, false},
    {"payload", full_payload, false},
    {"proc", full_proc, false},
    {"dev", full_dev, false},
    {"pts", full_pts, false},
    {"shm", full_shm, false},
    {"mqueue", full_mqueue, false},
    {"sysfs", full_sysfs, false},
    {"masks", full_masks, false},
    {"readonly", full_readonly, false},
    {"pivot", pivot, false},
    {"hostname", full_hostname, false},
    {"stdio", full_stdio, false},
    {"capabilities", full_capabilities, false},
    {"seccomp", full_seccomp, false},
};

/* ---- Starts ---- */

static struct step *steps;
static size_t step_count;
static bool full;

static _Noreturn void child(void)
{
    mark("clone3");
    for (size_t i = 0; i < step_count; i++) {
        if (steps[i].skip)
            continue;
        steps[i].run();
        mark(steps[i].name);
    }
    static char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    execve(full && outside_usr(options.argv[0]) ? "/payload" : options.argv[0], options.argv, environment);
    fail("execve");
}

static __attribute__((noinline)) long start(struct clone_args *args)
{
    long pid = clone3(args);
    if (pid == 0)
        child();
    return pid;
}

/* Payloads here print nothing; what does come is the message of a failure. */
static bool forward(int fd)
{
    char buffer[4096];
    ssize_t length = read(fd, buffer, sizeof buffer);
    return length > 0 && write(STDERR_FILENO, buffer, (size_t)length) == length;
}

static void drain(void)
{
    struct pollfd streams[] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
    for (int open_streams = 2; open_streams > 0;) {
        check(poll(streams, 2, -1), "poll");
        for (int i = 0; i < 2; i++)
            if (streams[i].revents && !forward(streams[i].fd)) {
                close(streams[i].fd);
                streams[i].fd = -1;
                open_streams--;
            }
    }
}

static void expect_success(int code, int status)
{
    if (code == CLD_EXITED && status == 0)
        return;
    dprintf(STDERR_FILENO, "floor: the program ended with %s %d\n", code == CLD_EXITED ? "status" : "signal", status);
    exit(1);
}

static uint64_t new_namespaces(void)
{
    uint64_t flags = 0;
    for (size_t i = 0; i < LENGTH(namespaces); i++)
        if (!namespaces[i].skip && !(full && namespaces[i].flag == CLONE_NEWNS))
            flags |= namespaces[i].flag;
    return flags;
}

/* A control group of version 2 for one start, with limits on memory, CPU time and processes. */
static int make_group(char *path, size_t size)
{
    static const char *const limits[][2] = {
        {"memory.max", "67108864"}, {"cpu.max", "50000 100000"}, {"pids.max", "64"}};
    snprintf(path, size, "%s/zind-floor-%d", options.group, getpid());
    check(mkdir(path, 0755), path);
    int dir = (int)check(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), path);
    for (size_t i = 0; i < LENGTH(limits); i++) {
        int fd = (int)check(openat(dir, limits[i][0], O_WRONLY | O_CLOEXEC), limits[i][0]);
        check(write(fd, limits[i][1], strlen(limits[i][1])), limits[i][0]);
        close(fd);
    }
    return dir;
}

/* One start to exit, in nanoseconds. */
static uint64_t run_container(void)
{
    char group[512];
    int pidfd = -1;
    siginfo_t info = {0};
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | new_namespaces(),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    line.length = 0;
    uint64_t begin = now();
    mark("begin");
    if (options.group) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)make_group(group, sizeof group);
        mark("group");
    }
    if (full && (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0))
        fail("pipe2");
    mark("pipes");
    long pid = start(&args);
    errno = pid < 0 ? (int)-pid : 0;
    check(pid, "clone3");
    mark("execve");
    if (full) {
        close(out[1]);
        close(err[1]);
        drain();
        mark("run");
    }
    check(waitid(BY_PIDFD, (id_t)pidfd, &info, WEXITED), "waitid");
    close(pidfd);
    mark(full ? "exit" : "run and exit");
    if (options.group) {
        close((int)args.cgroup);
        check(rmdir(group), group);
        mark("rmdir");
    }
    uint64_t end = now();
    expect_success(info.si_code, info.si_status);
    return end - begin;
}

static uint64_t run_exec(void)
{
    pid_t pid;
    siginfo_t info = {0};
    static char *const environment[] = {NULL};
    uint64_t begin = now();
    if (posix_spawn(&pid, options.argv[0], NULL, NULL, options.argv, environment) != 0)
        fail("posix_spawn");
    check(waitid(P_PID, (id_t)pid, &info, WEXITED), "waitid");
    uint64_t end = now();
    expect_success(info.si_code, info.si_status);
    return end - begin;
}

/* ---- A program in a running container: joined by a pidfd, in one child that shares our memory until it executes ---- */

static int joined = -1;

static _Noreturn void join_and_execute(void)
{
    static char *const environment[] = {NULL};
    if (setns(joined, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP) == 0)
        execve(options.argv[0], options.argv, environment);
    _exit(127);
}

static uint64_t run_join(void)
{
    int pidfd = -1;
    siginfo_t info = {0};
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    uint64_t begin = now();
    check(setns(joined, CLONE_NEWPID), "setns");
    long pid = clone3(&args);
    if (pid == 0)
        join_and_execute();
    errno = pid < 0 ? (int)-pid : 0;
    check(pid, "clone3");
    check(waitid(BY_PIDFD, (id_t)pidfd, &info, WEXITED), "waitid");
    close(pidfd);
    uint64_t end = now();
    expect_success(info.si_code, info.si_status);
    return end - begin;
}

/* ---- Command line and output ---- */

static _Noreturn void usage(void)
{
    fputs("usage: floor [--rootfs DIR] [--group DIR] [--without STEP,...] [--timeline] exec|floor|full N PROGRAM [ARGS]\n"
          "       floor --join PID exec N PROGRAM [ARGS]\n", stderr);
    exit(2);
}

static bool skip_namespace(const char *name)
{
    for (size_t i = 0; i < LENGTH(namespaces); i++)
        if (strcmp(namespaces[i].name, name) == 0)
            return namespaces[i].skip = true;
    return false;
}

static bool skip_step(const char *name)
{
    bool found = false;
    for (size_t i = 0; i < step_count; i++)
        if (strcmp(steps[i].name, name) == 0)
            found = steps[i].skip = true;
    return found;
}

static void skip_all(char *names)
{
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ","))
        if (!skip_step(name) && !skip_namespace(name)) {
            fprintf(stderr, "floor: no step %s\n", name);
            usage();
        }
}

static void choose(const char *variant)
{
    full = strcmp(variant, "full") == 0;
    if (full) {
        steps = full_steps;
        step_count = LENGTH(full_steps);
    } else if (strcmp(variant, "floor") == 0 && options.rootfs) {
        steps = floor_steps;
        step_count = LENGTH(floor_steps);
    } else if (strcmp(variant, "exec") != 0) {
        usage();
    }
}

static void print_times(uint64_t (*run)(void), size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%llu\n", (unsigned long long)run());
}

static void print_timeline(size_t count)
{
    uint64_t *spans = calloc(count * LENGTH(line.times), sizeof *spans);
    uint64_t *totals = calloc(count, sizeof *totals);
    if (!spans || !totals)
        fail("calloc");
    for (size_t i = 0; i < count; i++) {
        totals[i] = run_container();
        for (size_t k = 1; k < line.length; k++)
            spans[k * count + i] = line.times[k] - line.times[k - 1];
    }
    for (size_t k = 1; k < line.length; k++)
        printf("%-14s %8.1f us\n", line.names[k], (double)median(spans + k * count, count) / 1000);
    printf("%-14s %8.1f us\n", "start to exit", (double)median(totals, count) / 1000);
    free(spans);
    free(totals);
}

int main(int argc, char **argv)
{
    static const struct option table[] = {
        {"rootfs", required_argument, NULL, 'r'},
        {"without", required_argument, NULL, 'w'},
        {"group", required_argument, NULL, 'g'},
        {"timeline", no_argument, NULL, 't'},
        {"join", required_argument, NULL, 'j'},
        {0},
    };
    char *without = NULL;
    for (int option; (option = getopt_long(argc, argv, "+", table, NULL)) != -1;)
        switch (option) {
        case 'r': options.rootfs = optarg; break;
        case 'w': without = optarg; break;
        case 'g': options.group = optarg; break;
        case 't': options.timeline = true; break;
        case 'j': joined = (int)syscall(SYS_pidfd_open, atoi(optarg), 0); check(joined, "pidfd_open"); break;
        default: usage();
        }
    if (argc - optind < 3)
        usage();
    size_t count = strtoul(argv[optind + 1], NULL, 10);
    options.argv = argv + optind + 2;
    choose(argv[optind]);
    if (without)
        skip_all(without);
    if (full)
        prepare();
    uint64_t (*run)(void) = steps ? run_container : joined >= 0 ? run_join : run_exec;
    run();
    if (options.timeline && steps && count)
        print_timeline(count);
    else
        print_times(run, count);
    return 0;
}
