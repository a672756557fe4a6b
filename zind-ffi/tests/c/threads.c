/* Eight threads start fifty containers each, all from one request, while somebody takes and gives memory. */
#include <pthread.h>

#include <zind.h>

#include "check.h"

enum { THREADS = 8, STARTS = 50 };

static const zind_spec *shared;

static void *starter(void *data) {
    zind_error *error = NULL;
    (void)data;
    for (int i = 0; i < STARTS; i++) {
        zind_process *process = NULL;
        zind_exit end = ZIND_EXIT_INIT;
        void *memory = malloc(1000 + (size_t)i * 1000);
        OK(zind_run(shared, &process, &error));
        free(memory);
        OK(zind_process_wait(process, 60000, &end, &error));
        CHECK(end.kind == ZIND_EXIT_KIND_EXITED && end.code == 9);
        zind_process_free(process);
    }
    return NULL;
}

int main(void) {
    zind_error *error = NULL;
    zind_spec *spec = NULL;
    pthread_t threads[THREADS];
    const char *args[] = {"sh", "-c", "exit 9", NULL};
    OK(zind_spec_new(&spec, &error));
    OK(zind_spec_set_args(spec, args, &error));
    shared = spec;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, starter, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    zind_spec_free(spec);
    puts("ok");
    return 0;
}
