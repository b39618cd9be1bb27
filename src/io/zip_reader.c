/*
 * The end record is searched from the end, ZIP64's records are followed where it asks for them, and
 * every directory entry is checked against the file's size and against its neighbours.
 */
#include "io/zip_reader.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/file.h"
#include "io/deflate.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    LOCATOR64_BYTES = 20,
    END64_BYTES = 56,
    MAX_COMMENT = 65535,
    EXTRA_ZIP64 = 1,
    FLAG_ENCRYPTED = 1,
    METHOD_STORED = 0,
    METHOD_DEFLATED = 8,
    DEFLATE_MAX_RATIO = 1032 /* bytes out of one byte in: zlib's technical details */
};
#define SIG_LOCAL     0x04034b50U
#define SIG_CENTRAL   0x02014b50U
#define SIG_END       0x06054b50U
#define SIG_LOCATOR64 0x07064b50U
#define SIG_END64     0x06064b50U
#define ASK64         0xffffffffU

struct dr_zip {
    dr_arena arena;
    dr_map map; /* empty when parsed from memory */
    const char *source;
    const unsigned char *bytes;
    size_t size;
    dr_zip_entry *entries;
    size_t n;
    uint32_t *slots; /* hash table: index + 1, 0 for empty; n_slots a power of two */
    size_t n_slots;
};

typedef struct directory { /* what the end record says */
    uint64_t n, bytes, at;
} directory;

static uint16_t u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p)
{
    return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32;
}

bool dr_zip_sniff_bytes(const unsigned char *head, size_t n)
{
    return n >= 4 && (u32(head) == SIG_LOCAL || u32(head) == SIG_END);
}

/* ---- the end records ---- */

/* Offset of the end record: its comment must reach exactly to the end of the file. */
static dr_status find_end(const dr_zip *z, size_t *at)
{
    const size_t most = END_BYTES + MAX_COMMENT;
    const size_t first = z->size > most ? z->size - most : 0;
    for (size_t i = z->size < END_BYTES ? 0 : z->size - END_BYTES + 1; i > first; i--) {
        const unsigned char *p = z->bytes + i - 1;
        if (u32(p) == SIG_END && (size_t)u16(p + 20) == z->size - (i - 1) - END_BYTES) {
            *at = i - 1;
            return DR_OK;
        }
    }
    DR_FAIL(DR_FORMAT,
            "%s: a zip archive without its end: %zu bytes are there, the file was cut off; "
            "download it again",
            z->source, z->size);
}

static dr_status read_end64(const dr_zip *z, size_t end_at, directory *d)
{
    if (end_at < LOCATOR64_BYTES + END64_BYTES ||
        u32(z->bytes + end_at - LOCATOR64_BYTES) != SIG_LOCATOR64) {
        return DR_OK; /* the numbers happen to be all ones */
    }
    const uint64_t at = u64(z->bytes + end_at - LOCATOR64_BYTES + 8);
    if (at > end_at - LOCATOR64_BYTES - END64_BYTES || u32(z->bytes + at) != SIG_END64) {
        DR_FAIL(DR_FORMAT, "%s: the zip archive's ZIP64 end record is not at byte %llu", z->source,
                (unsigned long long)at);
    }
    const unsigned char *p = z->bytes + at;
    if (u32(p + 16) != 0 || u32(p + 20) != 0 || u64(p + 24) != u64(p + 32)) {
        DR_FAIL(DR_FORMAT, "%s: one part of a split zip archive", z->source);
    }
    *d = (directory){.n = u64(p + 32), .bytes = u64(p + 40), .at = u64(p + 48)};
    return DR_OK;
}

static dr_status read_end(const dr_zip *z, directory *d)
{
    size_t at = 0;
    DR_TRY(find_end(z, &at));
    const unsigned char *p = z->bytes + at;
    *d = (directory){.n = u16(p + 10), .bytes = u32(p + 12), .at = u32(p + 16)};
    if (d->n == UINT16_MAX || d->bytes == ASK64 || d->at == ASK64) {
        DR_TRY(read_end64(z, at, d));
    } else if (u16(p + 4) != 0 || u16(p + 6) != 0 || u16(p + 8) != u16(p + 10)) {
        DR_FAIL(DR_FORMAT, "%s: one part of a split zip archive", z->source);
    }
    if (d->at > at || d->bytes > at - d->at || d->n > d->bytes / CENTRAL_BYTES) {
        DR_FAIL(DR_FORMAT,
                "%s: the zip archive's directory (%llu entries, %llu bytes at %llu) does not fit "
                "into the file; download it again",
                z->source, (unsigned long long)d->n, (unsigned long long)d->bytes,
                (unsigned long long)d->at);
    }
    return DR_OK;
}

/* ---- the directory ---- */

/* Replaces numbers of all ones by those of the ZIP64 extra field, in the format's order. */
static dr_status read_zip64(const dr_zip *z, const unsigned char *extra, size_t n,
                            uint64_t *const value[3])
{
    while (n >= 4 && u16(extra) != EXTRA_ZIP64) {
        const size_t skip = 4 + (size_t)u16(extra + 2);
        if (skip > n) {
            break;
        }
        extra += skip;
        n -= skip;
    }
    size_t left = 0;
    if (n >= 4 && u16(extra) == EXTRA_ZIP64 && (size_t)u16(extra + 2) <= n - 4) {
        left = u16(extra + 2);
        extra += 4;
    }
    for (int i = 0; i < 3; i++) {
        if (*value[i] == ASK64) {
            if (left < 8) {
                DR_FAIL(DR_FORMAT, "%s: a zip entry's ZIP64 sizes are missing", z->source);
            }
            *value[i] = u64(extra);
            extra += 8;
            left -= 8;
        }
    }
    return DR_OK;
}

static dr_status check_entry(const dr_zip *z, const dr_zip_entry *e, const directory *d,
                             uint64_t bytes, uint64_t packed, uint64_t header_at)
{
    uint64_t most = 0;
    if (e->flags & FLAG_ENCRYPTED) {
        DR_FAIL(DR_FORMAT, "%s: zip entry '%s' is encrypted", z->source, e->name);
    }
    if (header_at > d->at || packed > d->at - header_at) {
        DR_FAIL(DR_FORMAT, "%s: zip entry '%s' (%llu bytes at %llu) lies outside the file's data",
                z->source, e->name, (unsigned long long)packed, (unsigned long long)header_at);
    }
    const uint64_t ratio = e->method == METHOD_STORED ? 1 : DEFLATE_MAX_RATIO;
    if (!dr_mul_u64(packed, ratio, &most) || bytes > most ||
        (e->method == METHOD_STORED && bytes != packed)) {
        DR_FAIL(DR_FORMAT, "%s: zip entry '%s' claims %llu bytes, which its %llu cannot hold",
                z->source, e->name, (unsigned long long)bytes, (unsigned long long)packed);
    }
    return DR_OK;
}

static dr_status read_entry(dr_zip *z, const directory *d, const unsigned char *p, size_t left,
                            size_t *used)
{
    if (left < CENTRAL_BYTES || u32(p) != SIG_CENTRAL) {
        DR_FAIL(DR_FORMAT, "%s: entry %zu of the zip archive's directory is damaged", z->source,
                z->n);
    }
    const size_t n_name = u16(p + 28);
    const size_t n_extra = u16(p + 30);
    *used = CENTRAL_BYTES + n_name + n_extra + u16(p + 32);
    if (*used > left || memchr(p + CENTRAL_BYTES, '\0', n_name) != NULL) {
        DR_FAIL(DR_FORMAT, "%s: entry %zu of the zip archive's directory is damaged", z->source,
                z->n);
    }
    uint64_t bytes = u32(p + 24);
    uint64_t packed = u32(p + 20);
    uint64_t at = u32(p + 42);
    DR_TRY(read_zip64(z, p + CENTRAL_BYTES + n_name, n_extra,
                      (uint64_t *const[]){&bytes, &packed, &at}));
    dr_zip_entry *e = &z->entries[z->n];
    *e =
        (dr_zip_entry){.name = dr_arena_strndup(&z->arena, (const char *)p + CENTRAL_BYTES, n_name),
                       .crc = u32(p + 16),
                       .method = u16(p + 10),
                       .flags = u16(p + 8)};
    DR_TRY(check_entry(z, e, d, bytes, packed, at));
    e->bytes = (size_t)bytes;
    e->packed_bytes = (size_t)packed;
    e->header_at = (size_t)at;
    return DR_OK;
}

static int by_place(const void *a, const void *b)
{
    const dr_zip_entry *x = *(const dr_zip_entry *const *)a;
    const dr_zip_entry *y = *(const dr_zip_entry *const *)b;
    return x->header_at < y->header_at ? -1 : x->header_at > y->header_at ? 1 : 0;
}

/* In the file's order each entry must end before the next begins: no byte counts twice. */
static dr_status set_limits(const dr_zip *z, size_t end)
{
    dr_zip_entry **order = dr_xcalloc(z->n + 1, sizeof(dr_zip_entry *));
    dr_status st = DR_OK;
    for (size_t i = 0; i < z->n; i++) {
        order[i] = &z->entries[i];
    }
    if (z->n > 1) {
        qsort((void *)order, z->n, sizeof *order, by_place);
    }
    for (size_t i = 0; st == DR_OK && i < z->n; i++) {
        dr_zip_entry *e = order[i];
        e->limit = i + 1 < z->n ? order[i + 1]->header_at : end;
        if (e->limit - e->header_at < LOCAL_BYTES ||
            e->packed_bytes > e->limit - e->header_at - LOCAL_BYTES) {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                              "%s: zip entry '%s' overlaps what follows it", z->source, e->name);
        }
    }
    free((void *)order);
    return st;
}

static size_t find_slot(const dr_zip *z, const char *name)
{
    size_t at = (size_t)dr_xxh3_bytes(name, strlen(name)).low & (z->n_slots - 1);
    while (z->slots[at] != 0 && strcmp(z->entries[z->slots[at] - 1].name, name) != 0) {
        at = (at + 1) & (z->n_slots - 1);
    }
    return at;
}

static dr_status index_names(dr_zip *z)
{
    z->n_slots = 16;
    while (z->n_slots < 2 * z->n) {
        z->n_slots *= 2;
    }
    z->slots = dr_arena_array(&z->arena, z->n_slots, sizeof *z->slots);
    for (size_t i = 0; i < z->n; i++) {
        const size_t at = find_slot(z, z->entries[i].name);
        if (z->slots[at] != 0) {
            DR_FAIL(DR_FORMAT, "%s: the zip archive has the entry '%s' twice", z->source,
                    z->entries[i].name);
        }
        z->slots[at] = (uint32_t)(i + 1);
    }
    return DR_OK;
}

static dr_status parse_archive(dr_zip *z)
{
    directory d = {0};
    DR_TRY(read_end(z, &d));
    if (d.n >= UINT32_MAX / 4) {
        DR_FAIL(DR_FORMAT, "%s: %llu entries are too many", z->source, (unsigned long long)d.n);
    }
    z->entries = dr_arena_array(&z->arena, (size_t)d.n, sizeof *z->entries);
    const unsigned char *p = z->bytes + d.at;
    size_t left = (size_t)d.bytes;
    while (z->n < d.n) {
        size_t used = 0;
        DR_TRY(read_entry(z, &d, p, left, &used));
        p += used;
        left -= used;
        z->n++;
    }
    DR_TRY(set_limits(z, (size_t)d.at));
    return index_names(z);
}

static dr_zip *create(const char *source)
{
    dr_zip *z = dr_xcalloc(1, sizeof *z);
    dr_arena_init(&z->arena);
    z->source = dr_arena_strdup(&z->arena, source);
    return z;
}

static dr_status finish(dr_zip **out, dr_zip *z, dr_status st)
{
    if (st != DR_OK) {
        dr_zip_close(z);
        return dr_error_frame(st, __FILE__, __LINE__);
    }
    *out = z;
    return DR_OK;
}

dr_status dr_zip_parse(dr_zip **out, const char *source, const void *bytes, size_t n)
{
    *out = NULL;
    dr_zip *z = create(source);
    z->bytes = bytes;
    z->size = n;
    return finish(out, z, parse_archive(z));
}

dr_status dr_zip_open(dr_zip **out, const char *path)
{
    *out = NULL;
    dr_zip *z = create(path);
    dr_status st = dr_map_open(&z->map, path);
    if (st == DR_OK) {
        z->bytes = z->map.data;
        z->size = z->map.size;
        st = parse_archive(z);
    }
    return finish(out, z, st);
}

void dr_zip_close(dr_zip *z)
{
    if (z != NULL) {
        dr_map_close(&z->map);
        dr_arena_deinit(&z->arena);
        free(z);
    }
}

/* ---- entries ---- */

size_t dr_zip_count(const dr_zip *z)
{
    return z->n;
}

const dr_zip_entry *dr_zip_at(const dr_zip *z, size_t i)
{
    DR_CHECK(i < z->n, "%s: entry %zu of %zu", z->source, i, z->n);
    return &z->entries[i];
}

const dr_zip_entry *dr_zip_find(const dr_zip *z, const char *name)
{
    const uint32_t slot = z->slots[find_slot(z, name)];
    return slot == 0 ? NULL : &z->entries[slot - 1];
}

dr_status dr_zip_data(const dr_zip *z, const dr_zip_entry *e, const void **data)
{
    const unsigned char *p = z->bytes + e->header_at;
    const size_t n_name = u16(p + 26);
    const size_t skip = LOCAL_BYTES + n_name + u16(p + 28);
    if (u32(p) != SIG_LOCAL || n_name != strlen(e->name) || skip > e->limit - e->header_at ||
        memcmp(p + LOCAL_BYTES, e->name, n_name) != 0) {
        DR_FAIL(DR_FORMAT,
                "%s: zip entry '%s' has no header of its own at byte %zu; download the "
                "file again",
                z->source, e->name, e->header_at);
    }
    if (e->packed_bytes > e->limit - e->header_at - skip) {
        DR_FAIL(DR_FORMAT, "%s: zip entry '%s' overlaps what follows it", z->source, e->name);
    }
    *data = p + skip;
    return DR_OK;
}

dr_status dr_zip_read(const dr_zip *z, const dr_zip_entry *e, void *out)
{
    const void *packed = NULL;
    DR_TRY(dr_zip_data(z, e, &packed));
    if (e->method == METHOD_STORED) {
        memcpy(out, packed, e->bytes);
    } else if (e->method == METHOD_DEFLATED) {
        const dr_status st = dr_inflate(packed, e->packed_bytes, out, e->bytes);
        if (st != DR_OK) {
            return dr_error_prefix(st, "%s: zip entry '%s'", z->source, e->name);
        }
    } else {
        DR_FAIL(DR_UNSUPPORTED,
                "%s: zip entry '%s' is compressed by method %d; only stored and deflated entries "
                "can be read",
                z->source, e->name, e->method);
    }
    if (dr_crc32(0, out, e->bytes) != e->crc) {
        DR_FAIL(DR_FORMAT,
                "%s: zip entry '%s' is damaged (its checksum differs); download the "
                "file again",
                z->source, e->name);
    }
    return DR_OK;
}

void dr_zip_release(const dr_zip *z, const dr_zip_entry *e, size_t offset, size_t n)
{
    const void *data = NULL;
    if (z->map.data != NULL && dr_zip_data(z, e, &data) == DR_OK && offset <= e->packed_bytes &&
        n <= e->packed_bytes - offset) {
        dr_map_release(&z->map, (size_t)((const unsigned char *)data - z->bytes) + offset, n);
    }
}

const char *dr_zip_path(const dr_zip *z)
{
    return z->source;
}
