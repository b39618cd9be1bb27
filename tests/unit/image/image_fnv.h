/*
 * tests/unit/image/image_fnv.h - the 64-bit FNV-1a that tests/golden/image_vectors.py hashes with.
 */
#ifndef DR_TEST_IMAGE_FNV_H
#define DR_TEST_IMAGE_FNV_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t fnv1a(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * UINT64_C(0x100000001B3);
    }
    return h;
}

#endif
