/*
 * Plans by their descriptions: found or refused once, kept until the GPU is closed.
 */
#include "backend/cuda/cuda_cudnn_internal.h"
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

static size_t bucket_of(const void *key, size_t bytes)
{
    uint64_t h = 14695981039346656037ULL; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++) {
        h = (h ^ ((const unsigned char *)key)[i]) * 1099511628211ULL;
    }
    return (size_t)(h % DR_CUDNN_BUCKETS);
}

dr_cudnn_plan *dr_cudnn_plan_of(dr_cudnn_plans *plans, const void *key, size_t bytes, bool *is_new)
{
    dr_cudnn_plan **bucket = &plans->bucket[bucket_of(key, bytes)];
    *is_new = false;
    for (dr_cudnn_plan *p = *bucket; p != NULL; p = p->next) {
        if (memcmp(p->key, key, bytes) == 0) {
            return p;
        }
    }
    dr_cudnn_plan *p = dr_xcalloc(1, sizeof *p);
    DR_CHECK(bytes <= sizeof p->key, "a description of %zu bytes", bytes);
    memcpy(p->key, key, bytes);
    p->next = *bucket;
    *bucket = p;
    *is_new = true;
    return p;
}

void dr_cudnn_plan_choose(dr_cudnn_plans *plans, dr_cudnn_plan *p, bool no_tensor_cores)
{
    p->found = !p->graph.failed && dr_cudnn_find_plan(&p->graph, no_tensor_cores);
    if (p->found) {
        plans->planned++;
    } else {
        plans->refused++;
        dr_cudnn_free(&p->graph);
    }
}

void dr_cudnn_plans_free(dr_cudnn_plans *plans)
{
    for (size_t i = 0; i < DR_CUDNN_BUCKETS; i++) {
        while (plans->bucket[i] != NULL) {
            dr_cudnn_plan *p = plans->bucket[i];
            plans->bucket[i] = p->next;
            dr_cudnn_free(&p->graph);
            free(p);
        }
    }
    memset(plans, 0, sizeof *plans);
}
