#include "tensor/tensor.h"

#include <stdio.h>

dr_tensor dr_tensor_of(void *data, dr_dtype dtype, int rank, const int64_t *dim)
{
    DR_CHECK(rank >= 0 && rank <= DR_MAX_RANK, "rank %d", rank);
    dr_tensor t = {.data = data, .dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) {
        t.dim[i] = dim[i];
    }
    return t;
}

int64_t dr_numel(const dr_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) {
        n *= t->dim[i];
    }
    return n;
}

size_t dr_nbytes(const dr_tensor *t)
{
    return (size_t)dr_numel(t) * dr_dtype_size(t->dtype);
}

int64_t dr_cols(const dr_tensor *t)
{
    return t->rank > 0 ? t->dim[t->rank - 1] : 1;
}

int64_t dr_rows(const dr_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < t->rank; i++) {
        n *= t->dim[i];
    }
    return n;
}

bool dr_same_shape(const dr_tensor *a, const dr_tensor *b)
{
    bool same = a->rank == b->rank && a->dtype == b->dtype;
    for (int i = 0; same && i < a->rank; i++) {
        same = a->dim[i] == b->dim[i];
    }
    return same;
}

dr_tensor dr_reshape(const dr_tensor *t, int rank, const int64_t *dim)
{
    dr_tensor r = dr_tensor_of(t->data, t->dtype, rank, dim);
    DR_CHECK(dr_numel(&r) == dr_numel(t), "reshape of %lld elements to %lld",
             (long long)dr_numel(t), (long long)dr_numel(&r));
    return r;
}

void dr_tensor_describe(const dr_tensor *t, char buf[96])
{
    int n = snprintf(buf, 96, "[");
    for (int i = 0; i < t->rank; i++) {
        n += snprintf(buf + n, 96 - (size_t)n, "%s%lld", i > 0 ? "," : "", (long long)t->dim[i]);
    }
    (void)snprintf(buf + n, 96 - (size_t)n, "] %s", dr_dtype_name(t->dtype));
}
