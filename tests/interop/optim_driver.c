/*
 * optim_driver TYPE LR LR2 STEPS FREEZE RESUME THREADS SHAPES IN OUT [key=value...]: an optimizer
 * on given gradients, for optim_peers.py.
 *
 * SHAPES: "name:64,80 te.name:64 name:8,4,3,3"; names that begin with "te." make up a second group
 * with the rate LR2, frozen from step FREEZE on (counted from 0). IN: f32 values of all tensors,
 * then STEPS times their gradients, in the order of files. OUT: STEPS times the values, then those
 * that would be saved; "ema_decay=D" among the settings keeps a running average. Before step RESUME
 * the state goes through its listing into a new optimizer.
 */
#include "backend/cpu/backend_cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "train/optim/optimizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS = 2 };

typedef struct driver {
    dr_arena arena;
    dr_params set[GROUPS];
    float *values[GROUPS], *grads[GROUPS];
    dr_optim_group group[GROUPS];
    dr_optimizer_config config;
    dr_optimizer *optimizer;
    dr_pool *pool;
    dr_context cx;
} driver;

/* "64,80": the sizes; returns their number. */
static int take_shape(const char *text, int64_t dim[DR_MAX_RANK])
{
    int rank = 0;
    for (const char *at = text; rank < DR_MAX_RANK; at++) {
        char *end;
        dim[rank++] = strtoll(at, &end, 10);
        at = end;
        if (*at != ',') {
            break;
        }
    }
    return rank;
}

static void add_params(driver *d, const char *shapes)
{
    static const dr_param_kind kinds[] = {DR_PARAM_VECTOR, DR_PARAM_VECTOR, DR_PARAM_MATRIX,
                                          DR_PARAM_VECTOR, DR_PARAM_CONV};
    for (int g = 0; g < GROUPS; g++) {
        dr_params_init(&d->set[g], &d->arena);
        (void)dr_params_begin_segment(&d->set[g]);
    }
    for (const char *at = shapes; *at != '\0';) {
        const size_t n = strcspn(at, " ");
        char *word = dr_arena_strndup(&d->arena, at, n);
        char *colon = strchr(word, ':');
        DR_CHECK(colon != NULL, "shape '%s'", word);
        *colon = '\0';
        int64_t dim[DR_MAX_RANK] = {0};
        const int rank = take_shape(colon + 1, dim);
        const int g = dr_str_starts(word, "te.") ? 1 : 0;
        dr_params_add(&d->set[g], kinds[rank], rank, dim, "%s", word)->trainable = true;
        at += n + (at[n] == ' ' ? 1 : 0);
    }
    for (int g = 0; g < GROUPS; g++) {
        const size_t n = (size_t)d->set[g].n_elems;
        d->values[g] = dr_xcalloc(n + 1, sizeof(float));
        d->grads[g] = dr_xcalloc(n + 1, sizeof(float));
        dr_params_bind(&d->set[g], DR_F32, d->values[g], d->grads[g]);
        d->group[g].at = (const dr_param *const *)d->set[g].at;
        d->group[g].n = d->set[g].n;
    }
}

/* All tensors in the order of SHAPES within each group, unet first. */
static dr_status transfer(driver *d, FILE *f, bool read, bool grads)
{
    for (int g = 0; g < GROUPS; g++) {
        for (size_t i = 0; i < d->set[g].n; i++) {
            const dr_param *p = d->set[g].at[i];
            float *there = grads ? p->grad.data : p->value.data;
            float *buf = dr_xcalloc((size_t)p->n, sizeof *buf);
            if (!read) {
                dr_param_to_file_order(p, there, DR_F32, buf, DR_F32);
            }
            const size_t done = read ? fread(buf, sizeof *buf, (size_t)p->n, f)
                                     : fwrite(buf, sizeof *buf, (size_t)p->n, f);
            if (read) {
                dr_param_from_file_order(p, buf, DR_F32, there, DR_F32);
            }
            free(buf);
            if (done != (size_t)p->n) {
                DR_FAIL(DR_IO, "the file ends inside %s", p->name);
            }
        }
    }
    return DR_OK;
}

static dr_status open_optimizer(driver *d, int threads)
{
    DR_TRY(dr_optimizer_create(&d->config, &d->optimizer));
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&d->cx, &dr_backend_cpu, dry, threads);
    DR_TRY(dr_optimizer_step(d->optimizer, &d->cx, &(dr_optim_step){.lr_factor = 1.0}));
    DR_TRY(dr_optimizer_eval(d->optimizer, &d->cx));
    DR_TRY(dr_optimizer_train(d->optimizer, &d->cx));
    const size_t peak = dr_pool_peak_bytes(dry);
    dr_pool_destroy(dry);
    dr_pool_destroy(d->pool);
    DR_TRY(dr_pool_create(dr_backend_cpu.device, peak, &d->pool));
    dr_context_init(&d->cx, &dr_backend_cpu, d->pool, threads);
    DR_TRY(dr_optimizer_alloc(d->optimizer, dr_backend_cpu.device));
    return dr_optimizer_begin(d->optimizer, &d->cx);
}

/* Through the listing into a new optimizer, as a state file would do it. */
static dr_status resume(driver *d, int threads)
{
    dr_optimizer *old = d->optimizer;
    DR_TRY(open_optimizer(d, threads));
    DR_CHECK(dr_optimizer_n_blobs(old) == dr_optimizer_n_blobs(d->optimizer), "blobs");
    for (size_t i = 0; i < dr_optimizer_n_blobs(old); i++) {
        dr_optim_blob from;
        dr_optim_blob to;
        dr_optimizer_blob(old, i, &from);
        dr_optimizer_blob(d->optimizer, i, &to);
        DR_CHECK(strcmp(from.name, to.name) == 0 && from.n == to.n, "%s, %s", from.name, to.name);
        memcpy(to.data, from.data, (size_t)from.n * dr_dtype_size(from.dtype));
    }
    for (size_t i = 0; i < dr_optimizer_n_scalars(old); i++) {
        *dr_optimizer_scalar(d->optimizer, i).value = *dr_optimizer_scalar(old, i).value;
    }
    dr_optimizer_destroy(old);
    return DR_OK;
}

static dr_status run(driver *d, char **argv, FILE *in, FILE *out)
{
    const long steps = strtol(argv[4], NULL, 10);
    const long freeze = strtol(argv[5], NULL, 10);
    const long resume_at = strtol(argv[6], NULL, 10);
    const int threads = (int)strtol(argv[7], NULL, 10);
    DR_TRY(transfer(d, in, true, false));
    DR_TRY(open_optimizer(d, threads));
    for (long step = 0; step < steps; step++) {
        const bool frozen[GROUPS] = {false, step >= freeze};
        if (step == resume_at) {
            DR_TRY(resume(d, threads));
        }
        DR_TRY(transfer(d, in, true, true));
        DR_TRY(dr_optimizer_step(
            d->optimizer, &d->cx,
            &(dr_optim_step){.lr_factor = 1.0, .grad_scale = 1.0, .frozen = frozen}));
        if (step == steps / 2) { /* a save in between changes nothing */
            DR_TRY(dr_optimizer_eval(d->optimizer, &d->cx));
            DR_TRY(dr_optimizer_train(d->optimizer, &d->cx));
        }
        DR_TRY(transfer(d, out, false, false));
    }
    DR_TRY(dr_optimizer_eval(d->optimizer, &d->cx));
    DR_TRY(transfer(d, out, false, false));
    (void)printf("d %.17g\nstate %zu\n", dr_optimizer_d(d->optimizer),
                 dr_optimizer_state_bytes(d->optimizer));
    return DR_OK;
}

static dr_status prepare(driver *d, int argc, char **argv)
{
    dr_strv args = {0};
    dr_optim_kind kind;
    DR_TRY(dr_optim_kind_from_name(argv[1], &kind));
    for (int i = 11; i < argc; i++) {
        if (dr_str_starts(argv[i], "ema_decay=")) {
            d->config.ema_decay = strtod(argv[i] + strlen("ema_decay="), NULL);
        } else {
            dr_strv_push(&args, argv[i]);
        }
    }
    const dr_status st = dr_optim_settings_parse(kind, &args, &d->config.settings);
    dr_strv_free(&args);
    DR_TRY(st);
    d->group[0] = (dr_optim_group){.name = "unet", .lr = strtod(argv[2], NULL)};
    d->group[1] = (dr_optim_group){.name = "text_encoder", .lr = strtod(argv[3], NULL)};
    d->config.groups = d->group;
    d->config.n_groups = GROUPS;
    add_params(d, argv[8]);
    return DR_OK;
}

int main(int argc, char **argv)
{
    driver d = {0};
    if (argc < 11) {
        (void)fprintf(stderr, "usage: see optim_driver.c\n");
        return 64;
    }
    dr_arena_init(&d.arena);
    dr_status st = prepare(&d, argc, argv);
    FILE *in = fopen(argv[9], "rb");
    FILE *out = fopen(argv[10], "wb");
    if (st == DR_OK && (in == NULL || out == NULL)) {
        st = DR_IO;
    }
    if (st == DR_OK) {
        st = run(&d, argv, in, out);
    }
    if (in != NULL) {
        (void)fclose(in);
    }
    if (out != NULL && fclose(out) != 0 && st == DR_OK) {
        st = DR_IO;
    }
    if (st != DR_OK) {
        dr_log_error_record();
    }
    dr_optimizer_destroy(d.optimizer);
    dr_pool_destroy(d.pool);
    for (int g = 0; g < GROUPS; g++) {
        free(d.values[g]);
        free(d.grads[g]);
        dr_params_deinit(&d.set[g]);
    }
    dr_arena_deinit(&d.arena);
    return dr_status_exit_code(st);
}
