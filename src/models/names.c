#include "models/names.h"

#include <string.h>

bool dr_shape_find(const dr_shape_source *src, const char *name, int *rank,
                   int64_t dim[DR_MAX_RANK])
{
    int found_rank;
    int64_t found_dim[DR_MAX_RANK];
    return src->shape_of(src->user, name, rank != NULL ? rank : &found_rank,
                         dim != NULL ? dim : found_dim);
}

bool dr_name_replace(char *buf, size_t size, const char *from, const char *to)
{
    char *at = strstr(buf, from);
    const size_t n_from = strlen(from);
    const size_t n_to = strlen(to);
    const size_t len = strlen(buf);
    if (at == NULL || len - n_from + n_to >= size) {
        return false;
    }
    memmove(at + n_to, at + n_from, len - (size_t)(at - buf) - n_from + 1);
    memcpy(at, to, n_to);
    return true;
}
