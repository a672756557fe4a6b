/* What a C program does with zind: every kind of call once, and what it promises. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zind.h>

#include "agent.h"
#include "check.h"

static zind_error *error = NULL;

static zind_spec *container(const char *script) {
    zind_spec *spec = NULL;
    const char *args[] = {"sh", "-c", NULL, NULL};
    args[2] = script;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    return spec;
}

/* Runs a container to its end; the output is the caller's. */
static zind_output *capture(zind_spec *spec, const char *input) {
    zind_output *output = NULL;
    OK(zind_capture(spec, input, input == NULL ? 0 : strlen(input), &output, &error));
    return output;
}

static const char *stdout_of(const zind_output *output) {
    const char *text = NULL;
    size_t len = 0;
    CHECK(zind_output_stdout(output, &text, &len) == ZIND_STATUS_OK);
    CHECK(strlen(text) == len);
    return text;
}

static int counted;

static int count(const zind_progress_event *event, void *data) {
    CHECK(data == &counted);
    if (event != NULL) {
        CHECK(event->struct_size >= sizeof *event && event->layer < event->layers + 1);
        counted++;
    }
    return 0;
}

static int stop(const zind_progress_event *event, void *data) {
    (void)event;
    (void)data;
    return 1;
}

/* A step has all that a start has: here a file that is mounted, and a limit. */
static void images_are_built_by_specs(void) {
    char dir[] = "/tmp/zind-use-XXXXXX", place[64], command[64];
    const char *argv[] = {"/bin/busybox", "sh", "-c", "/bin/busybox cat /given > /taken; ulimit -n >> /taken", NULL};
    const char *pair[] = {"A", "1", NULL}, *one[] = {"/bin", NULL}, *cmd[] = {"/bin/busybox", "cat", "/taken", NULL};
    zind_store *store = NULL;
    zind_builder *builder = NULL;
    zind_image *image = NULL;
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    char *steps = NULL;
    int turn;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(place, sizeof place, "%s/store", dir);
    OK(zind_store_open(place, &store, &error));
    OK(zind_builder_new(store, NULL, &builder, &error));
    OK(zind_builder_copy(builder, "/bin/busybox", "/bin/busybox", NULL, &error));
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, argv, &error));
    OK(zind_spec_add_file(spec, "/given", (const uint8_t *)"from a mount\n", 13, 0644, &error));
    OK(zind_spec_set_rlimit(spec, "nofile", 77, 77, &error));
    OK(zind_builder_set_id_maps(builder, spec, &error));
    OK(zind_builder_run(builder, spec, &error));
    zind_spec_free(spec);
    OK(zind_builder_configure(builder, "env", pair, &error));
    OK(zind_builder_configure(builder, "workdir", one, &error));
    OK(zind_builder_configure(builder, "cmd", cmd, &error));
    FAILS(zind_builder_configure(builder, "env", one, &error), ZIND_STATUS_SPEC);
    FAILS(zind_builder_configure(builder, "copy", one, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    for (turn = 0; turn < 3; turn++) {
        if (turn == 2) OK(zind_builder_set_cache(builder, false, &error));
        OK(zind_builder_commit(builder, "{\"tags\": [\"local/b:1\"]}", NULL, NULL, &image, &steps, &error));
        CHECK((strstr(steps, "\"cached\":false") != NULL) == (turn != 1));
        zind_string_free(steps);
        if (turn < 2) zind_image_free(image);
    }
    spec = NULL;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_image(spec, image, &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), "from a mount\n77\n");
    zind_output_free(output);
    zind_spec_free(spec);
    zind_image_free(image);
    zind_builder_free(builder);
    zind_store_free(store);
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0);
}

static void parameters_are_those_of_its_namespaces(void) {
    const char *argv[] = {"cat", "/proc/sys/kernel/shmmax", "/proc/sys/net/core/somaxconn", NULL};
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, argv, &error));
    OK(zind_spec_set_sysctl(spec, "kernel.shmmax", "4096", &error));
    OK(zind_spec_set_sysctl(spec, "net.core.somaxconn", "99", &error));
    OK(zind_spec_set_sysctl(spec, "vm.swappiness", "1", &error));
    OK(zind_spec_set_sysctl(spec, "vm.swappiness", NULL, &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), "4096\n99\n");
    zind_output_free(output);
    zind_spec_free(spec);
}

static void landlock_lets_pass_what_a_rule_names(void) {
    const char *argv[] = {"sh", "-c", "cat /etc/passwd >/dev/null && echo read; echo x >/tmp/x || echo refused; cat /etc/hostname >/dev/null || echo hidden", NULL};
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, argv, &error));
    OK(zind_spec_set_landlock(spec, "rox=/usr,rox=/bin,rox=/lib,rox=/lib64,rw=/dev", &error));
    OK(zind_spec_add_landlock_path(spec, "read+execute", "/etc/passwd", &error));
    OK(zind_spec_require(spec, "landlock", &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), "read\nrefused\nhidden\n");
    zind_output_free(output);
    OK(zind_spec_set_landlock(spec, "none", &error));
    zind_spec_free(spec);
}

static void images_are_built_run_committed_and_removed(void) {
    char dir[] = "/tmp/zind-use-XXXXXX", place[64], path[96];
    const char *description =
        "{\"tags\": [\"local/c:1\"], \"steps\": [{\"copy\": [\"/bin/busybox\", \"/bin/busybox\"]},"
        "{\"run\": [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox ln -s busybox /bin/cat; echo $A > /file\"], \"env\": {\"A\": \"made\"}},"
        "{\"env\": {\"B\": \"2\"}, \"label\": {\"x\": \"y\"}}, {\"workdir\": \"/work\"}, {\"cmd\": [\"cat\", \"/file\"]}]}";
    const char *entry[] = {"/bin/busybox", NULL}, *args[] = {"pwd", NULL};
    zind_store *store = NULL;
    zind_image *image = NULL, *again = NULL, *committed = NULL;
    const zind_image *images[] = {NULL, NULL};
    zind_layers *layers = NULL;
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    zind_process *process = NULL;
    zind_root *root = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    char *json = NULL, buffer[64];
    size_t length = 0;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(place, sizeof place, "%s/store", dir);
    OK(zind_store_open(place, &store, &error));
    OK(zind_store_build(store, description, count, &counted, &image, &json, &error));
    CHECK(counted > 0);
    HAS(json, "\"cached\":false");
    zind_string_free(json);
    OK(zind_store_build(store, description, NULL, NULL, &again, &json, &error));
    CHECK(strstr(json, "\"cached\":false") == NULL);
    SAME(zind_image_id(again), zind_image_id(image));
    zind_string_free(json);
    zind_image_free(again);
    OK(zind_store_image(store, "local/c:1", &again, &error));
    SAME(zind_image_digest(again), zind_image_digest(image));
    zind_image_free(again);
    OK(zind_store_get(store, "local/c:1", "{\"policy\": \"never\"}", NULL, NULL, &again, &error));
    OK(zind_image_json(again, &json, &error));
    HAS(json, "\"WorkingDir\":\"/work\"");
    zind_string_free(json);
    zind_image_free(again);

    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_image(spec, image, &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), "made\n");
    zind_output_free(output);
    OK(zind_spec_set_entrypoint(spec, entry, &error));
    OK(zind_spec_set_args(spec, args, &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), "/work\n");
    zind_output_free(output);
    zind_spec_free(spec);

    snprintf(path, sizeof path, "%s/layers", dir);
    OK(zind_layers_create_over(path, image, NULL, NULL, &layers, &error));
    spec = NULL;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_layers(spec, layers, &error));
    args[0] = "/bin/busybox";
    {
        const char *script[] = {"/bin/busybox", "sh", "-c", "echo more >> /file", NULL};
        OK(zind_spec_set_args(spec, script, &error));
    }
    zind_output_free(capture(spec, NULL));
    FAILS(zind_layers_commit(layers, NULL, NULL, stop, NULL, &committed, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_layers_commit(layers, NULL, "{\"tag\": 1}", NULL, NULL, &committed, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_layers_commit(layers, NULL, "{\"tags\": [\"local/c:2\"], \"message\": \"why\"}", NULL, NULL, &committed, &error));
    OK(zind_image_mount(committed, NULL, NULL, &root, &error));
    OK(zind_root_read_file(root, "/file", buffer, sizeof buffer - 1, &length, &error));
    buffer[length] = 0;
    SAME(buffer, "made\nmore\n");
    zind_root_free(root);
    snprintf(path, sizeof path, "%s/flat.tar", dir);
    OK(zind_layers_export(layers, path, NULL, NULL, NULL, &error));
    CHECK(unlink(path) == 0);
    OK(zind_image_export(committed, path, "gzip", NULL, NULL, &error));
    zind_spec_free(spec);
    OK(zind_layers_delete(layers, &error));
    zind_layers_free(layers);

    spec = NULL;
    args[0] = "cat";
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_image(spec, committed, &error));
    OK(zind_spec_set_args(spec, args, &error));
    OK(zind_spec_set_stdin(spec, ZIND_STDIO_PIPE, &error));
    snprintf(path, sizeof path, "%s/overlay", dir);
    CHECK(mkdir(path, 0755) == 0);
    OK(zind_spec_set_overlay(spec, path, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_stop(process, 50, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_SIGNALED);
    OK(zind_process_commit(process, NULL, NULL, NULL, &again, &error));
    zind_image_free(again);
    zind_process_free(process);
    zind_spec_free(spec);

    images[0] = committed;
    snprintf(path, sizeof path, "%s/saved.tar", dir);
    OK(zind_store_save(store, images, path, "docker", NULL, NULL, &error));
    OK(zind_store_load(store, path, NULL, NULL, &json, &error));
    HAS(json, zind_image_id(committed));
    zind_string_free(json);
    OK(zind_store_tag(store, committed, "local/c:3", &error));
    OK(zind_store_usage_json(store, &json, &error));
    HAS(json, "local/c:3");
    zind_string_free(json);
    OK(zind_store_remove(store, "local/c:3", &error));
    FAILS(zind_store_remove(store, "local/c:3", &error), ZIND_STATUS_NOT_FOUND);
    FAILS(zind_store_pull(store, "127.0.0.1:1/x", "{\"retries\": 0}", NULL, NULL, &again, &error), ZIND_STATUS_REGISTRY);
    zind_error_clear(&error);
    OK(zind_store_images_json(store, &json, &error));
    HAS(json, "local/c:2");
    zind_string_free(json);
    OK(zind_store_verify_json(store, NULL, NULL, &json, &error));
    SAME(json, "[]");
    zind_string_free(json);
    OK(zind_store_gc_json(store, &json, &error));
    zind_string_free(json);
    counted = 0;
    OK(zind_store_gc_with_json(store, count, &counted, &json, &error));
    CHECK(counted > 0);
    zind_string_free(json);
    OK(zind_store_usage_with_json(store, count, &counted, &json, &error));
    HAS(json, "local/c:2");
    zind_string_free(json);
    zind_image_free(image);
    zind_image_free(committed);
    zind_store_free(store);
    FAILS(zind_store_open_with(place, "{\"size\": 1}", &store, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    FAILS(zind_store_open_with(place, "{\"entries\": \"many\"}", &store, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_store_open_with(place, "{\"entries\": 1}", &store, &error));
    FAILS(zind_store_import_rootfs(store, path, "a", NULL, NULL, NULL, &again, &error), ZIND_STATUS_IMAGE);
    HAS(zind_error_message(error), "entries");
    zind_error_clear(&error);
    zind_store_free(store);
    {
        char command[128];
        snprintf(command, sizeof command, "rm -rf %s", dir);
        CHECK(system(command) == 0);
    }
}

static void layers_stay_and_go_back(void) {
    char dir[] = "/tmp/zind-use-XXXXXX", base[64], root[64], second[64];
    const char *bases[] = {base, NULL};
    zind_layers *layers = NULL, *again = NULL, *clone = NULL;
    zind_changes *changes = NULL;
    zind_metadata meta = ZIND_METADATA_INIT;
    char *text = NULL, path[128];
    FILE *file = NULL;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(base, sizeof base, "%s/base", dir);
    snprintf(root, sizeof root, "%s/layers", dir);
    snprintf(second, sizeof second, "%s/clone", dir);
    CHECK(mkdir(base, 0755) == 0);
    OK(zind_layers_create(root, bases, &layers, &error));
    OK(zind_layers_snapshot(layers, "empty", &error));
    OK(zind_layers_upper(layers, &text, &error));
    snprintf(path, sizeof path, "%s/link", text);
    CHECK(symlink("to", path) == 0);
    snprintf(path, sizeof path, "%s/file", text);
    file = fopen(path, "w");
    CHECK(file != NULL && fputs("12345", file) >= 0 && fclose(file) == 0);
    zind_string_free(text);
    OK(zind_layers_open(root, &again, &error));
    OK(zind_layers_diff(again, "empty", &changes, &error));
    CHECK(zind_changes_count(changes) == 2);
    CHECK(zind_changes_kind(changes, 0) == ZIND_CHANGE_KIND_ADDED);
    CHECK(zind_changes_kind(changes, 2) == ZIND_CHANGE_KIND_NONE && zind_changes_path(changes, 2) == NULL);
    SAME(zind_changes_path(changes, 0), "/file");
    OK(zind_changes_new(changes, 0, &meta, &error));
    CHECK(meta.file_type == ZIND_FILE_TYPE_FILE && meta.size == 5 && meta.target == NULL && meta.mtime_ns > 0);
    OK(zind_changes_old(changes, 0, &meta, &error));
    CHECK(meta.file_type == ZIND_FILE_TYPE_NONE && meta.size == 0);
    OK(zind_changes_new(changes, 1, &meta, &error));
    CHECK(meta.file_type == ZIND_FILE_TYPE_SYMLINK);
    SAME(meta.target, "to");
    FAILS(zind_changes_new(changes, 2, &meta, &error), ZIND_STATUS_NOT_FOUND);
    meta.struct_size = 8;
    FAILS(zind_changes_new(changes, 0, &meta, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    zind_changes_free(changes);
    zind_layers_free(again);
    OK(zind_layers_clone(layers, second, &clone, &error));
    FAILS(zind_layers_delete(layers, &error), ZIND_STATUS_STATE);
    FAILS(zind_layers_restore(layers, "none", &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    OK(zind_layers_set_volatile(clone, true, &error));
    OK(zind_layers_delete(clone, &error));
    zind_layers_free(clone);
    OK(zind_layers_snapshots_json(layers, &text, &error));
    HAS(text, "\"name\":\"empty\"");
    zind_string_free(text);
    OK(zind_layers_restore(layers, "empty", &error));
    OK(zind_layers_remove(layers, "empty", &error));
    OK(zind_layers_diff(layers, NULL, &changes, &error));
    CHECK(zind_changes_count(changes) == 0);
    zind_changes_free(changes);
    OK(zind_layers_dir(layers, &text, &error));
    SAME(text, root);
    zind_string_free(text);
    zind_spec *spec = container("true");
    zind_process *process = NULL;
    OK(zind_spec_set_layers(spec, layers, &error));
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SYS);
    SAME(zind_error_step(error), "Exec");
    zind_error_clear(&error);
    zind_spec_free(spec);
    OK(zind_layers_delete(layers, &error));
    zind_layers_free(layers);
    CHECK(rmdir(base) == 0 && rmdir(dir) == 0);
}

static void a_request_runs_twice_and_tells_its_exit(void) {
    zind_spec *spec = container("exit 7");
    for (int i = 0; i < 2; i++) {
        zind_process *process = NULL;
        zind_exit end = ZIND_EXIT_INIT;
        zind_stats stats = ZIND_STATS_INIT;
        OK(zind_run(spec, &process, &error));
        CHECK(zind_process_pid(process) > 0);
        CHECK(fcntl(zind_process_pidfd(process), F_GETFD) == FD_CLOEXEC);
        CHECK(fcntl(zind_process_end_fd(process), F_GETFD) == FD_CLOEXEC);
        OK(zind_process_wait(process, -1, &end, &error));
        CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 7 && end.signal == 0 && end.returncode == 7);
        OK(zind_process_wait(process, -1, NULL, &error));
        OK(zind_process_stats(process, &stats, &error));
        CHECK(stats.wall_ns > 0 && stats.cpu_user_ns >= 0 && stats.cpu_system_ns >= 0 && stats.max_rss > 0);
        OK(zind_process_kill(process, &error));
        zind_process_free(process);
    }
    zind_spec_free(spec);
}

static void output_input_and_isolation_come_back(void) {
    zind_spec *spec = container("cat; echo oops >&2; echo $$");
    zind_output *output = capture(spec, "hello\n");
    zind_exit end = ZIND_EXIT_INIT;
    zind_stats stats = ZIND_STATS_INIT;
    const char *text = NULL;
    char *json = NULL;
    SAME(stdout_of(output), "hello\n2\n");
    CHECK(zind_output_stderr(output, &text, NULL) == ZIND_STATUS_OK);
    SAME(text, "oops\n");
    OK(zind_output_exit(output, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 0);
    OK(zind_output_stats(output, &stats, &error));
    CHECK(stats.wall_ns > 0);
    OK(zind_output_isolation_json(output, &json, &error));
    HAS(json, "\"net\":\"new\"");
    HAS(json, "\"seccomp\":\"default\"");
    zind_string_free(json);
    zind_output_free(output);
    zind_spec_free(spec);
}

static void filters_ask_tell_and_learn(void) {
    static const char profile[] = "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": ["
                                  "{\"names\": [\"sethostname\"], \"action\": \"SCMP_ACT_NOTIFY\"}]}";
    zind_spec *spec = container("hostname other 2>&1; hostname another 2>&1; hostname third 2>&1");
    zind_process *process = NULL;
    zind_notifier *notifier = NULL, *again = NULL;
    zind_violations *violations = NULL;
    zind_call call = ZIND_CALL_INIT;
    zind_violation violation = ZIND_VIOLATION_INIT;
    zind_exit end = ZIND_EXIT_INIT;
    char name[8] = {0};
    char *json = NULL;
    size_t length = 0;
    bool found = false;
    OK(zind_spec_set_seccomp(spec, profile, &error));
    OK(zind_run(spec, &process, &error));
    CHECK(zind_process_violations(process, &violations, &error) == ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_process_take_notifier(process, &notifier, &error));
    CHECK(zind_process_take_notifier(process, &again, &error) == ZIND_STATUS_STATE && again == NULL);
    zind_error_clear(&error);
    CHECK(fcntl(zind_notifier_fd(notifier), F_GETFD) == FD_CLOEXEC);
    OK(zind_notifier_next(notifier, -1, &call, &error));
    SAME(call.name, "sethostname");
    CHECK(call.id != 0 && call.pid > 0 && call.number == 170 && call.arch == 0xc000003e && call.args[1] == 5);
    OK(zind_notifier_read(notifier, &call, call.args[0], name, 5, &length, &error));
    CHECK(length == 5 && memcmp(name, "other", 5) == 0);
    OK(zind_notifier_write(notifier, &call, call.args[0], "xyz", 3, &length, &error));
    OK(zind_notifier_add_fd(notifier, &call, 0, 33, true, NULL, &error));
    CHECK(zind_notifier_refuse(notifier, &call, 0, &error) == ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_notifier_answer(notifier, &call, 0, &error));
    CHECK(zind_notifier_answer(notifier, &call, 0, &error) == ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_notifier_next(notifier, -1, &call, &error));
    OK(zind_notifier_refuse(notifier, &call, EDOM, &error));
    OK(zind_notifier_next(notifier, -1, &call, &error));
    OK(zind_notifier_proceed(notifier, &call, &error));
    OK(zind_notifier_next(notifier, -1, &call, &error));
    CHECK(call.id == 0);
    OK(zind_process_wait(process, -1, &end, &error));
    zind_notifier_free(notifier);
    zind_process_free(process);
    process = NULL;
    /* A further program asks whoever starts it. */
    zind_spec *sleeper = container("exec sleep 1000");
    zind_process *around = NULL;
    OK(zind_run(sleeper, &around, &error));
    OK(zind_process_exec(around, spec, &process, &error));
    OK(zind_process_take_notifier(process, &notifier, &error));
    for (int number = 0; number < 3; number++) {
        OK(zind_notifier_next(notifier, -1, &call, &error));
        SAME(call.name, "sethostname");
        OK(zind_notifier_answer(notifier, &call, 0, &error));
    }
    OK(zind_notifier_next(notifier, -1, &call, &error));
    CHECK(call.id == 0);
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.code == 0);
    zind_notifier_free(notifier);
    zind_process_free(process);
    process = NULL;
    OK(zind_process_kill(around, &error));
    OK(zind_process_wait(around, -1, &end, &error));
    zind_process_free(around);
    zind_spec_free(sleeper);
    OK(zind_spec_set_seccomp(spec, "default", &error));
    OK(zind_spec_set_violations(spec, true, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_violations(process, &violations, &error));
    CHECK(zind_violations_fd(violations) >= 0);
    for (violation.errno_ = 1; violation.errno_ != 0;) {
        OK(zind_violations_next(violations, -1, &violation, &error));
        if (strcmp(violation.name, "sethostname") == 0) {
            found = true;
            CHECK(violation.errno_ == EPERM && violation.number == 170 && violation.pid > 0);
        }
    }
    CHECK(found && zind_violations_lost(violations) == 0);
    OK(zind_process_wait(process, -1, &end, &error));
    zind_violations_free(violations);
    zind_process_free(process);
    process = NULL;
    OK(zind_spec_set_violations(spec, false, &error));
    OK(zind_spec_set_seccomp(spec, "learn", &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_wait(process, -1, &end, &error));
    OK(zind_process_learned_json(process, &json, &error));
    HAS(json, "\"sethostname\"");
    OK(zind_spec_set_seccomp(spec, json, &error));
    zind_string_free(json);
    zind_process_free(process);
    CHECK(zind_spec_set_seccomp(spec, "{\"defaultAction\": \"SCMP_ACT_DENY\"}", &error) == ZIND_STATUS_SPEC);
    HAS(zind_error_message(error), "SCMP_ACT_DENY");
    zind_error_clear(&error);
    CHECK(zind_spec_set_seccomp(spec, "/no/such/profile.json", &error) == ZIND_STATUS_SYS);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void options_reach_the_payload(void) {
    zind_spec *spec = container(
        "echo $A $0 $(hostname) $(pwd) $(ulimit -n) $(umask) $(id -u):$(id -g) $(ls /data) $(stat -fc %T /scratch) "
        "$(cat /etc/given)$(: 2>/dev/null >/sealed/x && echo bad)"
        "$(head -c 2 /dev/given | wc -c)$(stat -c %F /dev/queue)$(test -c /dev/console && echo c)");
    zind_spec *copy = NULL;
    zind_output *output = NULL;
    static const char *const sealed[] = {"ro", "size=64k", NULL};
    static const char *const clash[] = {"ro", "rw", NULL};
    char dir[] = "/tmp/zind-use-XXXXXX";
    char file[64];
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    CHECK(mkdtemp(dir) != NULL && chmod(dir, 0755) == 0);
    snprintf(file, sizeof file, "%s/inside", dir);
    CHECK(close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)) == 0);
    OK(zind_spec_add_arg(spec, "name", &error));
    OK(zind_spec_set_env(spec, "A", "first", &error));
    OK(zind_spec_set_env(spec, "A", "b\377", &error));
    OK(zind_spec_set_hostname(spec, "box", &error));
    OK(zind_spec_set_cwd(spec, "/usr", &error));
    OK(zind_spec_set_rlimit(spec, "nofile", 99, 99, &error));
    OK(zind_spec_set_rlimit(spec, "RLIMIT_NOFILE", 77, 88, &error));
    OK(zind_spec_set_umask(spec, 027, &error));
    OK(zind_spec_set_user(spec, "0:0", &error));
    OK(zind_spec_add_bind(spec, dir, "/data", true, true, &error));
    OK(zind_spec_add_tmpfs(spec, "/scratch", 1 << 20, 01777, &error));
    OK(zind_spec_add_mount(spec, "tmpfs", NULL, "/sealed", sealed, &error));
    OK(zind_spec_add_file(spec, "/etc/given", (const uint8_t *)"inside\n", 7, 0644, &error));
    CHECK(zind_spec_add_mount(spec, "tmpfs", NULL, "/x", clash, &error) == ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "mounts");
    zind_error_clear(&error);
    OK(zind_spec_add_device(spec, "/dev/zero", "/dev/given", "rw", &error));
    OK(zind_spec_add_device_node(spec, 'p', "/dev/queue", 0, 0, 0600, UINT32_MAX, UINT32_MAX, &error));
    OK(zind_spec_set_console_fd(spec, terminal, &error));
    CHECK(close(terminal) == 0);
    CHECK(zind_spec_add_device(spec, "/dev/zero", NULL, "rwx", &error) == ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "devices");
    zind_error_clear(&error);
    OK(zind_spec_copy(spec, &copy, &error));
    OK(zind_spec_set_env(spec, "A", NULL, &error));
    output = capture(copy, NULL);
    SAME(stdout_of(output), "b\377 name box /usr 77 0027 0:0 inside tmpfs inside2fifoc\n");
    zind_output_free(output);
    output = capture(spec, NULL);
    SAME(stdout_of(output), "name box /usr 77 0027 0:0 inside tmpfs inside2fifoc\n");
    zind_output_free(output);
    zind_spec_free(copy);
    zind_spec_free(spec);
    CHECK(unlink(file) == 0 && rmdir(dir) == 0);
}

static void the_environment_is_the_one_given(void) {
    const char *variables[] = {"PATH=/usr/bin:/bin", "X=1=2", NULL};
    const char *args[] = {"env", NULL};
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    OK(zind_spec_set_clear_env(spec, true, &error));
    OK(zind_spec_set_environ(spec, variables, &error));
    output = capture(spec, NULL);
    HAS(stdout_of(output), "X=1=2\n");
    CHECK(strstr(stdout_of(output), "HOME") == NULL);
    zind_output_free(output);
    zind_spec_free(spec);
}

static void pipes_are_the_caller_s(void) {
    zind_spec *spec = container("read line; echo got $line; echo more >&2");
    zind_process *process = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    char text[64] = "";
    int in, out;
    OK(zind_spec_set_stdin(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_spec_set_stdout(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_spec_set_stderr(spec, ZIND_STDIO_STDOUT, &error));
    OK(zind_run(spec, &process, &error));
    in = zind_process_take_stdin(process);
    out = zind_process_take_stdout(process);
    CHECK(in >= 0 && out >= 0 && zind_process_take_stderr(process) == -1 && zind_process_take_stdin(process) == -1);
    CHECK(fcntl(in, F_GETFD) == FD_CLOEXEC && fcntl(out, F_GETFD) == FD_CLOEXEC);
    CHECK(write(in, "it\n", 3) == 3 && close(in) == 0);
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(read(out, text, sizeof text - 1) == 12 && close(out) == 0);
    SAME(text, "got it\nmore\n");
    zind_process_free(process);

    zind_output *output = NULL;
    OK(zind_run(spec, &process, &error));
    OK(zind_process_communicate(process, "that\n", 5, &output, &error));
    SAME(stdout_of(output), "got that\nmore\n");
    zind_output_free(output);
    zind_process_free(process);
    zind_spec_free(spec);
}

static void streams_go_to_files_and_descriptors(void) {
    zind_spec *spec = container("cat; echo err >&2; echo fd >/proc/self/fd/$FD");
    zind_process *process = NULL;
    char path[] = "/tmp/zind-use-XXXXXX";
    char text[64] = "";
    char number[16];
    int ends[2];
    int passed;
    int file = mkstemp(path);
    CHECK(file >= 0 && write(file, "text\n", 5) == 5 && close(file) == 0);
    CHECK(pipe(ends) == 0);
    passed = fcntl(ends[1], F_DUPFD, 100);
    snprintf(number, sizeof number, "%d", passed);
    OK(zind_spec_set_env(spec, "FD", number, &error));
    OK(zind_spec_set_stdin_file(spec, path, &error));
    OK(zind_spec_set_stdout_fd(spec, ends[1], &error));
    OK(zind_spec_set_stderr_file(spec, "/dev/null", &error));
    OK(zind_spec_pass_fd(spec, passed, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    zind_spec_free(spec);
    CHECK(close(ends[1]) == 0 && close(passed) == 0);
    CHECK(read(ends[0], text, sizeof text - 1) == 8 && read(ends[0], text + 8, 1) == 0 && close(ends[0]) == 0);
    SAME(text, "text\nfd\n");
    CHECK(unlink(path) == 0);
}

static void time_limits_and_signals_end_it(void) {
    zind_spec *spec = container("trap 'exit 3' TERM; echo begun; while :; do sleep 0.05; done");
    zind_process *process = NULL;
    zind_output *output = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    char text[16];
    int out;
    OK(zind_spec_set_stdout(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_poll(process, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_RUNNING);
    FAILS(zind_process_wait(process, 20, &end, &error), ZIND_STATUS_TIMEOUT);
    zind_error_clear(&error);
    zind_stats now = ZIND_STATS_INIT;
    OK(zind_process_stats(process, &now, &error));
    CHECK(now.wall_ns > 0 && now.memory_current == -1);
    FAILS(zind_process_pause(process, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    out = zind_process_take_stdout(process);
    CHECK(read(out, text, sizeof text) == 6 && close(out) == 0);
    OK(zind_process_signal(process, SIGTERM, &error));
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 3);
    zind_process_free(process);

    OK(zind_run(spec, &process, &error));
    OK(zind_process_mount(process, "tmpfs", NULL, "/late", NULL, &error));
    OK(zind_process_umount(process, "/late", &error));
    zind_spec *late = container("test -t 0 && stty size");
    zind_process *guest = NULL;
    OK(zind_spec_set_terminal(late, 30, 90, &error));
    OK(zind_process_exec(process, late, &guest, &error));
    OK(zind_process_communicate(guest, NULL, 0, &output, &error));
    SAME(stdout_of(output), "30 90\r\n");
    zind_output_free(output);
    FAILS(zind_process_resize(guest, 10, 10, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    CHECK(zind_process_take_terminal(guest) == -1);
    zind_process_free(guest);
    OK(zind_process_kill(process, &error));
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(zind_process_umount(process, "/late", &error) == ZIND_STATUS_STATE);
    zind_error_clear(&error);
    FAILS(zind_process_exec(process, late, &guest, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    CHECK(guest == NULL);
    zind_spec_free(late);
    CHECK(end.kind == ZIND_EXIT_KIND_SIGNALED && end.signal == SIGKILL && end.code == -1 && end.returncode == -SIGKILL);
    zind_process_free(process);

    /* On a busy machine it may not have begun in the shorter times. */
    for (int64_t limit = 1000; ; limit *= 4) {
        OK(zind_spec_set_timeout_ms(spec, limit, &error));
        output = capture(spec, NULL);
        OK(zind_output_exit(output, &end, &error));
        CHECK(end.kind == ZIND_EXIT_KIND_TIMEOUT);
        if (strcmp(stdout_of(output), "begun\n") == 0) break;
        CHECK(limit < 60000 && strcmp(stdout_of(output), "") == 0);
        zind_output_free(output);
    }
    zind_output_free(output);
    zind_spec_free(spec);
}

static bool count_down(void *data) {
    return --*(int *)data <= 0;
}

static void waits_can_be_given_up(void) {
    zind_spec *spec = container("sleep 1000");
    zind_process *process = NULL;
    zind_output *output = NULL;
    int questions = 2;
    OK(zind_run(spec, &process, &error));
    FAILS(zind_process_wait_interruptible(process, -1, count_down, &questions, NULL, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(questions == 0);
    zind_error_clear(&error);
    OK(zind_process_kill(process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    questions = 2;
    FAILS(zind_capture_interruptible(spec, NULL, 0, count_down, &questions, &output, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(output == NULL);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void what_waits_for_programs_can_be_given_up(void) {
    zind_spec *spec = container("trap '' TERM; echo up; while :; do sleep 0.05; done");
    zind_process *process = NULL;
    zind_output *output = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    char up[4] = "";
    int questions = 2;
    OK(zind_spec_set_stdout(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_run_interruptible(spec, NULL, NULL, &process, &error));
    FAILS(zind_process_communicate_interruptible(process, NULL, 0, count_down, &questions, &output, &error),
          ZIND_STATUS_INTERRUPTED);
    CHECK(output == NULL && questions == 0);
    zind_error_clear(&error);
    OK(zind_process_kill(process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    process = NULL;

    OK(zind_run(spec, &process, &error));
    int fd = zind_process_take_stdout(process);
    CHECK(read(fd, up, 3) == 3);
    SAME(up, "up\n");
    questions = 2;
    FAILS(zind_process_stop_interruptible(process, 600000, count_down, &questions, &end, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(questions == 0);
    zind_error_clear(&error);
    OK(zind_process_poll(process, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_RUNNING);
    OK(zind_process_stop_interruptible(process, 0, NULL, NULL, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_SIGNALED && end.signal == SIGKILL);
    CHECK(close(fd) == 0);
    zind_process_free(process);
    zind_spec_free(spec);
}

/* The agent of their profile does not let them in. */
static void starts_can_be_given_up(void) {
    zind_spec *plain = container("sleep 1000"), *spec = container("sleep 1000");
    zind_start *start = NULL;
    zind_process *process = NULL, *guest = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    struct agent agent;
    int questions = 2;
    CHECK(busy_agent(&agent) == 0);
    OK(zind_spec_set_seccomp(spec, agent.profile, &error));
    FAILS(zind_run_interruptible(spec, count_down, &questions, &process, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(process == NULL && questions <= 0);
    zind_error_clear(&error);
    OK(zind_start_begin(spec, &start, &error));
    questions = 2;
    FAILS(zind_start_finish_interruptible(start, count_down, &questions, &process, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(process == NULL && questions <= 0);
    FAILS(zind_start_finish_interruptible(start, NULL, NULL, &process, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    zind_start_free(start);
    OK(zind_run(plain, &process, &error));
    questions = 2;
    FAILS(zind_process_exec_interruptible(process, spec, count_down, &questions, &guest, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(guest == NULL && questions <= 0);
    zind_error_clear(&error);
    CHECK(agent_ends(&agent) == 0);
    /* The container goes on. */
    OK(zind_process_exec_interruptible(process, plain, NULL, NULL, &guest, &error));
    OK(zind_process_kill(guest, &error));
    OK(zind_process_wait(guest, -1, NULL, &error));
    zind_process_free(guest);
    OK(zind_process_poll(process, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_RUNNING);
    OK(zind_process_kill(process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    zind_spec_free(spec);
    zind_spec_free(plain);
}

static void an_event_loop_starts_and_ends_it(void) {
    zind_spec *spec = container("exit 5");
    zind_start *start = NULL;
    zind_process *process = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    OK(zind_start_begin(spec, &start, &error));
    struct pollfd wait = {zind_start_fd(start), POLLIN, 0};
    CHECK(poll(&wait, 1, 20000) == 1);
    OK(zind_start_finish(start, &process, &error));
    CHECK(zind_start_fd(start) == -1);
    wait.fd = zind_process_end_fd(process);
    CHECK(poll(&wait, 1, 20000) == 1);
    OK(zind_process_poll(process, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 5);
    zind_process_free(process);
    process = NULL;
    FAILS(zind_start_finish(start, &process, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    zind_start_free(start);
    OK(zind_start_begin(spec, &start, &error));
    zind_start_free(start); /* called off */
    zind_spec_free(spec);
}

static void errors_name_step_object_and_cure(void) {
    zind_spec *spec = NULL;
    zind_process *process = NULL;
    const char *args[] = {"no-such-program", NULL};
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SYS);
    CHECK(process == NULL);
    SAME(zind_error_step(error), "Exec");
    CHECK(zind_error_step_number(error) > 0);
    CHECK(zind_error_errno(error) == ENOENT);
    SAME(zind_error_syscall(error), "execve");
    SAME(zind_error_path(error), "no-such-program");
    CHECK(zind_error_hint(error) != NULL && zind_error_field(error) == NULL);

    /* The first error stays over the calls that follow. */
    CHECK(zind_process_wait(process, -1, NULL, &error) == ZIND_STATUS_NULL);
    CHECK(zind_error_errno(error) == ENOENT);

    FAILS((zind_spec_set_nice(spec, 99, &error), zind_run(spec, &process, &error)), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "nice");
    CHECK(zind_error_step(error) == NULL && zind_error_errno(error) == 0 && zind_error_path(error) == NULL);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void what_is_required_is_in_force_or_an_error(void) {
    zind_spec *spec = container("true");
    zind_process *process = NULL;
    char *json = NULL;
    OK(zind_spec_require(spec, "seccomp", &error));
    OK(zind_spec_require(spec, "net", &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_isolation_json(process, &json, &error));
    HAS(json, "\"in_force\":[");
    zind_string_free(json);
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    process = NULL;
    OK(zind_spec_set_seccomp(spec, "none", &error));
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_UNSUPPORTED);
    zind_error_clear(&error);
    zind_spec_free(spec);
}

static void a_plain_process_shares_what_is_not_changed(void) {
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    char expected[128];
    char link[64] = "";
    const char *args[] = {"sh", "-c", "readlink /proc/self/ns/net; hostname; echo $HERE", NULL};
    CHECK(readlink("/proc/self/ns/net", link, sizeof link - 1) > 0);
    snprintf(expected, sizeof expected, "%s\ninner\nyes\n", link);
    CHECK(setenv("HERE", "yes", 1) == 0);
    OK(zind_spec_low_level_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    if (geteuid() == 0) {
        OK(zind_spec_set_namespace_pid(spec, "ipc", getpid(), &error));
    } else {
        OK(zind_spec_set_namespace(spec, "user", "new", &error));
    }
    OK(zind_spec_set_namespace(spec, "uts", "new", &error));
    OK(zind_spec_set_hostname(spec, "inner", &error));
    output = capture(spec, NULL);
    SAME(stdout_of(output), expected);
    zind_output_free(output);
    zind_spec_free(spec);
}

static bool enough(void *data) {
    ++*(int *)data;
    return true;
}

static void files_go_in_and_out(void) {
    char dir[] = "/tmp/zind-ffi-copy-XXXXXX";
    char path[128];
    char buffer[16] = "";
    size_t read = 0;
    zind_root *root = NULL;
    zind_spec *spec = container("sleep 100");
    zind_process *process = NULL;
    zind_copy_options options = ZIND_COPY_OPTIONS_INIT;
    zind_copy_stats stats = ZIND_COPY_STATS_INIT;
    CHECK(mkdtemp(dir) != NULL);
    OK(zind_root_open(dir, &root, &error));
    CHECK(fcntl(zind_root_fd(root), F_GETFD) == FD_CLOEXEC);
    OK(zind_root_write_file(root, "/../a/b", (const uint8_t *)"one", 3, 0600, &error));
    OK(zind_root_read_file(root, "a/b", buffer, sizeof buffer, &read, &error));
    CHECK(read == 3 && memcmp(buffer, "one", 3) == 0);
    FAILS(zind_root_read_file(root, "a/b", buffer, 2, &read, &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EFBIG);
    zind_error_clear(&error);
    OK(zind_run(spec, &process, &error));
    snprintf(path, sizeof path, "%s/a", dir);
    OK(zind_process_copy_in(process, path, "/root/made/on/the/way", NULL, &stats, &error));
    CHECK(stats.struct_size == sizeof stats && stats.files == 1 && stats.directories == 1 && stats.bytes == 3);
    options.flags = ZIND_COPY_NO_OVERWRITE;
    FAILS(zind_process_copy_in(process, path, "/root/made/on/the/way/b", &options, NULL, &error), ZIND_STATUS_SYS);
    options.flags = 1u << 20;
    FAILS(zind_process_copy_in(process, path, "/root/x", &options, NULL, &error), ZIND_STATUS_SPEC);
    options.struct_size = 8;
    FAILS(zind_process_copy_in(process, path, "/root/x", &options, NULL, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    snprintf(path, sizeof path, "%s/out", dir);
    OK(zind_process_copy_out(process, "/root/made/.", path, NULL, NULL, &error));
    OK(zind_root_read_file(root, "out/on/the/way/b", buffer, sizeof buffer, &read, &error));
    zind_root_free(root);
    OK(zind_process_root(process, &root, &error));
    OK(zind_root_read_file(root, "/root/made/on/the/way/b", buffer, sizeof buffer, &read, &error));
    OK(zind_root_copy_in(root, path, "/root/again", NULL, NULL, NULL, NULL, &error));
    int asked = 0;
    snprintf(path, sizeof path, "%s/too-long", dir);
    FAILS(zind_root_copy_out(root, "/usr/share", path, NULL, enough, &asked, NULL, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(asked == 1);
    zind_error_clear(&error);
    zind_root_free(root);
    OK(zind_process_kill(process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    FAILS(zind_process_root(process, &root, &error), ZIND_STATUS_STATE);
    CHECK(root == NULL);
    FAILS(zind_process_copy_out(process, "/etc", path, NULL, NULL, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    zind_process_free(process);
    zind_spec_free(spec);
    snprintf(path, sizeof path, "rm -rf %s", dir);
    CHECK(system(path) == 0);
}

static void volumes_outlive_containers(void) {
    char dir[] = "/tmp/zind-ffi-volumes-XXXXXX";
    char command[128];
    char *json = NULL;
    zind_process *process = NULL;
    zind_output *output = NULL;
    zind_root *root = NULL;
    zind_spec *spec = container("cat /v/file; echo two >/v/file; cat");
    zind_exit end = ZIND_EXIT_INIT;
    int fd = -1;
    bool filled = false;
    CHECK(mkdtemp(dir) != NULL);
    OK(zind_volume_create(dir, "v", &error));
    FAILS(zind_volume_create(dir, "v", &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EEXIST);
    FAILS(zind_volume_create(dir, "../v", &error), ZIND_STATUS_SPEC);
    FAILS(zind_volume_json(dir, "w", &json, &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    OK(zind_volumes_json(dir, &json, &error));
    HAS(json, "\"fresh\":true");
    zind_string_free(json);
    OK(zind_root_open(dir, &root, &error));
    OK(zind_root_write_file(root, "content/file", (const uint8_t *)"one\n", 4, 0644, &error));
    OK(zind_volume_fill_from(dir, "v", root, "/content", &filled, NULL, &error));
    CHECK(filled);
    OK(zind_volume_fill_from(dir, "v", root, "/content", &filled, NULL, &error));
    CHECK(!filled);
    zind_root_free(root);
    OK(zind_volume_hold(dir, "v", &fd, &error));
    FAILS(zind_volume_remove(dir, "v", &error), ZIND_STATUS_STATE);
    CHECK(close(fd) == 0);
    zind_error_clear(&error);
    OK(zind_spec_add_volume(spec, "v", "/v", dir, 0, NULL, 0, &error));
    FAILS(zind_spec_add_volume(spec, "v", "/v", dir, 4, NULL, 0, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_spec_set_stdin(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_spec_set_stdout(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_run(spec, &process, &error));
    FAILS(zind_volume_remove(dir, "v", &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_process_communicate(process, NULL, 0, &output, &error));
    SAME(stdout_of(output), "one\n");
    zind_output_free(output);
    OK(zind_process_wait(process, -1, &end, &error));
    zind_process_free(process);
    zind_spec_free(spec);
    spec = container("grep -q two /v/file");
    OK(zind_spec_add_volume(spec, "v", "/v", dir, ZIND_VOLUME_READ_ONLY, NULL, 0, &error));
    OK(zind_run(spec, &process, &error));
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.code == 0);
    zind_process_free(process);
    zind_spec_free(spec);
    OK(zind_volume_mark_used(dir, "v", &error));
    OK(zind_volume_json(dir, "v", &json, &error));
    HAS(json, "\"fresh\":false");
    zind_string_free(json);
    OK(zind_volume_remove(dir, "v", &error));
    FAILS(zind_volume_remove(dir, "v", &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    snprintf(command, sizeof command, "rm -r %s", dir);
    CHECK(system(command) == 0);
}

static void the_machine_can_be_looked_at(void) {
    char *text = NULL;
    char own[64] = "";
    char copy[8] = "";
    const char word[] = "zinding";
    size_t read = 0;
    OK(zind_proc_json(getpid(), &text, &error));
    HAS(text, "\"cmdline\":[\"");
    HAS(text, "\"errors\":{");
    HAS(text, "\"starttime\":");
    zind_string_free(text);
    OK(zind_proc_cwd(0, &text, &error));
    CHECK(getcwd(own, sizeof own) != NULL || errno == ERANGE);
    CHECK(own[0] == 0 || strcmp(own, text) == 0);
    zind_string_free(text);
    OK(zind_proc_exe(0, &text, &error));
    CHECK(text[0] == '/');
    zind_string_free(text);
    OK(zind_proc_root(0, &text, &error));
    SAME(text, "/");
    zind_string_free(text);
    OK(zind_proc_mem(0, (uint64_t)(size_t)word, copy, sizeof word, &read, &error));
    CHECK(read == sizeof word);
    SAME(copy, word);
    FAILS(zind_proc_json(0x7ffffff0, &text, &error), ZIND_STATUS_NOT_FOUND);
    CHECK(text == NULL);
    zind_error_clear(&error);
    OK(zind_namespaces_json(&text, &error));
    HAS(text, "\"kind\":\"net\"");
    zind_string_free(text);
    OK(zind_doctor_json(&text, &error));
    HAS(text, "\"checks\":[");
    zind_string_free(text);
    OK(zind_doctor_text(&text, &error));
    HAS(text, "user namespace");
    zind_string_free(text);
}

static void refusals_of_the_kernel_have_a_step(void) {
    OK(zind_unshare(0, &error));
    FAILS(zind_setns(-1, 0, &error), ZIND_STATUS_SYS);
    CHECK(zind_error_errno(error) == EBADF);
    FAILS(zind_umount("/no/such/place", 0, &error), ZIND_STATUS_SYS);
    SAME(zind_error_step(error), "Call");
    SAME(zind_error_syscall(error), "umount2");
    FAILS(zind_mount("none", "/no/such/place", "tmpfs", 0, NULL, &error), ZIND_STATUS_SYS);
    FAILS(zind_pivot_root("/no/such/place", "/", &error), ZIND_STATUS_SYS);
    FAILS(zind_chroot("/no/such/place", &error), ZIND_STATUS_SYS);
    FAILS(zind_setns_path("/no/such/place", 0, &error), ZIND_STATUS_SYS);
    zind_error_clear(&error);
}

/* How many descriptors are open. */
static int descriptors(void) {
    int open = 0;
    for (int fd = 0; fd < 1024; fd++) {
        open += fcntl(fd, F_GETFD) != -1;
    }
    return open;
}

/* Of a container whose memory runs out: how many were killed. */
static int events_come_until_the_end(zind_process *process) {
    const char *bad[] = {"cpu some 1 2 3", NULL}, *late[] = {"disk some 1 2000000", NULL};
    zind_events *events = NULL;
    zind_event event = ZIND_EVENT_INIT;
    int kills = 0;
    OK(zind_process_events(process, NULL, &events, &error));
    struct pollfd wait = {zind_events_fd(events), POLLIN, 0};
    while (event.kind != ZIND_EVENT_KIND_EMPTY) {
        CHECK(poll(&wait, 1, 60000) == 1);
        zind_status status = zind_events_next(events, 0, &event, NULL);
        CHECK(status == ZIND_STATUS_OK || status == ZIND_STATUS_TIMEOUT);
        if (status == ZIND_STATUS_OK && event.kind == ZIND_EVENT_KIND_OOM_KILL) kills += (int)event.count;
    }
    OK(zind_events_next(events, -1, &event, &error));
    CHECK(event.kind == ZIND_EVENT_KIND_NONE && event.resource == ZIND_PRESSURE_NONE);
    zind_events_free(events);
    FAILS(zind_process_events(process, bad, &events, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "pressure");
    zind_error_clear(&error);
    FAILS(zind_process_events(process, late, &events, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    CHECK(events == NULL && zind_events_fd(NULL) == -1);
    zind_events_free(NULL);
    return kills;
}

static void *close_events(void *data) {
    usleep(20000);
    zind_events_closer_close(data);
    return NULL;
}

/* Of a container that runs: another thread ends the wait. */
static void events_are_ended_by_another_thread(zind_process *process) {
    zind_events *events = NULL;
    zind_events_closer *closer = NULL;
    zind_event event = ZIND_EVENT_INIT;
    pthread_t thread;
    OK(zind_process_events(process, NULL, &events, &error));
    OK(zind_events_closer_new(events, &closer, &error));
    CHECK(pthread_create(&thread, NULL, close_events, closer) == 0);
    OK(zind_events_next(events, -1, &event, &error));
    CHECK(event.kind == ZIND_EVENT_KIND_NONE);
    CHECK(pthread_join(thread, NULL) == 0);
    zind_events_free(events);
    zind_events_closer_close(closer); /* it outlives them, and twice is fine */
    zind_events_closer_free(closer);
    zind_events_closer_close(NULL);
    zind_events_closer_free(NULL);
}

/* Of a container that runs, which is killed. */
static void readings_come_at_intervals_until_the_end(zind_process *process) {
    zind_stats_stream *stream = NULL;
    zind_stats stats = ZIND_STATS_INIT;
    bool more = false;
    int fd = -1, seen = 0;
    FAILS(zind_process_stats_every(process, 0, &stream, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "interval");
    zind_error_clear(&error);
    OK(zind_process_stats_every(process, 20, &stream, &error));
    OK(zind_stats_stream_fd(stream, &fd, &error));
    do {
        struct pollfd wait = {fd, POLLIN, 0};
        CHECK(poll(&wait, 1, 60000) == 1);
        zind_status status = zind_stats_stream_next(stream, 0, &stats, &more, NULL);
        CHECK(status == ZIND_STATUS_OK || status == ZIND_STATUS_TIMEOUT);
        if (status == ZIND_STATUS_OK && more) {
            seen++;
            CHECK(stats.wall_ns > 0 && (seen > 3 || (stats.pids == 2 && stats.memory_current > 0)));
            if (seen == 3) OK(zind_process_kill(process, &error));
        }
    } while (more);
    CHECK(seen >= 4 && stats.pids == -1 && stats.memory_current == -1 && stats.memory_peak > 0);
    OK(zind_stats_stream_next(stream, -1, &stats, &more, &error));
    CHECK(!more);
    zind_stats_stream_free(stream);
    zind_stats_stream_free(NULL);

    OK(zind_process_stats_every(process, 3600000, &stream, &error));
    OK(zind_stats_stream_next(stream, -1, &stats, &more, &error));
    CHECK(more && stats.memory_peak > 0); /* ended: one of its whole life */
    OK(zind_stats_stream_next(stream, -1, &stats, &more, &error));
    CHECK(!more);
    zind_stats_stream_free(stream);
}

/* How many the kernel kills in a container whose program needs more memory than there is. */
static int kills_for_memory(void) {
    zind_spec *spec = container("exec dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null");
    zind_process *process = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    zind_stats stats = ZIND_STATS_INIT;
    OK(zind_spec_set_memory(spec, 32 << 20, &error));
    OK(zind_spec_set_swap(spec, 0, &error));
    OK(zind_spec_require(spec, "memory", &error));
    OK(zind_run(spec, &process, &error));
    int kills = events_come_until_the_end(process);
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_OOM && end.signal == 9 && end.returncode == -9);
    OK(zind_process_stats(process, &stats, &error));
    CHECK(stats.oom_kills >= 1 && stats.memory_peak > (16 << 20) && stats.memory_current == -1);
    CHECK(stats.oom_kills == kills);
    zind_process_free(process);
    zind_spec_free(spec);
    return kills;
}

/* An ordinary user has groups only where some were handed down. */
static void limits_hold_and_readings_come(void) {
    zind_spec *spec = NULL;
    zind_process *process = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    zind_stats stats = ZIND_STATS_INIT;
    char *json = NULL;
    bool paused = true;
    if (geteuid() != 0) return;
    int kills = kills_for_memory();
    /* The kernel takes PID 1 as well where the program has not ended yet when its memory is gone, now and then. */
    for (int turn = 0; kills == 2 && turn < 5; turn++) kills = kills_for_memory();
    CHECK(kills == 1);

    spec = container("sleep 60 & echo; wait");
    OK(zind_spec_set_resources_json(spec, "{\"memory\": {\"limit\": 67108864}}", &error));
    OK(zind_spec_set_pids(spec, 9, &error));
    OK(zind_spec_set_cpus(spec, 1, &error));
    OK(zind_spec_set_cpuset(spec, "0", &error));
    OK(zind_spec_set_stdout(spec, ZIND_STDIO_PIPE, &error));
    OK(zind_run(spec, &process, &error));
    int out = zind_process_take_stdout(process);
    char text[4];
    CHECK(read(out, text, sizeof text) == 1 && close(out) == 0);
    OK(zind_process_stats(process, &stats, &error));
    CHECK(stats.pids == 2 && stats.memory_current > 0 && stats.memory_peak >= stats.memory_current);
    OK(zind_process_stats_json(process, &json, &error));
    HAS(json, "\"memory_limit\":67108864");
    zind_string_free(json);
    OK(zind_process_update(process, "{\"memory\": {\"limit\": 134217728}}", &error));
    OK(zind_process_stats_json(process, &json, &error));
    HAS(json, "\"memory_limit\":134217728");
    zind_string_free(json);
    /* Between its fork and its exec it has the name of the shell. */
    for (bool is_sleep = false; !is_sleep; usleep(1000)) {
        OK(zind_process_list_json(process, &json, &error));
        CHECK(strstr(json, "\"cmdline\":[\"sh\"") != NULL);
        is_sleep = strstr(json, "\"cmdline\":[\"sleep\",\"60\"]") != NULL;
        zind_string_free(json);
    }
    OK(zind_process_pause(process, &error));
    OK(zind_process_is_paused(process, &paused, &error));
    CHECK(paused);
    OK(zind_process_resume(process, &error));
    OK(zind_process_is_paused(process, &paused, &error));
    CHECK(!paused);
    FAILS(zind_process_update(process, "{\"cpu\": {\"mems\": \"x\"}}", &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "resources");
    zind_error_clear(&error);
    events_are_ended_by_another_thread(process);
    readings_come_at_intervals_until_the_end(process);
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_SIGNALED);
    FAILS(zind_process_update(process, "{}", &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    zind_process_free(process);
    zind_spec_free(spec);

    spec = container("true");
    OK(zind_spec_set_cgroup_parent(spec, "/zind-c-test", &error));
    FAILS(zind_run(spec, &process, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "cgroup_parent");
    zind_error_clear(&error);
    OK(zind_spec_set_resources_json(spec, "{}", &error));
    zind_output *output = capture(spec, NULL);
    OK(zind_output_stats_json(output, &json, &error));
    HAS(json, "\"memory_peak\":");
    zind_string_free(json);
    zind_output_free(output);
    zind_spec_free(spec);
    OK(zind_groups_sweep(NULL, &json, &error));
    HAS(json, "[");
    zind_string_free(json);
}

static void a_document_of_oci_is_written_and_run(void) {
    char dir[] = "/tmp/zind-use-XXXXXX", path[64], *json = NULL;
    zind_spec *spec = container("cat /proc/sys/kernel/hostname"), *again = NULL;
    OK(zind_spec_set_hostname(spec, "c-oci", &error));
    OK(zind_spec_to_json(spec, &json, &error));
    HAS(json, "\"hostname\": \"c-oci\"");
    HAS(json, "\"org.zind.rootfs\": \"\\\"host\\\"\"");
    OK(zind_spec_from_json(json, &again, &error));
    zind_output *output = capture(again, NULL);
    SAME(stdout_of(output), "c-oci\n");
    zind_output_free(output);
    zind_spec_free(again);
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/config.json", dir);
    FAILS(zind_spec_from_bundle(dir, &again, &error), ZIND_STATUS_SYS);
    SAME(zind_error_path(error), path);
    zind_error_clear(&error);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(json, file) >= 0 && fclose(file) == 0);
    zind_string_free(json);
    OK(zind_spec_from_bundle(dir, &again, &error));
    output = capture(again, NULL);
    SAME(stdout_of(output), "c-oci\n");
    zind_output_free(output);
    zind_spec_free(again);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    again = NULL;
    FAILS(zind_spec_from_json("{\"ociVersion\": 1}", &again, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "ociVersion");
    zind_error_clear(&error);
    CHECK(again == NULL);
    OK(zind_spec_set_stdin_fd(spec, 0, &error));
    json = NULL;
    FAILS(zind_spec_to_json(spec, &json, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "stdin");
    zind_error_clear(&error);
    CHECK(json == NULL);
    zind_spec_free(spec);
}

static void every_kind_of_start(void) {
    a_request_runs_twice_and_tells_its_exit();
    layers_stay_and_go_back();
    images_are_built_by_specs();
    parameters_are_those_of_its_namespaces();
    landlock_lets_pass_what_a_rule_names();
    images_are_built_run_committed_and_removed();
    output_input_and_isolation_come_back();
    filters_ask_tell_and_learn();
    options_reach_the_payload();
    the_environment_is_the_one_given();
    pipes_are_the_caller_s();
    streams_go_to_files_and_descriptors();
    waits_can_be_given_up();
    what_waits_for_programs_can_be_given_up();
    starts_can_be_given_up();
    an_event_loop_starts_and_ends_it();
    errors_name_step_object_and_cure();
    what_is_required_is_in_force_or_an_error();
    a_plain_process_shares_what_is_not_changed();
    files_go_in_and_out();
    volumes_outlive_containers();
    limits_hold_and_readings_come();
    a_document_of_oci_is_written_and_run();
}

/* With an argument nothing is started. */
int main(int argc, char **argv) {
    (void)argv;
    SAME(zind_version(), ZIND_VERSION);
    CHECK(zind_abi_version() == ZIND_ABI_VERSION);
    if (argc == 1) {
        every_kind_of_start();
        time_limits_and_signals_end_it();
        FAILS(zind_setns_pid(0x7ffffff0, 0x40000000 /* CLONE_NEWNET */, &error), ZIND_STATUS_NOT_FOUND);
        zind_error_clear(&error);
        int open = descriptors();
        every_kind_of_start();
        CHECK(descriptors() == open);
        /* No container is left, and none was a child that the caller could see. */
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    }
    the_machine_can_be_looked_at();
    refusals_of_the_kernel_have_a_step();
    puts("ok");
    return 0;
}
