/*
 * tests/support/dr_test.h - CMocka with two additions: a group whose tests were all skipped exits
 * with 77 (CTest: skipped), and helpers for temporary folders, tolerances and expected errors.
 */
#ifndef DR_TEST_H
#define DR_TEST_H

#include "dreamrun/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Runs the group; returns the program's exit code: 0, 77 when every test called DR_SKIP, else 1. */
int dr_test_run(const char *name, const struct CMUnitTest *tests, size_t n);
#define DR_TEST_MAIN(name, tests) dr_test_run(name, tests, sizeof(tests) / sizeof((tests)[0]))

/* Ends the test as skipped and counts it. With DR_TEST_REQUIRE=what in the environment it fails. */
void dr_test_skip(const char *what);
#define DR_SKIP(what)                                                                              \
    do {                                                                                           \
        dr_test_skip(what);                                                                        \
        skip();                                                                                    \
    } while (0)

/* The folder with test material (../shared/data), or NULL when it is absent. */
const char *dr_test_shared(void);
/* A fresh folder for this process, removed at exit. */
const char *dr_test_tmpdir(void);

/* status must be DR_OK; prints the record otherwise. */
#define assert_ok(expr) dr_test_expect_ok((expr), #expr, __FILE__, __LINE__)
void dr_test_expect_ok(dr_status st, const char *expr, const char *file, int line);
/* status must be want and its message must contain text. */
#define assert_error(expr, want, text) dr_test_expect_error((expr), want, text, __FILE__, __LINE__)
void dr_test_expect_error(dr_status st, dr_status want, const char *text, const char *file,
                          int line);
/* |got - want|_2 / |want|_2 over n numbers, and the largest absolute difference. */
double dr_test_relative_l2(const float *got, const float *want, size_t n);
double dr_test_max_abs(const float *got, const float *want, size_t n);
/* Fails with both numbers unless value <= limit. */
#define assert_at_most(value, limit) dr_test_at_most((value), (limit), #value, __FILE__, __LINE__)
void dr_test_at_most(double value, double limit, const char *what, const char *file, int line);
/* Expects that the statement panics (broken contract). */
#define assert_panics(statement)                                                                   \
    do {                                                                                           \
        dr_test_catch_panics(true);                                                                \
        if (setjmp(dr_test_panic_jump) == 0) {                                                     \
            statement;                                                                             \
            dr_test_catch_panics(false);                                                           \
            fail_msg("%s did not panic", #statement);                                              \
        }                                                                                          \
        dr_test_catch_panics(false);                                                               \
    } while (0)
extern jmp_buf dr_test_panic_jump;
void dr_test_catch_panics(bool on);

#endif
