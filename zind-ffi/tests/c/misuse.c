/* What must not be done with zind: an error, never a crash. NULL in every place is the generated nulls.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include <zind.h>

#include "check.h"

static zind_error *error = NULL;

#define BAD "\377\376"

static zind_spec *container(const char *program) {
    zind_spec *spec = NULL;
    const char *args[] = {NULL, NULL};
    args[0] = program;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    return spec;
}

/* The start of this request breaks a rule of this option. */
static void broken(zind_spec *spec, const char *field) {
    zind_process *process = NULL;
    zind_start *start = NULL;
    zind_output *output = NULL;
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), field);
    FAILS(zind_start_begin(spec, &start, &error), ZIND_STATUS_SPEC);
    FAILS(zind_capture(spec, NULL, 0, &output, &error), ZIND_STATUS_SPEC);
    CHECK(process == NULL && start == NULL && output == NULL);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void names_are_utf8(void) {
    const char *names[] = {BAD, NULL};
    zind_spec *spec = container("true");
    FAILS(zind_spec_set_hostname(spec, BAD, &error), ZIND_STATUS_UTF8);
    SAME(zind_error_field(error), "hostname");
    FAILS(zind_spec_set_domainname(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_namespace(spec, BAD, "new", &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_namespace_pid(spec, BAD, 1, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_namespace_fd(spec, BAD, 0, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_pin_namespace(spec, BAD, "/x", &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_id_maps(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_user(spec, BAD, &error), ZIND_STATUS_UTF8);
    SAME(zind_error_field(error), "user");
    FAILS(zind_spec_set_groups(spec, names, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_rlimit(spec, BAD, 1, 1, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_sysctl(spec, BAD, "1", &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_capabilities(spec, names, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_add_ambient(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_seccomp(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_landlock(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_landlock(spec, "ro", &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "landlock");
    FAILS(zind_spec_add_landlock_path(spec, BAD, "/x", &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_add_landlock_path(spec, "reed", "/x", &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_apparmor(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_selinux(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_set_mount_label(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_require(spec, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_add_device(spec, "/dev/zero", NULL, BAD, &error), ZIND_STATUS_UTF8);
    FAILS(zind_mount(NULL, "/x", BAD, 0, NULL, &error), ZIND_STATUS_UTF8);
    zind_spec *document = NULL;
    FAILS(zind_spec_from_json(BAD, &document, &error), ZIND_STATUS_UTF8);
    FAILS(zind_spec_from_json("", &document, &error), ZIND_STATUS_SPEC);
    CHECK(document == NULL);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void bytes_are_bytes(void) {
    const char *args[] = {"printf", "%s", BAD, NULL};
    zind_spec *spec = container("true");
    zind_output *output = NULL;
    const char *text = NULL;
    OK(zind_spec_set_args(spec, args, &error));
    OK(zind_spec_set_env(spec, BAD, BAD, &error));
    OK(zind_spec_add_tmpfs(spec, "/" BAD, 0, 0755, &error));
    OK(zind_spec_set_cwd(spec, "/" BAD, &error));
    OK(zind_capture(spec, NULL, 0, &output, &error));
    CHECK(zind_output_stdout(output, &text, NULL) == ZIND_STATUS_OK);
    SAME(text, BAD);
    zind_output_free(output);
    zind_spec_free(spec);
}

static void unknown_names_and_numbers_are_refused(void) {
    const char *names[] = {"CAP_FLY", NULL};
    const char *variables[] = {"NO_VALUE", NULL};
    zind_spec *spec = container("true");
    FAILS(zind_spec_set_namespace(spec, "mnt2", "new", &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "namespaces");
    FAILS(zind_spec_set_id_maps(spec, "none", &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_rlimit(spec, "files", 1, 1, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_capabilities(spec, names, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_add_ambient(spec, "", &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_seccomp(spec, "strict", &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_stdin(spec, 99, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "stdin");
    FAILS(zind_spec_set_stdout(spec, -1, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_stderr(spec, INT32_MAX, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_add_device(spec, "/dev/zero", NULL, "", &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_add_device_node(spec, 'x', "/dev/x", 1, 1, 0600, 0, 0, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_add_device_node(spec, 'c', "/dev/x", 4096, 1, 0600, 0, 0, &error), ZIND_STATUS_SPEC);
    FAILS(zind_spec_set_environ(spec, variables, &error), ZIND_STATUS_SPEC);
    FAILS(zind_setns_pid(1, 0, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    zind_spec_free(spec);
    SAME(zind_status_name(-1), "unknown");
    SAME(zind_status_name(INT32_MAX), "unknown");
    SAME(zind_status_name(ZIND_STATUS_PANIC), "panic");
}

static void closed_descriptors_are_refused(void) {
    int closed = fcntl(0, F_DUPFD_CLOEXEC, 500);
    zind_spec *spec = container("true");
    zind_process *process = NULL;
    CHECK(closed >= 0 && close(closed) == 0);
    FAILS(zind_spec_set_stdin_fd(spec, closed, &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EBADF);
    FAILS(zind_spec_set_console_fd(spec, closed, &error), ZIND_STATUS_SYS);
    FAILS(zind_spec_set_stdout_fd(spec, -1, &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EBADF);
    FAILS(zind_spec_set_stderr_fd(spec, INT32_MIN, &error), ZIND_STATUS_SYS);
    FAILS(zind_spec_set_cgroup_fd(spec, -2, &error), ZIND_STATUS_SYS);
    FAILS(zind_spec_set_namespace_fd(spec, "net", closed, &error), ZIND_STATUS_SYS);
    FAILS(zind_setns(closed, 0, &error), ZIND_STATUS_SYS);
    zind_error_clear(&error);
    OK(zind_spec_pass_fd(spec, closed, &error));
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EBADF);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void broken_rules_name_their_option(void) {
    const char *none[] = {NULL};
    zind_id_map map = {0, 0, 0};
    zind_spec *spec = NULL;
    OK(zind_spec_new(&spec, &error));
    broken(spec, "argv");
    spec = container("true");
    OK(zind_spec_set_args(spec, none, &error));
    broken(spec, "argv");
    broken(container(""), "argv");
    spec = container("true");
    OK(zind_spec_set_env(spec, "A=B", "c", &error));
    broken(spec, "env");
    spec = container("true");
    OK(zind_spec_set_overlay(spec, "none", &error));
    broken(spec, "overlay");
    spec = container("true");
    OK(zind_spec_set_cwd(spec, "tmp", &error));
    broken(spec, "cwd");
    spec = container("true");
    OK(zind_spec_set_hostname(spec, "a b", &error));
    broken(spec, "hostname");
    spec = container("true");
    OK(zind_spec_set_sysctl(spec, "kernel.core_pattern", "|/x", &error));
    broken(spec, "sysctl");
    spec = container("true");
    OK(zind_spec_add_landlock_path(spec, "read", "usr", &error));
    broken(spec, "landlock");
    spec = container("true");
    OK(zind_spec_set_apparmor(spec, NULL, &error));
    OK(zind_spec_set_apparmor(spec, "", &error));
    broken(spec, "apparmor");
    spec = container("true");
    OK(zind_spec_set_selinux(spec, "a\nb", &error));
    broken(spec, "selinux");
    spec = container("true");
    OK(zind_spec_set_mount_label(spec, NULL, &error));
    OK(zind_spec_set_mount_label(spec, "u:r:t:s0\",size=1", &error));
    broken(spec, "mount_label");
    spec = container("true");
    OK(zind_spec_set_uid_map(spec, &map, 1, &error));
    broken(spec, "uid_map");
    spec = container("true");
    OK(zind_spec_set_uid_map(spec, NULL, 0, &error));
    broken(spec, "uid_map");
    spec = container("true");
    OK(zind_spec_pass_fd(spec, -1, &error));
    broken(spec, "pass_fds");
    spec = container("true");
    OK(zind_spec_set_oom_score_adj(spec, 1001, &error));
    broken(spec, "oom_score_adj");
    spec = container("true");
    OK(zind_spec_set_umask(spec, 01000, &error));
    broken(spec, "umask");
    spec = container("true");
    OK(zind_spec_set_rlimit(spec, "nofile", UINT64_MAX, 1, &error));
    broken(spec, "rlimits");
    spec = container("true");
    OK(zind_spec_set_stdin(spec, ZIND_STDIO_STDOUT, &error));
    broken(spec, "stdout");
    spec = container("true");
    OK(zind_spec_set_setsid(spec, false, &error));
    OK(zind_spec_set_ctty(spec, 0, true, false, &error));
    broken(spec, "setctty");
    spec = container("true");
    OK(zind_spec_require(spec, "magic", &error));
    broken(spec, "require");
}

static void what_is_set_can_be_taken_back(void) {
    zind_spec *spec = container("true");
    zind_process *process = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    OK(zind_spec_set_hostname(spec, "a b", &error));
    OK(zind_spec_set_hostname(spec, NULL, &error));
    OK(zind_spec_set_nice(spec, 99, &error));
    OK(zind_spec_set_nice(spec, INT32_MIN, &error));
    OK(zind_spec_set_oom_score_adj(spec, 9999, &error));
    OK(zind_spec_set_oom_score_adj(spec, INT32_MIN, &error));
    OK(zind_spec_set_owner(spec, 1, 1, &error));
    OK(zind_spec_set_owner(spec, UINT32_MAX, UINT32_MAX, &error));
    OK(zind_spec_set_chroot(spec, "/x", &error));
    OK(zind_spec_set_chroot(spec, NULL, &error));
    OK(zind_spec_set_pdeathsig(spec, 99, &error));
    OK(zind_spec_set_pdeathsig(spec, 0, &error));
    OK(zind_spec_set_timeout_ms(spec, 0, &error));
    OK(zind_spec_set_timeout_ms(spec, -1, &error));
    OK(zind_spec_set_uid_map(spec, NULL, 0, &error));
    OK(zind_spec_set_id_maps(spec, NULL, &error));
    OK(zind_spec_set_cgroup_fd(spec, -1, &error));
    OK(zind_spec_set_umask(spec, UINT32_MAX, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_wait(process, INT64_MAX, &end, &error));
    CHECK(end.code == 0);
    zind_process_free(process);
    zind_spec_free(spec);
}

static void a_program_that_is_missing_is_named(void) {
    zind_spec *spec = container("/no/such/program");
    zind_process *process = NULL;
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SYS);
    SAME(zind_error_step(error), "Exec");
    CHECK(zind_error_errno(error) == ENOENT);
    SAME(zind_error_path(error), "/no/such/program");
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void structures_without_a_size_are_refused(void) {
    zind_spec *spec = container("true");
    zind_process *process = NULL;
    zind_exit end = {0, 0, 0, 0, 0};
    zind_stats stats = ZIND_STATS_INIT;
    stats.struct_size = sizeof(size_t);
    OK(zind_run(spec, &process, &error));
    FAILS(zind_process_poll(process, &end, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "exit");
    FAILS(zind_process_wait(process, -1, &end, &error), ZIND_STATUS_SPEC);
    FAILS(zind_process_stats(process, &stats, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_process_wait(process, -1, NULL, &error));
    FAILS(zind_process_signal(process, 65, &error), ZIND_STATUS_SPEC);
    FAILS(zind_process_signal(process, 0, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_process_signal(process, 15, &error));
    OK(zind_process_kill(process, &error));
    zind_process_free(process);
    zind_spec_free(spec);
}

/* With an argument nothing is started. */
int main(int argc, char **argv) {
    (void)argv;
    names_are_utf8();
    unknown_names_and_numbers_are_refused();
    broken_rules_name_their_option();
    if (argc == 1) {
        bytes_are_bytes();
        closed_descriptors_are_refused();
        what_is_set_can_be_taken_back();
        a_program_that_is_missing_is_named();
        structures_without_a_size_are_refused();
    }
    puts("ok");
    return 0;
}
