/*
 * dreamrun/status.h - status codes, the thread's error record, exit codes.
 *
 * Layer:    base.  Includes nothing of the project.
 * Threads:  the record is thread-local; a worker hands its record to its joiner with
 *           dr_error_export() / dr_error_import().
 *
 * Environment errors (files, memory, options, peers) are dr_status values with a record; broken
 * contracts are DR_CHECK, which panics. 0 is success everywhere.
 */
#ifndef DREAMRUN_STATUS_H
#define DREAMRUN_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DR_MUST_USE     __attribute__((warn_unused_result))
#define DR_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define DR_NORETURN     __attribute__((noreturn))
#else
#define DR_MUST_USE
#define DR_PRINTF(f, a)
#define DR_NORETURN
#endif

/* X(name, exit code of a program that ends with it, text). The exit codes are public:
 * docs/errors.md, after sysexits(3) where a code exists there. */
#define DR_STATUS_LIST(X)                                                                          \
    X(OK, 0, "done")                                                                               \
    X(INVALID, 64, "wrong usage or configuration")                                                 \
    X(UNSUPPORTED, 64, "not available in this program")                                            \
    X(FORMAT, 65, "bad input data or model file")                                                  \
    X(NOMEM, 69, "not enough memory")                                                              \
    X(DEVICE, 69, "a device, host or slot is not available")                                       \
    X(REFUSED, 70, "restart refused, or the restart budget is used up")                            \
    X(IO, 71, "the system refused an operation (disk full, read error, ...)")                      \
    X(OUTPUT, 73, "an output file or directory cannot be created")                                 \
    X(HANG, 74, "no progress: stopped by the watchdog")                                            \
    X(CANCELLED, 75, "state saved; start the same command again")                                  \
    X(NUMERIC, 76, "numeric failure (NaN or infinity)")                                            \
    X(COMM, 74, "a peer rank is lost")                                                             \
    X(INEXACT, 78, "the result would not be exact")

typedef enum dr_status {
#define DR_STATUS_ENUM(name, code, text) DR_##name,
    DR_STATUS_LIST(DR_STATUS_ENUM)
#undef DR_STATUS_ENUM
        DR_STATUS_COUNT
} dr_status;

/* Name ("FORMAT"), one-line text and process exit code of a status; valid for every value. */
const char *dr_status_name(dr_status st);
const char *dr_status_text(dr_status st);
int dr_status_exit_code(dr_status st);

/*
 * Sets this thread's error record (status, message, first frame) and returns st.
 * The message says what failed, on what, what was found, what was expected, what to do.
 * Messages over 2047 bytes are cut at that length.
 */
dr_status dr_error_set(dr_status st, const char *file, int line, const char *fmt, ...)
    DR_PRINTF(4, 5);
/* Puts "prefix: " in front of the record's message (a file name, a flag); keeps the status. */
dr_status dr_error_prefix(dr_status st, const char *fmt, ...) DR_PRINTF(2, 3);
/* Adds a frame (at most 16 are kept) and returns st. */
dr_status dr_error_frame(dr_status st, const char *file, int line);
/* The record: its message ("" when there is none) and "file:line < file:line" trace. */
const char *dr_error_message(void);
dr_status dr_error_status(void);
/* Writes the trace into buf (always terminated). */
void dr_error_trace(char *buf, size_t size);
void dr_error_clear(void);

typedef struct dr_error_copy { /* a record carried from one thread to another, by value */
    dr_status status;
    char message[2048];
} dr_error_copy;
void dr_error_export(dr_error_copy *out);
void dr_error_import(const dr_error_copy *in);

#define DR_FAIL(st, ...) return dr_error_set((st), __FILE__, __LINE__, __VA_ARGS__)
#define DR_TRY(expr)                                                                               \
    do {                                                                                           \
        const dr_status dr_try_st_ = (expr);                                                       \
        if (dr_try_st_ != DR_OK) {                                                                 \
            return dr_error_frame(dr_try_st_, __FILE__, __LINE__);                                 \
        }                                                                                          \
    } while (0)
/* Propagates through a cleanup label: st is the function's status variable. */
#define DR_TRY_GOTO(expr, st, label)                                                               \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if ((st) != DR_OK) {                                                                       \
            (void)dr_error_frame((st), __FILE__, __LINE__);                                        \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)
/* Continues a cleanup: keeps the first failure in st. */
#define DR_KEEP_FIRST(expr, st)                                                                    \
    do {                                                                                           \
        const dr_status dr_keep_st_ = (expr);                                                      \
        if ((st) == DR_OK) {                                                                       \
            (st) = dr_keep_st_;                                                                    \
        }                                                                                          \
    } while (0)

/*
 * Broken contract: prints the condition, the message and the place, calls the hook, aborts.
 * The hook (dist: abort all ranks; tests: longjmp) may not return to the caller's code path.
 */
DR_NORETURN void dr_panic(const char *cond, const char *file, int line, const char *fmt, ...)
    DR_PRINTF(4, 5);
void dr_panic_set_hook(void (*hook)(const char *message));
#define DR_CHECK(cond, ...)                                                                        \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            dr_panic(#cond, __FILE__, __LINE__, __VA_ARGS__);                                      \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
