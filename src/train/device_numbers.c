#include "train/device_numbers.h"

#include "base/arena.h"
#include "ops/optimizer_ops.h"

#include <math.h>
#include <stdlib.h>

static double element(const void *data, dr_dtype dtype, int64_t i)
{
    switch (dtype) {
    case DR_F32:
        return (double)((const float *)data)[i];
    case DR_F64:
        return ((const double *)data)[i];
    case DR_F16:
        return (double)dr_f16_to_f32(((const uint16_t *)data)[i]);
    case DR_BF16:
        return (double)dr_bf16_to_f32(((const uint16_t *)data)[i]);
    default:
        return 0.0; /* whole numbers are not looked at */
    }
}

/* The tensor's elements where the host can read them; *copy is to be freed. */
static dr_status on_host(const dr_device *device, const dr_tensor *t, void **copy,
                         const void **data)
{
    const size_t bytes = (size_t)dr_numel(t) * dr_dtype_size(t->dtype);
    *copy = NULL;
    *data = t->data;
    if (device->host_visible) {
        return DR_OK;
    }
    DR_TRY(dr_try_calloc(bytes + 1, 1, copy));
    *data = *copy;
    return device->download(*copy, t->data, bytes);
}

dr_status dr_first_not_finite(const dr_device *device, const dr_tensor *t, int64_t *at)
{
    void *copy = NULL;
    const void *data = NULL;
    const int64_t n = dr_numel(t);
    const dr_status st = on_host(device, t, &copy, &data);
    int64_t i = 0;
    while (st == DR_OK && i < n && isfinite(element(data, t->dtype, i))) {
        i++;
    }
    free(copy);
    *at = i < n ? i : -1;
    return st;
}

dr_status dr_largest_value(const dr_device *device, const dr_tensor *t, double *largest)
{
    void *copy = NULL;
    const void *data = NULL;
    const int64_t n = dr_numel(t);
    const dr_status st = on_host(device, t, &copy, &data);
    *largest = 0.0;
    for (int64_t i = 0; st == DR_OK && i < n; i++) {
        const double v = fabs(element(data, t->dtype, i));
        *largest = v > *largest ? v : *largest;
    }
    free(copy);
    return st;
}

dr_status dr_read_numbers(const dr_device *device, const dr_tensor *t, double *out)
{
    void *copy = NULL;
    const void *data = NULL;
    const int64_t n = dr_numel(t);
    const dr_status st = on_host(device, t, &copy, &data);
    for (int64_t i = 0; st == DR_OK && i < n; i++) {
        out[i] = element(data, t->dtype, i);
    }
    free(copy);
    return st;
}

dr_status dr_sum_of_squares(dr_context *cx, const dr_tensor *t, double *out)
{
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor sum = dr_new_typed(cx, f, DR_F64, 1, DR_DIMS(1));
    dr_status st = dr_zero(cx, &sum);
    if (st == DR_OK) {
        st = dr_sumsq(cx, &(dr_sumsq_args){.x = t, .out = &sum});
    }
    if (st == DR_OK) {
        st = dr_download(cx, &sum, out);
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_hash_values(const dr_device *device, const dr_tensor *t, dr_xxh3 *hash)
{
    void *copy = NULL;
    const void *data = NULL;
    const dr_status st = on_host(device, t, &copy, &data);
    if (st == DR_OK) {
        *hash = dr_xxh3_bytes(data, (size_t)dr_numel(t) * dr_dtype_size(t->dtype));
    }
    free(copy);
    return st;
}
