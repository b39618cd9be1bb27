#include "io/digest.h"

#include "base/arena.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

struct dr_digest {
    EVP_MD_CTX *context;
};

dr_digest *dr_digest_create(dr_digest_kind kind)
{
    dr_digest *d = dr_xcalloc(1, sizeof *d);
    d->context = EVP_MD_CTX_new();
    DR_CHECK(
        d->context != NULL &&
            EVP_DigestInit_ex(d->context, kind == DR_SHA256 ? EVP_sha256() : EVP_sha1(), NULL) == 1,
        "OpenSSL has no %s", kind == DR_SHA256 ? "SHA-256" : "SHA-1");
    return d;
}

void dr_digest_add(dr_digest *d, const void *data, size_t n)
{
    DR_CHECK(EVP_DigestUpdate(d->context, data, n) == 1, "OpenSSL refuses %zu bytes", n);
}

void dr_digest_destroy(dr_digest *d)
{
    if (d != NULL) {
        EVP_MD_CTX_free(d->context);
        free(d);
    }
}

void dr_digest_finish(dr_digest *d, char hex[DR_DIGEST_HEX])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    DR_CHECK(EVP_DigestFinal_ex(d->context, raw, &n) == 1 && 2 * n < DR_DIGEST_HEX,
             "OpenSSL gives a hash of %u bytes", n);
    for (unsigned int i = 0; i < n; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    hex[2 * n] = '\0';
    dr_digest_destroy(d);
}

void dr_digest_bytes(dr_digest_kind kind, const void *data, size_t n, char hex[DR_DIGEST_HEX])
{
    dr_digest *d = dr_digest_create(kind);
    dr_digest_add(d, data, n);
    dr_digest_finish(d, hex);
}

/* Adds at most n bytes from the file's current place on. */
static dr_status add_rest(dr_digest *d, FILE *f, const char *path, uint64_t n)
{
    void *buf = NULL;
    DR_TRY(dr_try_calloc(PIECE_BYTES, 1, &buf));
    while (n > 0) {
        const size_t got = fread(buf, 1, n < PIECE_BYTES ? (size_t)n : PIECE_BYTES, f);
        if (got == 0) {
            break;
        }
        dr_digest_add(d, buf, got);
        n -= got;
    }
    free(buf);
    if (ferror(f) != 0) {
        DR_FAIL(DR_IO, "%s: read error", path);
    }
    return DR_OK;
}

dr_status dr_digest_file(dr_digest_kind kind, const char *path, uint64_t offset, uint64_t n,
                         char hex[DR_DIGEST_HEX])
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL) {
        DR_FAIL(DR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (offset > INT64_MAX || fseeko(f, (off_t)offset, SEEK_SET) != 0) {
        (void)fclose(f);
        DR_FAIL(DR_IO, "%s: cannot go to byte %llu", path, (unsigned long long)offset);
    }
    dr_digest *d = dr_digest_create(kind);
    const dr_status st = add_rest(d, f, path, n);
    (void)fclose(f);
    if (st != DR_OK) {
        dr_digest_destroy(d);
        return st;
    }
    dr_digest_finish(d, hex);
    return DR_OK;
}
