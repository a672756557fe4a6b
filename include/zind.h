/*
 * zind: Linux containers as a library.                        SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Made from the Rust sources; do not edit. Compile and link with `pkg-config --cflags --libs zind`.
 *
 *     const char *argv[] = {"id", "-u", NULL};
 *     zind_spec *spec = NULL; zind_process *process = NULL; zind_error *error = NULL; zind_exit end = ZIND_EXIT_INIT;
 *     zind_spec_new(&spec, &error);
 *     zind_spec_set_args(spec, argv, &error);
 *     zind_run(spec, &process, &error);
 *     zind_process_wait(process, -1, &end, &error);
 *     if (error) fprintf(stderr, "%s\n", zind_error_message(error));
 *     zind_error_free(error); zind_process_free(process); zind_spec_free(spec);
 *
 * Handles (zind_spec, zind_start, zind_process, zind_root, zind_output, zind_layers,
 * zind_changes, zind_store, zind_image, zind_events, zind_notifier, zind_violations, zind_containers, zind_container, zind_ending, zind_attachment,
 * zind_logs, zind_watch, zind_error) are opaque. The caller owns each it gets and gives it back by its _free function,
 * for which NULL is fine. All other pointers in arguments are borrowed for the length of the call: what has to stay is
 * copied. A handle in an out-parameter is NULL after a failure.
 *
 * Status: functions that can fail return a zind_status; 0 is success. Besides what a function names, each returns
 * ZIND_STATUS_NULL when an argument is NULL that must not be, and ZIND_STATUS_PANIC for a bug in zind.
 *
 * Errors: the last argument, err, is NULL (not wanted) or the address of a zind_error * that is NULL before the first
 * call. A failure stores a new error there, which the caller frees; an error that is there already stays, so that
 * several calls can be made before one look at the first thing that went wrong.
 *
 * Text: paths, arguments and variables are any bytes without NUL. Names (host names, kinds, users, capabilities) are
 * UTF-8; other bytes are ZIND_STATUS_UTF8. Strings that a function makes are freed by zind_string_free().
 *
 * Descriptors: each one that comes from zind is close-on-exec, and its owner is named. A descriptor that goes into a
 * zind_spec is duplicated, and the duplicate is closed with the spec.
 *
 * Threads: every function may be called from any thread. A zind_process, a zind_container and a
 * zind_containers take any number of calls at once, other handles one at a time (reading calls that take a const
 * pointer: any number). Nothing of the caller's is forked: a start is safe in a program with threads, and no signal
 * handler is touched. Handles do not survive fork(2).
 */
#ifndef ZIND_H
#define ZIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The version of this header; zind_version() is that of the library. */
#define ZIND_VERSION "0.1.0"

/** Initializers for the structures that begin with struct_size. */
#define ZIND_EXIT_INIT {sizeof(zind_exit), 0, -1, 0, 0}
#define ZIND_STATS_INIT {sizeof(zind_stats), -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}
#define ZIND_EVENT_INIT {sizeof(zind_event), 0, 0, 0}
#define ZIND_CALL_INIT {sizeof(zind_call), 0, 0, 0, {0}, 0, 0, {0}}
#define ZIND_VIOLATION_INIT {sizeof(zind_violation), 0, 0, {0}, 0, 0, {0}}
#define ZIND_METADATA_INIT {sizeof(zind_metadata), 0, 0, 0, 0, 0, 0, 0, 0, NULL}
#define ZIND_COPY_OPTIONS_INIT {sizeof(zind_copy_options), 0, 0, 0}
#define ZIND_COPY_STATS_INIT {sizeof(zind_copy_stats), 0, 0, 0, 0, 0, 0, 0, 0}
#define ZIND_CONTAINER_OPTIONS_INIT {sizeof(zind_container_options), 0, NULL, NULL, NULL, 0, -1, 0, 0, 0}
#define ZIND_LOG_OPTIONS_INIT {sizeof(zind_log_options), 0, -1, 0, 0}
#define ZIND_CHUNK_INIT {sizeof(zind_chunk), 0, 0, 0, NULL, 0, 0}

/* The version of the binary interface: the number in the soname, libzind.so.0. */
#define ZIND_ABI_VERSION 0

/* Nothing of the volume can be changed. */
#define ZIND_VOLUME_READ_ONLY 1

/* A fresh volume begins empty, not with what the root has at the target. */
#define ZIND_VOLUME_NO_COPY 2

/* A link as the last part of the source is followed, inside a root never out of it. */
#define ZIND_COPY_FOLLOW_LINKS 1

/* A file or link that is there already is an error, EEXIST; otherwise it is replaced. */
#define ZIND_COPY_NO_OVERWRITE 2

/* An owner, mode, time or extended attribute that may not be set is an error; otherwise it is counted in not_kept. */
#define ZIND_COPY_STRICT 4

/* Everything that is copied gets uid and gid of the options; otherwise it keeps the source's. */
#define ZIND_COPY_OWNER 8

/* Its standard input stays open for whoever attaches to it; otherwise it is empty. */
#define ZIND_CONTAINER_STDIN_OPEN 1

/* It is deleted when it has ended, by who waits for it or who opens its place next. */
#define ZIND_CONTAINER_AUTO_REMOVE 2

/* Go on until the container has ended. */
#define ZIND_LOGS_FOLLOW 1

/* Line by line, without the newlines; otherwise in pieces as they came. */
#define ZIND_LOGS_LINES 2

/* Without the standard output. */
#define ZIND_LOGS_NO_STDOUT 4

/* Without the standard error. */
#define ZIND_LOGS_NO_STDERR 8

/* What a function returns. Numbers are never reused, and new ones come at the end. */
enum zind_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* Done. */
    ZIND_STATUS_OK = 0,
    /* An argument is NULL that must not be. */
    ZIND_STATUS_NULL = 1,
    /* A name is not UTF-8. */
    ZIND_STATUS_UTF8 = 2,
    /* An option breaks a rule, see zind_error_field(); nothing was touched. */
    ZIND_STATUS_SPEC = 3,
    /* The kernel refused, see zind_error_step(), _syscall(), _errno(), _path(); nothing of the container is left. */
    ZIND_STATUS_SYS = 4,
    /* This machine or user cannot do what was asked for. */
    ZIND_STATUS_UNSUPPORTED = 5,
    /* The handle is in a state that does not allow the call. */
    ZIND_STATUS_STATE = 6,
    /* There is no such thing. */
    ZIND_STATUS_NOT_FOUND = 7,
    /* The time allowed was over. */
    ZIND_STATUS_TIMEOUT = 8,
    /* The caller's function asked to stop. */
    ZIND_STATUS_INTERRUPTED = 9,
    /* A bug in zind. */
    ZIND_STATUS_PANIC = 10,
    /* An image, a layer or an archive is broken or hostile; nothing of it is used. */
    ZIND_STATUS_IMAGE = 11,
    /* A registry refused, or could not be reached, see zind_error_registry(), _registry_status(), _registry_code(). */
    ZIND_STATUS_REGISTRY = 12,
    /* A program that had to exit with 0 did not: a step of a build. */
    ZIND_STATUS_FAILED = 13,
    /* There is one of that name already. */
    ZIND_STATUS_EXISTS = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_status zind_status;
#else
typedef int32_t zind_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* In what way a payload ended. Numbers are never reused, and new ones come at the end. */
enum zind_exit_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* It has not ended. */
    ZIND_EXIT_KIND_RUNNING = 0,
    /* It exited by itself. */
    ZIND_EXIT_KIND_EXITED = 1,
    /* A signal ended it. */
    ZIND_EXIT_KIND_SIGNALED = 2,
    /* zind killed it because its time was over. */
    ZIND_EXIT_KIND_TIMEOUT = 3,
    /* The kernel killed it because memory ran out: the limit of its control group, or the machine's. */
    ZIND_EXIT_KIND_OOM = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_exit_kind zind_exit_kind;
#else
typedef int32_t zind_exit_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* Where a standard stream goes. Numbers are never reused. */
enum zind_stdio
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* The caller's own stream of the same number: the default. */
    ZIND_STDIO_INHERIT = 0,
    /* /dev/null */
    ZIND_STDIO_NULL = 1,
    /* A pipe; the caller takes the other end from the zind_process. */
    ZIND_STDIO_PIPE = 2,
    /* For stderr: wherever stdout goes. */
    ZIND_STDIO_STDOUT = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_stdio zind_stdio;
#else
typedef int32_t zind_stdio;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* What happened. Numbers are never reused, and new ones come at the end. */
enum zind_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* Nothing: there are no more. */
    ZIND_EVENT_KIND_NONE = 0,
    /* Memory ran out: the limit is reached and nothing could be taken back. */
    ZIND_EVENT_KIND_OOM = 1,
    /* A process was killed because memory ran out. */
    ZIND_EVENT_KIND_OOM_KILL = 2,
    /* The container is beyond memory_high and is slowed down. Version 2 only, as all below but the last. */
    ZIND_EVENT_KIND_MEMORY_HIGH = 3,
    /* It was about to go beyond its memory; mostly some can be taken back. */
    ZIND_EVENT_KIND_MEMORY_MAX = 4,
    /* A fork met the limit of processes. */
    ZIND_EVENT_KIND_PIDS_MAX = 5,
    /* More time than a trigger's was lost waiting for the resource. */
    ZIND_EVENT_KIND_PRESSURE = 6,
    /* Everything in the container stands still. */
    ZIND_EVENT_KIND_FROZEN = 7,
    /* It goes on. */
    ZIND_EVENT_KIND_THAWED = 8,
    /* The container has ended. Nothing comes after it. */
    ZIND_EVENT_KIND_EMPTY = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_event_kind zind_event_kind;
#else
typedef int32_t zind_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* What is waited for, in a pressure event. */
enum zind_pressure
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* It is no pressure event. */
    ZIND_PRESSURE_NONE = 0,
    /* A CPU. */
    ZIND_PRESSURE_CPU = 1,
    /* Memory. */
    ZIND_PRESSURE_MEMORY = 2,
    /* A disk. */
    ZIND_PRESSURE_IO = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_pressure zind_pressure;
#else
typedef int32_t zind_pressure;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* What is being done. Numbers are never reused, and new ones come at the end. */
enum zind_progress_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* Something that this header does not know. */
    ZIND_PROGRESS_KIND_OTHER = 0,
    /* A blob comes from a registry. */
    ZIND_PROGRESS_KIND_DOWNLOAD = 1,
    /* A blob goes to a registry. */
    ZIND_PROGRESS_KIND_UPLOAD = 2,
    /* A layer is unpacked. */
    ZIND_PROGRESS_KIND_UNPACK = 3,
    /* A blob comes from an archive or a directory. */
    ZIND_PROGRESS_KIND_LOAD = 4,
    /* A blob goes to an archive or a directory. */
    ZIND_PROGRESS_KIND_SAVE = 5,
    /* Digests are checked. */
    ZIND_PROGRESS_KIND_CHECK = 6,
    /* Files become a layer, or a tar. */
    ZIND_PROGRESS_KIND_PACK = 7,
    /* A step of a build begins; its number is the layer's. */
    ZIND_PROGRESS_KIND_BUILD = 8,
    /* What nothing refers to is removed; the bytes done are those given back. */
    ZIND_PROGRESS_KIND_COLLECT = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_progress_kind zind_progress_kind;
#else
typedef int32_t zind_progress_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* What happened to a path. Numbers are never reused, and new ones come at the end. */
enum zind_change_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* There is no change of that number. */
    ZIND_CHANGE_KIND_NONE = 0,
    /* It was not there. */
    ZIND_CHANGE_KIND_ADDED = 1,
    /* It is something else, or has other content or metadata. */
    ZIND_CHANGE_KIND_MODIFIED = 2,
    /* It is gone, and all below it. */
    ZIND_CHANGE_KIND_DELETED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_change_kind zind_change_kind;
#else
typedef int32_t zind_change_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* The type of a file. Numbers are never reused, and new ones come at the end. */
enum zind_file_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* There is no file. */
    ZIND_FILE_TYPE_NONE = 0,
    /* A regular file. */
    ZIND_FILE_TYPE_FILE = 1,
    /* A directory. */
    ZIND_FILE_TYPE_DIRECTORY = 2,
    /* A symbolic link. */
    ZIND_FILE_TYPE_SYMLINK = 3,
    /* A character device. */
    ZIND_FILE_TYPE_CHAR_DEVICE = 4,
    /* A block device. */
    ZIND_FILE_TYPE_BLOCK_DEVICE = 5,
    /* A FIFO. */
    ZIND_FILE_TYPE_FIFO = 6,
    /* A socket. */
    ZIND_FILE_TYPE_SOCKET = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_file_type zind_file_type;
#else
typedef int32_t zind_file_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* What a container is doing. Numbers are never reused, and new ones come at the end. */
enum zind_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* Something this header does not know. */
    ZIND_STATE_NONE = 0,
    /* It is being made, or started. */
    ZIND_STATE_CREATING = 1,
    /* It is there, and nothing of it runs. */
    ZIND_STATE_CREATED = 2,
    /* Its program runs, or has ended and is started again by its monitor: "restarting" of zind_container_inspect_json(). */
    ZIND_STATE_RUNNING = 3,
    /* Everything in it is stopped until it is resumed. */
    ZIND_STATE_PAUSED = 4,
    /* Its program has ended. */
    ZIND_STATE_STOPPED = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_state zind_state;
#else
typedef int32_t zind_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* Where something was written to. Numbers are never reused, and new ones come at the end. */
enum zind_stream
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /* Nothing: there is no more. */
    ZIND_STREAM_NONE = 0,
    /* Standard output; of a container with a terminal, all of it. */
    ZIND_STREAM_STDOUT = 1,
    /* Standard error. */
    ZIND_STREAM_STDERR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum zind_stream zind_stream;
#else
typedef int32_t zind_stream;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/* A connection to a container's streams. It gets all output from the attaching on, and loses none of it: the container waits
 * for who reads slowly, and goes on when that one is freed. (Who only wants to read follows the log.) */
typedef struct zind_attachment zind_attachment;

/* A description of an image: what it is made from, and the steps. Nothing happens before zind_builder_commit(). */
typedef struct zind_builder zind_builder;

/* What differs, sorted by path. All strings are borrowed from it until zind_changes_free(). */
typedef struct zind_changes zind_changes;

/* A container that lives on its own, under a name or an id. The handle is only a way to it: each call looks at what is there
 * now, for another program may have started, renamed or deleted it meanwhile; of one that is deleted each call says
 * ZIND_STATUS_NOT_FOUND. It takes any number of calls at once. */
typedef struct zind_container zind_container;

/* The containers that are kept in one directory. It takes any number of calls at once. */
typedef struct zind_containers zind_containers;

/* A wait for the end of a container, through all restarts, by a descriptor. */
typedef struct zind_ending zind_ending;

/* What went wrong. All its strings are borrowed from it until zind_error_free(). */
typedef struct zind_error zind_error;

/* The events of a container. */
typedef struct zind_events zind_events;

/* Ends events from another thread. */
typedef struct zind_events_closer zind_events_closer;

/* An image of a store: what was known about it when it was looked up. */
typedef struct zind_image zind_image;

/* A root file system in a directory of overlay layers: it stays from one container to the next, has snapshots to go
 * back to and clones to branch off. The handle is only the path; several processes may use the same directory, one at
 * a time. While a container runs on it, and until its end was waited for, functions that change it return
 * ZIND_STATUS_STATE, all but zind_layers_clone(); so does a directory whose file "state" is damaged or of a later version. */
typedef struct zind_layers zind_layers;

/* The log of a container, as it is read. */
typedef struct zind_logs zind_logs;

/* Whoever decides about the calls for which a container's profile says SCMP_ACT_NOTIFY. */
typedef struct zind_notifier zind_notifier;

/* A container that has ended, and what it wrote. */
typedef struct zind_output zind_output;

/* A container that runs, or has ended. */
typedef struct zind_process zind_process;

/* The inside of a root, held by a descriptor. Its paths begin at the root, absolute or not; links and ".." never lead
 * out of it, whatever a program in there swaps meanwhile. */
typedef struct zind_root zind_root;

/* What to run, and in what. Can be started any number of times, also from several threads at once. */
typedef struct zind_spec zind_spec;

/* A start that is under way. */
typedef struct zind_start zind_start;

/* Readings of a container at intervals. */
typedef struct zind_stats_stream zind_stats_stream;

/* Images and their unpacked layers in a directory, which any number of processes use at once. */
typedef struct zind_store zind_store;

/* What a container's filter refuses. */
typedef struct zind_violations zind_violations;

/* What happens to the containers of one place. */
typedef struct zind_watch zind_watch;

/* A range of ids of a user namespace: user_namespaces(7). */
typedef struct zind_id_map {
    /* The first id in the container. */
    uint32_t container;
    /* The first id on the host. */
    uint32_t host;
    /* How many. */
    uint32_t size;
} zind_id_map;

/* Asked whether to stop waiting. It runs in the caller's process, in the thread that waits; it must return (no
 * longjmp, no C++ exception). */
typedef bool (*zind_interrupted)(void *data);

/* How a payload ended. Begin with ZIND_EXIT_INIT. */
typedef struct zind_exit {
    /* sizeof(zind_exit), set by the caller; no more than this is written. */
    size_t struct_size;
    /* A zind_exit_kind. */
    int32_t kind;
    /* The exit code; -1 if it did not exit. */
    int32_t code;
    /* The signal that ended it; 0 if none did. */
    int32_t signal;
    /* The exit code, or the negative number of the signal. */
    int32_t returncode;
} zind_exit;

/* What a container used over its whole life, or uses now. Begin with ZIND_STATS_INIT; -1 is "unknown". */
typedef struct zind_stats {
    /* sizeof(zind_stats), set by the caller; no more than this is written. */
    size_t struct_size;
    /* CPU time in user mode, in nanoseconds. */
    int64_t cpu_user_ns;
    /* CPU time in the kernel, in nanoseconds. */
    int64_t cpu_system_ns;
    /* Largest resident set of a single process, in bytes. */
    int64_t max_rss;
    /* From the call of the start to the end, in nanoseconds. */
    int64_t wall_ns;
    /* Time it waited because its quota of CPU was used up, in nanoseconds. This and what follows takes a control group:
     * zind_spec_set_resources_json() and the setters beside it. */
    int64_t cpu_throttled_ns;
    /* Bytes of memory now, page cache and tmpfs included. */
    int64_t memory_current;
    /* The most there were. */
    int64_t memory_peak;
    /* Bytes that belong to no file, now. */
    int64_t memory_anon;
    /* Bytes of page cache and tmpfs, now. */
    int64_t memory_file;
    /* Bytes swapped out, now. */
    int64_t memory_swap;
    /* Processes killed because memory ran out. */
    int64_t oom_kills;
    /* Processes and threads now, zind's own not counted. */
    int64_t pids;
    /* The most there were. */
    int64_t pids_peak;
    /* How often a fork met the limit. */
    int64_t pids_limited;
} zind_stats;

/* One event; equal ones that came together are one with a count. Begin with ZIND_EVENT_INIT. */
typedef struct zind_event {
    /* sizeof(zind_event), set by the caller; no more than this is written. */
    size_t struct_size;
    /* A zind_event_kind. */
    int32_t kind;
    /* A zind_pressure. */
    int32_t resource;
    /* How often since it was last told. */
    uint64_t count;
} zind_event;

/* A system call that waits for an answer. What its arguments point to can be changed by the program at any time: never let
 * it proceed because of what was found there. Begin with ZIND_CALL_INIT. */
typedef struct zind_call {
    /* sizeof(zind_call), set by the caller; no more than this is written. */
    size_t struct_size;
    /* The number of this question; 0: there are no more calls. */
    uint64_t id;
    /* The thread that called, in the caller's pid namespace. */
    int32_t pid;
    /* The number of the call. */
    uint32_t number;
    /* Its arguments. */
    uint64_t args[6];
    /* Where the program is. */
    uint64_t instruction_pointer;
    /* AUDIT_ARCH_*: the convention of the call; 0 for one that zind does not know. */
    uint32_t arch;
    /* Its name; empty where the kernel has none. */
    char name[36];
} zind_call;

/* A call that the filter refused. Begin with ZIND_VIOLATION_INIT. */
typedef struct zind_violation {
    /* sizeof(zind_violation), set by the caller; no more than this is written. */
    size_t struct_size;
    /* What it failed with; 0: there are no more. */
    int32_t errno_;
    /* The thread that called, in the caller's pid namespace. */
    int32_t pid;
    /* Its arguments. */
    uint64_t args[6];
    /* The number of the call. */
    uint32_t number;
    /* AUDIT_ARCH_*: the convention of the call; 0 for one that zind does not know. */
    uint32_t arch;
    /* Its name; empty where the kernel has none. */
    char name[40];
} zind_violation;

/* How to copy. Begin with ZIND_COPY_OPTIONS_INIT. */
typedef struct zind_copy_options {
    /* sizeof(zind_copy_options), set by the caller; no more than this is read. */
    size_t struct_size;
    /* ZIND_COPY_FOLLOW_LINKS and the flags after it, or-ed together. */
    uint64_t flags;
    /* For ZIND_COPY_OWNER, as a number of the caller's user namespace. */
    uint32_t uid;
    /* For ZIND_COPY_OWNER. */
    uint32_t gid;
} zind_copy_options;

/* What a copy did. Begin with ZIND_COPY_STATS_INIT. */
typedef struct zind_copy_stats {
    /* sizeof(zind_copy_stats), set by the caller; no more than this is written. */
    size_t struct_size;
    /* Regular files. */
    uint64_t files;
    /* Directories, made or merged into. */
    uint64_t directories;
    /* Symbolic links. */
    uint64_t symlinks;
    /* Further names of files that were copied under another one. */
    uint64_t hard_links;
    /* FIFOs and device nodes. */
    uint64_t nodes;
    /* Bytes of data; holes are not counted. */
    uint64_t bytes;
    /* Sockets, the inside of /proc and its like, and what went away meanwhile. */
    uint64_t skipped;
    /* Owners, modes, times and extended attributes that this user, the file system or its user namespace does not allow. */
    uint64_t not_kept;
} zind_copy_stats;

/* What is known of a file besides its content. Begin with ZIND_METADATA_INIT. */
typedef struct zind_metadata {
    /* sizeof(zind_metadata), set by the caller; no more than this is written. */
    size_t struct_size;
    /* A zind_file_type. */
    int32_t file_type;
    /* Permission bits, with set-uid, set-gid and sticky: up to 07777. */
    uint32_t mode;
    /* Owner, as the last container saw it: 65534 for an id outside of its map. */
    uint32_t uid;
    /* Group, likewise. */
    uint32_t gid;
    /* Bytes of a regular file or of a link's target; 0 for anything else. */
    uint64_t size;
    /* Time of the last change of the content, in nanoseconds since 1970. */
    int64_t mtime_ns;
    /* Major number of a device; 0 for anything else. */
    uint32_t device_major;
    /* Minor number of a device; 0 for anything else. */
    uint32_t device_minor;
    /* Where a symbolic link leads; NULL for anything else. Borrowed from the zind_changes. */
    const char *target;
} zind_metadata;

/* How far one piece of work has come. */
typedef struct zind_progress_event {
    /* sizeof(zind_progress_event) of the library: later ones have more fields at the end. */
    size_t struct_size;
    /* A zind_progress_kind. */
    int32_t kind;
    /* Which layer, counted from 0; -1 for what is no layer. */
    int32_t layer;
    /* How many layers there are. */
    int32_t layers;
    /* The blob, where its name is known; else NULL. Only for the length of the call. */
    const char *digest;
    /* Bytes done, as they are stored or sent. */
    uint64_t done;
    /* Bytes in all; -1 if that is not known. */
    int64_t total;
} zind_progress_event;

/* Hears of long work, on the thread of the call, and is asked several times a second whether to stop. event: what went on;
 * NULL for the mere question. data: the caller's. Anything but 0 stops the work with ZIND_STATUS_INTERRUPTED, and nothing is
 * left half done. */
typedef int32_t (*zind_progress)(const struct zind_progress_event *event, void *data);

/* What a container is besides what runs in it. Begin with ZIND_CONTAINER_OPTIONS_INIT. */
typedef struct zind_container_options {
    /* sizeof(zind_container_options), set by the caller; no more than this is read. */
    size_t struct_size;
    /* ZIND_CONTAINER_STDIN_OPEN and the flags after it, or-ed together. */
    uint64_t flags;
    /* A name to find it by: a letter or digit, then up to 127 of letters, digits, "_", "." and "-"; NULL for none. */
    const char *name;
    /* When it is started again after it has ended: "no", "on-failure", "on-failure:3", "always", "unless-stopped"; NULL is
     * "no". */
    const char *restart;
    /* Labels, "name=value", an array that ends with NULL; NULL for none. */
    const char *const *labels;
    /* Bytes of one file of its log; when it is full another one is begun. 0 for 16 MiB. */
    uint64_t log_size;
    /* How many files of the log there are at most; the oldest goes. 0 keeps none; -1 for 2. */
    int32_t log_files;
    /* The signal that asks it to end; 0 for the image's, or SIGTERM. */
    int32_t stop_signal;
    /* Rows of a terminal as its standard streams; 0 for none, or for that of the spec. */
    uint32_t rows;
    /* Columns of the terminal. */
    uint32_t cols;
} zind_container_options;

/* What of a log is wanted. Begin with ZIND_LOG_OPTIONS_INIT: all there is. */
typedef struct zind_log_options {
    /* sizeof(zind_log_options), set by the caller; no more than this is read. */
    size_t struct_size;
    /* ZIND_LOGS_FOLLOW and the flags after it, or-ed together. */
    uint64_t flags;
    /* Only the last that many lines of what there is; negative: all. */
    int64_t tail;
    /* Only what was written at this time or later, in nanoseconds since 1970; 0: from the beginning. */
    int64_t since_ns;
    /* Only what was written before this time, in nanoseconds since 1970; 0: to the end. */
    int64_t until_ns;
} zind_log_options;

/* A piece of output. Begin with ZIND_CHUNK_INIT. */
typedef struct zind_chunk {
    /* sizeof(zind_chunk), set by the caller; no more than this is written. */
    size_t struct_size;
    /* A zind_stream; ZIND_STREAM_NONE when there is no more. */
    int32_t stream;
    /* Of a line: 1 if it ended with a newline. The last one need not, nor one that was cut since it is longer than a mebibyte, or
     * since what follows is lost. */
    int32_t is_whole;
    /* When it was written, in nanoseconds since 1970; 0 from an attachment. */
    int64_t time_ns;
    /* The bytes, and a NUL behind the last one. Borrowed from the handle until the next call with it; NULL if there are none. */
    const char *data;
    /* How many, without that NUL. */
    size_t len;
    /* Bytes of either stream before it that are missing: the disk had no room for them, or they were thrown away after
     * zind_container_logs() and before they could be read. If they are the last of all, a piece or line without bytes tells it. */
    uint64_t lost;
} zind_chunk;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* The version of the library, "0.1.0". Static; never NULL. */
const char *zind_version(void);

/* The version of the library's binary interface: programs work with a library of the same number that is not older
 * than their header. Functions, status codes and fields at the end of structures are added without a change of it. */
uint32_t zind_abi_version(void);

/* The name of a status: "ok", "not_found"; "unknown" for a number this library does not know. Static; never NULL. */
const char *zind_status_name(int32_t status);

/* The status of the call that failed; ZIND_STATUS_OK for NULL. */
zind_status zind_error_status(const zind_error *error);

/* What happened, to what, why, and what to do, in one line: "execute the program nope: No such file or directory
 * (ENOENT) from execve; ...". Borrowed from the error; "" for NULL, never NULL. */
const char *zind_error_message(const zind_error *error);

/* What zind was doing, as a stable name: "Exec", "Mount". Borrowed from the error; NULL if no step failed. */
const char *zind_error_step(const zind_error *error);

/* The stable number of the step; 0 if no step failed. */
int32_t zind_error_step_number(const zind_error *error);

/* The system call that failed: "openat2". Borrowed from the error; NULL if there is none, or more than one. */
const char *zind_error_syscall(const zind_error *error);

/* The errno(3) of that call; 0 if there is none. */
int32_t zind_error_errno(const zind_error *error);

/* The path, name or number that it was about. Borrowed from the error; NULL if there is none. */
const char *zind_error_path(const zind_error *error);

/* The option or argument that breaks a rule: "uid_map", "argv". Borrowed from the error; NULL if there is none. */
const char *zind_error_field(const zind_error *error);

/* What to do about it. Borrowed from the error; NULL if zind does not know. */
const char *zind_error_hint(const zind_error *error);

/* The registry that refused, as host and port. Borrowed from the error; NULL if it was none. */
const char *zind_error_registry(const zind_error *error);

/* The code of its refusal: one of the distribution-spec's ("MANIFEST_UNKNOWN", "UNAUTHORIZED"), or in small letters zind's own
 * ("dns", "connect", "tls", "timeout", "proxy", "redirect", "protocol", "content"). Borrowed from the error; NULL if it
 * was none. */
const char *zind_error_registry_code(const zind_error *error);

/* The HTTP status of its refusal; 0 if there was no answer. */
int32_t zind_error_registry_status(const zind_error *error);

/* Frees an error. error: NULL is fine. */
void zind_error_free(zind_error *error);

/* Frees the error in *err, if there is one, and makes *err NULL, ready for the next calls. err: NULL is fine. */
void zind_error_clear(zind_error **err);

/* A new request for a container: everything new, nothing shared, no privileges, no network. It needs
 * zind_spec_set_args() before it can run.
 * spec: receives the handle; free it with zind_spec_free(). */
zind_status zind_spec_new(zind_spec **spec, zind_error **err);

/* A new request for a plain process that shares everything with the caller until told otherwise: the starting point of
 * what unshare(1) and nsenter(1) do.
 * spec: receives the handle; free it with zind_spec_free(). */
zind_status zind_spec_low_level_new(zind_spec **spec, zind_error **err);

/* A second request that asks for the same; later changes to one do not change the other.
 * copy: receives the handle; free it with zind_spec_free(). Both share the descriptors that were set. */
zind_status zind_spec_copy(const zind_spec *spec, zind_spec **copy, zind_error **err);

/* Frees a request and closes the descriptors it holds; what was started from it goes on. spec: NULL is fine. */
void zind_spec_free(zind_spec *spec);

/* The program and its arguments. The program is looked up in the container's PATH unless it has a slash.
 * args: an array that ends with NULL, as for execv(3). */
zind_status zind_spec_set_args(zind_spec *spec, const char *const *args, zind_error **err);

/* One more argument; the first one is the program. */
zind_status zind_spec_add_arg(zind_spec *spec, const char *arg, zind_error **err);

/* What the program sees as argv[0]. name: NULL for the program as it was given. */
zind_status zind_spec_set_argv0(zind_spec *spec, const char *name, zind_error **err);

/* Sets a variable, or changes it. The caller's own variables are not passed on, see zind_spec_set_inherit_env().
 * value: NULL takes back what was set here. */
zind_status zind_spec_set_env(zind_spec *spec, const char *name, const char *value, zind_error **err);

/* All variables at once, in place of those set here so far: "NAME=VALUE" each.
 * variables: an array that ends with NULL, as environ(7).
 * Returns also ZIND_STATUS_SPEC for an entry without "=". */
zind_status zind_spec_set_environ(zind_spec *spec, const char *const *variables, zind_error **err);

/* Start from nothing: not even PATH, HOME and LANG are set. */
zind_status zind_spec_set_clear_env(zind_spec *spec, bool on, zind_error **err);

/* Start from the caller's environment, as it is at the start. */
zind_status zind_spec_set_inherit_env(zind_spec *spec, bool on, zind_error **err);

/* With clear_env: keep this variable of the caller's. */
zind_status zind_spec_keep_env(zind_spec *spec, const char *name, zind_error **err);

/* Working directory in the container, an absolute path. path: NULL for the default. */
zind_status zind_spec_set_cwd(zind_spec *spec, const char *path, zind_error **err);

/* What the container sees as "/".
 * rootfs: "host" for the system directories of this machine below a copy-on-write layer, with empty /home, /root,
 * /tmp, /run and a minimal /etc; else the path of a directory (write "./host" for one of that name); NULL for the
 * caller's own root, as it is. */
zind_status zind_spec_set_rootfs(zind_spec *spec, const char *rootfs, zind_error **err);

/* Where changes to the root go.
 * overlay: "tmpfs" for memory, gone with the container; "none" for the root itself (not with rootfs "host"); else the
 * path of a directory in which they stay, below upper/. */
zind_status zind_spec_set_overlay(zind_spec *spec, const char *overlay, zind_error **err);

/* Nothing of the root can be changed. */
zind_status zind_spec_set_read_only(zind_spec *spec, bool on, zind_error **err);

/* Limit in bytes of all that is changed, where that is kept in memory. size: 0 for half of the machine's memory. */
zind_status zind_spec_set_tmpfs_size(zind_spec *spec, uint64_t size, zind_error **err);

/* A file or directory of the host in the container.
 * source: where it is on the host. target: where it is in the container, an absolute path; made if it is missing.
 * read_only: nothing below it can be changed. recursive: with the mounts below the source. */
zind_status zind_spec_add_bind(zind_spec *spec,
                               const char *source,
                               const char *target,
                               bool read_only,
                               bool recursive,
                               zind_error **err);

/* An empty file system in memory.
 * target: where it is in the container, an absolute path. size: its limit in bytes; 0 for half of the machine's
 * memory. mode: of its top directory, 01777 for one that everybody may write to. */
zind_status zind_spec_add_tmpfs(zind_spec *spec,
                                const char *target,
                                uint64_t size,
                                uint32_t mode,
                                zind_error **err);

/* Any mount in the words of OCI's runtime-spec and mount(8).
 * type: "bind", "tmpfs", "proc", "overlay", "ext4", ... source: NULL where there is none. target: an absolute path in the
 * container. options: names such as "ro", "rslave", "size=1m", the last entry NULL; NULL for none.
 * Returns also ZIND_STATUS_SPEC (options that exclude each other), _UTF8 (type, options). */
zind_status zind_spec_add_mount(zind_spec *spec,
                                const char *type,
                                const char *source,
                                const char *target,
                                const char *const *options,
                                zind_error **err);

/* A file with the given bytes, in memory.
 * target: an absolute path in the container. content: len bytes; NULL only with len 0. mode: 0644 for most. */
zind_status zind_spec_add_file(zind_spec *spec,
                               const char *target,
                               const uint8_t *content,
                               size_t len,
                               uint32_t mode,
                               zind_error **err);

/* A bind of which the ids are mapped, for root: what is the id `container` of a map on the disk is the host's id `host` in
 * the container. maps: len of them, for users and groups. */
zind_status zind_spec_add_idmapped_bind(zind_spec *spec,
                                        const char *source,
                                        const char *target,
                                        const zind_id_map *maps,
                                        size_t len,
                                        zind_error **err);

/* A device of the host, or every device of a directory.
 * source: its path on the host. target: where it is in the container, an absolute path; NULL for the same. access: letters
 * of "rwm" (read, write, make further nodes); NULL for all. Less than "rw" takes a call by root without a user namespace.
 * Returns also ZIND_STATUS_SPEC (access), _UTF8 (access). */
zind_status zind_spec_add_device(zind_spec *spec,
                                 const char *source,
                                 const char *target,
                                 const char *access,
                                 zind_error **err);

/* A device by its numbers, as in linux.devices of OCI's runtime-spec: root only, but for a FIFO, or where the host has that
 * device at the same path.
 * type: 'c' or 'u' (character), 'b' (block), 'p' (FIFO; major and minor do not matter). path: where it is in the container.
 * mode, uid, gid: of the node; UINT32_MAX for 0666 and 0. Returns also ZIND_STATUS_SPEC (type, numbers). */
zind_status zind_spec_add_device_node(zind_spec *spec,
                                      char type,
                                      const char *path,
                                      uint32_t major,
                                      uint32_t minor,
                                      uint32_t mode,
                                      uint32_t uid,
                                      uint32_t gid,
                                      zind_error **err);

/* A pseudo-terminal as /dev/console.
 * fd: either end of it; borrowed, the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_console_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* A pseudo-terminal as /dev/console. path: of the terminal, such as "/dev/pts/3"; NULL for no console. */
zind_status zind_spec_set_console(zind_spec *spec, const char *path, zind_error **err);

/* A named directory that outlives the container; made if it is missing, and then filled with what the root has at target,
 * once. Nobody can remove it while a container has it.
 * name, place: as of zind_volume_create(). target: an absolute path in the container. flags: ZIND_VOLUME_READ_ONLY and
 * the like, or-ed together. maps: len of them, as of zind_spec_add_idmapped_bind(); NULL and 0 for none. */
zind_status zind_spec_add_volume(zind_spec *spec,
                                 const char *name,
                                 const char *target,
                                 const char *place,
                                 uint64_t flags,
                                 const zind_id_map *maps,
                                 size_t len,
                                 zind_error **err);

/* Mount a fresh /proc, /dev and /sys, and hide what has to be hidden: on for containers, off for the low level. */
zind_status zind_spec_set_system_mounts(zind_spec *spec, bool on, zind_error **err);

/* For the low level: a fresh procfs at this place. path: NULL for none. */
zind_status zind_spec_set_mount_proc(zind_spec *spec, const char *path, zind_error **err);

/* For the low level: a binfmt_misc of the user namespace's own.
 * path: where to mount it; NULL for none. interpreter: a line for its register file; NULL for none. */
zind_status zind_spec_set_binfmt(zind_spec *spec,
                                 const char *path,
                                 const char *interpreter,
                                 zind_error **err);

/* For the low level: chroot(2). path: NULL for none. */
zind_status zind_spec_set_chroot(zind_spec *spec, const char *path, zind_error **err);

/* For the low level: the propagation of all mounts of a new mount namespace.
 * flags: MS_PRIVATE, MS_SLAVE or MS_SHARED of <sys/mount.h>; 0 leaves it as it is. */
zind_status zind_spec_set_propagation(zind_spec *spec, uint64_t flags, zind_error **err);

/* Where the container gets a namespace from.
 * kind: "user", "mnt", "pid", "net", "uts", "ipc", "cgroup" or "time" (also "mount", "network").
 * source: "new" for one of its own; "host" for the caller's; else the path of a file that stands for one:
 * "/proc/1/ns/net", or one it was pinned to.
 * Returns also ZIND_STATUS_UTF8 or _SPEC for a kind that is none. */
zind_status zind_spec_set_namespace(zind_spec *spec,
                                    const char *kind,
                                    const char *source,
                                    zind_error **err);

/* As zind_spec_set_namespace(), the namespace that a process is in. */
zind_status zind_spec_set_namespace_pid(zind_spec *spec, const char *kind, int32_t pid, zind_error **err);

/* As zind_spec_set_namespace(), the namespace that a descriptor stands for.
 * fd: borrowed; the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_namespace_fd(zind_spec *spec, const char *kind, int32_t fd, zind_error **err);

/* Binds a new namespace to a file, so that it stays after the container. path: made if it is missing; umount(2) gives
 * it up. */
zind_status zind_spec_pin_namespace(zind_spec *spec,
                                    const char *kind,
                                    const char *path,
                                    zind_error **err);

/* What is added to the clocks of a new time namespace, in nanoseconds: time_namespaces(7).
 * Needs the namespace "time" to be "new". */
zind_status zind_spec_set_time_offsets_ns(zind_spec *spec,
                                          int64_t monotonic_ns,
                                          int64_t boottime_ns,
                                          zind_error **err);

/* The host name, 1 to 64 bytes. name: NULL for the default. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_hostname(zind_spec *spec, const char *name, zind_error **err);

/* The NIS domain name. name: NULL for the default. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_domainname(zind_spec *spec, const char *name, zind_error **err);

/* The ids of a user namespace, by rule.
 * mode: "single" for one id, the caller's, under the number the payload runs as; "auto" for the caller as 0 and the
 * range of /etc/subuid and /etc/subgid from 1 on; NULL for the default, which goes by the caller's privilege.
 * Returns also ZIND_STATUS_UTF8 or _SPEC for another mode. */
zind_status zind_spec_set_id_maps(zind_spec *spec, const char *mode, zind_error **err);

/* The user ids of a user namespace, line by line; it needs zind_spec_set_gid_map() too.
 * maps: len elements. */
zind_status zind_spec_set_uid_map(zind_spec *spec,
                                  const zind_id_map *maps,
                                  size_t len,
                                  zind_error **err);

/* The group ids of a user namespace, line by line; it needs zind_spec_set_uid_map() too.
 * maps: len elements. */
zind_status zind_spec_set_gid_map(zind_spec *spec,
                                  const zind_id_map *maps,
                                  size_t len,
                                  zind_error **err);

/* Whether setgroups(2) is allowed in the user namespace. allow: 1 yes, 0 no, -1 wherever that is possible. */
zind_status zind_spec_set_setgroups(zind_spec *spec, int32_t allow, zind_error **err);

/* User and group that own the new user namespace. UINT32_MAX for both: nobody in particular. */
zind_status zind_spec_set_owner(zind_spec *spec, uint32_t uid, uint32_t gid, zind_error **err);

/* A terminal of this size in place of the three streams, the controlling one of a session of its own. Its other end is
 * zind_process_take_terminal(). rows, cols: lines, and characters in a line; 0 and 0: no terminal, the default.
 * Returns also ZIND_STATUS_SPEC. */
zind_status zind_spec_set_terminal(zind_spec *spec, uint16_t rows, uint16_t cols, zind_error **err);

/* Standard input. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number. */
zind_status zind_spec_set_stdin(zind_spec *spec, int32_t how, zind_error **err);

/* Standard input is this descriptor.
 * fd: borrowed; the spec keeps a duplicate. Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_stdin_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* Standard input is a file of the caller's, opened for reading at the start. */
zind_status zind_spec_set_stdin_file(zind_spec *spec, const char *path, zind_error **err);

/* Standard output. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number. */
zind_status zind_spec_set_stdout(zind_spec *spec, int32_t how, zind_error **err);

/* Standard output is this descriptor.
 * fd: borrowed; the spec keeps a duplicate, which holds a pipe open for its reader until the spec is freed or set
 * otherwise. Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_stdout_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* Standard output is a file of the caller's, created or emptied at the start. */
zind_status zind_spec_set_stdout_file(zind_spec *spec, const char *path, zind_error **err);

/* Standard error. how: a zind_stdio. Returns also ZIND_STATUS_SPEC for another number. */
zind_status zind_spec_set_stderr(zind_spec *spec, int32_t how, zind_error **err);

/* Standard error is this descriptor.
 * fd: borrowed; the spec keeps a duplicate, which holds a pipe open for its reader until the spec is freed or set
 * otherwise. Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_stderr_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* Standard error is a file of the caller's, created or emptied at the start. */
zind_status zind_spec_set_stderr_file(zind_spec *spec, const char *path, zind_error **err);

/* The payload gets this descriptor under the same number; all others but the standard streams are closed.
 * fd: a number from 3 on. Only the number is kept: it must be open at the start. */
zind_status zind_spec_pass_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* Who the payload runs as.
 * user: "name", "name:group", "1000", "1000:1000", looked up in the container; NULL for root of the container, or the
 * caller at the low level. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_user(zind_spec *spec, const char *user, zind_error **err);

/* Who the payload runs as, by number. gid: UINT32_MAX for the group that the container's /etc/passwd names, else 0. */
zind_status zind_spec_set_user_ids(zind_spec *spec, uint32_t uid, uint32_t gid, zind_error **err);

/* Supplementary groups.
 * groups: names or numbers, an array that ends with NULL; NULL for none, or the caller's at the low level.
 * Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_groups(zind_spec *spec, const char *const *groups, zind_error **err);

/* File mode creation mask, 022 by default. mask: UINT32_MAX for the caller's. */
zind_status zind_spec_set_umask(zind_spec *spec, uint32_t mask, zind_error **err);

/* A resource limit: setrlimit(2).
 * name: "nofile", "RLIMIT_NOFILE". soft, hard: UINT64_MAX for unlimited.
 * Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none. */
zind_status zind_spec_set_rlimit(zind_spec *spec,
                                 const char *name,
                                 uint64_t soft,
                                 uint64_t hard,
                                 zind_error **err);

/* Who is killed first when memory runs out: -1000 (never) to 1000 (first). adjustment: INT32_MIN for the caller's. */
zind_status zind_spec_set_oom_score_adj(zind_spec *spec, int32_t adjustment, zind_error **err);

/* Nice value, -20 to 19. nice: INT32_MIN for the caller's. */
zind_status zind_spec_set_nice(zind_spec *spec, int32_t nice, zind_error **err);

/* Scheduling policy: sched(7).
 * policy: SCHED_* of <sched.h>. priority: 1 to 99 for the real-time policies, else 0. flags: SCHED_FLAG_*. */
zind_status zind_spec_set_scheduler(zind_spec *spec,
                                    uint32_t policy,
                                    uint32_t priority,
                                    uint64_t flags,
                                    zind_error **err);

/* The policy SCHED_DEADLINE, in nanoseconds. flags: SCHED_FLAG_*. */
zind_status zind_spec_set_scheduler_deadline(zind_spec *spec,
                                             uint64_t runtime_ns,
                                             uint64_t deadline_ns,
                                             uint64_t period_ns,
                                             uint64_t flags,
                                             zind_error **err);

/* A session of its own: setsid(2). On for containers, off for the low level. */
zind_status zind_spec_set_setsid(zind_spec *spec, bool on, zind_error **err);

/* The process group to join; 0 makes a new one. pgid: -1 for the caller's. */
zind_status zind_spec_set_pgid(zind_spec *spec, int32_t pgid, zind_error **err);

/* The controlling terminal.
 * fd: the terminal as a descriptor of the payload, 0 to 2 or one that is passed. controlling: make it the controlling
 * terminal, for which setsid must be on. foreground: put the process group into its foreground. */
zind_status zind_spec_set_ctty(zind_spec *spec,
                               int32_t fd,
                               bool controlling,
                               bool foreground,
                               zind_error **err);

/* Give up the controlling terminal. */
zind_status zind_spec_set_noctty(zind_spec *spec, bool on, zind_error **err);

/* Execution domain: personality(2). persona: UINT32_MAX for the caller's. */
zind_status zind_spec_set_personality(zind_spec *spec, uint32_t persona, zind_error **err);

/* A signal for the payload when the process above it ends. signal: 0 for none. */
zind_status zind_spec_set_pdeathsig(zind_spec *spec, int32_t signal, zind_error **err);

/* Stop the payload before its first instruction, for a tracer: PTRACE_TRACEME. */
zind_status zind_spec_set_ptrace(zind_spec *spec, bool on, zind_error **err);

/* Capabilities of the payload.
 * names: "CAP_NET_RAW", "net_raw", "ALL", an array that ends with NULL; NULL for the default, which is none, or
 * unchanged at the low level. Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none. */
zind_status zind_spec_set_capabilities(zind_spec *spec, const char *const *names, zind_error **err);

/* An ambient capability. Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none. */
zind_status zind_spec_add_ambient(zind_spec *spec, const char *name, zind_error **err);

/* Keep the capabilities of a new user namespace across the execution, as ambient ones. */
zind_status zind_spec_set_keep_caps(zind_spec *spec, bool on, zind_error **err);

/* All capabilities, no filter, nothing hidden. */
zind_status zind_spec_set_privileged(zind_spec *spec, bool on, zind_error **err);

/* No set-uid program and no file capability has any effect. On for containers, off for the low level. */
zind_status zind_spec_set_no_new_privileges(zind_spec *spec, bool on, zind_error **err);

/* The system call filter.
 * filter: "default" for zind's own, "none" for none; a profile as OCI or Docker writes it, either its JSON, which begins with
 * {, or the path of a file with it, which has a slash; or "learn": no filter, but every call is noted, for
 * zind_process_learned_json().
 * Returns also ZIND_STATUS_UTF8, _SPEC for another, and with the name of what is unknown in a profile, _SYS. */
zind_status zind_spec_set_seccomp(zind_spec *spec,
                                  const char *filter,
                                  zind_error **err);

/* Tell what the filter refuses, as it does: zind_process_violations(). Off by default. A thread of this process answers each
 * refused call then. */
zind_status zind_spec_set_violations(zind_spec *spec,
                                     bool on,
                                     zind_error **err);

/* Landlock, as a further wall inside of the container; it holds for further programs in it, too.
 * rules: "default" for what goes with the host's namespaces, which is nothing where there are none of those; "none" for none;
 * "refuse" for a set of rules that lets nothing pass; or rules as `zind run --landlock` takes them: "rox=/usr,rw=/work,connect=443".
 * What Landlock handles is refused but for what a rule lets pass. It replaces what was set or added before.
 * Returns also ZIND_STATUS_SPEC (field "landlock") with the word that is wrong. What this kernel lacks of it, and a path that is
 * missing in the container, is told at the start: ZIND_STATUS_UNSUPPORTED, ZIND_STATUS_SYS. */
zind_status zind_spec_set_landlock(zind_spec *spec,
                                   const char *rules,
                                   zind_error **err);

/* Adds a rule of Landlock's about a path of the container, which may have any bytes in it. Without rules before, everything else is
 * refused from here on.
 * rights: "read", "write" and "execute", which are sets, "ioctl_dev" and the kernel's other names ("make_dir",
 * "LANDLOCK_ACCESS_FS_MAKE_DIR"), joined by +. path: absolute; it has to be there when the container starts.
 * Returns also ZIND_STATUS_UTF8 or _SPEC for a right that is none. */
zind_status zind_spec_add_landlock_path(zind_spec *spec,
                                        const char *rights,
                                        const char *path,
                                        zind_error **err);

/* The profile of AppArmor that confines the payload, and further programs in the container.
 * profile: the name of one that is loaded; "unconfined" for none, which is fine without AppArmor; NULL for whatever the caller's
 * own says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine without AppArmor. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_apparmor(zind_spec *spec,
                                   const char *profile,
                                   zind_error **err);

/* The context of SELinux that the payload runs in, and further programs in the container.
 * context: "user:role:type:level"; NULL for what the policy says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine
 * without SELinux. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_selinux(zind_spec *spec,
                                  const char *context,
                                  zind_error **err);

/* The context of SELinux that all files have of what is mounted new for the container: the overlay of its root, /dev, a tmpfs.
 * context: "user:role:type:level"; NULL for what the policy says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine
 * without SELinux. Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_mount_label(zind_spec *spec,
                                      const char *context,
                                      zind_error **err);

/* A session keyring of its own. On for containers, off for the low level. */
zind_status zind_spec_set_keyring(zind_spec *spec, bool on, zind_error **err);

/* A kernel parameter of the container's own namespaces, set before the payload is there.
 * name: as in sysctl(8), "net.ipv4.ip_forward": net.*, fs.mqueue.*, kernel.msg*, kernel.sem*, kernel.shm*, kernel.domainname, and
 * user.max_* of a new user namespace. value: one line; NULL forgets the parameter. What belongs to the whole machine, or to a
 * namespace of the caller's, is refused at the start (ZIND_STATUS_SPEC, field "sysctl"). Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_sysctl(zind_spec *spec,
                                 const char *name,
                                 const char *value,
                                 zind_error **err);

/* Put the payload into this control group (v2) as it is born.
 * fd: an open directory below /sys/fs/cgroup, borrowed; the spec keeps a duplicate. -1 for the caller's group.
 * Returns also ZIND_STATUS_SYS (EBADF). */
zind_status zind_spec_set_cgroup_fd(zind_spec *spec, int32_t fd, zind_error **err);

/* The start fails with ZIND_STATUS_UNSUPPORTED unless this part of the isolation is in force.
 * name: a namespace's kind, "seccomp", "capabilities", "no_new_privileges", "network", "read_only" and the others that
 * zind_process_isolation_json() lists as "in_force". Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_require(zind_spec *spec, const char *name, zind_error **err);

/* What the container may use, all at once: the linux.resources object of OCI as JSON, which takes the place of what was
 * set before. What OCI has no field for is in its "unified" object: files of cgroup v2 with their texts, like
 * {"memory.high": "64000000"}. "{}" limits nothing, but makes a control group: for readings, and to pause.
 * json: NULL for no group at all, the default. A limit that cannot be set fails the start.
 * Returns also ZIND_STATUS_UTF8, _SPEC (no such object, a value without sense, an unknown field), _UNSUPPORTED (a field
 * that no kernel has any more). */
zind_status zind_spec_set_resources_json(zind_spec *spec, const char *json, zind_error **err);

/* Most memory in bytes, page cache and tmpfs included; beyond it something of the container is killed. UINT64_MAX: no
 * limit. */
zind_status zind_spec_set_memory(zind_spec *spec, uint64_t bytes, zind_error **err);

/* Most swap space in bytes, by itself; 0 is none, UINT64_MAX no limit. On cgroup v1 it needs zind_spec_set_memory() too. */
zind_status zind_spec_set_swap(zind_spec *spec, uint64_t bytes, zind_error **err);

/* CPUs it may use: 0.5 is half of one, INFINITY is no limit. */
zind_status zind_spec_set_cpus(zind_spec *spec, double cpus, zind_error **err);

/* CPUs it may run on, as a list: "0-3,7". Returns also ZIND_STATUS_UTF8. */
zind_status zind_spec_set_cpuset(zind_spec *spec, const char *cpus, zind_error **err);

/* Most processes and threads of the payload's; zind's own PID 1 does not count. UINT64_MAX: no limit. */
zind_status zind_spec_set_pids(zind_spec *spec, uint64_t most, zind_error **err);

/* The control group below which the container's is made: a path from the root of the hierarchies, made where it is
 * missing and removed with the container it was made for, unless others are in it then. NULL, the default: wherever the
 * caller may make groups. */
zind_status zind_spec_set_cgroup_parent(zind_spec *spec, const char *path, zind_error **err);

/* A PID 1 that reaps and forwards signals above the payload. On for containers, off for the low level. */
zind_status zind_spec_set_init(zind_spec *spec, bool on, zind_error **err);

/* End the container when the caller's process ends. On by default. */
zind_status zind_spec_set_die_with_owner(zind_spec *spec, bool on, zind_error **err);

/* Forward signals to the payload's whole process group. */
zind_status zind_spec_set_forward_signals(zind_spec *spec, bool on, zind_error **err);

/* How long the payload may run, in milliseconds from the start on. Who waits when it is over kills the container:
 * zind_process_wait(), zind_process_communicate(), zind_capture(). timeout_ms: negative for no limit. */
zind_status zind_spec_set_timeout_ms(zind_spec *spec, int64_t timeout_ms, zind_error **err);

/* A new request from the text of an OCI config.json of version 1. Relative paths in it are relative to the directory that
 * the process is in at the start. The setters change it further.
 * json: borrowed. spec: receives the handle; free it with zind_spec_free().
 * Returns also ZIND_STATUS_UTF8, and _SPEC for what is no such document and for what zind cannot do: the field is OCI's. */
zind_status zind_spec_from_json(const char *json, zind_spec **spec, zind_error **err);

/* A new request from an OCI bundle: a directory with a config.json, or the path of such a file. Relative paths in it are
 * relative to that directory.
 * bundle: borrowed. spec: receives the handle; free it with zind_spec_free().
 * Returns also ZIND_STATUS_SPEC as zind_spec_from_json(), and _SYS if the file cannot be read. */
zind_status zind_spec_from_bundle(const char *bundle, zind_spec **spec, zind_error **err);

/* The OCI config.json of a request, nothing lost: what OCI has no word for is in annotations.
 * json: receives the text; free it with zind_string_free().
 * Returns also ZIND_STATUS_SPEC for a request that holds descriptors, which only this process has. */
zind_status zind_spec_to_json(const zind_spec *spec, char **json, zind_error **err);

/* Starts a container. Blocks until its program runs or failed to.
 * spec: borrowed; it can be changed, started again or freed afterwards.
 * process: receives the handle; free it with zind_process_free().
 * Returns also ZIND_STATUS_SPEC (an option breaks a rule: nothing was touched), _SYS (a step failed: nothing is left),
 * _UNSUPPORTED (this machine or user cannot, or what was required is not in force), _NOT_FOUND (a user), _TIMEOUT. */
zind_status zind_run(const zind_spec *spec, zind_process **process, zind_error **err);

/* As zind_run(), and asks a function of the caller's whether to stop: after each signal that this thread handled, and a few
 * times a second. Nothing of it is left then.
 * interrupted: NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_run_interruptible(const zind_spec *spec,
                                   zind_interrupted interrupted,
                                   void *data,
                                   zind_process **process,
                                   zind_error **err);

/* Begins a start, for an event loop: it goes on by itself while the caller does something else.
 * spec: borrowed. start: receives the handle; free it with zind_start_free().
 * Returns also ZIND_STATUS_SPEC, _SYS, _UNSUPPORTED, _NOT_FOUND as zind_run(), as far as they can be told by now. */
zind_status zind_start_begin(const zind_spec *spec, zind_start **start, zind_error **err);

/* Becomes readable when zind_start_finish() will not block for long. Borrowed: the start closes it. -1 for NULL, and
 * after zind_start_finish(). */
int32_t zind_start_fd(const zind_start *start);

/* Waits until the program runs or failed to. The start can only be freed afterwards.
 * process: receives the handle; free it with zind_process_free().
 * Returns also what zind_run() returns, and ZIND_STATUS_STATE when it is called for the second time. */
zind_status zind_start_finish(zind_start *start, zind_process **process, zind_error **err);

/* As zind_start_finish(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the start is
 * left then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_start_finish_interruptible(zind_start *start,
                                            zind_interrupted interrupted,
                                            void *data,
                                            zind_process **process,
                                            zind_error **err);

/* Frees a start; one that was not finished is called off, and nothing of it is left. start: NULL is fine. */
void zind_start_free(zind_start *start);

/* The container's first process in the caller's pid namespace: zind's PID 1 with init on, else the payload. -1 for
 * NULL. To signal or join it, prefer the functions of zind and the pidfd: numbers are reused. */
int32_t zind_process_pid(const zind_process *process);

/* A pidfd of that process, for setns(2) and the like. Borrowed: the process closes it. -1 for NULL. */
int32_t zind_process_pidfd(const zind_process *process);

/* Becomes readable when the container has ended, for an event loop; zind_process_poll() then has the exit.
 * Borrowed: the process closes it; do not read from it. -1 for NULL. */
int32_t zind_process_end_fd(const zind_process *process);

/* The caller's end of the pipe to standard input, once. The caller closes it. -1 if it was not piped or is taken. */
int32_t zind_process_take_stdin(zind_process *process);

/* The caller's end of the pipe from standard output, once. The caller closes it. -1 if it was not piped or is taken. */
int32_t zind_process_take_stdout(zind_process *process);

/* The caller's end of the pipe from standard error, once. The caller closes it. -1 if it was not piped or is taken. */
int32_t zind_process_take_stderr(zind_process *process);

/* The caller's end of the terminal, once: what is written to it is typed, what the payload writes is read from it, and
 * closing it hangs up. The caller closes it. -1 if there is none or it is taken. */
int32_t zind_process_take_terminal(zind_process *process);

/* Sets the size of the terminal's window, until the terminal is taken; after that, TIOCSWINSZ of ioctl_tty(2) on it.
 * Returns also ZIND_STATUS_STATE (there is none, or it is taken), _SPEC, _SYS. */
zind_status zind_process_resize(const zind_process *process,
                                uint16_t rows,
                                uint16_t cols,
                                zind_error **err);

/* Runs a further program in a running container, in all of its namespaces and control groups.
 * spec: borrowed; what it says about the program: arguments, variables, directory, user, groups, umask, limits,
 * capabilities, privileged, no_new_privileges, seccomp, keyring, streams, terminal, passed descriptors, time limit,
 * die_with_owner. What it leaves at its default is as the container has it; the rest of it does not count.
 * out: receives a handle as of zind_run(). Killed, the program takes what it has started along and leaves the container
 * alone; it ends with the container. Under a profile with SCMP_ACT_NOTIFY it has a listener of its own: zind_process_take_notifier().
 * Returns also ZIND_STATUS_STATE (the container has ended or is paused), and what zind_run() returns. */
zind_status zind_process_exec(const zind_process *process,
                              const zind_spec *spec,
                              zind_process **out,
                              zind_error **err);

/* As zind_process_exec(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the program is
 * left then, and the container goes on.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_process_exec_interruptible(const zind_process *process,
                                            const zind_spec *spec,
                                            zind_interrupted interrupted,
                                            void *data,
                                            zind_process **out,
                                            zind_error **err);

/* Ends the whole container at once, by SIGKILL. Nothing happens if it has ended. Returns also ZIND_STATUS_SYS. */
zind_status zind_process_kill(zind_process *process, zind_error **err);

/* Sends a signal to the payload; SIGKILL ends the whole container. Nothing happens if it has ended.
 * Returns also ZIND_STATUS_SPEC for a number that is no signal, and _SYS. */
zind_status zind_process_signal(zind_process *process, int32_t signal, zind_error **err);

/* Looks whether the container has ended, without waiting.
 * exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING as long as it has not.
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_process_poll(zind_process *process, zind_exit *exit, zind_error **err);

/* Waits until the container has ended. It can be waited for any number of times.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes. The time limit of the request itself,
 * zind_spec_set_timeout_ms(), kills the container when it is over.
 * exit: NULL, or begin with ZIND_EXIT_INIT.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over (the container goes on), and _SYS. */
zind_status zind_process_wait(zind_process *process,
                              int64_t timeout_ms,
                              zind_exit *exit,
                              zind_error **err);

/* As zind_process_wait(), and asks a function of the caller's whether to stop waiting: after each signal that this
 * thread handled, and a few times a second.
 * interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_process_wait_interruptible(zind_process *process,
                                            int64_t timeout_ms,
                                            zind_interrupted interrupted,
                                            void *data,
                                            zind_exit *exit,
                                            zind_error **err);

/* Writes input to standard input, reads the piped streams to their ends, and waits. The streams must not have been
 * taken. The time limit of the request kills the container when it is over; what it wrote until then is kept.
 * input: len bytes; NULL and 0 for none. output: receives the handle; free it with zind_output_free().
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_process_communicate(zind_process *process,
                                     const void *input,
                                     size_t len,
                                     zind_output **output,
                                     zind_error **err);

/* As zind_process_communicate(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
 * and a few times a second.
 * interrupted: true ends it: the streams are closed, what was read is gone, and the container goes on; NULL asks nobody.
 * data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_process_communicate_interruptible(zind_process *process,
                                                   const void *input,
                                                   size_t len,
                                                   zind_interrupted interrupted,
                                                   void *data,
                                                   zind_output **output,
                                                   zind_error **err);

/* What the container uses now; once a wait or poll has seen its end, what it used over its whole life.
 * stats: begin with ZIND_STATS_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too small. */
zind_status zind_process_stats(const zind_process *process, zind_stats *stats, zind_error **err);

/* What is in force, as a JSON object: "namespaces", "uid_map", "rootfs", "overlay", "seccomp", "capabilities",
 * "network", "in_force" (the names that zind_spec_require() takes) and others.
 * json: receives a string; free it with zind_string_free(). */
zind_status zind_process_isolation_json(const zind_process *process, char **json, zind_error **err);

/* Frees a process handle and closes the pipes that were not taken. It neither waits nor kills: the container goes on,
 * and ends with the caller's process unless die_with_owner is off. process: NULL is fine. */
void zind_process_free(zind_process *process);

/* Mounts something in a running container, below its root, whatever the payload does to the path meanwhile.
 * type, source, target, options: as for zind_spec_add_mount(). A bind takes a source that the caller can reach; called
 * by an ordinary user it has to be an rbind if something is mounted below the source (_SYS, EINVAL), as at a start.
 * Returns also ZIND_STATUS_STATE (it has ended), _SPEC (an overlay, or tmpcopyup: those are for a start), _UNSUPPORTED
 * (an idmapped bind, called by an ordinary user), _SYS. */
zind_status zind_process_mount(const zind_process *process,
                               const char *type,
                               const char *source,
                               const char *target,
                               const char *const *options,
                               zind_error **err);

/* Takes away what is mounted at target in a running container, and what is mounted below it.
 * Returns also ZIND_STATUS_STATE (it has ended), _SPEC (target is no absolute path), _SYS. */
zind_status zind_process_umount(const zind_process *process, const char *target, zind_error **err);

/* Everything that zind_process_stats() tells and more, as a JSON object: "cpu_user", "cpu_system", "cpu_throttled",
 * "wall" (seconds), "memory_current", "memory_peak", "memory_anon", "memory_file", "memory_swap" (bytes), "pids",
 * "oom_kills", "io" (a list by device), "pressure" and others; null is unknown.
 * json: receives a string; free it with zind_string_free(). */
zind_status zind_process_stats_json(const zind_process *process, char **json, zind_error **err);

/* Readings of a container now, and then at intervals until it has ended: the last one is of its whole life. A reading that
 * came too late is left out, not made up for. It makes no thread: readings are taken by who calls zind_stats_stream_next().
 * process: has to outlive the stream. interval_ms: above 0.
 * stream: receives the handle; free it with zind_stats_stream_free(). */
zind_status zind_process_stats_every(const zind_process *process,
                                     uint64_t interval_ms,
                                     zind_stats_stream **stream,
                                     zind_error **err);

/* A descriptor that is readable when zind_stats_stream_next() has a reading, for an event loop, and at the container's end.
 * fd: receives it. Borrowed: the stream closes it; do not read from it. Returns also ZIND_STATUS_SYS. */
zind_status zind_stats_stream_fd(zind_stats_stream *stream,
                                 int32_t *fd,
                                 zind_error **err);

/* The next reading. It takes note of the container's end as a wait does.
 * timeout_ms: how long to wait for it, in milliseconds; negative: as long as it takes.
 * stats: begin with ZIND_STATS_INIT.
 * more: receives false when there are no more, and stats is left as it was: after the reading of the whole life.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, and _SYS. */
zind_status zind_stats_stream_next(zind_stats_stream *stream,
                                   int64_t timeout_ms,
                                   zind_stats *stats,
                                   bool *more,
                                   zind_error **err);

/* Frees a stream and closes its descriptor; the container is none of its business. stream: NULL is fine. */
void zind_stats_stream_free(zind_stats_stream *stream);

/* Changes limits of a running container. resources: as for zind_spec_set_resources_json(); what is not in there stays as
 * it is, -1 takes a limit away.
 * Returns also ZIND_STATUS_UTF8, _SPEC, _UNSUPPORTED, _STATE (it has ended, or was started without resources or without
 * that controller), _SYS (EBUSY: more memory is in use, and cannot be taken back). */
zind_status zind_process_update(const zind_process *process, const char *resources, zind_error **err);

/* Stops everything in a container until zind_process_resume(), and waits until all of it has stopped.
 * Returns also ZIND_STATUS_STATE (it has ended, or was started without resources), _UNSUPPORTED (no freezer), _SYS
 * (ETIMEDOUT: something of it sleeps in the kernel). */
zind_status zind_process_pause(const zind_process *process, zind_error **err);

/* Lets everything in a container go on. Returns also what zind_process_pause() returns. */
zind_status zind_process_resume(const zind_process *process, zind_error **err);

/* Tells whether a container is paused. Returns also what zind_process_pause() returns. */
zind_status zind_process_is_paused(const zind_process *process, bool *paused, zind_error **err);

/* Everything that runs in a container, zind's PID 1 included, as a JSON list of objects: "pid", "ppid" (the caller's
 * numbers), "container_pid", "uid", "name", "cmdline", "state", "threads", "rss" (bytes), "cpu" (seconds); an empty one
 * once it has ended. json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_process_list_json(const zind_process *process, char **json, zind_error **err);

/* Removes the control groups that crashed processes left behind, below the caller's own groups or below parent (NULL: the
 * own ones); what runs in one is killed, unless it was started with die_with_owner off. Every start with resources does it
 * too, every few seconds at most.
 * removed: receives a JSON list of paths; free it with zind_string_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_groups_sweep(const char *parent,
                              char **removed,
                              zind_error **err);

/* What happens in a container from its start on, as it happens: memory that runs out, processes killed for it, limits met,
 * freezing, and its end.
 * pressure: NULL, or an array of lines that ends with NULL, to be told of time lost waiting, too: the resource (cpu, memory,
 * io), some or full (of the tasks), the time lost and the window it is measured in, in microseconds (500000 to 10000000;
 * for an ordinary user a multiple of 2000000): "cpu some 150000 2000000".
 * events: receives the handle; free it with zind_events_free(). The process need not live as long.
 * Returns also ZIND_STATUS_UTF8, _SPEC, _STATE (it was started without resources), _UNSUPPORTED (pressure without a group of
 * version 2), _SYS. */
zind_status zind_process_events(const zind_process *process,
                                const char *const *pressure,
                                zind_events **events,
                                zind_error **err);

/* Readable when zind_events_next() will not block, for an event loop. Borrowed: the events close it; do not read from it.
 * -1 for NULL. */
int32_t zind_events_fd(const zind_events *events);

/* The next event.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * event: begin with ZIND_EVENT_INIT; its kind is ZIND_EVENT_KIND_NONE when there are no more.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS. */
zind_status zind_events_next(zind_events *events,
                             int64_t timeout_ms,
                             zind_event *event,
                             zind_error **err);

/* What ends events from another thread, while one waits in zind_events_next(); to be made before that.
 * closer: receives the handle; free it with zind_events_closer_free(). It may outlive the events. */
zind_status zind_events_closer_new(const zind_events *events,
                                   zind_events_closer **closer,
                                   zind_error **err);

/* There will be no more events: a zind_events_next() that waits returns at once, as each later one does, with the kind
 * ZIND_EVENT_KIND_NONE; their descriptor is readable. Any thread may call it, also while another one waits, and twice.
 * closer: NULL is fine. */
void zind_events_closer_close(const zind_events_closer *closer);

/* Frees a closer; the events go on. closer: NULL is fine. */
void zind_events_closer_free(zind_events_closer *closer);

/* Frees events and closes their descriptors; the container is none of their business. events: NULL is fine. */
void zind_events_free(zind_events *events);

/* Takes the listener of the payload's filter, once. Until calls are answered, the threads that made them wait.
 * notifier: receives the handle; free it with zind_notifier_free(). The process need not live as long.
 * Returns also ZIND_STATUS_STATE if the profile asks about no call, names an agent (listenerPath), or it was taken before. */
zind_status zind_process_take_notifier(const zind_process *process,
                                       zind_notifier **notifier,
                                       zind_error **err);

/* The listener, readable when a call waits, or there will be none: for an event loop, or for ioctl(2) with the structures of
 * <linux/seccomp.h>. Borrowed: the notifier closes it. -1 for NULL. */
int32_t zind_notifier_fd(const zind_notifier *notifier);

/* The next call that waits for an answer. Any thread may call it.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * call: begin with ZIND_CALL_INIT; its id is 0 when there are no more.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS. */
zind_status zind_notifier_next(const zind_notifier *notifier,
                               int64_t timeout_ms,
                               zind_call *call,
                               zind_error **err);

/* The call returns value, without having been run.
 * Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS. */
zind_status zind_notifier_answer(const zind_notifier *notifier,
                                 const zind_call *call,
                                 int64_t value,
                                 zind_error **err);

/* The call fails with errno_value (1 to 4095), without having been run.
 * Returns also ZIND_STATUS_STATE if nobody waits for it any more, _SPEC, _SYS. */
zind_status zind_notifier_refuse(const zind_notifier *notifier,
                                 const zind_call *call,
                                 int32_t errno_value,
                                 zind_error **err);

/* The kernel runs the call, whatever its arguments point to by then.
 * Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS. */
zind_status zind_notifier_proceed(const zind_notifier *notifier,
                                  const zind_call *call,
                                  zind_error **err);

/* Gives whoever called a copy of a descriptor; the call goes on waiting.
 * target: the number it gets there, in place of what that was; negative: one that is free.
 * number: NULL, or receives it.
 * Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS. */
zind_status zind_notifier_add_fd(const zind_notifier *notifier,
                                 const zind_call *call,
                                 int32_t fd,
                                 int32_t target,
                                 bool close_on_exec,
                                 int32_t *number,
                                 zind_error **err);

/* The call returns a copy of a descriptor, in one step. From Linux 5.14 on.
 * Returns also ZIND_STATUS_STATE if nobody waits for it any more, and _SYS. */
zind_status zind_notifier_answer_fd(const zind_notifier *notifier,
                                    const zind_call *call,
                                    int32_t fd,
                                    bool close_on_exec,
                                    zind_error **err);

/* Reads memory of whoever called, who still waited after it.
 * buffer: receives size bytes at most. read: receives how many there were.
 * Returns also ZIND_STATUS_STATE if nobody waits any more, and _SYS: EFAULT where nothing is mapped, EPERM where the
 * caller may not trace it. */
zind_status zind_notifier_read(const zind_notifier *notifier,
                               const zind_call *call,
                               uint64_t address,
                               void *buffer,
                               size_t size,
                               size_t *read,
                               zind_error **err);

/* Writes into the memory of whoever called.
 * written: NULL, or receives how many bytes of size were.
 * Returns also ZIND_STATUS_STATE and _SYS as for zind_notifier_read(). */
zind_status zind_notifier_write(const zind_notifier *notifier,
                                const zind_call *call,
                                uint64_t address,
                                const void *bytes,
                                size_t size,
                                size_t *written,
                                zind_error **err);

/* Frees a notifier and closes the listener: calls that wait, and all later ones, fail with ENOSYS. notifier: NULL is fine. */
void zind_notifier_free(zind_notifier *notifier);

/* What the filter refuses by an errno, as it happens, from the start on. It takes zind_spec_set_violations().
 * violations: receives the handle; free it with zind_violations_free(). The process need not live as long.
 * Returns also ZIND_STATUS_STATE if it was started without. */
zind_status zind_process_violations(const zind_process *process,
                                    zind_violations **violations,
                                    zind_error **err);

/* Readable when there is a violation, or there will be no more; for an event loop. Borrowed; do not read from it. -1 for
 * NULL. */
int32_t zind_violations_fd(const zind_violations *violations);

/* The next violation.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * violation: begin with ZIND_VIOLATION_INIT; its errno_ is 0 when there are no more.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over. */
zind_status zind_violations_next(const zind_violations *violations,
                                 int64_t timeout_ms,
                                 zind_violation *violation,
                                 zind_error **err);

/* How many were not kept because nobody read them. 0 for NULL. */
uint64_t zind_violations_lost(const zind_violations *violations);

/* Frees violations; the filter goes on. violations: NULL is fine. */
void zind_violations_free(zind_violations *violations);

/* The smallest profile, in OCI's JSON, under which the calls pass that there were so far: after the end, all of them. It
 * takes zind_spec_set_seccomp(spec, "learn").
 * json: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_STATE if it was started without. */
zind_status zind_process_learned_json(const zind_process *process, char **json, zind_error **err);

/* Opens the root in a directory of the host. Links in path itself are followed.
 * root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_SYS, _SPEC (an empty path). */
zind_status zind_root_open(const char *path, zind_root **root, zind_error **err);

/* The inside of a running container's root, with all its mounts.
 * root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_STATE (it has ended), _SYS. */
zind_status zind_process_root(const zind_process *process, zind_root **root, zind_error **err);

/* The root as a descriptor, opened with O_PATH. Borrowed: the root closes it. -1 for NULL. */
int32_t zind_root_fd(const zind_root *root);

/* Frees a root. root: NULL is fine. */
void zind_root_free(zind_root *root);

/* Copies a file or a tree from the host into a root, as `cp -a` does: owners, modes, times, extended attributes, hard
 * links, holes. If target is a directory the source goes into it; a source that ends with "/." means what is inside.
 * Missing directories on the way to target are made. Each file is written aside and renamed: nobody sees half of it.
 * options: NULL, or begin with ZIND_COPY_OPTIONS_INIT. stats: NULL, or begin with ZIND_COPY_STATS_INIT.
 * interrupted: asked now and then whether to stop, with data; NULL asks nobody.
 * Returns also ZIND_STATUS_SYS with the path that refused (what was copied before stays), _SPEC, _INTERRUPTED. */
zind_status zind_root_copy_in(const zind_root *root,
                              const char *source,
                              const char *target,
                              const zind_copy_options *options,
                              zind_interrupted interrupted,
                              void *data,
                              zind_copy_stats *stats,
                              zind_error **err);

/* Copies a file or a tree out of a root to the host, by the rules of zind_root_copy_in(), except that missing directories
 * on the way to target are an error. Set-uid programs stay what they are, and for root device nodes. */
zind_status zind_root_copy_out(const zind_root *root,
                               const char *source,
                               const char *target,
                               const zind_copy_options *options,
                               zind_interrupted interrupted,
                               void *data,
                               zind_copy_stats *stats,
                               zind_error **err);

/* zind_root_copy_in() for the root of a running container. Returns also ZIND_STATUS_STATE (it has ended). */
zind_status zind_process_copy_in(const zind_process *process,
                                 const char *source,
                                 const char *target,
                                 const zind_copy_options *options,
                                 zind_copy_stats *stats,
                                 zind_error **err);

/* zind_root_copy_out() for the root of a running container. Returns also ZIND_STATUS_STATE (it has ended). */
zind_status zind_process_copy_out(const zind_process *process,
                                  const char *source,
                                  const char *target,
                                  const zind_copy_options *options,
                                  zind_copy_stats *stats,
                                  zind_error **err);

/* Reads a regular file of a root. Links are followed inside the root.
 * buffer: size bytes. read: receives how many the file has. Returns also ZIND_STATUS_SYS: EFBIG if the buffer is too
 * small, EISDIR, EINVAL for FIFOs, devices and sockets, which are not opened. */
zind_status zind_root_read_file(const zind_root *root,
                                const char *path,
                                void *buffer,
                                size_t size,
                                size_t *read,
                                zind_error **err);

/* Writes a file of a root, or replaces one at once. Missing directories are made; a link as the last part is replaced.
 * content: len bytes; NULL only with len 0. mode: exact, whatever the umask. Returns also ZIND_STATUS_SYS, _SPEC. */
zind_status zind_root_write_file(const zind_root *root,
                                 const char *path,
                                 const uint8_t *content,
                                 size_t len,
                                 uint32_t mode,
                                 zind_error **err);

/* Makes a volume: a named directory that outlives containers. zind_spec_add_volume() makes one that is missing, too.
 * place: the directory in which volumes are, made if it is missing; NULL for /var/lib/zind/volumes (root) or
 * $XDG_DATA_HOME/zind/volumes (an ordinary user); so for all functions of volumes.
 * name: letters, digits, "_", "." and "-", a letter or digit first, at most 255.
 * Returns also ZIND_STATUS_SPEC (another name), _SYS (EEXIST if there is one). */
zind_status zind_volume_create(const char *place, const char *name, zind_error **err);

/* Removes a volume and all that is in it.
 * Returns also ZIND_STATUS_STATE (somebody uses it), _NOT_FOUND, _SPEC (what cannot be a name), _SYS. */
zind_status zind_volume_remove(const char *place, const char *name, zind_error **err);

/* All volumes, as a JSON array of objects with "name", "path" (the directory that containers see) and "fresh" (it was
 * neither filled nor used yet). json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_volumes_json(const char *place, char **json, zind_error **err);

/* One volume, as an object of zind_volumes_json(). Returns also ZIND_STATUS_NOT_FOUND, _SPEC. */
zind_status zind_volume_json(const char *place, const char *name, char **json, zind_error **err);

/* Uses a volume: it cannot be removed until fd and all its duplicates are closed, with the process at the latest.
 * fd: receives a descriptor that the caller closes. Returns also ZIND_STATUS_NOT_FOUND, _SPEC, _SYS. */
zind_status zind_volume_hold(const char *place, const char *name, int32_t *fd, zind_error **err);

/* Fills a fresh volume with what is in the directory path of root, as the first start that mounts it does.
 * filled: NULL, or receives false if there was nothing to do: it was used before, has something in it, or the root has no
 * such directory. stats: NULL, or begin with ZIND_COPY_STATS_INIT.
 * Returns also ZIND_STATUS_SYS (the volume stays fresh), _NOT_FOUND, _SPEC. */
zind_status zind_volume_fill_from(const char *place,
                                  const char *name,
                                  const zind_root *root,
                                  const char *path,
                                  bool *filled,
                                  zind_copy_stats *stats,
                                  zind_error **err);

/* Says that a volume was used: it is not filled any more. Returns also ZIND_STATUS_NOT_FOUND, _SPEC, _SYS. */
zind_status zind_volume_mark_used(const char *place, const char *name, zind_error **err);

/* Runs a container to its end and keeps what it wrote. Standard output and error are piped unless they were set;
 * standard input is empty. A time limit that is over is no error: the exit says so, and what was written is kept.
 * spec: borrowed. input: len bytes for standard input; NULL and 0 for none.
 * output: receives the handle; free it with zind_output_free().
 * Returns also what zind_run() returns. */
zind_status zind_capture(const zind_spec *spec,
                         const void *input,
                         size_t len,
                         zind_output **output,
                         zind_error **err);

/* As zind_capture(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
 * and a few times a second.
 * interrupted: true kills the container; NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_capture_interruptible(const zind_spec *spec,
                                       const void *input,
                                       size_t len,
                                       zind_interrupted interrupted,
                                       void *data,
                                       zind_output **output,
                                       zind_error **err);

/* What was written to standard output, where that was piped.
 * data: receives the address, borrowed from the output until zind_output_free(); a NUL follows the last byte.
 * len: NULL, or receives the number of bytes without that NUL. */
zind_status zind_output_stdout(const zind_output *output, const char **data, size_t *len);

/* What was written to standard error, where that was piped; else as zind_output_stdout(). */
zind_status zind_output_stderr(const zind_output *output, const char **data, size_t *len);

/* How it ended. exit: begin with ZIND_EXIT_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too small. */
zind_status zind_output_exit(const zind_output *output, zind_exit *exit, zind_error **err);

/* What it used. stats: begin with ZIND_STATS_INIT. Returns also ZIND_STATUS_SPEC for a struct_size that is too
 * small. */
zind_status zind_output_stats(const zind_output *output, zind_stats *stats, zind_error **err);

/* What it used, as zind_process_stats_json(). json: receives a string; free it with zind_string_free(). */
zind_status zind_output_stats_json(const zind_output *output, char **json, zind_error **err);

/* What was in force, as zind_process_isolation_json().
 * json: receives a string; free it with zind_string_free(). */
zind_status zind_output_isolation_json(const zind_output *output, char **json, zind_error **err);

/* Frees an output with all that was borrowed from it. output: NULL is fine. */
void zind_output_free(zind_output *output);

/* Makes layers in a directory, with nothing changed yet.
 * dir: must be missing or empty. base: ends with NULL; a root file system, or several, topmost first. They are never
 * written to. layers: receives the handle; free it with zind_layers_free().
 * Returns also ZIND_STATUS_SPEC for no base or one that is in dir or has it inside, _STATE if there is something in
 * dir, and _SYS. */
zind_status zind_layers_create(const char *dir,
                               const char *const *base,
                               zind_layers **layers,
                               zind_error **err);

/* The layers in a directory. What a crash has left there is removed, unless they are in use.
 * layers: receives the handle; free it with zind_layers_free().
 * Returns also ZIND_STATUS_NOT_FOUND if there are none, _STATE for a damaged file "state", and _SYS. */
zind_status zind_layers_open(const char *dir, zind_layers **layers, zind_error **err);

/* Layers as root of a container: what it changes goes there and stays. */
zind_status zind_spec_set_layers(zind_spec *spec, const zind_layers *layers, zind_error **err);

/* Where the layers are: an absolute path. string: receives it; free it with zind_string_free(). */
zind_status zind_layers_dir(const zind_layers *layers, char **string, zind_error **err);

/* The directory that containers write to now; snapshots and restores change it.
 * string: receives the path; free it with zind_string_free(). */
zind_status zind_layers_upper(const zind_layers *layers, char **string, zind_error **err);

/* All snapshots, oldest first, as JSON: a list of objects with "name", "parent" (the snapshot it came after, or null)
 * and "time_ns" (nanoseconds since 1970). string: receives it; free it with zind_string_free(). */
zind_status zind_layers_snapshots_json(const zind_layers *layers, char **string, zind_error **err);

/* Gives the present state a name. The cost depends neither on the size of the root nor on that of the changes.
 * name: 1 to 255 bytes of UTF-8 without control characters.
 * Returns also ZIND_STATUS_STATE if the layers are in use, the name is taken, or 500 layers lie on each other, which is
 * all an overlay can have; _SPEC for a name that is none; and _SYS. */
zind_status zind_layers_snapshot(const zind_layers *layers, const char *name, zind_error **err);

/* Throws away what was changed since and is exactly as it was at a snapshot; those made after it stay.
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE and _SYS. */
zind_status zind_layers_restore(const zind_layers *layers, const char *name, zind_error **err);

/* Forgets a snapshot and removes the layers nothing else stands on. The present state does not change.
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE, and _SYS for files that cannot be removed. */
zind_status zind_layers_remove(const zind_layers *layers, const char *name, zind_error **err);

/* Syncs nothing when a container ends: faster, but what was written may be torn after a crash of the machine. */
zind_status zind_layers_set_volatile(const zind_layers *layers, bool on, zind_error **err);

/* Another root in the present state. Both go their own ways from then on; the layers up to now are shared and stay
 * where they are, so this directory can only be deleted after its clones, and neither of the two may be moved.
 * While a container runs on them, what was changed since the last snapshot is copied instead, at a cost that is
 * proportional to it. Pause the container meanwhile (SIGSTOP), for the copy to be of one moment.
 * dir: must be missing or empty. clone: receives the handle; free it with zind_layers_free().
 * Returns also ZIND_STATUS_STATE and _SYS. */
zind_status zind_layers_clone(const zind_layers *layers,
                              const char *dir,
                              zind_layers **clone,
                              zind_error **err);

/* Removes the directory and everything in it; the handle is still to be freed.
 * Returns also ZIND_STATUS_STATE if the layers are in use or have clones, and _SYS. */
zind_status zind_layers_delete(const zind_layers *layers, zind_error **err);

/* Frees the handle; the layers stay. layers: NULL is fine. */
void zind_layers_free(zind_layers *layers);

/* What differs between a snapshot and the present state. The cost depends on what was changed, not on the size of the
 * root. A directory that is gone is one change, whatever was in it; the times of a directory are none, since they
 * follow from its entries.
 * since: NULL for the base. changes: receives the handle; free it with zind_changes_free().
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE, and _SYS with the path of what this user cannot read. */
zind_status zind_layers_diff(const zind_layers *layers,
                             const char *since,
                             zind_changes **changes,
                             zind_error **err);

/* How many there are; 0 for NULL. */
size_t zind_changes_count(const zind_changes *changes);

/* What happened, as a zind_change_kind. index: from 0 on. */
int32_t zind_changes_kind(const zind_changes *changes, size_t index);

/* Where: an absolute path of the container, borrowed from the changes; NULL if there is none of that number. */
const char *zind_changes_path(const zind_changes *changes, size_t index);

/* What was there. metadata: begin with ZIND_METADATA_INIT; its type is ZIND_FILE_TYPE_NONE for what was added.
 * Returns also ZIND_STATUS_NOT_FOUND for a number beyond the last, and _SPEC for a struct_size that is too small. */
zind_status zind_changes_old(const zind_changes *changes,
                             size_t index,
                             zind_metadata *metadata,
                             zind_error **err);

/* What is there now. metadata: begin with ZIND_METADATA_INIT; its type is ZIND_FILE_TYPE_NONE for what was deleted.
 * Returns also ZIND_STATUS_NOT_FOUND for a number beyond the last, and _SPEC for a struct_size that is too small. */
zind_status zind_changes_new(const zind_changes *changes,
                             size_t index,
                             zind_metadata *metadata,
                             zind_error **err);

/* Frees a list of changes. changes: NULL is fine. */
void zind_changes_free(zind_changes *changes);

/* The store in a directory, which is made if it is missing.
 * place: NULL for /var/lib/zind (root) or $XDG_DATA_HOME/zind (an ordinary user).
 * store: receives the handle; free it with zind_store_free().
 * Returns also ZIND_STATUS_STATE (it belongs to somebody else or to a later version), _SYS. */
zind_status zind_store_open(const char *place, zind_store **store, zind_error **err);

/* The same with other bounds on foreign archives than the usual ones.
 * limits: NULL, or an object with some of "entries", "file_size", "layer_size", "ratio", "ratio_from", "depth", "header", "document"
 * and "zstd_window_log", numbers. What goes beyond is ZIND_STATUS_IMAGE.
 * Returns as zind_store_open(), and ZIND_STATUS_SPEC. */
zind_status zind_store_open_with(const char *place,
                                 const char *limits,
                                 zind_store **store,
                                 zind_error **err);

/* Frees a handle; the store stays. store: NULL is fine. */
void zind_store_free(zind_store *store);

/* An image by its name, its id or digest ("sha256:..."), or the first 4 or more digits of one.
 * image: receives the handle; free it with zind_image_free().
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE (the digits fit several), _SYS. */
zind_status zind_store_image(const zind_store *store,
                             const char *name,
                             zind_image **image,
                             zind_error **err);

/* All images, in the order in which they came, as a JSON array of objects with "id", "digest", "tags", "size" (bytes of the
 * blobs), "created" and "platform". json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_store_images_json(const zind_store *store,
                                   char **json,
                                   zind_error **err);

/* The image that a start means: one of the store by name or id, else one that is pulled, as far as the policy lets it.
 * options: as of zind_store_pull(); the policy is "missing" if it is not given.
 * image: receives the handle; free it with zind_image_free(). Returns as zind_store_pull(). */
zind_status zind_store_get(const zind_store *store,
                           const char *name,
                           const char *options,
                           zind_progress progress,
                           void *data,
                           zind_image **image,
                           zind_error **err);

/* Takes an image from its registry. What is here already is not fetched again, and what was interrupted is gone on with.
 * reference: "debian:12", "registry:5000/path/name:tag", "name@sha256:...".
 * options: NULL or a JSON object with any of "policy" ("always" if it is not given, "missing", "never"), "platform", "unpack", "foreign_layers",
 * "auth" ("anonymous", ["user", "password"], {"bearer": token}, {"identity": token}), "auth_file", "tls_verify", "cert_dir",
 * "mirrors" ({"docker.io": ["mirror:5000/hub", ["other:5000", true]]}; with true as if "tls_verify" was off), "proxy",
 * "timeout" (seconds), "retries", "parallel". "auth" is for the registry alone, not for mirrors.
 * progress, data: NULL, or hears of it. image: receives the handle; free it with zind_image_free().
 * Returns also ZIND_STATUS_REGISTRY, _IMAGE, _NOT_FOUND, _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_store_pull(const zind_store *store,
                            const char *reference,
                            const char *options,
                            zind_progress progress,
                            void *data,
                            zind_image **image,
                            zind_error **err);

/* Gives an image to a registry. reference: its name there. options: NULL or a JSON object with any of "chunk_size" (bytes),
 * "mount_from" (a repository), "extra_tags", and the options of zind_store_pull() about registries.
 * Returns also ZIND_STATUS_REGISTRY, _IMAGE, _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_store_push(const zind_store *store,
                            const zind_image *image,
                            const char *reference,
                            const char *options,
                            zind_progress progress,
                            void *data,
                            zind_error **err);

/* Takes the images of an archive: an OCI image-layout directory or tar, or what docker save wrote, also compressed.
 * json: receives what was taken, as zind_store_images_json(); free it with zind_string_free().
 * Returns also ZIND_STATUS_IMAGE (broken or hostile: nothing was taken), _INTERRUPTED, _SYS. */
zind_status zind_store_load(const zind_store *store,
                            const char *archive,
                            zind_progress progress,
                            void *data,
                            char **json,
                            zind_error **err);

/* Writes images with their names into an archive, which must not exist yet.
 * images: an array that ends with NULL. format: "oci" (a tar), "oci-dir" (a directory) or "docker" (for docker load).
 * Returns also ZIND_STATUS_SPEC, _IMAGE, _INTERRUPTED, _SYS. */
zind_status zind_store_save(const zind_store *store,
                            const zind_image *const *images,
                            const char *archive,
                            const char *format,
                            zind_progress progress,
                            void *data,
                            zind_error **err);

/* Makes an image of one layer of a root file system: a directory, or a tar (also compressed), as mmdebstrap makes them.
 * tag: its name; NULL for none. config: NULL or a JSON object: {"Cmd": ["bash"], "Env": ["A=1"], "User": "web"}.
 * image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_store_import_rootfs(const zind_store *store,
                                     const char *source,
                                     const char *tag,
                                     const char *config,
                                     zind_progress progress,
                                     void *data,
                                     zind_image **image,
                                     zind_error **err);

/* Makes an image by steps whose results are kept, so that only those run that have to.
 * description: a JSON object with "from" (a name; none: from nothing), "pull" (a policy), "tags", "cache", "compression" and
 * "steps", an array of objects with one of "run" (an array: program and arguments; beside it "env", "network" ("none", "host"),
 * "user", "cwd", "timeout" in seconds, "capabilities" (an array of names; none: what Docker gives root)), "copy" ([source, target];
 * beside it "owner"), "env" and "label" (objects), "workdir", "user", "entrypoint" and "cmd" (arrays), "expose", "volume",
 * "stop_signal". A zind_builder has mounts, id maps and all other options, too.
 * image: receives the handle; free it with zind_image_free().
 * steps: NULL, or receives what became of the steps, as a JSON array of objects with "what", "cached", "diff_id" and "time"
 * (seconds); free it with zind_string_free().
 * Returns also ZIND_STATUS_FAILED (a program did not exit with 0), _SPEC, _NOT_FOUND, _INTERRUPTED, _SYS. */
zind_status zind_store_build(const zind_store *store,
                             const char *description,
                             zind_progress progress,
                             void *data,
                             zind_image **image,
                             char **steps,
                             zind_error **err);

/* Gives an image one more name; another image that has it loses it. Returns also ZIND_STATUS_SPEC, _SYS. */
zind_status zind_store_tag(const zind_store *store,
                           const zind_image *image,
                           const char *name,
                           zind_error **err);

/* Takes a name away, or all names with an id. An image without names is gone; its blobs go with zind_store_gc_json().
 * Returns also ZIND_STATUS_NOT_FOUND, _SYS. */
zind_status zind_store_remove(const zind_store *store, const char *name, zind_error **err);

/* Removes what no image, no container and no zind_layers has. json: receives an object with "blobs", "snapshots", "leftovers"
 * and "bytes"; free it with zind_string_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_store_gc_json(const zind_store *store,
                               char **json,
                               zind_error **err);

/* The same, heard of and stopped by `progress`. Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_store_gc_with_json(const zind_store *store,
                                    zind_progress progress,
                                    void *data,
                                    char **json,
                                    zind_error **err);

/* Checks every digest and every unpacked file. json: receives an array of what is broken, objects with "what", "rule", "cure"
 * and "images"; free it with zind_string_free(). Returns also ZIND_STATUS_INTERRUPTED, _SYS. */
zind_status zind_store_verify_json(const zind_store *store,
                                   zind_progress progress,
                                   void *data,
                                   char **json,
                                   zind_error **err);

/* What the store takes on disk, in bytes. json: receives an object with "blobs", "snapshots", "partial", "unused" and "images",
 * an array of objects with "id", "tags", "size", "unique" and "unpacked"; free it with zind_string_free().
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_store_usage_json(const zind_store *store,
                                  char **json,
                                  zind_error **err);

/* The same, stopped by `progress`. Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_store_usage_with_json(const zind_store *store,
                                       zind_progress progress,
                                       void *data,
                                       char **json,
                                       zind_error **err);

/* The digest of the image's configuration: what Docker calls its id. Borrowed from the image; NULL for NULL. */
const char *zind_image_id(const zind_image *image);

/* The digest of the image's manifest: what registries know it by. Borrowed from the image; NULL for NULL. */
const char *zind_image_digest(const zind_image *image);

/* All of an image: what zind_store_images_json() has of it, "layers", "history", and "config", the document of the image-spec.
 * json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_IMAGE, _NOT_FOUND, _SYS. */
zind_status zind_image_json(const zind_image *image,
                            char **json,
                            zind_error **err);

/* The root file system of an image for reading: nothing in it can be changed, nothing is mounted on the host. The image stays
 * in its store as long as this is open. root: receives the handle; free it with zind_root_free().
 * Returns also ZIND_STATUS_IMAGE, _INTERRUPTED, _SYS. */
zind_status zind_image_mount(const zind_image *image,
                             zind_progress progress,
                             void *data,
                             zind_root **root,
                             zind_error **err);

/* Writes the root file system of an image as a tar to a file that does not exist yet.
 * method: "gzip", "zstd", "none"; NULL is "none". Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_image_export(const zind_image *image,
                              const char *file,
                              const char *method,
                              zind_progress progress,
                              void *data,
                              zind_error **err);

/* Frees a handle; the image stays in its store. image: NULL is fine. */
void zind_image_free(zind_image *image);

/* An image as root of a container. What it says of its program (arguments, variables, user, directory) fills in what is not
 * set: arguments of the caller's come after its entrypoint, in place of its command. */
zind_status zind_spec_set_image(zind_spec *spec,
                                const zind_image *image,
                                zind_error **err);

/* What comes before the arguments, in place of the image's entrypoint, and without arguments of its command, too.
 * argv: an array that ends with NULL; an empty one is no entrypoint. */
zind_status zind_spec_set_entrypoint(zind_spec *spec, const char *const *argv, zind_error **err);

/* Makes layers over an image: as zind_layers_create(), but containers run as the image says, and the image stays in its store
 * as long as dir is there. The ids are those of containers that are made by default.
 * layers: receives the handle; free it with zind_layers_free(). Returns also ZIND_STATUS_STATE, _IMAGE, _INTERRUPTED, _SYS. */
zind_status zind_layers_create_over(const char *dir,
                                    const zind_image *image,
                                    zind_progress progress,
                                    void *data,
                                    zind_layers **layers,
                                    zind_error **err);

/* Makes an image of everything that was changed in layers: one layer over their image, or, over plain directories, all of it.
 * store: where it goes; NULL for that of the image below. options: NULL or a JSON object with any of "tags", "config", "author",
 * "message", "created" (RFC 3339) and "compression" ("gzip", "zstd", "none").
 * image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_IMAGE, _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_layers_commit(const zind_layers *layers,
                               const zind_store *store,
                               const char *options,
                               zind_progress progress,
                               void *data,
                               zind_image **image,
                               zind_error **err);

/* Writes the present state of layers, with all that lies below, as a tar: as zind_image_export(). */
zind_status zind_layers_export(const zind_layers *layers,
                               const char *file,
                               const char *method,
                               zind_progress progress,
                               void *data,
                               zind_error **err);

/* Makes an image of what a container changed, whether it still runs or has ended: one layer over the image it was started
 * from. Its changes must go to a directory (zind_spec_set_overlay()). options: as of zind_layers_commit().
 * image: receives the handle; free it with zind_image_free(). Returns also ZIND_STATUS_STATE, _IMAGE, _INTERRUPTED, _SYS. */
zind_status zind_process_commit(const zind_process *process,
                                const char *options,
                                zind_progress progress,
                                void *data,
                                zind_image **image,
                                zind_error **err);

/* Asks the program to end, by its image's stop signal or SIGTERM, and ends the whole container when timeout_ms are over.
 * exit: NULL, or begin with ZIND_EXIT_INIT. Returns also ZIND_STATUS_SYS. */
zind_status zind_process_stop(const zind_process *process,
                              uint32_t timeout_ms,
                              zind_exit *exit,
                              zind_error **err);

/* As zind_process_stop(), and asks a function of the caller's whether to stop waiting, as zind_process_wait_interruptible(). The program
 * was asked to end then, and may still do so.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_process_stop_interruptible(const zind_process *process,
                                            uint32_t timeout_ms,
                                            zind_interrupted interrupted,
                                            void *data,
                                            zind_exit *exit,
                                            zind_error **err);

/* A new description without steps.
 * base: the image it is made from, in the same store; NULL for nothing. builder: receives the handle; free it with
 * zind_builder_free(). */
zind_status zind_builder_new(const zind_store *store,
                             const zind_image *base,
                             zind_builder **builder,
                             zind_error **err);

/* Frees a description; what was built stays. builder: NULL is fine. */
void zind_builder_free(zind_builder *builder);

/* Whether results of earlier builds are used. They are, at first. What is built is kept in both cases. */
zind_status zind_builder_set_cache(zind_builder *builder, bool on, zind_error **err);

/* The ids of a user namespace for all steps that run: those that spec has (zind_spec_set_id_maps(), zind_spec_set_uid_map(),
 * zind_spec_set_gid_map()). spec: copied. */
zind_status zind_builder_set_id_maps(zind_builder *builder,
                                     const zind_spec *spec,
                                     zind_error **err);

/* A program to run, as the user and in the directory of the steps before, unless spec says otherwise. It must exit with 0.
 * Everything that spec asks for (mounts, network, variables, limits...) is part of what the step is, except its streams and
 * its time limit. Its root and id maps are the builder's; its standard input is empty unless it is set. As root it has the
 * capabilities that Docker gives, unless spec names others. A step that mounts something of the host, or a volume, is carried
 * out each time. spec: copied. */
zind_status zind_builder_run(zind_builder *builder,
                             const zind_spec *spec,
                             zind_error **err);

/* Files or trees of the host into the image, by the rules of zind_root_copy_in().
 * owner: "user" or "user:group", by name or number of the image; NULL for root. */
zind_status zind_builder_copy(zind_builder *builder,
                              const char *source,
                              const char *target,
                              const char *owner,
                              zind_error **err);

/* A step that changes only the configuration.
 * what: "env" or "label" (values: name and value), "workdir", "user", "expose", "volume" or "stop_signal" (one value),
 * "entrypoint" or "cmd" (any number). values: an array that ends with NULL.
 * Returns also ZIND_STATUS_UTF8 or _SPEC for what is no such step. */
zind_status zind_builder_configure(zind_builder *builder,
                                   const char *what,
                                   const char *const *values,
                                   zind_error **err);

/* Carries out the steps whose results are not there, and makes the image. May be called any number of times.
 * options: as of zind_layers_commit().
 * image: receives the handle; free it with zind_image_free().
 * steps: NULL, or receives what became of the steps, as of zind_store_build(); free it with zind_string_free().
 * Returns also ZIND_STATUS_FAILED (a program did not exit with 0), _SPEC, _INTERRUPTED, _SYS. */
zind_status zind_builder_commit(const zind_builder *builder,
                                const char *options,
                                zind_progress progress,
                                void *data,
                                zind_image **image,
                                char **steps,
                                zind_error **err);

/* Opens a place, which is made if it is missing; what programs left there that died in the middle of something is removed.
 * path: a directory; NULL for the user's own: /var/lib/zind for root, $XDG_DATA_HOME/zind or ~/.local/share/zind for others.
 * containers: receives the handle; free it with zind_containers_free().
 * Returns also ZIND_STATUS_SPEC without a home, _STATE if it belongs to somebody else, and _SYS. */
zind_status zind_containers_open(const char *path,
                                 zind_containers **containers,
                                 zind_error **err);

/* The container with this name or id, or with an id that begins so, if it is the only one.
 * container: receives the handle; free it with zind_container_free().
 * Returns also ZIND_STATUS_UTF8, _NOT_FOUND, _SPEC if it is several, and _SYS. */
zind_status zind_containers_find(const zind_containers *containers,
                                 const char *name,
                                 zind_container **container,
                                 zind_error **err);

/* The containers of a place, the latest first, as a JSON list of objects: "id", "name", "labels", "image", "command",
 * "state", "pid", "created_ns", "started_ns", "finished_ns" (nanoseconds since 1970), "exit" ("kind", "code", "signal",
 * "returncode"), "restarts" and "restarting" ("at_ns", "finished_ns", "exit": nothing of it runs, and its monitor starts it again
 * then); null where there is none. One whose state cannot be read is left out.
 * all: those, too, that do not run. labels: NULL, or an array that ends with NULL of labels they must have: "name=value", or
 * "name" for any value. json: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_UTF8 and _SYS. */
zind_status zind_containers_list_json(const zind_containers *containers,
                                      bool all,
                                      const char *const *labels,
                                      char **json,
                                      zind_error **err);

/* Deletes every container of a place that does not run, and the control groups that nobody is in any more.
 * json: receives a JSON object, "containers" (ids) and "groups" (paths); free it with zind_string_free().
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_containers_prune_json(const zind_containers *containers, char **json, zind_error **err);

/* Frees the handle; the containers stay. containers: NULL is fine. */
void zind_containers_free(zind_containers *containers);

/* What happens to the containers of a place from now on: each thing once, in order.
 * watch: receives the handle; free it with zind_watch_free(). Returns also ZIND_STATUS_SYS. */
zind_status zind_containers_watch(const zind_containers *containers,
                                  zind_watch **watch,
                                  zind_error **err);

/* As zind_containers_watch(), and before that what has happened since the event with this number, itself included: the last four
 * thousand and more are kept. */
zind_status zind_containers_watch_from(const zind_containers *containers,
                                       uint64_t number,
                                       zind_watch **watch,
                                       zind_error **err);

/* Becomes readable when something may have happened, for an event loop; that a monitor was killed is noticed only
 * by a zind_watch_next_json(), so call it every second, too. Borrowed: the watch closes it; do not read from it. -1 for NULL. */
int32_t zind_watch_fd(const zind_watch *watch);

/* The next event, as a JSON object: "time_ns" (nanoseconds since 1970), "what" ("created", "started", "oom", "paused",
 * "resumed", "died", "deleted", "renamed"), "id", "name" (null without one), "exit" (of "died", as in
 * zind_containers_list_json(); or null) and "number" (from 1 on without a gap, for zind_containers_watch_from()).
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * json: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, and _SYS. */
zind_status zind_watch_next_json(zind_watch *watch, int64_t timeout_ms, char **json, zind_error **err);

/* Frees a watch and closes its descriptor; the containers are none of its business. watch: NULL is fine. */
void zind_watch_free(zind_watch *watch);

/* Makes a container. Nothing of it runs yet.
 * containers: the place where it is kept; NULL for the user's own. spec: borrowed; what runs in it. It ends with the process
 * that starts it, unless the spec has die_with_owner off, or zind_container_detach() is called.
 * options: NULL, or begin with ZIND_CONTAINER_OPTIONS_INIT.
 * container: receives the handle; free it with zind_container_free(), which leaves the container.
 * Returns also ZIND_STATUS_UTF8, _SPEC for what a start would refuse and for what cannot be kept on disk (descriptors, a
 * time limit), _EXISTS if another one has the name, and _SYS. */
zind_status zind_container_create(const zind_containers *containers,
                                  const zind_spec *spec,
                                  const zind_container_options *options,
                                  zind_container **container,
                                  zind_error **err);

/* As zind_container_create(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while an
 * image is unpacked, and while somebody else changes names. Nothing of it is there then.
 * interrupted: NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_create_interruptible(const zind_containers *containers,
                                                const zind_spec *spec,
                                                const zind_container_options *options,
                                                zind_interrupted interrupted,
                                                void *data,
                                                zind_container **container,
                                                zind_error **err);

/* The user's own container with this name or id, or with an id that begins so; zind_containers_find() for another place.
 * container: receives the handle; free it with zind_container_free().
 * Returns also what zind_containers_open() and zind_containers_find() return. */
zind_status zind_container_open(const char *name, zind_container **container, zind_error **err);

/* Frees the handle; the container goes on, and stays. container: NULL is fine. */
void zind_container_free(zind_container *container);

/* Its id: 64 hexadecimal digits; the first 12 are what is shown. Borrowed from the handle; NULL for NULL. */
const char *zind_container_id(const zind_container *container);

/* Its name. string: receives it, or NULL if it has none; free it with zind_string_free().
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE for a state that a later zind has written, or nobody, and _SYS. */
zind_status zind_container_name(const zind_container *container, char **string, zind_error **err);

/* What it is doing. state: receives a zind_state. Returns also what zind_container_name() returns. */
zind_status zind_container_state(const zind_container *container, int32_t *state, zind_error **err);

/* Its first process in the caller's pid namespace. pid: receives the number; -1 while it does not run, between two
 * runs, too. To signal or join it, prefer the functions of zind and the pidfd: numbers are reused. Returns also what zind_container_name() returns. */
zind_status zind_container_pid(const zind_container *container,
                               int32_t *pid,
                               zind_error **err);

/* A pidfd of its first process, for setns(2) and the like. fd: receives it, close-on-exec; the caller closes it.
 * Returns also ZIND_STATUS_STATE if it does not run, and what zind_container_name() returns. */
zind_status zind_container_pidfd(const zind_container *container, int32_t *fd, zind_error **err);

/* How it ended, without waiting. One whose monitor was killed, or that did not survive a restart of the machine, was ended by
 * SIGKILL.
 * exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING as long as there is no end.
 * Returns also ZIND_STATUS_SPEC for a struct_size that is too small, and what zind_container_name() returns. */
zind_status zind_container_exit(const zind_container *container,
                                zind_exit *exit,
                                zind_error **err);

/* All that is known of it, as a JSON object: "id", "name", "labels", "state", "pid", "created", "started", "finished" (seconds
 * since 1970), "restarts", "restarting" (null, or "at", "finished" and "exit": its monitor starts it again then), "exit", "fault",
 * "log", "isolation", "config" (OCI's config.json) and others.
 * json: receives a string; free it with zind_string_free(). Returns also what zind_container_name() returns. */
zind_status zind_container_inspect_json(const zind_container *container,
                                        char **json,
                                        zind_error **err);

/* Starts it. On return its program runs, below a monitor of its own, which keeps its output and tells how it ends. It ends with
 * this process, unless it was made with die_with_owner off, or zind_container_detach() is called.
 * Returns also ZIND_STATUS_STATE if it runs, or somebody else starts it, and what zind_run() returns. */
zind_status zind_container_start(const zind_container *container,
                                 zind_error **err);

/* As zind_container_start(), and asks a function of the caller's whether to stop: after each signal that this thread handled,
 * and a few times a second. Nothing of it runs then.
 * interrupted: NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_start_interruptible(const zind_container *container,
                                               zind_interrupted interrupted,
                                               void *data,
                                               zind_error **err);

/* What hooks complained of whose failure changes nothing (poststart, poststop) since it was asked last, by this handle: a JSON
 * array of texts.
 * json: receives a string; free it with zind_string_free(). */
zind_status zind_container_take_warnings_json(const zind_container *container,
                                              char **json,
                                              zind_error **err);

/* As zind_container_start(), attached from the first byte of its output on.
 * attachment: receives the handle; free it with zind_attachment_free().
 * Returns also what zind_container_attach() returns. */
zind_status zind_container_start_attached(const zind_container *container,
                                          zind_attachment **attachment,
                                          zind_error **err);

/* As zind_container_start_attached(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible().
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_start_attached_interruptible(const zind_container *container,
                                                        zind_interrupted interrupted,
                                                        void *data,
                                                        zind_attachment **attachment,
                                                        zind_error **err);

/* Waits for its end, through all restarts. One with ZIND_CONTAINER_AUTO_REMOVE, which is deleted then, still tells it to the handle
 * that has started it.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * exit: NULL, or begin with ZIND_EXIT_INIT.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over (the container goes on), _STATE if it was never started,
 * _NOT_FOUND, _SYS. */
zind_status zind_container_wait(const zind_container *container,
                                int64_t timeout_ms,
                                zind_exit *exit,
                                zind_error **err);

/* As zind_container_wait(), and asks a function of the caller's whether to stop waiting: after each signal that this thread
 * handled, and a few times a second.
 * interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_wait_interruptible(const zind_container *container,
                                              int64_t timeout_ms,
                                              zind_interrupted interrupted,
                                              void *data,
                                              zind_exit *exit,
                                              zind_error **err);

/* Begins to wait for its end, through all restarts, for an event loop.
 * ending: receives the handle, free it with zind_ending_free(); or NULL, with ZIND_STATUS_OK, if it has ended, or is being
 * started or ended just now: ask zind_container_wait().
 * Returns also ZIND_STATUS_STATE if it was never started, _NOT_FOUND, _SYS. */
zind_status zind_container_ending(const zind_container *container,
                                  zind_ending **ending,
                                  zind_error **err);

/* Becomes readable at the end. Borrowed: the ending closes it; do not read from it. -1 for NULL. */
int32_t zind_ending_fd(const zind_ending *ending);

/* How it ended, once the descriptor is readable; without waiting.
 * exit: begin with ZIND_EXIT_INIT; its kind is ZIND_EXIT_KIND_RUNNING if it has not ended. If the descriptor is readable then,
 * as many wait for the container as can be told: ask zind_container_wait().
 * Returns also what zind_container_wait() returns. */
zind_status zind_ending_exit(const zind_ending *ending,
                             zind_exit *exit,
                             zind_error **err);

/* Frees an ending and closes its descriptor; the container goes on. ending: NULL is fine. */
void zind_ending_free(zind_ending *ending);

/* Sends a signal to its program; SIGKILL ends the whole container, and it is not started again.
 * Returns also ZIND_STATUS_STATE if it does not run, _SPEC for a number that is no signal, _NOT_FOUND, _SYS. */
zind_status zind_container_kill(const zind_container *container, int32_t signal, zind_error **err);

/* Asks it to end by its stop signal, and ends it when patience_ms is over; it is not started again. One that has ended already
 * is left alone.
 * patience_ms: in milliseconds. exit: NULL, or begin with ZIND_EXIT_INIT.
 * Returns also ZIND_STATUS_STATE if it was never started, _NOT_FOUND, _SYS. */
zind_status zind_container_stop(const zind_container *container,
                                uint64_t patience_ms,
                                zind_exit *exit,
                                zind_error **err);

/* As zind_container_stop(), and asks a function of the caller's whether to stop waiting, as zind_container_wait_interruptible().
 * It was asked to end then, and may still do so.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_stop_interruptible(const zind_container *container,
                                              uint64_t patience_ms,
                                              zind_interrupted interrupted,
                                              void *data,
                                              zind_exit *exit,
                                              zind_error **err);

/* Asks it to end by its stop signal, and that it is not started again, without waiting.
 * is_running: NULL, or receives false if it has ended already.
 * Returns also what zind_container_stop() returns. */
zind_status zind_container_begin_stop(const zind_container *container,
                                      bool *is_running,
                                      zind_error **err);

/* Stops it, if it runs, as zind_container_stop(), and starts it.
 * Returns also what zind_container_stop() and zind_container_start() return. */
zind_status zind_container_restart(const zind_container *container,
                                   uint64_t patience_ms,
                                   zind_error **err);

/* As zind_container_restart(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): then it
 * is stopped, or still running and asked to end.
 * interrupted: NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_restart_interruptible(const zind_container *container,
                                                 uint64_t patience_ms,
                                                 zind_interrupted interrupted,
                                                 void *data,
                                                 zind_error **err);

/* Lets it go on when the program that has started it, or is going to, ends.
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE, _SYS. */
zind_status zind_container_detach(const zind_container *container, zind_error **err);

/* As zind_container_detach(), and asks as zind_container_pause_interruptible(). Nothing is changed then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_detach_interruptible(const zind_container *container,
                                                zind_interrupted interrupted,
                                                void *data,
                                                zind_error **err);

/* Gives it another name. Returns also ZIND_STATUS_UTF8, _SPEC for a name that is none, _EXISTS, _NOT_FOUND, _SYS. */
zind_status zind_container_rename(const zind_container *container, const char *name, zind_error **err);

/* As zind_container_rename(), and asks as zind_container_pause_interruptible(). It has its old name then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_rename_interruptible(const zind_container *container,
                                                const char *name,
                                                zind_interrupted interrupted,
                                                void *data,
                                                zind_error **err);

/* Deletes it with all it has: changes, log, name. The handle is still to be freed.
 * force: one that runs is ended first, and one whose state cannot be read is taken away, too.
 * Returns also ZIND_STATUS_STATE if it runs, _NOT_FOUND, _SYS. */
zind_status zind_container_delete(const zind_container *container, bool force, zind_error **err);

/* As zind_container_delete(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while
 * somebody else changes it, and while hooks run.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_delete_interruptible(const zind_container *container,
                                                bool force,
                                                zind_interrupted interrupted,
                                                void *data,
                                                zind_error **err);

/* Waits until something in its network namespace listens on a TCP port.
 * timeout_ms: how long to wait, in milliseconds.
 * Returns also ZIND_STATUS_STATE, with the end of its log, if timeout_ms is over first or it has ended; _NOT_FOUND, _SYS. */
zind_status zind_container_wait_port(const zind_container *container,
                                     uint16_t port,
                                     uint64_t timeout_ms,
                                     zind_error **err);

/* As zind_container_wait_port(), and asks a function of the caller's whether to stop waiting, a few times a second.
 * interrupted: true ends the wait, the container goes on; NULL asks nobody. data: its argument.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_wait_port_interruptible(const zind_container *container,
                                                   uint16_t port,
                                                   uint64_t timeout_ms,
                                                   zind_interrupted interrupted,
                                                   void *data,
                                                   zind_error **err);

/* Waits until a line with this in it has been written since its start. Returns also ZIND_STATUS_UTF8, and what
 * zind_container_wait_port() returns. */
zind_status zind_container_wait_line(const zind_container *container,
                                     const char *part,
                                     uint64_t timeout_ms,
                                     zind_error **err);

/* As zind_container_wait_line(), and asks a function of the caller's, as zind_container_wait_port_interruptible().
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_wait_line_interruptible(const zind_container *container,
                                                   const char *part,
                                                   uint64_t timeout_ms,
                                                   zind_interrupted interrupted,
                                                   void *data,
                                                   zind_error **err);

/* Waits until a program that is run in it, again and again, exits with 0. spec: as for zind_container_exec().
 * Returns also what zind_container_wait_port() and zind_container_exec() return. */
zind_status zind_container_wait_command(const zind_container *container,
                                        const zind_spec *spec,
                                        uint64_t timeout_ms,
                                        zind_error **err);

/* As zind_container_wait_command(), and asks a function of the caller's, as zind_container_wait_port_interruptible(). A program that
 * runs then is killed.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_wait_command_interruptible(const zind_container *container,
                                                      const zind_spec *spec,
                                                      uint64_t timeout_ms,
                                                      zind_interrupted interrupted,
                                                      void *data,
                                                      zind_error **err);

/* Runs a further program in a running container; all as zind_process_exec() has it.
 * Returns also ZIND_STATUS_STATE if it does not run or is paused, _NOT_FOUND, and what zind_process_exec() returns. */
zind_status zind_container_exec(const zind_container *container,
                                const zind_spec *spec,
                                zind_process **process,
                                zind_error **err);

/* As zind_container_exec(), and asks a function of the caller's whether to stop, as zind_run_interruptible(): nothing of the program is
 * left then, and the container goes on.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_exec_interruptible(const zind_container *container,
                                              const zind_spec *spec,
                                              zind_interrupted interrupted,
                                              void *data,
                                              zind_process **process,
                                              zind_error **err);

/* Stops everything in it until zind_container_resume(), and waits until all of it has stopped. It takes a spec with resources.
 * Returns also ZIND_STATUS_STATE (it does not run, is paused already, or has no control group), _UNSUPPORTED (no freezer),
 * _NOT_FOUND, _SYS. */
zind_status zind_container_pause(const zind_container *container,
                                 zind_error **err);

/* As zind_container_pause(), and asks a function of the caller's whether to stop, as zind_container_start_interruptible(): while
 * somebody else changes this container, as who starts it does while its hooks run. It goes on then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_pause_interruptible(const zind_container *container,
                                               zind_interrupted interrupted,
                                               void *data,
                                               zind_error **err);

/* Lets everything in it go on. Returns also what zind_container_pause() returns; _STATE is for one that is not paused. */
zind_status zind_container_resume(const zind_container *container, zind_error **err);

/* Changes limits, of what runs and of each start that follows. resources: as for zind_spec_set_resources_json(); what is not in
 * there stays as it is, -1 takes a limit away. A container that does not run needs none from before.
 * Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_update() returns. */
zind_status zind_container_update_json(const zind_container *container,
                                       const char *resources,
                                       zind_error **err);

/* As zind_container_update_json(), and asks a function of the caller's whether to stop, as zind_container_pause_interruptible().
 * Nothing is changed then. Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_update_json_interruptible(const zind_container *container,
                                                     const char *resources,
                                                     zind_interrupted interrupted,
                                                     void *data,
                                                     zind_error **err);

/* What it uses now; once it has ended, what it used over its whole life. stats: begin with ZIND_STATS_INIT.
 * Returns also ZIND_STATUS_STATE if it was never started, _SPEC for a struct_size that is too small, _NOT_FOUND, _SYS. */
zind_status zind_container_stats(const zind_container *container,
                                 zind_stats *stats,
                                 zind_error **err);

/* The same with all that is known, as zind_process_stats_json(). json: receives a string; free it with zind_string_free().
 * Returns also what zind_container_stats() returns. */
zind_status zind_container_stats_json(const zind_container *container,
                                      char **json,
                                      zind_error **err);

/* Everything that runs in it, as zind_process_list_json(); an empty list while it does not run.
 * json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_NOT_FOUND, _SYS. */
zind_status zind_container_processes_json(const zind_container *container, char **json, zind_error **err);

/* What happens in it as it happens, as zind_process_events().
 * events: receives the handle; free it with zind_events_free().
 * Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_events() returns. */
zind_status zind_container_events(const zind_container *container,
                                  const char *const *pressure,
                                  zind_events **events,
                                  zind_error **err);

/* Gives its terminal another size; whoever runs in its foreground is told by SIGWINCH.
 * Returns also ZIND_STATUS_STATE without a terminal, or if it does not run; _NOT_FOUND, _SYS. */
zind_status zind_container_resize(const zind_container *container,
                                  uint16_t rows,
                                  uint16_t cols,
                                  zind_error **err);

/* The inside of its root, with all its mounts, for copying files in and out while it runs.
 * root: receives the handle; free it with zind_root_free(). Returns also ZIND_STATUS_STATE if it does not run; _NOT_FOUND, _SYS. */
zind_status zind_container_root(const zind_container *container,
                                zind_root **root,
                                zind_error **err);

/* Mounts something in it while it runs, as zind_process_mount(). The next start is without it.
 * Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_mount() returns. */
zind_status zind_container_mount(const zind_container *container,
                                 const char *type,
                                 const char *source,
                                 const char *target,
                                 const char *const *options,
                                 zind_error **err);

/* Takes away what is mounted at target in it, and what is mounted below that.
 * Returns also ZIND_STATUS_NOT_FOUND, and what zind_process_umount() returns. */
zind_status zind_container_umount(const zind_container *container, const char *target, zind_error **err);

/* What it has written, as far as its log still has it, whether it runs or not.
 * options: NULL for all there is, or begin with ZIND_LOG_OPTIONS_INIT.
 * logs: receives the handle; free it with zind_logs_free().
 * Returns also ZIND_STATUS_STATE if it keeps no log, _SPEC, _NOT_FOUND, _SYS. */
zind_status zind_container_logs(const zind_container *container,
                                const zind_log_options *options,
                                zind_logs **logs,
                                zind_error **err);

/* Becomes readable when there may be more of a log that is followed, and at the container's end, for an event loop. There is
 * none, -1, before a zind_logs_next() has found nothing to read. Borrowed: the logs close it; do not read from it. */
int32_t zind_logs_fd(const zind_logs *logs);

/* The next piece, or line.
 * timeout_ms: how long to wait for more of a log that is followed, in milliseconds; negative: as long as it takes.
 * chunk: begin with ZIND_CHUNK_INIT; its stream is ZIND_STREAM_NONE at the end, which comes with that of the container for a
 * log that is followed.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, _SYS. */
zind_status zind_logs_next(zind_logs *logs,
                           int64_t timeout_ms,
                           zind_chunk *chunk,
                           zind_error **err);

/* Frees logs and closes their descriptors; the container goes on. logs: NULL is fine. */
void zind_logs_free(zind_logs *logs);

/* Attaches to its streams, beside whoever else is.
 * attachment: receives the handle; free it with zind_attachment_free().
 * Returns also ZIND_STATUS_STATE if it does not run, or if as many are attached as there can be; _NOT_FOUND, _SYS. */
zind_status zind_container_attach(const zind_container *container,
                                  zind_attachment **attachment,
                                  zind_error **err);

/* Becomes readable when there is output, or at the end, for an event loop. Borrowed: the attachment closes it; do not read from
 * it. -1 for NULL. */
int32_t zind_attachment_fd(const zind_attachment *attachment);

/* The next piece of output.
 * timeout_ms: how long to wait, in milliseconds; negative: as long as it takes.
 * chunk: begin with ZIND_CHUNK_INIT; its stream is ZIND_STREAM_NONE when the container has ended and all was read.
 * Returns also ZIND_STATUS_TIMEOUT when timeout_ms is over, _SPEC for a struct_size that is too small, _SYS. */
zind_status zind_attachment_next(zind_attachment *attachment,
                                 int64_t timeout_ms,
                                 zind_chunk *chunk,
                                 zind_error **err);

/* Where input is written to: the container's standard input, or its terminal. Borrowed: the attachment closes it. -1 if the
 * container has no input, or that was taken or closed. */
int32_t zind_attachment_input(const zind_attachment *attachment);

/* The same, once, as the caller's own. The caller closes it. -1 as above. */
int32_t zind_attachment_take_input(zind_attachment *attachment);

/* Ends the container's standard input, for everybody; an input that was taken is closed by who has it. Returns also
 * ZIND_STATUS_SYS. */
zind_status zind_attachment_close_input(zind_attachment *attachment, zind_error **err);

/* Gives the container's terminal another size. Returns also ZIND_STATUS_STATE without one, or if the input was taken; _SYS. */
zind_status zind_attachment_resize(const zind_attachment *attachment,
                                   uint16_t rows,
                                   uint16_t cols,
                                   zind_error **err);

/* Frees an attachment and closes its descriptors; the container goes on. attachment: NULL is fine. */
void zind_attachment_free(zind_attachment *attachment);

/* What it has changed of its root since it was made, or since a snapshot, as zind_layers_diff(). One that runs goes on.
 * since: NULL for the beginning. changes: receives the handle; free it with zind_changes_free().
 * Returns also ZIND_STATUS_STATE if its changes are not on disk (the root of this machine, ZIND_CONTAINER_AUTO_REMOVE),
 * _NOT_FOUND, and _SYS with the path of what this user cannot read. */
zind_status zind_container_diff(const zind_container *container,
                                const char *since,
                                zind_changes **changes,
                                zind_error **err);

/* Makes an image of what it has changed: one layer over its image, or, of a root directory, all of it, in the store of the same
 * place. pause: one that runs is stopped meanwhile, so that the image is of one moment; that takes a spec with resources.
 * options: as of zind_layers_commit(). image: receives the handle; free it with zind_image_free().
 * Returns also ZIND_STATUS_STATE as zind_container_diff() and zind_container_pause() do, and if it is read-only; and what
 * zind_layers_commit() returns. */
zind_status zind_container_commit(const zind_container *container,
                                  const char *options,
                                  bool pause,
                                  zind_progress progress,
                                  void *data,
                                  zind_image **image,
                                  zind_error **err);

/* Writes its root, without what is mounted in it, as a tar: as zind_image_export(). One that runs goes on.
 * Returns also ZIND_STATUS_STATE as zind_container_diff() does. */
zind_status zind_container_export(const zind_container *container,
                                  const char *file,
                                  const char *method,
                                  zind_progress progress,
                                  void *data,
                                  zind_error **err);

/* Gives the present state of its root a name. The cost depends neither on the size of the root nor on that of the changes.
 * name: 1 to 255 bytes of UTF-8 without control characters.
 * Returns also ZIND_STATUS_STATE if it runs, if the name is taken, and as zind_container_diff() does; _SPEC, _SYS. */
zind_status zind_container_snapshot(const zind_container *container,
                                    const char *name,
                                    zind_error **err);

/* As zind_container_snapshot(), and asks as zind_container_pause_interruptible(). There is no such snapshot then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_snapshot_interruptible(const zind_container *container,
                                                  const char *name,
                                                  zind_interrupted interrupted,
                                                  void *data,
                                                  zind_error **err);

/* Throws away what it has changed since: its next start begins as it was at that snapshot.
 * Returns also ZIND_STATUS_NOT_FOUND, _STATE if it runs, and _SYS. */
zind_status zind_container_restore(const zind_container *container, const char *name, zind_error **err);

/* As zind_container_restore(), and asks as zind_container_pause_interruptible(). Nothing is thrown away then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_restore_interruptible(const zind_container *container,
                                                 const char *name,
                                                 zind_interrupted interrupted,
                                                 void *data,
                                                 zind_error **err);

/* Forgets a snapshot. The present state does not change. Returns also ZIND_STATUS_NOT_FOUND, _STATE if it runs, and _SYS. */
zind_status zind_container_remove_snapshot(const zind_container *container,
                                           const char *name,
                                           zind_error **err);

/* As zind_container_remove_snapshot(), and asks as zind_container_pause_interruptible(). The snapshot is still there then.
 * Returns also ZIND_STATUS_INTERRUPTED. */
zind_status zind_container_remove_snapshot_interruptible(const zind_container *container,
                                                         const char *name,
                                                         zind_interrupted interrupted,
                                                         void *data,
                                                         zind_error **err);

/* Its snapshots, oldest first, as zind_layers_snapshots_json(). json: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_NOT_FOUND, _SYS. */
zind_status zind_container_snapshots_json(const zind_container *container, char **json, zind_error **err);

/* Moves the calling thread into new namespaces: unshare(2), with a hint in the error about the likely reason.
 * flags: CLONE_NEW* and others of <sched.h>. Returns also ZIND_STATUS_SYS. */
zind_status zind_unshare(uint64_t flags, zind_error **err);

/* Moves the calling thread into the namespace that a descriptor stands for, or into those of a pidfd: setns(2).
 * fd: borrowed. flags: the CLONE_NEW* kind expected, 0 for any; with a pidfd, the kinds to join.
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_setns(int32_t fd, uint64_t flags, zind_error **err);

/* As zind_setns(), the namespace that a file stands for: "/proc/1/ns/net", or one it was pinned to. */
zind_status zind_setns_path(const char *path, uint64_t flags, zind_error **err);

/* As zind_setns(), the namespaces of a process, all the kinds in flags at once or none of them.
 * Returns also ZIND_STATUS_NOT_FOUND (no such process), _SPEC (no kind in flags), _SYS. */
zind_status zind_setns_pid(int32_t pid, uint64_t flags, zind_error **err);

/* Mounts, binds, moves or changes a mount: mount(2).
 * source, fstype, data: NULL where the call does not need them. target: the mount point. flags: MS_* of <sys/mount.h>.
 * Returns also ZIND_STATUS_SPEC (data is longer than a page), _UTF8 (fstype), _SYS. */
zind_status zind_mount(const char *source,
                       const char *target,
                       const char *fstype,
                       uint64_t flags,
                       const char *data,
                       zind_error **err);

/* Unmounts what is mounted on target: umount2(2). flags: MNT_* and UMOUNT_NOFOLLOW of <sys/mount.h>.
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_umount(const char *target, uint64_t flags, zind_error **err);

/* Makes the mount new_root the root of the mount namespace and puts the old root on put_old: pivot_root(2).
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_pivot_root(const char *new_root, const char *put_old, zind_error **err);

/* Changes the root directory of the calling thread and of those it shares it with: chroot(2). The working directory
 * stays: call chdir("/") next. Returns also ZIND_STATUS_SYS. */
zind_status zind_chroot(const char *path, zind_error **err);

/* Sets the host name of the calling thread's UTS namespace, at most 64 bytes: sethostname(2).
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_sethostname(const char *name, zind_error **err);

/* Sets the NIS domain name of the calling thread's UTS namespace, at most 64 bytes: setdomainname(2).
 * Returns also ZIND_STATUS_SYS. */
zind_status zind_setdomainname(const char *name, zind_error **err);

/* Everything that /proc/<pid> tells, as a JSON object: "pid", "cmdline", "cwd", "root", "exe", "environ", "fds",
 * "maps", "stat", "statm", "status", "ns", "children_ns", "idmaps", "setgroups", "cgroup". An entry the caller may not
 * read is null, and "errors" says why. Bytes that are not UTF-8 are replaced by U+FFFD; the typed functions keep them.
 * pid: 0 for the caller. json: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (no procfs on /proc). */
zind_status zind_proc_json(int32_t pid, char **json, zind_error **err);

/* The program of a process; with " (deleted)" at the end if it was removed.
 * pid: 0 for the caller. path: receives a string; free it with zind_string_free().
 * Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (EACCES: the caller may not trace it). */
zind_status zind_proc_exe(int32_t pid, char **path, zind_error **err);

/* The working directory of a process; else as zind_proc_exe(). */
zind_status zind_proc_cwd(int32_t pid, char **path, zind_error **err);

/* The root directory of a process, as seen from the caller's; else as zind_proc_exe(). */
zind_status zind_proc_root(int32_t pid, char **path, zind_error **err);

/* Reads memory of a process.
 * pid: 0 for the caller. address: where it begins there. buffer: room for len bytes.
 * read: receives how many were read, fewer where the mapped memory ends.
 * Returns also ZIND_STATUS_NOT_FOUND (no such process), and _SYS (EIO: nothing is mapped there; EACCES). */
zind_status zind_proc_mem(int32_t pid,
                          uint64_t address,
                          void *buffer,
                          size_t len,
                          size_t *read,
                          zind_error **err);

/* Every namespace that some process is in, as lsns(8) shows them: [{"kind", "id", "dev", "processes", "owner_uid",
 * "command", "parent" (the id of the one above, of a pid or user namespace), "owner" (that of its user namespace), "netnsid" (the
 * number by which the caller's network namespace knows it)}], null where it cannot be known, or there is none.
 * json: receives a string; free it with zind_string_free(). Returns also ZIND_STATUS_SYS (no procfs on /proc). */
zind_status zind_namespaces_json(char **json,
                                 zind_error **err);

/* What works on this machine and for this user: {"ok": bool, "checks": [{"name", "ok", "detail", "cure"}]}. Looks, and
 * changes nothing.
 * json: receives a string; free it with zind_string_free(). */
zind_status zind_doctor_json(char **json, zind_error **err);

/* The same as a table for people, a line or two for each check.
 * text: receives a string; free it with zind_string_free(). */
zind_status zind_doctor_text(char **text, zind_error **err);

/* Frees a string that a function of zind made. string: NULL is fine. */
void zind_string_free(char *string);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ZIND_H */
