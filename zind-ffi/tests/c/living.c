/* Containers that live: every call of theirs, and what it promises. Also compiled as C++. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zind.h>

#include "agent.h"
#include "check.h"

static zind_error *error = NULL;
static zind_containers *containers = NULL;

static zind_spec *request(const char *script) {
    zind_spec *spec = NULL;
    const char *args[] = {"sh", "-c", NULL, NULL};
    args[2] = script;
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    return spec;
}

static zind_container *make(const char *script, const zind_container_options *options) {
    zind_spec *spec = request(script);
    zind_container *container = NULL;
    OK(zind_container_create(containers, spec, options, &container, &error));
    zind_spec_free(spec);
    return container;
}

static void delete_it(zind_container *container) {
    OK(zind_container_delete(container, true, &error));
    zind_container_free(container);
}

static int state_of(const zind_container *container) {
    int32_t state = -1;
    OK(zind_container_state(container, &state, &error));
    return state;
}

/* Nothing of it is started. */
static void a_container_is_made_found_and_renamed(bool is_deleted) {
    const char *labels[] = {"tier=front", "plain=", NULL}, *bad[] = {"tier", NULL};
    const char *wanted[] = {"tier", "plain=", NULL}, *other[] = {"tier=back", NULL};
    char *text = NULL, prefix[13] = "";
    int32_t pid = 0, fd = -1;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_container *second = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    options.name = "first";
    options.labels = labels;
    options.restart = "on-failure:3";
    options.stop_signal = SIGINT;
    options.log_size = 1 << 20;
    options.log_files = 3;
    zind_container *container = make("sleep 60", &options);
    CHECK(state_of(container) == ZIND_STATE_CREATED && strlen(zind_container_id(container)) == 64);
    OK(zind_container_name(container, &text, &error));
    SAME(text, "first");
    zind_string_free(text);
    OK(zind_container_pid(container, &pid, &error));
    CHECK(pid == -1);
    FAILS(zind_container_pidfd(container, &fd, &error), ZIND_STATUS_STATE);
    HAS(zind_error_message(error), "start it first");
    zind_error_clear(&error);
    CHECK(fd == -1);
    OK(zind_container_exit(container, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_RUNNING);
    OK(zind_container_inspect_json(container, &text, &error));
    HAS(text, "\"restart\":\"on-failure:3\"");
    HAS(text, "\"stop_signal\":2");
    HAS(text, "\"files\":3");
    HAS(text, "\"size\":1048576");
    zind_string_free(text);

    memcpy(prefix, zind_container_id(container), 12);
    OK(zind_containers_find(containers, prefix, &second, &error));
    SAME(zind_container_id(second), zind_container_id(container));
    OK(zind_container_rename(second, "renamed", &error));
    zind_container_free(second);
    FAILS(zind_containers_find(containers, "first", &second, &error), ZIND_STATUS_NOT_FOUND);
    CHECK(second == NULL);
    zind_error_clear(&error);
    FAILS(zind_container_rename(container, "no name", &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);

    zind_spec *spec = request("true");
    options.name = "renamed";
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_EXISTS);
    options.name = NULL;
    options.restart = "sometimes";
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "restart");
    options.restart = NULL;
    options.labels = bad;
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "labels");
    options.labels = NULL;
    options.rows = 65536;
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "terminal");
    options.rows = 0;
    options.flags = 4;
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_SPEC);
    options.flags = 0;
    options.struct_size = sizeof(size_t);
    FAILS(zind_container_create(containers, spec, &options, &second, &error), ZIND_STATUS_SPEC);
    SAME(zind_error_field(error), "options");
    zind_error_clear(&error);
    CHECK(second == NULL);
    OK(zind_container_create(containers, spec, NULL, &second, &error));
    OK(zind_container_name(second, &text, &error));
    CHECK(text == NULL);
    zind_spec_free(spec);

    OK(zind_containers_list_json(containers, true, wanted, &text, &error));
    HAS(text, "\"name\":\"renamed\"");
    CHECK(strstr(text, zind_container_id(second)) == NULL);
    zind_string_free(text);
    OK(zind_containers_list_json(containers, true, other, &text, &error));
    SAME(text, "[]");
    zind_string_free(text);
    OK(zind_containers_list_json(containers, false, NULL, &text, &error));
    SAME(text, "[]");
    zind_string_free(text);

    zind_logs *logs = NULL;
    zind_chunk chunk = ZIND_CHUNK_INIT;
    OK(zind_container_logs(container, NULL, &logs, &error));
    OK(zind_logs_next(logs, -1, &chunk, &error));
    CHECK(chunk.stream == ZIND_STREAM_NONE && chunk.data == NULL && chunk.len == 0);
    zind_logs_free(logs);

    if (is_deleted) {
        OK(zind_container_delete(container, false, &error));
        FAILS(zind_container_inspect_json(container, &text, &error), ZIND_STATUS_NOT_FOUND);
        zind_error_clear(&error);
        OK(zind_containers_prune_json(containers, &text, &error));
        HAS(text, zind_container_id(second));
        zind_string_free(text);
    }
    zind_container_free(second);
    zind_container_free(container);
}

static void what(zind_watch *watch, const char *expected) {
    char *json = NULL;
    OK(zind_watch_next_json(watch, 60000, &json, &error));
    HAS(json, expected);
    zind_string_free(json);
}

static void it_runs_is_looked_at_and_stopped(void) {
    const char *answer[] = {"sh", "-c", "exit 7", NULL}, *ready[] = {"true", NULL};
    char *text = NULL;
    int32_t pid = 0, fd = -1;
    bool is_running = false;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_stats stats = ZIND_STATS_INIT;
    zind_exit end = ZIND_EXIT_INIT;
    zind_process *process = NULL;
    zind_watch *watch = NULL;
    zind_spec *spec = NULL;
    zind_root *root = NULL;
    OK(zind_containers_watch(containers, &watch, &error));
    CHECK(zind_watch_fd(watch) >= 0);
    options.name = "web";
    const char *script = "trap 'exit 3' TERM; echo one >&2; echo now ready; while :; do sleep 0.05; done";
    zind_container *container = make(script, &options);
    what(watch, "\"what\":\"created\"");
    FAILS(zind_container_wait(container, 0, NULL, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_stop(container, 0, NULL, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_container_start(container, &error));
    what(watch, "\"what\":\"started\"");
    CHECK(state_of(container) == ZIND_STATE_RUNNING);
    FAILS(zind_container_start(container, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_delete(container, false, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_wait_port(container, 80, 1, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_container_wait_line(container, "ready", 60000, &error));
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, ready, &error));
    OK(zind_container_wait_command(container, spec, 60000, &error));

    OK(zind_container_pid(container, &pid, &error));
    CHECK(pid > 0 && kill(pid, 0) == 0);
    OK(zind_container_pidfd(container, &fd, &error));
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && close(fd) == 0);
    OK(zind_spec_set_args(spec, answer, &error));
    OK(zind_container_exec(container, spec, &process, &error));
    OK(zind_process_wait(process, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 7);
    zind_process_free(process);
    zind_spec_free(spec);
    OK(zind_container_stats(container, &stats, &error));
    CHECK(stats.wall_ns > 0);
    OK(zind_container_stats_json(container, &text, &error));
    HAS(text, "\"wall\":");
    zind_string_free(text);
    OK(zind_container_processes_json(container, &text, &error));
    HAS(text, "\"cmdline\":[\"sh\"");
    zind_string_free(text);
    OK(zind_container_root(container, &root, &error));
    CHECK(zind_root_fd(root) >= 0);
    zind_root_free(root);
    FAILS(zind_container_resize(container, 1, 1, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_kill(container, 65, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    OK(zind_container_mount(container, "tmpfs", "tmpfs", "/tmp", NULL, &error));
    OK(zind_container_umount(container, "/tmp", &error));
    OK(zind_container_detach(container, &error));
    OK(zind_containers_list_json(containers, false, NULL, &text, &error));
    HAS(text, "\"state\":\"running\"");
    zind_string_free(text);

    FAILS(zind_container_wait(container, 0, &end, &error), ZIND_STATUS_TIMEOUT);
    zind_error_clear(&error);
    OK(zind_container_begin_stop(container, &is_running, &error));
    CHECK(is_running);
    OK(zind_container_wait(container, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 3);
    what(watch, "\"what\":\"died\"");
    CHECK(state_of(container) == ZIND_STATE_STOPPED);
    OK(zind_container_begin_stop(container, &is_running, &error));
    CHECK(!is_running);
    OK(zind_container_processes_json(container, &text, &error));
    SAME(text, "[]");
    zind_string_free(text);

    OK(zind_container_restart(container, 1000, &error));
    OK(zind_container_wait_line(container, "ready", 60000, &error));
    OK(zind_container_stop(container, 60000, &end, &error));
    CHECK(end.code == 3);
    OK(zind_container_start(container, &error));
    OK(zind_container_kill(container, SIGKILL, &error));
    OK(zind_container_wait(container, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_SIGNALED && end.signal == SIGKILL && end.returncode == -9);
    OK(zind_container_exit(container, &end, &error));
    CHECK(end.signal == SIGKILL);
    zind_watch_free(watch);
    delete_it(container);
}

/* The next piece, which is of this stream and has this text. */
static void next(zind_logs *logs, zind_stream stream, const char *text) {
    zind_chunk chunk = ZIND_CHUNK_INIT;
    OK(zind_logs_next(logs, 60000, &chunk, &error));
    CHECK(chunk.stream == (int)stream && chunk.lost == 0);
    if (stream == ZIND_STREAM_NONE) {
        CHECK(chunk.data == NULL);
    } else {
        SAME(chunk.data, text);
        CHECK(chunk.len == strlen(text) && chunk.time_ns > 0);
    }
}

static void logs_are_read_and_followed(void) {
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_log_options query = ZIND_LOG_OPTIONS_INIT;
    zind_chunk chunk = ZIND_CHUNK_INIT;
    zind_logs *logs = NULL;
    options.flags = ZIND_CONTAINER_STDIN_OPEN;
    zind_container *container = make("echo one; read x; echo two >&2; printf three", &options);
    OK(zind_container_start(container, &error));
    query.flags = ZIND_LOGS_FOLLOW | ZIND_LOGS_LINES;
    OK(zind_container_logs(container, &query, &logs, &error));
    CHECK(zind_logs_fd(logs) == -1);
    next(logs, ZIND_STREAM_STDOUT, "one");
    FAILS(zind_logs_next(logs, 0, &chunk, &error), ZIND_STATUS_TIMEOUT);
    zind_error_clear(&error);
    CHECK(zind_logs_fd(logs) >= 0);
    zind_attachment *attachment = NULL;
    OK(zind_container_attach(container, &attachment, &error));
    OK(zind_attachment_close_input(attachment, &error));
    CHECK(zind_attachment_input(attachment) == -1);
    zind_attachment_free(attachment);
    struct pollfd wait = {zind_logs_fd(logs), POLLIN, 0};
    CHECK(poll(&wait, 1, 60000) == 1);
    next(logs, ZIND_STREAM_STDERR, "two");
    OK(zind_logs_next(logs, -1, &chunk, &error));
    SAME(chunk.data, "three");
    CHECK(chunk.is_whole == 0 && chunk.len == 5);
    next(logs, ZIND_STREAM_NONE, NULL);
    next(logs, ZIND_STREAM_NONE, NULL);
    zind_logs_free(logs);

    OK(zind_container_wait(container, -1, NULL, &error));
    query.flags = ZIND_LOGS_NO_STDERR;
    OK(zind_container_logs(container, &query, &logs, &error));
    next(logs, ZIND_STREAM_STDOUT, "one\n");
    next(logs, ZIND_STREAM_STDOUT, "three");
    next(logs, ZIND_STREAM_NONE, NULL);
    zind_logs_free(logs);
    query.flags = ZIND_LOGS_NO_STDOUT;
    query.tail = 5;
    OK(zind_container_logs(container, &query, &logs, &error));
    next(logs, ZIND_STREAM_STDERR, "two\n");
    next(logs, ZIND_STREAM_NONE, NULL);
    zind_logs_free(logs);
    query.flags = 0;
    query.tail = 0;
    OK(zind_container_logs(container, &query, &logs, &error));
    next(logs, ZIND_STREAM_NONE, NULL);
    zind_logs_free(logs);
    query.tail = -1;
    query.until_ns = 1;
    OK(zind_container_logs(container, &query, &logs, &error));
    next(logs, ZIND_STREAM_NONE, NULL);
    zind_logs_free(logs);
    query.flags = 16;
    FAILS(zind_container_logs(container, &query, &logs, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    chunk.struct_size = 8;
    OK(zind_container_logs(container, NULL, &logs, &error));
    FAILS(zind_logs_next(logs, 0, &chunk, &error), ZIND_STATUS_SPEC);
    zind_error_clear(&error);
    zind_logs_free(logs);
    delete_it(container);

    /* What is thrown away before it is read is told, by pieces and by lines. */
    options.log_size = 8192;
    options.log_files = 2;
    container = make("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", &options);
    zind_logs *both[2] = {NULL, NULL};
    for (int lines = 0; lines < 2; lines++) {
        zind_log_options all = ZIND_LOG_OPTIONS_INIT;
        all.flags = lines ? ZIND_LOGS_LINES : 0;
        OK(zind_container_logs(container, &all, &both[lines], &error));
    }
    OK(zind_container_start(container, &error));
    OK(zind_container_wait(container, -1, NULL, &error));
    for (int lines = 0; lines < 2; lines++) {
        uint64_t said = 0, lost = 0;
        zind_chunk piece = ZIND_CHUNK_INIT;
        do {
            OK(zind_logs_next(both[lines], -1, &piece, &error));
            said += piece.len + (lines && piece.is_whole);
            lost += piece.lost;
        } while (piece.stream != ZIND_STREAM_NONE);
        CHECK(lost > 0 && said > 0 && said + lost == 28890);
        zind_logs_free(both[lines]);
    }
    delete_it(container);

    options.log_files = 0;
    container = make("true", &options);
    FAILS(zind_container_logs(container, NULL, &logs, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    CHECK(logs == NULL);
    delete_it(container);
}

/* Reads until this text has come. */
static void until(zind_attachment *attachment, const char *text) {
    char all[4096] = "";
    while (strstr(all, text) == NULL) {
        zind_chunk chunk = ZIND_CHUNK_INIT;
        OK(zind_attachment_next(attachment, 60000, &chunk, &error));
        CHECK(chunk.stream == ZIND_STREAM_STDOUT && strlen(all) + chunk.len < sizeof all);
        strcat(all, chunk.data);
    }
}

static void who_is_attached_reads_and_writes(void) {
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_chunk chunk = ZIND_CHUNK_INIT;
    zind_exit end = ZIND_EXIT_INIT;
    zind_attachment *attachment = NULL;
    options.flags = ZIND_CONTAINER_STDIN_OPEN;
    zind_container *container = make("echo first; cat; exit 5", &options);
    OK(zind_container_start_attached(container, &attachment, &error));
    CHECK(zind_attachment_fd(attachment) >= 0 && zind_attachment_input(attachment) >= 0);
    until(attachment, "first\n");
    FAILS(zind_attachment_next(attachment, 0, &chunk, &error), ZIND_STATUS_TIMEOUT);
    FAILS(zind_attachment_resize(attachment, 1, 1, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    int input = zind_attachment_take_input(attachment);
    CHECK(fcntl(input, F_GETFD) == FD_CLOEXEC && zind_attachment_take_input(attachment) == -1);
    CHECK(write(input, "to cat\n", 7) == 7 && close(input) == 0);
    until(attachment, "to cat\n");
    OK(zind_attachment_close_input(attachment, &error));
    OK(zind_attachment_next(attachment, -1, &chunk, &error));
    CHECK(chunk.stream == ZIND_STREAM_NONE);
    zind_attachment_free(attachment);
    OK(zind_container_wait(container, -1, &end, &error));
    CHECK(end.code == 5);
    FAILS(zind_container_attach(container, &attachment, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    delete_it(container);

    options.flags = 0;
    options.rows = 33;
    options.cols = 77;
    container = make("stty size; while read line; do stty size; done", &options);
    OK(zind_container_start_attached(container, &attachment, &error));
    until(attachment, "33 77");
    OK(zind_attachment_resize(attachment, 44, 88, &error));
    CHECK(write(zind_attachment_input(attachment), "\n", 1) == 1);
    until(attachment, "44 88");
    OK(zind_container_resize(container, 55, 99, &error));
    CHECK(write(zind_attachment_input(attachment), "\n", 1) == 1);
    until(attachment, "55 99");
    zind_attachment_free(attachment);
    delete_it(container);
}

static bool at_once(void *data) {
    return data != NULL;
}

/* Asked while this container is started, and its hook runs: so long nobody else changes it. */
static bool others_give_up(void *data) {
    zind_container *container = (zind_container *)data;
    FAILS(zind_container_pause_interruptible(container, at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_update_json_interruptible(container, "{}", at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_detach_interruptible(container, at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_rename_interruptible(container, "other", at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_snapshot_interruptible(container, "s", at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_restore_interruptible(container, "s", at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_remove_snapshot_interruptible(container, "s", at_once, data, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    return true;
}

static void an_event_loop_waits_for_it(void) {
    zind_container *container = make("read x; sleep 0.1; exit 4", NULL);
    zind_ending *ending = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    FAILS(zind_container_ending(container, &ending, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    delete_it(container);
    container = make("sleep 1000", NULL);
    OK(zind_container_start(container, &error));
    OK(zind_container_ending(container, &ending, &error));
    CHECK(ending != NULL);
    OK(zind_ending_exit(ending, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_RUNNING);
    FAILS(zind_container_wait_interruptible(container, -1, at_once, &end, NULL, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    OK(zind_container_kill(container, SIGKILL, &error));
    struct pollfd wait = {zind_ending_fd(ending), POLLIN, 0};
    CHECK(poll(&wait, 1, 60000) == 1);
    OK(zind_ending_exit(ending, &end, &error));
    CHECK(end.signal == SIGKILL);
    zind_ending_free(ending);
    OK(zind_container_ending(container, &ending, &error));
    CHECK(ending == NULL);
    delete_it(container);
}

/* An ordinary user has groups only where some were handed down. */
static void limits_are_changed_and_it_stands_still(void) {
    zind_spec *spec = request("sleep 1000");
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_container *container = NULL, *again = NULL;
    zind_event event = ZIND_EVENT_INIT;
    zind_events *events = NULL;
    char *text = NULL;
    options.name = "limited";
    options.flags = ZIND_CONTAINER_AUTO_REMOVE;
    OK(zind_spec_set_resources_json(spec, "{\"memory\": {\"limit\": 67108864}}", &error));
    OK(zind_container_create(containers, spec, &options, &container, &error));
    zind_spec_free(spec);
    OK(zind_container_start(container, &error));
    OK(zind_container_update_json(container, "{\"memory\": {\"limit\": 134217728}}", &error));
    OK(zind_container_stats_json(container, &text, &error));
    HAS(text, "\"memory_limit\":134217728");
    zind_string_free(text);
    /* The next start has it, too. */
    OK(zind_container_inspect_json(container, &text, &error));
    HAS(text, "\"limit\":134217728");
    zind_string_free(text);
    OK(zind_container_pause(container, &error));
    CHECK(state_of(container) == ZIND_STATE_PAUSED);
    FAILS(zind_container_pause(container, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_container_resume(container, &error));
    CHECK(state_of(container) == ZIND_STATE_RUNNING);
    OK(zind_container_events(container, NULL, &events, &error));
    OK(zind_container_kill(container, SIGKILL, &error));
    do {
        OK(zind_events_next(events, 60000, &event, &error));
    } while (event.kind != ZIND_EVENT_KIND_EMPTY);
    zind_events_free(events);
    /* It was to be deleted at its end. */
    OK(zind_container_wait(container, -1, NULL, &error));
    FAILS(zind_containers_find(containers, "limited", &again, &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    zind_container_free(container);
}

/* Who makes a container waits for who changes names, and may be called back. */
static void somebody_else_changes_names(const char *place) {
    zind_spec *spec = request("true");
    zind_container *container = NULL;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    char names[256], *before = NULL, *after = NULL;
    int end = 0;
    options.name = "waiting";
    snprintf(names, sizeof names, "%s/names", place);
    int lock = open(names, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(lock >= 0 && flock(lock, LOCK_EX) == 0);
    OK(zind_containers_list_json(containers, true, NULL, &before, &error));
    FAILS(zind_container_create_interruptible(containers, spec, &options, at_once, &end, &container, &error),
          ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    CHECK(container == NULL);
    OK(zind_containers_list_json(containers, true, NULL, &after, &error));
    SAME(before, after);
    zind_string_free(before);
    zind_string_free(after);
    CHECK(close(lock) == 0);
    OK(zind_container_create_interruptible(containers, spec, &options, NULL, NULL, &container, &error));
    zind_spec_free(spec);
    delete_it(container);
}

/* Whoever waits for something of it is asked whether to go on; it goes on. */
static void it_is_not_ready_and_nobody_waits(zind_container *container) {
    zind_spec *spec = request("sleep 1000"), *plain = request("true");
    zind_process *process = NULL;
    struct agent agent;
    int end = 0;
    FAILS(zind_container_wait_port_interruptible(container, 1, 600000, at_once, &end, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_wait_line_interruptible(container, "down", 600000, at_once, &end, &error), ZIND_STATUS_INTERRUPTED);
    FAILS(zind_container_wait_command_interruptible(container, spec, 600000, at_once, &end, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(busy_agent(&agent) == 0);
    OK((zind_error_clear(&error), zind_spec_set_seccomp(spec, agent.profile, &error)));
    FAILS(zind_container_exec_interruptible(container, spec, at_once, &end, &process, &error), ZIND_STATUS_INTERRUPTED);
    CHECK(process == NULL);
    zind_error_clear(&error);
    CHECK(agent_ends(&agent) == 0);
    OK(zind_container_wait_command_interruptible(container, plain, 60000, NULL, NULL, &error));
    OK(zind_container_exec_interruptible(container, plain, NULL, NULL, &process, &error));
    OK(zind_process_wait(process, -1, NULL, &error));
    zind_process_free(process);
    zind_spec_free(plain);
    zind_spec_free(spec);
    CHECK(state_of(container) == ZIND_STATE_RUNNING);
}

/* With what hooks complain of, and with somebody who is asked whether to go on. */
static void hooks_and_questions(void) {
    char *document = NULL, *text = NULL;
    zind_spec *plain = request("exit 5"), *spec = NULL;
    zind_container *container = NULL, *again = NULL;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_watch *watch = NULL;
    zind_attachment *attachment = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    OK(zind_spec_to_json(plain, &document, &error));
    zind_spec_free(plain);
    /* A field before all others. */
    const char *hooks = "{\"hooks\":{\"createContainer\":[{\"path\":\"/bin/sleep\",\"args\":[\"sleep\",\"1000\"]}],"
                        "\"poststop\":[{\"path\":\"/bin/false\"}]},";
    char *whole = (char *)malloc(strlen(hooks) + strlen(document));
    CHECK(whole != NULL && document[0] == '{');
    strcpy(whole, hooks);
    strcat(whole, document + 1);
    OK(zind_spec_from_json(whole, &spec, &error));
    free(whole);
    zind_string_free(document);
    OK(zind_container_create(containers, spec, NULL, &container, &error));
    zind_spec_free(spec);
    FAILS(zind_container_start_interruptible(container, at_once, &end, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    CHECK(state_of(container) == ZIND_STATE_CREATED);
    FAILS(zind_container_start_interruptible(container, others_give_up, container, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    OK(zind_container_rename_interruptible(container, "other", NULL, NULL, &error));
    OK(zind_container_detach_interruptible(container, NULL, NULL, &error));
    OK(zind_container_update_json_interruptible(container, "{}", NULL, NULL, &error));
    FAILS(zind_container_pause_interruptible(container, NULL, NULL, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_snapshot_interruptible(container, "s", NULL, NULL, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_restore_interruptible(container, "s", NULL, NULL, &error), ZIND_STATUS_STATE);
    FAILS(zind_container_remove_snapshot_interruptible(container, "s", NULL, NULL, &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    FAILS(zind_container_start_attached_interruptible(container, at_once, &end, &attachment, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    CHECK(attachment == NULL);
    /* Whoever was to execute the hook may have been on its way. */
    for (int turn = 0; state_of(container) != ZIND_STATE_CREATED; turn++) {
        CHECK(turn < 6000);
        poll(NULL, 0, 10);
    }
    OK(zind_container_delete_interruptible(container, false, NULL, NULL, &error));
    OK(zind_container_take_warnings_json(container, &text, &error));
    HAS(text, "the poststop hook exited with 1");
    zind_string_free(text);
    OK(zind_container_take_warnings_json(container, &text, &error));
    SAME(text, "[]");
    zind_string_free(text);
    zind_container_free(container);

    /* Deleted by its monitor, which tells it to who has started it. */
    options.name = "brief";
    options.flags = ZIND_CONTAINER_AUTO_REMOVE;
    container = make("exit 5", &options);
    OK(zind_container_start(container, &error));
    OK(zind_container_wait(container, -1, &end, &error));
    CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 5);
    FAILS(zind_containers_find(containers, "brief", &again, &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    zind_container_free(container);

    container = make("trap '' TERM; echo up; while :; do sleep 0.05; done", NULL);
    OK(zind_container_start(container, &error));
    OK(zind_container_wait_line(container, "up", 60000, &error));
    FAILS(zind_container_stop_interruptible(container, 600000, at_once, &end, &end, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    FAILS(zind_container_restart_interruptible(container, 600000, at_once, &end, &error), ZIND_STATUS_INTERRUPTED);
    zind_error_clear(&error);
    CHECK(state_of(container) == ZIND_STATE_RUNNING);
    OK(zind_container_restart_interruptible(container, 0, NULL, NULL, &error));
    OK(zind_container_wait_line_interruptible(container, "up", 60000, NULL, NULL, &error));
    it_is_not_ready_and_nobody_waits(container);
    delete_it(container);
    OK(zind_containers_watch_from(containers, 1, &watch, &error));
    what(watch, "\"number\":1");
    zind_watch_free(watch);
}

static void what_it_changed_is_told_kept_and_made_an_image_of(const char *place) {
    char command[256], root[64], tar[64], *text = NULL;
    zind_spec *spec = request("echo x > /x");
    zind_container *container = NULL;
    zind_changes *changes = NULL;
    zind_image *image = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    snprintf(root, sizeof root, "%s/root", place);
    snprintf(tar, sizeof tar, "%s/root.tar", place);
    snprintf(command, sizeof command,
             "cd %s && rm -rf root root.tar && mkdir -p root/bin root/dev root/proc root/sys && cp /bin/busybox root/bin/sh", place);
    CHECK(system(command) == 0);
    OK(zind_spec_set_rootfs(spec, root, &error));
    OK(zind_container_create(containers, spec, NULL, &container, &error));
    OK(zind_container_diff(container, NULL, &changes, &error));
    CHECK(zind_changes_count(changes) == 0);
    zind_changes_free(changes);
    OK(zind_container_snapshot(container, "before", &error));
    FAILS(zind_container_snapshot(container, "before", &error), ZIND_STATUS_STATE);
    zind_error_clear(&error);
    OK(zind_container_start(container, &error));
    OK(zind_container_wait(container, -1, &end, &error));
    CHECK(end.code == 0);
    OK(zind_container_diff(container, "before", &changes, &error));
    CHECK(zind_changes_count(changes) == 1 && zind_changes_kind(changes, 0) == ZIND_CHANGE_KIND_ADDED);
    SAME(zind_changes_path(changes, 0), "/x");
    zind_changes_free(changes);
    OK(zind_container_commit(container, "{\"tags\": [\"changed:1\"], \"compression\": \"none\"}", true, NULL, NULL, &image, &error));
    zind_image_free(image);
    OK(zind_container_export(container, tar, NULL, NULL, NULL, &error));
    CHECK(access(tar, R_OK) == 0);
    OK(zind_container_snapshots_json(container, &text, &error));
    HAS(text, "\"name\":\"before\"");
    zind_string_free(text);
    OK(zind_container_restore(container, "before", &error));
    OK(zind_container_diff(container, NULL, &changes, &error));
    CHECK(zind_changes_count(changes) == 0);
    zind_changes_free(changes);
    OK(zind_container_remove_snapshot(container, "before", &error));
    FAILS(zind_container_restore(container, "before", &error), ZIND_STATUS_NOT_FOUND);
    zind_error_clear(&error);
    delete_it(container);

    OK(zind_spec_set_rootfs(spec, "host", &error));
    OK(zind_container_create(containers, spec, NULL, &container, &error));
    zind_spec_free(spec);
    FAILS(zind_container_diff(container, NULL, &changes, &error), ZIND_STATUS_STATE);
    HAS(zind_error_message(error), "root of this machine");
    zind_error_clear(&error);
    CHECK(changes == NULL);
    delete_it(container);
}

static void every_kind_of_start(const char *place) {
    hooks_and_questions();
    somebody_else_changes_names(place);
    what_it_changed_is_told_kept_and_made_an_image_of(place);
    it_runs_is_looked_at_and_stopped();
    logs_are_read_and_followed();
    who_is_attached_reads_and_writes();
    an_event_loop_waits_for_it();
    if (geteuid() == 0) {
        limits_are_changed_and_it_stands_still();
    }
}

static int descriptors(void) {
    int open = 0;
    for (int fd = 0; fd < 1024; fd++) {
        open += fcntl(fd, F_GETFD) != -1;
    }
    return open;
}

/* With an argument nothing is started, nor deleted: valgrind hides openat2(2), too. */
int main(int argc, char **argv) {
    char place[] = "/tmp/zind-living-XXXXXX", command[64], *left = NULL;
    (void)argv;
    CHECK(mkdtemp(place) != NULL);
    OK(zind_containers_open(place, &containers, &error));
    a_container_is_made_found_and_renamed(argc == 1);
    if (argc == 1) {
        every_kind_of_start(place);
        int open = descriptors();
        every_kind_of_start(place);
        CHECK(descriptors() == open);
        /* None was a child that the caller could see. */
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
        OK(zind_containers_list_json(containers, true, NULL, &left, &error));
        SAME(left, "[]");
        zind_string_free(left);
    }
    zind_containers_free(containers);
    snprintf(command, sizeof command, "rm -r %s", place);
    CHECK(system(command) == 0);
    puts("ok");
    return 0;
}
