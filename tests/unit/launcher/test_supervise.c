#include "dr_test.h"

#include "base/clock.h"
#include "base/file.h"
#include "launcher/machine.h"
#include "launcher/supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};

static dr_status shell(const char *script, double grace_s, dr_supervised *r)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    const dr_supervise_options o = {.grace_s = grace_s,
                                    .save_signals = 1U << SIGINT | 1U << SIGTERM};
    return dr_supervise(argv, env, &o, r);
}

static void exit_codes_come_through(void **state)
{
    (void)state;
    dr_supervised r;
    assert_ok(shell("exit 65", 1.0, &r));
    assert_int_equal(r.exit_code, 65);
    assert_int_equal(r.signal, 0);
    assert_ok(shell("kill -9 $$", 1.0, &r));
    assert_int_equal(r.exit_code, 128 + SIGKILL);
}

static void missing_command_is_an_error(void **state)
{
    (void)state;
    dr_supervised r = {.exit_code = 42};
    const char *const argv[] = {"/no/such/program", NULL};
    const dr_supervise_options o = {.grace_s = 1.0};
    assert_error(dr_supervise(argv, env, &o, &r), DR_IO,
                 "/no/such/program cannot be started: No such file or directory");
    assert_int_equal(r.exit_code, 42);
}

/* Sends sig to this process after some milliseconds, from a process of its own. */
static pid_t signal_later(int sig, unsigned ms, unsigned times)
{
    pid_t target = getpid();
    pid_t child = fork();
    if (child == 0) {
        for (unsigned i = 0; i < times; i++) {
            (void)usleep(ms * 1000);
            (void)kill(target, sig);
        }
        (void)usleep(5000 * 1000); /* outlives the call under test, which reaps and kills it */
        _exit(0);
    }
    return child;
}

static void stop_request_is_passed_on_as_usr1(void **state)
{
    (void)state;
    dr_supervised r;
    (void)signal_later(SIGINT, 300, 1);
    assert_ok(shell("trap 'exit 7' USR1; while :; do sleep 0.05; done", 5.0, &r));
    assert_int_equal(r.signal, SIGINT);
    assert_int_equal(r.exit_code, 7);
    assert_false(r.killed);
}

static void deaf_command_is_killed_after_the_grace_time(void **state)
{
    (void)state;
    dr_supervised r;
    (void)signal_later(SIGTERM, 300, 1);
    double begin = dr_now_s();
    assert_ok(shell("trap '' USR1; while :; do sleep 0.05; done", 0.5, &r));
    assert_true(r.killed);
    assert_int_equal(r.exit_code, 128 + SIGKILL);
    assert_at_most(dr_now_s() - begin, 4.0); /* 0.8 s when nothing else runs */
}

static void second_request_kills_at_once(void **state)
{
    (void)state;
    dr_supervised r;
    (void)signal_later(SIGTERM, 800, 2);
    double begin = dr_now_s();
    assert_ok(shell("trap '' USR1; while :; do sleep 0.05; done", 60.0, &r));
    assert_true(r.killed);
    assert_at_most(dr_now_s() - begin, 10.0); /* well below the grace time */
}

/* scancel's request reaches this process twice: from Slurm, and from the ranks that got it as well.
 */
static void close_requests_are_one(void **state)
{
    (void)state;
    dr_supervised r;
    (void)signal_later(SIGTERM, 100, 2);
    assert_ok(shell("trap 'sleep 1; exit 7' USR1; while :; do sleep 0.05; done", 20.0, &r));
    assert_int_equal(r.exit_code, 7);
    assert_false(r.killed);
}

static bool is_running(long pid)
{
    char path[64];
    char text[256] = "";
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    (void)!fgets(text, sizeof text, f);
    (void)fclose(f);
    return strstr(text, ") Z ") == NULL;
}

static void nothing_outlives_the_command(void **state)
{
    (void)state;
    char script[512];
    dr_supervised r;
    char *file = dr_path_join(dr_test_tmpdir(), "pid");
    (void)snprintf(script, sizeof script, "setsid sleep 30 & echo $! > '%s'; exit 3", file);
    assert_ok(shell(script, 1.0, &r));
    assert_int_equal(r.exit_code, 3);
    char *text = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(file, 64, &text, &n));
    long pid = strtol(text, NULL, 10);
    assert_true(pid > 1);
    assert_false(is_running(pid));
    free(text);
    free(file);
}

static void machine_has_cores_and_programs(void **state)
{
    (void)state;
    char path[4096];
    assert_in_range(dr_machine_cores(), 1, dr_machine_cpus());
    assert_true(dr_machine_find_program("sh", path, sizeof path));
    assert_true(dr_machine_can_run(path));
    assert_false(dr_machine_find_program("no-such-program-here", path, sizeof path));
    assert_false(dr_machine_can_run("/"));
    assert_ok(dr_machine_bin_dir(path, sizeof path));
    assert_true(dr_str_ends(path, "/tests"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_come_through),
        cmocka_unit_test(missing_command_is_an_error),
        cmocka_unit_test(stop_request_is_passed_on_as_usr1),
        cmocka_unit_test(deaf_command_is_killed_after_the_grace_time),
        cmocka_unit_test(second_request_kills_at_once),
        cmocka_unit_test(close_requests_are_one),
        cmocka_unit_test(nothing_outlives_the_command),
        cmocka_unit_test(machine_has_cores_and_programs),
    };
    return DR_TEST_MAIN("supervise", tests);
}
