#include "io/zip_writer.h"

#include "base/arena.h"
#include "io/deflate.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,
    EXTRA64_LOCAL = 20,   /* id, length, two sizes                         */
    EXTRA64_CENTRAL = 28, /* id, length, two sizes, offset                 */
    PAD_HEAD = 4,         /* id and length of the extra field that pads    */
    PAD_ID = 0x4246,      /* torch's: "FB"                                 */
    VERSION = 20,
    VERSION64 = 45,
    FLAGS = 0x0808, /* data descriptor follows; the name is UTF-8 */
    DATE = 0x0021,  /* 1980-01-01: the same bytes at every writing */
    END_MOST = 98   /* the three end records */
};
#define LIMIT32 0xffffffffU

static bool is_wide(uint64_t v)
{
    return v >= LIMIT32;
}

typedef struct block { /* a small header being put together */
    unsigned char at[160];
    size_t n;
} block;

static void put(block *b, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        b->at[b->n++] = (unsigned char)(value >> (8 * i));
    }
}

static void put_narrow(block *b, uint64_t value)
{
    put(b, is_wide(value) ? LIMIT32 : value, 4);
}

static dr_status write_raw(dr_zip_writer *z, const void *data, size_t n)
{
    DR_TRY(dr_outfile_write(z->out, data, n));
    z->at += n;
    return DR_OK;
}

void dr_zip_writer_init(dr_zip_writer *z, dr_outfile *out)
{
    *z = (dr_zip_writer){.out = out};
}

void dr_zip_writer_deinit(dr_zip_writer *z)
{
    for (size_t i = 0; i < z->n; i++) {
        free(z->entries[i].name);
    }
    free(z->entries);
    *z = (dr_zip_writer){0};
}

static void add_entry(dr_zip_writer *z, const char *name, uint64_t bytes)
{
    if (z->n == z->capacity) {
        z->capacity = z->capacity * 2 + 64;
        z->entries = dr_xrealloc(z->entries, z->capacity, sizeof *z->entries);
    }
    char *copy = dr_xcalloc(strlen(name) + 1, 1);
    memcpy(copy, name, strlen(name));
    z->entries[z->n++] = (dr_zip_written){.name = copy, .bytes = bytes, .header_at = z->at};
}

dr_status dr_zip_writer_begin(dr_zip_writer *z, const char *name, uint64_t bytes, size_t align)
{
    static const char filler[256] = {0};
    const size_t n_name = strlen(name);
    const size_t n_64 = is_wide(bytes) ? EXTRA64_LOCAL : 0;
    DR_CHECK(!z->is_open && n_name < UINT16_MAX && align >= 1 && align <= sizeof filler,
             "entry '%s'", name);
    const uint64_t start = z->at + LOCAL_BYTES + n_name + n_64;
    const bool padded = start % align != 0;
    const size_t pad = padded ? (size_t)(align - (start + PAD_HEAD) % align) % align : 0;
    const size_t n_extra = n_64 + (padded ? PAD_HEAD + pad : 0);
    add_entry(z, name, bytes);
    block b = {.n = 0};
    put(&b, 0x04034b50, 4);
    put(&b, n_64 > 0 ? VERSION64 : VERSION, 2);
    put(&b, FLAGS, 2);
    put(&b, 0, 4); /* stored, midnight */
    put(&b, DATE, 2);
    put(&b, 0, 4); /* checksum: in the descriptor */
    put_narrow(&b, bytes);
    put_narrow(&b, bytes);
    put(&b, n_name, 2);
    put(&b, n_extra, 2);
    DR_TRY(write_raw(z, b.at, b.n));
    DR_TRY(write_raw(z, name, n_name));
    b.n = 0;
    if (n_64 > 0) {
        put(&b, 1, 2);
        put(&b, EXTRA64_LOCAL - 4, 2);
        put(&b, bytes, 8);
        put(&b, bytes, 8);
    }
    if (padded) {
        put(&b, PAD_ID, 2);
        put(&b, pad, 2);
    }
    DR_TRY(write_raw(z, b.at, b.n));
    DR_TRY(write_raw(z, filler, pad));
    z->left = bytes;
    z->is_open = true;
    return DR_OK;
}

dr_status dr_zip_writer_write(dr_zip_writer *z, const void *data, size_t n)
{
    DR_CHECK(z->is_open && n <= z->left, "%zu bytes for an entry that has %llu left", n,
             (unsigned long long)z->left);
    dr_zip_written *e = &z->entries[z->n - 1];
    if (n > 0) {
        e->crc = dr_crc32(e->crc, data, n);
    }
    z->left -= n;
    return write_raw(z, data, n);
}

dr_status dr_zip_writer_end(dr_zip_writer *z)
{
    const dr_zip_written *e = &z->entries[z->n - 1];
    DR_CHECK(z->is_open && z->left == 0, "'%s' lacks %llu bytes", e->name,
             (unsigned long long)z->left);
    const size_t width = is_wide(e->bytes) ? 8 : 4;
    block b = {.n = 0};
    put(&b, 0x08074b50, 4);
    put(&b, e->crc, 4);
    put(&b, e->bytes, width);
    put(&b, e->bytes, width);
    z->is_open = false;
    return write_raw(z, b.at, b.n);
}

dr_status dr_zip_writer_add(dr_zip_writer *z, const char *name, const void *data, size_t n,
                            size_t align)
{
    DR_TRY(dr_zip_writer_begin(z, name, n, align));
    DR_TRY(dr_zip_writer_write(z, data, n));
    return dr_zip_writer_end(z);
}

static dr_status write_central(dr_zip_writer *z, const dr_zip_written *e)
{
    const bool wide = is_wide(e->bytes) || is_wide(e->header_at);
    block b = {.n = 0};
    put(&b, 0x02014b50, 4);
    put(&b, wide ? VERSION64 : VERSION, 2);
    put(&b, wide ? VERSION64 : VERSION, 2);
    put(&b, FLAGS, 2);
    put(&b, 0, 4);
    put(&b, DATE, 2);
    put(&b, e->crc, 4);
    put(&b, wide ? LIMIT32 : e->bytes, 4);
    put(&b, wide ? LIMIT32 : e->bytes, 4);
    put(&b, strlen(e->name), 2);
    put(&b, wide ? EXTRA64_CENTRAL : 0, 2);
    put(&b, 0, 6); /* no comment, first disk */
    put(&b, 0, 4); /* attributes */
    put(&b, wide ? LIMIT32 : e->header_at, 4);
    DR_TRY(write_raw(z, b.at, b.n));
    DR_TRY(write_raw(z, e->name, strlen(e->name)));
    b.n = 0;
    if (wide) {
        put(&b, 1, 2);
        put(&b, EXTRA64_CENTRAL - 4, 2);
        put(&b, e->bytes, 8);
        put(&b, e->bytes, 8);
        put(&b, e->header_at, 8);
    }
    return write_raw(z, b.at, b.n);
}

static dr_status write_end64(dr_zip_writer *z, uint64_t begin)
{
    const uint64_t at = z->at;
    block b = {.n = 0};
    put(&b, 0x06064b50, 4);
    put(&b, 44, 8); /* bytes of this record after this number */
    put(&b, VERSION64, 2);
    put(&b, VERSION64, 2);
    put(&b, 0, 8);
    put(&b, z->n, 8);
    put(&b, z->n, 8);
    put(&b, at - begin, 8);
    put(&b, begin, 8);
    put(&b, 0x07064b50, 4);
    put(&b, 0, 4);
    put(&b, at, 8);
    put(&b, 1, 4);
    return write_raw(z, b.at, b.n);
}

dr_status dr_zip_writer_finish(dr_zip_writer *z)
{
    DR_CHECK(!z->is_open, "an entry is open");
    const uint64_t begin = z->at;
    for (size_t i = 0; i < z->n; i++) {
        DR_TRY(write_central(z, &z->entries[i]));
    }
    const uint64_t bytes = z->at - begin;
    if (z->n >= UINT16_MAX || is_wide(bytes) || is_wide(begin)) {
        DR_TRY(write_end64(z, begin));
    }
    const size_t n = z->n < UINT16_MAX ? z->n : UINT16_MAX;
    block b = {.n = 0};
    put(&b, 0x06054b50, 4);
    put(&b, 0, 4);
    put(&b, n, 2);
    put(&b, n, 2);
    put_narrow(&b, bytes);
    put_narrow(&b, begin);
    put(&b, 0, 2);
    return write_raw(z, b.at, b.n);
}

uint64_t dr_zip_writer_most(size_t n_entries, size_t n_names, uint64_t n_data, size_t align)
{
    const uint64_t local = LOCAL_BYTES + EXTRA64_LOCAL + PAD_HEAD + align + 24;
    return n_data + n_entries * (local + 46 + EXTRA64_CENTRAL) + 2 * n_names + END_MOST;
}
