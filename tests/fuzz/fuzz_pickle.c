/*
 * The input is the data.pkl of a checkpoint that has storages "0" (64 bytes) and "1" (empty): the
 * archive around it is made here, so that the fuzzer need not learn zip's offsets.
 */
#include "weights.h"

#include <stdlib.h>

typedef struct image {
    unsigned char *at;
    size_t n;
} image;

static void put(image *m, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        m->at[m->n++] = i < 8 ? (unsigned char)(value >> (8 * i)) : 0;
    }
}

static void put_bytes(image *m, const void *data, size_t n)
{
    if (n > 0) {
        memcpy(m->at + m->n, data, n);
    }
    m->n += n;
}

typedef struct record {
    const char *name;
    const void *data;
    size_t n, at;
} record;

static void put_local(image *m, record *r)
{
    r->at = m->n;
    put(m, 0x04034b50, 4);
    put(m, 20, 2);
    put(m, 0, 12); /* flags, method, time, date, checksum: not looked at */
    put(m, r->n, 4);
    put(m, r->n, 4);
    put(m, strlen(r->name), 2);
    put(m, 0, 2);
    put_bytes(m, r->name, strlen(r->name));
    put_bytes(m, r->data, r->n);
}

static void put_central(image *m, const record *r)
{
    put(m, 0x02014b50, 4);
    put(m, 0, 4); /* versions */
    put(m, 0, 8); /* flags, method, time, date */
    put(m, 0, 4);
    put(m, r->n, 4);
    put(m, r->n, 4);
    put(m, strlen(r->name), 2);
    put(m, 0, 8);
    put(m, 0, 4);
    put(m, r->at, 4);
    put_bytes(m, r->name, strlen(r->name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char storage[64] = {1, 2, 3};
    record records[] = {{"a/data.pkl", data, size, 0},
                        {"a/data/0", storage, sizeof storage, 0},
                        {"a/data/1", "", 0, 0}};
    image m = {.at = malloc(size + 1024)};
    dr_tensor_file *f = NULL;
    DR_CHECK(m.at != NULL, "no memory");
    for (int i = 0; i < 3; i++) {
        put_local(&m, &records[i]);
    }
    const size_t directory = m.n;
    for (int i = 0; i < 3; i++) {
        put_central(&m, &records[i]);
    }
    const size_t n_directory = m.n - directory;
    put(&m, 0x06054b50, 4);
    put(&m, 0, 4);
    put(&m, 3, 2);
    put(&m, 3, 2);
    put(&m, n_directory, 4);
    put(&m, directory, 4);
    put(&m, 0, 2);
    (void)!dr_tensor_file_parse(&f, "input", m.at, m.n);
    visit_weights(f);
    free(m.at);
    return 0;
}
