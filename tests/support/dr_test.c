#include "dr_test.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int n_skipped;
static char tmpdir[256];
jmp_buf dr_test_panic_jump;

int dr_test_run(const char *name, const struct CMUnitTest *tests, size_t n)
{
    n_skipped = 0;
    int failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    if (failed != 0) {
        return 1;
    }
    return n_skipped == (int)n ? 77 : 0;
}

void dr_test_skip(const char *what)
{
    const char *required = getenv("DR_TEST_REQUIRE");
    if (required != NULL && strstr(required, what) != NULL) {
        fail_msg("%s is required here (DR_TEST_REQUIRE) but missing", what);
    }
    n_skipped++;
    print_message("skipped: needs %s\n", what);
}

const char *dr_test_shared(void)
{
    const char *dir = getenv("DR_SHARED");
    return dir != NULL && dir[0] != '\0' && access(dir, R_OK) == 0 ? dir : NULL;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void remove_tmpdir(void)
{
    (void)nftw(tmpdir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *dr_test_tmpdir(void)
{
    if (tmpdir[0] == '\0') {
        const char *base = getenv("TMPDIR");
        (void)snprintf(tmpdir, sizeof tmpdir, "%s/dr_test.XXXXXX", base != NULL ? base : "/tmp");
        assert_non_null(mkdtemp(tmpdir));
        (void)atexit(remove_tmpdir);
    }
    return tmpdir;
}

void dr_test_expect_ok(dr_status st, const char *expr, const char *file, int line)
{
    if (st != DR_OK) {
        print_error("%s: %s: %s\n", expr, dr_status_name(st), dr_error_message());
        _fail(file, line);
    }
}

void dr_test_expect_error(dr_status st, dr_status want, const char *text, const char *file,
                          int line)
{
    if (st != want || strstr(dr_error_message(), text) == NULL) {
        print_error("got %s \"%s\", expected %s with \"%s\"\n", dr_status_name(st),
                    dr_error_message(), dr_status_name(want), text);
        _fail(file, line);
    }
}

double dr_test_relative_l2(const float *got, const float *want, size_t n)
{
    double diff = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        diff += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return norm > 0.0 ? sqrt(diff / norm) : sqrt(diff);
}

double dr_test_max_abs(const float *got, const float *want, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    return worst;
}

void dr_test_at_most(double value, double limit, const char *what, const char *file, int line)
{
    if (!(value <= limit)) {
        print_error("%s is %g, allowed %g\n", what, value, limit);
        _fail(file, line);
    }
}

static void jump_out(const char *message)
{
    (void)message;
    longjmp(dr_test_panic_jump, 1);
}

void dr_test_catch_panics(bool on)
{
    dr_panic_set_hook(on ? jump_out : NULL);
}
