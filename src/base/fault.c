#include "base/fault.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef enum fault_kind {
    KILL,
    STOP,
    EXIT,
    DELAY,
    ENOSPACE,
    A_NAN,
    DEAD,
    FLIP,
    OOM,
    N_KINDS
} fault_kind;

static const char *const kind_names[N_KINDS] = {"kill", "stop", "exit", "delay", "enospc",
                                                "nan",  "dead", "flip", "oom"};

typedef struct fault {
    fault_kind kind;
    int64_t step, write; /* exactly one is not 0 */
    int64_t code;
    int64_t mib;
    int64_t attempt; /* 0: each */
    double seconds;
    char param[160]; /* "": none */
} fault;

enum { MAX_FAULTS = 16 };

static fault faults[MAX_FAULTS];
static int n_faults;
static atomic_llong n_writes;

/* Which start of the run this is, from 1. */
static int64_t this_attempt(void)
{
    const char *text = getenv("DREAMRUN_ATTEMPT");
    int64_t n = 0;
    return text != NULL && dr_parse_i64(text, &n) && n >= 1 ? n : 1;
}

static dr_status fail_spec(const char *spec, const char *why)
{
    DR_FAIL(DR_INVALID,
            "--inject %s: %s; expected KIND:step=N or KIND:write=N with KIND one of kill, stop, "
            "exit, delay, enospc, nan, dead, flip, oom, then e.g. ,rank=1",
            spec, why);
}

static dr_status parse_pair(const char *spec, char *pair, fault *f, int64_t *rank)
{
    char *equals = strchr(pair, '=');
    if (equals == NULL) {
        return fail_spec(spec, "a value is missing");
    }
    *equals = '\0';
    const char *value = equals + 1;
    if (strcmp(pair, "seconds") == 0) {
        bool good = dr_parse_f64(value, &f->seconds) && f->seconds > 0.0 && f->seconds <= 86400.0;
        return good ? DR_OK : fail_spec(spec, "seconds is no number between 0 and 86400");
    }
    if (strcmp(pair, "param") == 0) {
        const bool good = value[0] != '\0' && strlen(value) < sizeof f->param;
        (void)snprintf(f->param, sizeof f->param, "%s", good ? value : "");
        return good ? DR_OK : fail_spec(spec, "param is no name of a parameter");
    }
    int64_t *const slots[] = {&f->step, &f->write, &f->mib, &f->code, rank, &f->attempt};
    static const char *const keys[] = {"step", "write", "mib", "code", "rank", "attempt"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(pair, keys[i]) != 0) {
            continue;
        }
        if (!dr_parse_i64(value, slots[i]) || *slots[i] < (i < 3 ? 1 : 0) ||
            (slots[i] == &f->code && f->code > 255)) {
            return fail_spec(spec, "a number is out of range");
        }
        return DR_OK;
    }
    return fail_spec(
        spec, "a key is unknown (known: step, write, rank, attempt, code, seconds, mib, param)");
}

/* One fault; text is cut up. */
static dr_status parse_fault(const char *spec, char *text, int rank)
{
    fault f = {.kind = N_KINDS, .code = 1, .mib = 1024, .seconds = 1.0, .attempt = 1};
    int64_t on_rank = -1;
    char *place = NULL;
    const char *kind = strtok_r(text, ":", &place);
    for (int k = 0; kind != NULL && k < (int)N_KINDS; k++) {
        f.kind = strcmp(kind, kind_names[k]) == 0 ? (fault_kind)k : f.kind;
    }
    if (f.kind == N_KINDS) {
        return fail_spec(spec, "an unknown kind");
    }
    for (char *pair = strtok_r(NULL, ",", &place); pair != NULL;
         pair = strtok_r(NULL, ",", &place)) {
        DR_TRY(parse_pair(spec, pair, &f, &on_rank));
    }
    const bool numbers = f.kind == A_NAN || f.kind == DEAD || f.kind == FLIP;
    if ((f.step == 0) == (f.write == 0) || (f.kind == ENOSPACE && f.write == 0) ||
        (numbers && f.step == 0)) {
        return fail_spec(spec, "the place is not clear (enospc needs write=N; nan, dead and flip "
                               "step=N)");
    }
    if ((f.kind == DEAD && f.param[0] == '\0') || (!numbers && f.param[0] != '\0') ||
        (f.param[0] != '\0' && on_rank >= 0 && f.kind != FLIP)) {
        return fail_spec(spec, "param=NAME is for nan and dead, without a rank, and for flip; dead "
                               "needs it");
    }
    if (n_faults == MAX_FAULTS) {
        return fail_spec(spec, "too many faults");
    }
    bool now = f.attempt == 0 || f.attempt == this_attempt();
    if (now && (on_rank < 0 || on_rank == rank)) {
        faults[n_faults++] = f;
    }
    return DR_OK;
}

dr_status dr_fault_setup(const char *spec, int rank)
{
    spec = spec != NULL ? spec : getenv("DREAMRUN_INJECT");
    n_faults = 0;
    atomic_store(&n_writes, 0);
    if (spec == NULL || spec[0] == '\0') {
        return DR_OK;
    }
    dr_str copy = {0};
    dr_str_add(&copy, spec);
    dr_status st = DR_OK;
    char *place = NULL;
    for (char *one = strtok_r(copy.data, ";", &place); st == DR_OK && one != NULL;
         one = strtok_r(NULL, ";", &place)) {
        st = parse_fault(spec, one, rank);
    }
    dr_str_free(&copy);
    if (st == DR_OK && n_faults > 0) {
        dr_warn("faults are injected on purpose: %s", spec);
    }
    return st;
}

static void sleep_s(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* Takes memory and touches it; it is never given back. */
static void take_memory(int64_t mib)
{
    const size_t bytes = (size_t)mib << 20;
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        dr_warn("--inject oom: the system refuses %lld MiB: %s", (long long)mib, strerror(errno));
        return;
    }
    memset(at, 1, bytes);
}

static void strike(const fault *f)
{
    switch (f->kind) {
    case KILL:
        (void)raise(SIGKILL);
        break;
    case STOP:
        (void)raise(SIGSTOP);
        break;
    case EXIT:
        _exit((int)f->code);
        break;
    case DELAY:
        sleep_s(f->seconds);
        break;
    case OOM:
        take_memory(f->mib);
        break;
    case ENOSPACE:
    case A_NAN:
    case DEAD:
    case FLIP:
    case N_KINDS:
        break;
    }
}

void dr_fault_at_step(int64_t step)
{
    for (int i = 0; i < n_faults; i++) {
        if (faults[i].step == step) {
            strike(&faults[i]);
        }
    }
}

bool dr_fault_at_write(void)
{
    if (n_faults == 0) {
        return false;
    }
    int64_t number = atomic_fetch_add(&n_writes, 1) + 1;
    bool full = false;
    for (int i = 0; i < n_faults; i++) {
        const fault *f = &faults[i];
        if (f->kind == ENOSPACE && f->write <= number) {
            full = true;
        } else if (f->write == number) {
            strike(f);
        }
    }
    if (full) {
        errno = ENOSPC;
    }
    return full;
}

dr_fault_numbers dr_fault_numbers_at(int64_t step)
{
    dr_fault_numbers out = {0};
    for (int i = 0; i < n_faults; i++) {
        const fault *f = &faults[i];
        const char *param = f->param[0] != '\0' ? f->param : NULL;
        if (f->kind == A_NAN && f->step == step) {
            out.nan_input = out.nan_input || param == NULL;
            out.nan_param = param != NULL ? param : out.nan_param;
        } else if (f->kind == DEAD && f->step <= step) {
            out.dead_param = param;
        } else if (f->kind == FLIP && f->step == step) {
            out.flip = true;
            out.flip_param = param;
        }
    }
    return out;
}
