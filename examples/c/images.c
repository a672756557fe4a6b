/* Makes an image of a root file system (a directory or a tar), or pulls one by its name, and runs a command in it.
 * cc images.c $(pkg-config --cflags --libs zind) -o images && ./images STORE ./debian.tar cat /etc/os-release */
#include <stdio.h>
#include <string.h>
#include <zind.h>

/* A line for each piece of work; a question without an event is answered with "go on". */
static int show(const zind_progress_event *event, void *data) {
    static const char *const names[] = {"work", "download", "upload", "unpack", "load", "save", "check", "pack", "build"};
    (void)data;
    if (event == NULL) return 0;
    const char *name = event->kind >= 0 && event->kind <= ZIND_PROGRESS_KIND_BUILD ? names[event->kind] : names[0];
    fprintf(stderr, "\r%-9s", name);
    if (event->layer >= 0) fprintf(stderr, " %d of %d", event->layer + 1, event->layers);
    if (event->total > 0) fprintf(stderr, " %3.0f %%", 100.0 * (double)event->done / (double)event->total);
    if (event->total > 0 && event->done == (uint64_t)event->total) fputc('\n', stderr);
    return 0;
}

int main(int argc, char **argv) {
    zind_store *store = NULL;
    zind_image *image = NULL;
    zind_spec *spec = NULL;
    zind_process *process = NULL;
    zind_error *error = NULL;
    zind_exit end = ZIND_EXIT_INIT;

    if (argc < 3) {
        fprintf(stderr, "usage: %s STORE NAME|./ROOT|./ROOT.tar [COMMAND...]\n", argv[0]);
        return 2;
    }
    zind_store_open(argv[1], &store, &error);
    if (argv[2][0] == '.' || argv[2][0] == '/')
        zind_store_import_rootfs(store, argv[2], "local/imported", NULL, show, NULL, &image, &error);
    else
        zind_store_get(store, argv[2], NULL, show, NULL, &image, &error);
    if (image != NULL) printf("%s\n", zind_image_id(image));
    fflush(stdout);
    /* Without a command it is the image's own. */
    zind_spec_new(&spec, &error);
    zind_spec_set_image(spec, image, &error);
    if (argc > 3) zind_spec_set_args(spec, (const char *const *)argv + 3, &error);
    zind_run(spec, &process, &error);
    zind_process_wait(process, -1, &end, &error);
    if (error != NULL) {
        fprintf(stderr, "zind: %s\n", zind_error_message(error));
        end.code = 1;
    }
    zind_process_free(process);
    zind_spec_free(spec);
    zind_image_free(image);
    zind_store_free(store);
    zind_error_free(error);
    return end.code;
}
