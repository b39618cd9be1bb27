#include "golden_input.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static uint64_t fnv1a64(const char *key)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *c = key; *c != '\0'; c++) {
        h = (h ^ (uint64_t)(unsigned char)*c) * 0x100000001b3u;
    }
    return h;
}

static double uniform(uint64_t h, size_t i)
{
    uint64_t z = h + i + 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 40) * 0x1p-24 - 0.5;
}

void dr_golden_fill(const char *key, size_t n, double scale, double *out)
{
    const uint64_t h = fnv1a64(key);
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)(float)(uniform(h, i) * scale);
    }
}

static bool is_bias(const char *key)
{
    const size_t n = strlen(key);
    return n >= 5 && strcmp(key + n - 5, ".bias") == 0;
}

void dr_golden_param(const char *key, int rank, const int64_t *dim, double *out)
{
    const uint64_t h = fnv1a64(key);
    int64_t fan_in = 1;
    for (int i = 1; i < rank; i++) {
        fan_in *= dim[i];
    }
    const size_t n = (size_t)(fan_in * dim[0]);
    const double offset = rank >= 2 || is_bias(key) ? 0.0 : 1.0;
    const double scale = rank >= 2 ? sqrt(12.0 / (double)fan_in) : is_bias(key) ? 0.1 : 0.2;
    for (size_t i = 0; i < n; i++) {
        out[i] = (double)(float)(offset + uniform(h, i) * scale);
    }
}
