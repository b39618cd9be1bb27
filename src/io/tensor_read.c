/*
 * Whole tensors into memory, converted, in pieces that threads share. A piece is small enough that
 * a few large tensors keep all threads busy, and large enough that sharing costs nothing.
 */
#include "io/tensor_file.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_ELEMS = 1 << 20, BOUNCE_BYTES = 16384 };

typedef struct reading {
    const dr_tensor_file *file;
    const dr_tensor_read *items;
    size_t n_items;
    size_t *first_piece; /* of each item; [n_items]: all pieces */
} reading;

static bool is_floating(dr_dtype t)
{
    return t == DR_F64 || t == DR_F32 || t == DR_F16 || t == DR_BF16;
}

/* The file may hold a tensor at any byte: such a one goes through a buffer that is aligned. */
static void convert(void *to, dr_dtype to_type, const unsigned char *from, dr_dtype type, size_t n)
{
    const size_t width = dr_dtype_size(type);
    const size_t to_width = dr_dtype_size(to_type);
    if (to_type == type || (uintptr_t)from % width == 0) {
        dr_convert(to, to_type, from, type, n);
        return;
    }
    double buffer[BOUNCE_BYTES / sizeof(double)];
    const size_t step = sizeof buffer / width;
    for (size_t at = 0; at < n; at += step) {
        const size_t m = n - at < step ? n - at : step;
        memcpy(buffer, from + at * width, m * width);
        dr_convert((char *)to + at * to_width, to_type, buffer, type, m);
    }
}

/* The item that piece i belongs to. */
static size_t item_of(const reading *r, size_t i)
{
    size_t low = 0;
    size_t high = r->n_items;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        *(r->first_piece[middle] <= i ? &low : &high) = middle;
    }
    return low;
}

static dr_status read_piece(void *arg, size_t i)
{
    const reading *r = arg;
    const size_t i_item = item_of(r, i);
    const dr_tensor_read *item = &r->items[i_item];
    const dr_file_tensor *t = item->tensor;
    const size_t begin = (i - r->first_piece[i_item]) * PIECE_ELEMS;
    const size_t left = (size_t)t->n_elems - begin;
    const void *data = NULL;
    DR_TRY(dr_tensor_file_data(r->file, t, &data));
    convert((char *)item->to + begin * dr_dtype_size(item->dtype), item->dtype,
            (const unsigned char *)data + begin * dr_dtype_size(t->dtype), t->dtype,
            left < PIECE_ELEMS ? left : PIECE_ELEMS);
    return DR_OK;
}

static dr_status check_item(const dr_tensor_file *f, const dr_tensor_read *item)
{
    const dr_file_tensor *t = item->tensor;
    if (t->readable && t->dtype != item->dtype &&
        !(is_floating(t->dtype) && is_floating(item->dtype))) {
        DR_FAIL(DR_FORMAT, "%s: tensor '%s' has dtype %s, expected %s or a floating-point type",
                dr_tensor_file_path_of(f, t), t->name, t->dtype_name, dr_dtype_name(item->dtype));
    }
    return DR_OK;
}

dr_status dr_tensor_file_read(const dr_tensor_file *f, dr_thread_pool *pool,
                              const dr_tensor_read *items, size_t n)
{
    reading r = {.file = f, .items = items, .n_items = n};
    for (size_t i = 0; i < n; i++) {
        DR_TRY(check_item(f, &items[i]));
    }
    r.first_piece = dr_xcalloc(n + 1, sizeof *r.first_piece);
    for (size_t i = 0; i < n; i++) {
        const size_t elems = (size_t)items[i].tensor->n_elems;
        r.first_piece[i + 1] =
            r.first_piece[i] + elems / PIECE_ELEMS + (elems % PIECE_ELEMS != 0 ? 1 : 0);
    }
    const dr_status st = dr_thread_pool_for(pool, r.first_piece[n], read_piece, &r);
    free(r.first_piece);
    return st;
}
