#include "train/device_values.h"

#include "base/arena.h"

#include <stdlib.h>

dr_status dr_device_load(const dr_device *device, const dr_model_file *file, dr_model_part part,
                         dr_params *set, float *values, float *grads)
{
    if (device->host_visible) {
        dr_params_bind(set, DR_F32, values, grads);
        return dr_model_file_load(file, part, set);
    }
    float *host = NULL;
    DR_TRY(dr_try_calloc((size_t)set->n_elems, sizeof *host, (void **)&host));
    dr_params_bind(set, DR_F32, host, NULL);
    dr_status st = dr_model_file_load(file, part, set);
    if (st == DR_OK) {
        st = device->upload(values, host, (size_t)set->n_elems * sizeof *host);
    }
    free(host);
    dr_params_bind(set, DR_F32, values, grads);
    return st;
}

dr_status dr_device_to_host(const dr_device *device, const float *values, int64_t n, float **copy)
{
    float *host = NULL;
    DR_TRY(dr_try_calloc((size_t)n, sizeof *host, (void **)&host));
    const dr_status st = device->download(host, values, (size_t)n * sizeof *host);
    if (st != DR_OK) {
        free(host);
        return st;
    }
    *copy = host;
    return DR_OK;
}
