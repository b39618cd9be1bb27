/*
 * The emulation finds what it is there to find: a missing barrier, an off-by-one, a diverging
 * barrier or shuffle, unset shared memory, writes past an allocation, a host that follows a device
 * pointer, results read before they exist, allocations and waits while a graph is captured.
 */
#include "backend/cuda/backend_cuda.h"
#include "broken_kernels.h"
#include "dr_test.h"
#include "emu.h"
#include "emu_host.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 64 };

static int open_gpu(void **state)
{
    const dr_backend *cuda = NULL;
    assert_ok(dr_cuda_open(0, DR_CUDA_TF32_OFF, &cuda));
    *state = (void *)(uintptr_t)cuda->device;
    return 0;
}

static int close_gpu(void **state)
{
    (void)state;
    emu_clear_error();
    dr_cuda_close();
    assert_int_equal(emu_live_allocations(), 0);
    return 0;
}

/* Runs the kernel; the status of the download that follows, and the sum. */
static dr_status run_sum(const dr_device *d, dr_mistake mistake, float *sum)
{
    float numbers[N];
    void *x = NULL;
    void *y = NULL;
    for (int i = 0; i < N; i++) {
        numbers[i] = (float)i;
    }
    assert_ok(d->alloc(sizeof numbers, &x));
    assert_ok(d->alloc(sizeof(float), &y));
    assert_ok(d->upload(x, numbers, sizeof numbers));
    memset(numbers, 0, sizeof numbers); /* an upload has read its source when it returns */
    assert_ok(dr_broken_sum(x, y, mistake));
    const dr_status st = d->download(sum, y, sizeof *sum);
    d->free(x);
    d->free(y);
    return st;
}

static void a_correct_kernel_runs(void **state)
{
    float sum = 0.0F;
    assert_ok(run_sum(*state, DR_MISTAKE_NONE, &sum));
    assert_true(sum == 2016.0F);
}

static void expect_found(void **state, dr_mistake mistake, const char *const *words, size_t n)
{
    float sum = 0.0F;
    assert_int_equal(run_sum(*state, mistake, &sum), DR_DEVICE);
    for (size_t i = 0; i < n; i++) {
        if (strstr(dr_error_message(), words[i]) == NULL) {
            fail_msg("'%s' is missing in: %s", words[i], dr_error_message());
        }
    }
    emu_clear_error();
}
#define EXPECT(mistake, ...)                                                                       \
    expect_found(state, mistake,                                                                   \
                 (const char *const[]){"kernel sum_kernel, block (0,0,0)", __VA_ARGS__},           \
                 sizeof((const char *const[]){"", __VA_ARGS__}) / sizeof(char *))

static void a_missing_barrier_is_found(void **state)
{
    EXPECT(DR_MISTAKE_NO_BARRIER, "a race on shared array tile", "without a barrier");
}

static void an_off_by_one_is_found(void **state)
{
    EXPECT(DR_MISTAKE_OFF_BY_ONE, "thread (63,0,0)", "outside shared memory: tile[64] of 64");
}

static void unset_shared_memory_is_found(void **state)
{
    EXPECT(DR_MISTAKE_UNSET, "reads byte 28 of shared array tile, which nobody wrote");
}

static void a_divergent_barrier_is_found(void **state)
{
    EXPECT(DR_MISTAKE_DIVERGENT_BARRIER, "barrier broken_kernels.cu");
}

static void a_divergent_shuffle_is_found(void **state)
{
    EXPECT(DR_MISTAKE_DIVERGENT_SHUFFLE, "lanes of its warp that never come");
}

static void too_little_shared_memory_is_found(void **state)
{
    EXPECT(DR_MISTAKE_TOO_LITTLE_SHARED, "shared array tile ends at byte 256, the launch gave 128");
}

/* What f does ends a process with SIGSEGV (a sanitizer: with an exit code). */
static void expect_crash(const dr_device *d, void (*f)(const dr_device *d))
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        (void)close(STDERR_FILENO);
        f(d);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

static void write_past_the_end(const dr_device *d)
{
    float sum;
    (void)run_sum(d, DR_MISTAKE_PAST_THE_END, &sum);
}

static void read_on_the_host(const dr_device *d)
{
    void *p = NULL;
    assert_ok(d->alloc(64, &p));
    volatile const char *bytes = p;
    _exit(bytes[0] == 0 ? 0 : 0);
}

static void memory_is_guarded(void **state)
{
    expect_crash(*state, write_past_the_end);
    expect_crash(*state, read_on_the_host);
}

static void streams_and_graphs_behave(void **state)
{
    (void)state;
    assert_true(emu_work_waits_for_a_synchronisation());
    assert_true(emu_events_order_two_streams());
    assert_true(emu_graphs_replay());
    assert_true(emu_captures_refuse_allocation_and_waiting());
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_gpu, close_gpu)
    const struct CMUnitTest tests[] = {
        TEST(a_correct_kernel_runs),
        TEST(a_missing_barrier_is_found),
        TEST(an_off_by_one_is_found),
        TEST(unset_shared_memory_is_found),
        TEST(a_divergent_barrier_is_found),
        TEST(a_divergent_shuffle_is_found),
        TEST(memory_is_guarded),
        TEST(too_little_shared_memory_is_found),
        TEST(streams_and_graphs_behave),
    };
    return dr_test_run("emulation", tests, sizeof tests / sizeof *tests);
}
