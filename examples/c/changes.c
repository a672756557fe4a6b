/* Runs a command on a root directory that stays as it is, and says what the command would have changed.
 * cc changes.c $(pkg-config --cflags --libs zind) -o changes && ./changes ROOT EMPTY-DIRECTORY COMMAND... */
#include <stdio.h>
#include <zind.h>

int main(int argc, char **argv) {
    static const char *const kinds[] = {"added", "modified", "deleted"};
    const char *base[] = {argc > 1 ? argv[1] : "", NULL};
    zind_layers *layers = NULL;
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    zind_changes *changes = NULL;
    zind_error *error = NULL;
    zind_exit end = ZIND_EXIT_INIT;

    if (argc < 4) {
        fprintf(stderr, "usage: %s ROOT EMPTY-DIRECTORY COMMAND...\n", argv[0]);
        return 2;
    }
    /* The first error stays; without a handle the calls after it do nothing. */
    zind_layers_create(argv[2], base, &layers, &error);
    zind_spec_new(&spec, &error);
    zind_spec_set_args(spec, (const char *const *)argv + 3, &error);
    zind_spec_set_layers(spec, layers, &error);
    zind_capture(spec, NULL, 0, &output, &error);
    zind_output_exit(output, &end, &error);
    zind_layers_diff(layers, NULL, &changes, &error);
    for (size_t i = 0; i < zind_changes_count(changes); i++)
        printf("%s %s\n", kinds[zind_changes_kind(changes, i) - ZIND_CHANGE_KIND_ADDED], zind_changes_path(changes, i));
    if (error != NULL) {
        fprintf(stderr, "zind: %s\n", zind_error_message(error));
        end.code = 1;
    }
    zind_changes_free(changes);
    zind_output_free(output);
    zind_spec_free(spec);
    if (layers != NULL) zind_layers_delete(layers, NULL);
    zind_layers_free(layers);
    zind_error_free(error);
    return end.code;
}
