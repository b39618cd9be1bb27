#include "train/device_values.h"

#include "base/arena.h"

#include <stdlib.h>

dr_status dr_device_load(const dr_device *device, const dr_model_file *file, dr_model_part part,
                         dr_params *set, dr_dtype dtype, void *values)
{
    if (device->host_visible) {
        dr_params_bind(set, dtype, values, NULL);
        return dr_model_file_load(file, part, set);
    }
    void *host = NULL;
    DR_TRY(dr_try_calloc((size_t)set->n_elems, dr_dtype_size(dtype), &host));
    dr_params_bind(set, dtype, host, NULL);
    dr_status st = dr_model_file_load(file, part, set);
    if (st == DR_OK) {
        st = device->upload(values, host, (size_t)set->n_elems * dr_dtype_size(dtype));
    }
    free(host);
    dr_params_bind(set, dtype, values, NULL);
    return st;
}

dr_status dr_device_to_host(const dr_device *device, const void *values, size_t bytes, void **copy)
{
    void *host = NULL;
    DR_TRY(dr_try_calloc(bytes, 1, &host));
    const dr_status st = device->download(host, values, bytes);
    if (st != DR_OK) {
        free(host);
        return st;
    }
    *copy = host;
    return DR_OK;
}
