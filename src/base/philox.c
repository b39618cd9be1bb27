#include "base/philox.h"

#include <math.h>

void dr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void dr_philox_init(dr_philox *p, uint64_t seed, dr_purpose purpose, uint32_t time, uint64_t item)
{
    /* The item's 64 bits fill counter[2..3]; purpose and time share counter[1] through the key
     * schedule's other half, so that no two streams of one seed share a counter range. */
    p->key[0] = (uint32_t)seed ^ ((uint32_t)purpose * 0x9E3779B9u);
    p->key[1] = (uint32_t)(seed >> 32) ^ ((uint32_t)purpose << 24);
    p->counter[0] = 0;
    p->counter[1] = time;
    p->counter[2] = (uint32_t)item;
    p->counter[3] = (uint32_t)(item >> 32);
    p->used = 4;
}

uint32_t dr_philox_u32(dr_philox *p)
{
    if (p->used == 4) {
        dr_philox4x32(p->counter, p->key, p->block);
        p->counter[0]++;
        p->used = 0;
    }
    return p->block[p->used++];
}

float dr_philox_uniform(dr_philox *p)
{
    return (float)(dr_philox_u32(p) >> 8) * 0x1p-24f;
}

uint32_t dr_philox_below(dr_philox *p, uint32_t n)
{
    uint32_t limit = (uint32_t)(-n) % n; /* draws below 2^32 mod n would bias the result */
    uint32_t r;
    do {
        r = dr_philox_u32(p);
    } while (r < limit);
    return r % n;
}

void dr_philox_normal(dr_philox *p, float *out, size_t n)
{
    const double two_pi = 6.283185307179586476925286766559;
    for (size_t i = 0; i < n; i += 2) {
        double u1 = ((double)dr_philox_u32(p) + 1.0) * 0x1p-32; /* (0, 1] */
        double u2 = (double)dr_philox_u32(p) * 0x1p-32;
        double r = sqrt(-2.0 * log(u1));
        out[i] = (float)(r * cos(two_pi * u2));
        if (i + 1 < n) {
            out[i + 1] = (float)(r * sin(two_pi * u2));
        }
    }
}

void dr_philox_permutation(dr_philox *p, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = i;
    }
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = dr_philox_below(p, i);
        uint32_t t = out[i - 1];
        out[i - 1] = out[j];
        out[j] = t;
    }
}
