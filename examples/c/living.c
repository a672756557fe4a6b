/* A container that lives on its own: made, started, met again by its name, asked, and deleted.
 * cc living.c $(pkg-config --cflags --libs zind) -o living && ./living DIRECTORY */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zind.h>

int main(int argc, char **argv) {
    const char *args[] = {"sh", "-c", "echo serving; while read line; do echo you said $line; done", NULL};
    const char *labels[] = {"tier=front", NULL}, *question = "hello\n";
    zind_containers *containers = NULL;
    zind_container *container = NULL, *same = NULL;
    zind_container_options options = ZIND_CONTAINER_OPTIONS_INIT;
    zind_log_options lines = ZIND_LOG_OPTIONS_INIT;
    zind_attachment *attachment = NULL;
    zind_logs *logs = NULL;
    zind_spec *spec = NULL;
    zind_error *error = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    zind_chunk chunk = ZIND_CHUNK_INIT;

    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    /* The first error stays; without a handle the calls after it do nothing. Without a path: the user's own place. */
    zind_containers_open(argv[1], &containers, &error);
    zind_spec_new(&spec, &error);
    zind_spec_set_args(spec, args, &error);
    options.name = "web";
    options.labels = labels;
    options.flags = ZIND_CONTAINER_STDIN_OPEN;
    zind_container_create(containers, spec, &options, &container, &error);
    zind_container_start(container, &error);
    zind_container_wait_line(container, "serving", 30000, &error);

    /* Any program of the same user finds it by its name. */
    zind_containers_find(containers, "web", &same, &error);
    zind_container_attach(same, &attachment, &error);
    if (write(zind_attachment_input(attachment), question, strlen(question)) > 0 &&
        zind_attachment_next(attachment, 30000, &chunk, &error) == ZIND_STATUS_OK && chunk.len > 0)
        printf("%.*s", (int)chunk.len, chunk.data);
    zind_attachment_close_input(attachment, &error);
    zind_attachment_free(attachment);

    zind_container_wait(container, 30000, &end, &error);
    printf("exit code %d\n", end.code);
    lines.flags = ZIND_LOGS_LINES;
    zind_container_logs(container, &lines, &logs, &error);
    while (zind_logs_next(logs, 0, &chunk, &error) == ZIND_STATUS_OK && chunk.stream != ZIND_STREAM_NONE)
        printf("%s: %s\n", chunk.stream == ZIND_STREAM_STDOUT ? "stdout" : "stderr", chunk.data);
    zind_logs_free(logs);
    if (error != NULL) {
        fprintf(stderr, "zind: %s\n", zind_error_message(error));
        end.code = 1;
    }
    if (container != NULL) zind_container_delete(container, true, NULL);
    zind_container_free(same);
    zind_container_free(container);
    zind_spec_free(spec);
    zind_containers_free(containers);
    zind_error_free(error);
    return end.code;
}
