/* Runs a command in a container of its own, and tells how it ended.
 * cc quickstart.c $(pkg-config --cflags --libs zind) -o quickstart && ./quickstart */
#include <stdio.h>
#include <zind.h>

int main(void) {
    const char *argv[] = {"sh", "-c", "echo process $$ on $(hostname), with $(ls /home | wc -l) files in /home", NULL};
    zind_spec *s = NULL; zind_process *p = NULL; zind_error *e = NULL; zind_exit x = ZIND_EXIT_INIT;
    zind_spec_new(&s, &e);
    zind_spec_set_args(s, argv, &e);
    zind_spec_set_hostname(s, "box", &e);
    zind_spec_set_timeout_ms(s, 5000, &e);
    zind_run(s, &p, &e);
    zind_process_wait(p, -1, &x, &e);
    if (e) fprintf(stderr, "zind: %s\n", zind_error_message(e));
    else printf("exit code %d\n", x.code);
    zind_error_free(e); zind_process_free(p); zind_spec_free(s);
    return x.code == 0 ? 0 : 1;
}
