/* groups: the bare cost of a control group around a process: mkdir, three limits, a clone into it, rmdir.
 *
 *     groups v2 N DIR            N times in the version 2 directory DIR; in turn with a bare clone, which is subtracted (by hand: floor
 *                                has the same around a whole start)
 *     groups v1 N DIR FILE=VALUE...   the same in one version 1 hierarchy: mkdir, the limits, cgroup.procs, rmdir
 *
 * Prints the nanoseconds of each, one per line. Needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void put(int dir, const char *file, const char *text) {
    int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(file);
    close(fd);
}

/* A child that waits for `gate` and ends; born in a group if it is not -1. */
static pid_t child(int group, const int gate[2]) {
    struct clone_args args = {.exit_signal = SIGCHLD};
    if (group >= 0) {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)group;
    }
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (pid == 0) {
        char byte;
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) < 0);
    }
    return pid;
}

static int64_t once(const char *parent, int is_v2, int grouped, char **limits) {
    char path[512], number[16];
    int gate[2], dir = -1;
    int64_t begin = now();
    if (pipe2(gate, O_CLOEXEC) != 0) die("pipe2");
    snprintf(path, sizeof path, "%s/zind-bench-%d", parent, getpid());
    if (grouped) {
        if (mkdir(path, 0755) != 0 || (dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) die(path);
        for (char **limit = limits; *limit; limit++) {
            char file[128];
            size_t length = strcspn(*limit, "=");
            memcpy(file, *limit, length);
            file[length] = 0;
            put(dir, file, *limit + length + 1);
        }
    }
    pid_t pid = child(grouped && is_v2 ? dir : -1, gate);
    if (grouped && !is_v2) {
        snprintf(number, sizeof number, "%d", pid);
        put(dir, "cgroup.procs", number);
    }
    close(gate[0]);
    close(gate[1]);
    if (waitpid(pid, NULL, 0) != pid) die("waitpid");
    if (grouped) {
        close(dir);
        while (rmdir(path) != 0)
            if (errno != EBUSY) die(path);
    }
    return now() - begin;
}

int main(int argc, char **argv) {
    static char memory[] = "memory.max=67108864", cpu[] = "cpu.max=50000 100000", pids[] = "pids.max=64";
    char *v2[] = {memory, cpu, pids, NULL};
    if (argc < 4) return 2;
    int is_v2 = strcmp(argv[1], "v2") == 0;
    char **limits = is_v2 ? v2 : argv + 4;
    for (int i = atoi(argv[2]); i-- > 0;) {
        /* An attach soon after another one does not wait for a grace period; a caller's mostly do. */
        if (!is_v2) usleep(200000);
        int64_t bare = once(argv[3], is_v2, 0, limits);
        printf("%lld\n", (long long)(once(argv[3], is_v2, 1, limits) - bare));
    }
    return 0;
}
