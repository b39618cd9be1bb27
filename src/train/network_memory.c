/*
 * The memory of a run's networks: values, what is trained of them, gradients; loading and saving.
 */
#include "ops/cast.h"
#include "train/device_values.h"
#include "train/network.h"

#include <stdlib.h>

static size_t elem_bytes(dr_dtype dtype, int64_t n)
{
    return (size_t)n * dr_dtype_size(dtype);
}

static char *elem_at(void *base, dr_dtype dtype, int64_t i)
{
    return base != NULL ? (char *)base + elem_bytes(dtype, i) : NULL;
}

/* Every segment's gradients at the start of the memory: a segment's are used up at once. */
static void share_grads(const dr_params *set, void *grads)
{
    for (size_t i = 0; i < set->n; i++) {
        dr_param *p = set->at[i];
        int64_t begin;
        int64_t end;
        dr_params_segment_range(set, p->segment, &begin, &end);
        if (p->grad.data != NULL) {
            p->grad.data = elem_at(grads, p->grad.dtype, p->offset - begin);
        }
    }
}

typedef struct memory { /* what the parameters are bound to */
    void *values, *grads, *trained;
} memory;

/* A set whose values begin at element `at`. */
static void bind_set(dr_network *n, const memory *m, dr_model_part part, dr_params *set, int64_t at)
{
    const dr_dtype compute = dr_precision_compute(n->o.precision);
    const dr_dtype type = dr_precision_trained(n->o.precision);
    const dr_dtype grad_type = dr_precision_grads(n->o.precision);
    const int64_t begin = n->trained[part].at;
    dr_params_bind(set, compute, elem_at(m->values, compute, at), NULL);
    if (m->grads == NULL || n->trained[part].set != set) {
        return;
    }
    dr_params_bind_masters(set, type, elem_at(m->trained, type, begin));
    dr_params_bind_grads(set, grad_type, elem_at(m->grads, grad_type, begin));
    if (n->o.one_segment_of_grads) {
        share_grads(set, m->grads);
    }
}

static void bind(dr_network *n, const memory *m)
{
    bind_set(n, m, DR_PART_TEXT_ENCODER, &n->text_params, 0);
    bind_set(n, m, DR_PART_UNET, &n->unet_params, n->text_params.n_elems);
    for (int part = 0; n->lora != NULL && part < 2; part++) {
        bind_set(n, m, part, &n->lora->set[part], n->lora_at[part]);
    }
}

static void bind_own(dr_network *n)
{
    bind(n, &(memory){n->values, n->grads, n->trained_values});
}

void dr_network_bind_dry(dr_network *n)
{
    void *fake = (void *)(uintptr_t)4096; /* never read: a dry context touches no memory */
    bind(n, &(memory){fake, n->o.train ? fake : NULL, fake});
}

size_t dr_network_weight_bytes(const dr_network *n)
{
    const bool masters = n->o.train && dr_precision_has_masters(n->o.precision);
    return elem_bytes(dr_precision_compute(n->o.precision), n->n_values) +
           (masters ? elem_bytes(DR_F32, n->n_trained) : 0);
}

size_t dr_network_grad_bytes(const dr_network *n)
{
    return n->o.train ? elem_bytes(dr_precision_grads(n->o.precision), n->n_grads) : 0;
}

dr_tensor dr_network_trained(const dr_network *n)
{
    return dr_tensor_of(n->trained_values, dr_precision_trained(n->o.precision), 1, &n->n_trained);
}

dr_tensor dr_network_gradients(const dr_network *n)
{
    return dr_tensor_of(n->grads, dr_precision_grads(n->o.precision), 1, &n->n_grads);
}

/* The holes between entries are zero since the memory was allocated. */
dr_status dr_network_begin_grads(dr_network *n)
{
    const dr_device *device = n->o.backend->device;
    if (!n->o.backend->sets_fresh || n->o.one_segment_of_grads) {
        return device->zero(n->grads, dr_network_grad_bytes(n));
    }
    for (int part = 0; part < 2; part++) {
        if (n->trained[part].set != NULL) {
            DR_TRY(dr_params_begin_grads(n->trained[part].set, device));
        }
    }
    return DR_OK;
}

dr_status dr_network_settle_grads(dr_network *n, int64_t begin, int64_t end)
{
    for (int part = 0; part < 2; part++) {
        const dr_trained *t = &n->trained[part];
        if (t->set != NULL) {
            DR_TRY(
                dr_params_settle_grads(t->set, n->o.backend->device, begin - t->at, end - t->at));
        }
    }
    return DR_OK;
}

dr_context dr_network_context(const dr_network *n, dr_pool *pool)
{
    dr_context cx;
    dr_context_init_typed(&cx, n->o.backend, pool, n->o.threads,
                          dr_precision_compute(n->o.precision));
    return cx;
}

dr_status dr_network_refresh(dr_network *n, dr_context *cx, int64_t begin, int64_t end)
{
    if (n->trained_copy == NULL || end <= begin) {
        return DR_OK;
    }
    const dr_dtype compute = dr_precision_compute(n->o.precision);
    const int64_t count = end - begin;
    const dr_tensor from =
        dr_tensor_of(elem_at(n->trained_values, DR_F32, begin), DR_F32, 1, &count);
    dr_tensor to = dr_tensor_of(elem_at(n->trained_copy, compute, begin), compute, 1, &count);
    return dr_cast(cx, &(dr_cast_args){.x = &from, .y = &to});
}

static dr_status allocate(dr_network *n)
{
    const dr_device *device = n->o.backend->device;
    const dr_dtype compute = dr_precision_compute(n->o.precision);
    DR_TRY(device->alloc(elem_bytes(compute, n->n_values), &n->values));
    n->trained_values = elem_at(n->values, compute, n->n_values - n->n_trained);
    if (!n->o.train) {
        return DR_OK;
    }
    if (dr_precision_has_masters(n->o.precision)) {
        n->trained_copy = n->trained_values;
        n->trained_values = NULL;
        DR_TRY(device->alloc(elem_bytes(DR_F32, n->n_trained), &n->trained_values));
    }
    return device->alloc(dr_network_grad_bytes(n), &n->grads);
}

dr_status dr_network_load(dr_network *n, const dr_model_file *file)
{
    static const dr_model_part parts[] = {DR_PART_TEXT_ENCODER, DR_PART_UNET};
    const dr_dtype compute = dr_precision_compute(n->o.precision);
    int64_t at = 0;
    DR_TRY(allocate(n));
    for (int i = 0; i < 2; i++) {
        const dr_model_part part = parts[i];
        dr_params *set = part == DR_PART_UNET ? &n->unet_params : &n->text_params;
        const bool master = n->trained_copy != NULL && n->trained[part].set == set;
        void *values = master ? elem_at(n->trained_values, DR_F32, n->trained[part].at)
                              : elem_at(n->values, compute, at);
        DR_TRY(dr_device_load(n->o.backend->device, file, part, set, master ? DR_F32 : compute,
                              values));
        at += set->n_elems;
    }
    bind_own(n);
    if (n->lora != NULL) {
        DR_TRY(dr_network_merge_base(n, dr_model_file_config(file)));
        DR_TRY(dr_network_fill_lora(n));
    }
    dr_pool *nothing = NULL; /* the conversion needs no memory */
    DR_TRY(dr_pool_create(n->o.backend->device, 0, &nothing));
    dr_context cx = dr_network_context(n, nothing);
    const dr_status st = dr_network_refresh(n, &cx, 0, n->n_trained);
    dr_pool_destroy(nothing);
    return st;
}

dr_status dr_network_to_host(dr_network *n, void **copy)
{
    const dr_device *device = n->o.backend->device;
    const dr_tensor trained = dr_network_trained(n);
    *copy = NULL;
    if (!device->host_visible) {
        DR_TRY(dr_device_to_host(device, trained.data, dr_nbytes(&trained), copy));
    }
    for (int part = 0; part < 2; part++) {
        const dr_params *set = n->trained[part].set;
        void *from = *copy != NULL ? *copy : trained.data;
        for (size_t i = 0; set != NULL && i < set->n; i++) {
            dr_param *p = set->at[i];
            p->value.dtype = trained.dtype;
            p->value.data = elem_at(from, trained.dtype, n->trained[part].at + p->offset);
        }
    }
    return DR_OK;
}

void dr_network_from_host(dr_network *n, void *copy)
{
    bind_own(n);
    free(copy);
}

void dr_network_deinit(dr_network *n)
{
    if (n->o.backend == NULL) {
        return;
    }
    dr_clip_run_destroy(n->clip_train);
    dr_clip_run_destroy(n->clip_eval);
    dr_unet_run_destroy(n->unet_run);
    dr_unet_run_destroy(n->unet_eval);
    if (n->trained_copy != NULL) {
        n->o.backend->device->free(n->trained_values);
    }
    n->o.backend->device->free(n->values);
    n->o.backend->device->free(n->grads);
    if (n->lora != NULL) {
        dr_lora_network_deinit(n->lora);
    }
    dr_params_deinit(&n->text_params);
    dr_params_deinit(&n->unet_params);
    dr_arena_deinit(&n->arena);
    *n = (dr_network){0};
}
