/* Compiles a source file that nobody trusts: the compiler sees a read-only copy of the machine, has no network, little
 * time and little memory; what it says and what it makes come back through pipes.
 * cc isolated_build.c $(pkg-config --cflags --libs zind) -o isolated_build && ./isolated_build FILE.c > FILE.s */
#include <stdio.h>
#include <zind.h>

int main(int argc, char **argv) {
    const char *compiler[] = {"cc", "-x", "c", "-S", "-o", "-", "-", NULL};
    zind_spec *spec = NULL;
    zind_output *output = NULL;
    zind_error *error = NULL;
    zind_exit end = ZIND_EXIT_INIT;
    zind_stats used = ZIND_STATS_INIT;
    static char source[1 << 20];
    const char *text = "";
    size_t size = 0;

    FILE *file = argc > 1 ? fopen(argv[1], "rb") : stdin;
    if (file == NULL) {
        perror(argv[1]);
        return 2;
    }
    size = fread(source, 1, sizeof source, file);

    zind_spec_new(&spec, &error);
    zind_spec_set_args(spec, compiler, &error);
    zind_spec_set_user(spec, "65534:65534", &error);
    zind_spec_set_cwd(spec, "/tmp", &error);
    zind_spec_set_tmpfs_size(spec, 64 << 20, &error);
    zind_spec_set_rlimit(spec, "as", 1 << 30, 1 << 30, &error);
    zind_spec_set_timeout_ms(spec, 30000, &error);
    zind_spec_require(spec, "network", &error);
    zind_capture(spec, source, size, &output, &error);
    zind_output_exit(output, &end, &error);
    zind_output_stats(output, &used, &error);
    if (error == NULL) {
        zind_output_stderr(output, &text, NULL);
        fputs(text, stderr);
        zind_output_stdout(output, &text, &size);
        fwrite(text, 1, size, stdout);
        fprintf(stderr, "%s after %.2f s, %.1f MiB\n", end.kind == ZIND_EXIT_KIND_TIMEOUT ? "killed" : "ended",
                (double)used.wall_ns / 1e9, (double)used.max_rss / 1048576);
    } else {
        fprintf(stderr, "zind: %s\n", zind_error_message(error));
    }
    zind_error_free(error);
    zind_output_free(output);
    zind_spec_free(spec);
    return end.code == 0 ? 0 : 1;
}
