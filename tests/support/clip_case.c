#include "clip_case.h"

#include "dr_test.h"
#include "golden_input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fill_ids(clip_case *c)
{
    const size_t n = (size_t)dr_numel(&c->ids);
    if (c->config.ids != NULL) {
        memcpy(c->ids.data, c->config.ids, n * sizeof *c->config.ids);
        return;
    }
    double *u = dr_xcalloc(n, sizeof *u);
    dr_golden_fill("input.ids", n, 1.0, u);
    for (size_t i = 0; i < n; i++) {
        ((int32_t *)c->ids.data)[i] = (int32_t)floor((u[i] + 0.5) * (double)c->config.model.vocab);
    }
    free(u);
}

void clip_case_begin(clip_case *c, const clip_case_config *config)
{
    *c = (clip_case){.config = *config};
    assert_ok(dr_clip_config_check(&config->model));
    dr_model_case_begin(&c->m, config->backend);
    dr_clip_init(&c->clip, &config->model, &c->m.params);
    dr_model_case_bind(&c->m, config->options.train);
    c->run = dr_clip_run_create(&c->clip, config->options);
    const int64_t states[3] = {config->batch, config->tokens, config->model.width};
    c->ids = dr_model_case_tensor(&c->m, 2, states);
    c->ids.dtype = DR_I32;
    fill_ids(c);
    c->out = dr_model_case_tensor(&c->m, 3, states);
    c->dout = dr_model_case_input(&c->m, "input.dout", DR_GOLDEN_UNIT, 3, states);
}

void clip_case_end(clip_case *c)
{
    dr_clip_run_destroy(c->run);
    dr_model_case_end(&c->m);
}

static void ready(void *user, int64_t begin, int64_t end)
{
    clip_case *c = user;
    c->ready_in_order = c->ready_in_order && end == c->ready_begin;
    c->ready_begin = begin;
    c->n_ready++;
}

static dr_status walk(dr_context *cx, void *user)
{
    clip_case *c = user;
    DR_TRY(dr_clip_forward(cx, c->run, &c->ids, &c->out));
    if (!c->config.options.train) {
        return DR_OK;
    }
    c->n_ready = 0;
    c->ready_in_order = true;
    c->ready_begin = c->m.params.n_elems;
    const dr_grad_sink sink = {.ready = ready, .user = c};
    return dr_clip_backward(cx, c->run, &c->dout, &sink);
}

void clip_case_step(clip_case *c)
{
    if (c->m.grads != NULL) {
        const size_t bytes =
            (size_t)c->m.params.n_elems * dr_dtype_size(c->config.backend->compute);
        assert_ok(c->config.backend->device->zero(c->m.grads, bytes));
    }
    dr_model_case_run(&c->m, walk, c);
}
