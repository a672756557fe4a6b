/* What the test programs share. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program with the place and the last error of zind's, if a promise is broken. */
#define CHECK(promise) \
    do { \
        if (!(promise)) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #promise, zind_error_message(error)); \
            exit(1); \
        } \
    } while (0)

/* Looks at the error of the call before, and frees it. */
#define FAILS(call, expected) \
    do { \
        zind_error_clear(&error); \
        zind_status got = (call); \
        if (got != (expected) || zind_error_status(error) != (expected)) { \
            fprintf(stderr, "%s:%d: %s: %s, not %s: %s\n", __FILE__, __LINE__, #call, zind_status_name(got), \
                    zind_status_name(expected), zind_error_message(error)); \
            exit(1); \
        } \
    } while (0)

#define OK(call) CHECK((call) == ZIND_STATUS_OK && error == NULL)

/* Equal, and neither is NULL. */
#define SAME(text, expected) CHECK((text) != NULL && strcmp((text), (expected)) == 0)
#define HAS(text, part) CHECK((text) != NULL && strstr((text), (part)) != NULL)

#endif
