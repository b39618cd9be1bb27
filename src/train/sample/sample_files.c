#include "train/sample/sample_files.h"

#include "train/model/metadata.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TIME_DIGITS = 14 };

void dr_sample_parameters(const dr_sample_request *q, int clip_skip, dr_str *out)
{
    dr_str_printf(out, "%s\n", q->prompt);
    if (q->negative_prompt[0] != '\0') {
        dr_str_printf(out, "Negative prompt: %s\n", q->negative_prompt);
    }
    dr_str_printf(out, "Steps: %d, Sampler: %s%s, CFG scale: %g, Seed: %llu, Size: %lldx%lld",
                  q->n_steps, dr_sampler_title(q->sampler), q->karras ? " Karras" : "",
                  (double)q->cfg_scale, (unsigned long long)q->seed, (long long)q->width,
                  (long long)q->height);
    if (clip_skip > 1) {
        dr_str_printf(out, ", Clip skip: %d", clip_skip);
    }
}

void dr_sample_when_now(dr_sample_when *w)
{
    const time_t now = (time_t)dr_metadata_now();
    struct tm tm;
    if (localtime_r(&now, &tm) == NULL ||
        strftime(w->time, sizeof w->time, "%Y%m%d%H%M%S", &tm) == 0) {
        memcpy(w->time, "00000000000000", TIME_DIGITS + 1); /* a year of five digits */
    }
}

void dr_sample_name(const char *output_name, const dr_sample_when *w, size_t index, int64_t seed,
                    dr_str *out)
{
    if (output_name != NULL) {
        dr_str_printf(out, "%s_", output_name);
    }
    dr_str_printf(out, "%s%06lld_%02zu_%s", w->at_epoch ? "e" : "", (long long)w->number, index,
                  w->time);
    if (seed >= 0) {
        dr_str_printf(out, "_%lld", (long long)seed);
    }
    dr_str_add(out, ".png");
}

/* A run of at least `least` digits and what follows it, or NULL. */
static const char *take_digits(const char *s, int least, int64_t *value)
{
    int n = 0;
    *value = 0;
    for (; isdigit((unsigned char)s[n]) && n < 18; n++) {
        *value = *value * 10 + (s[n] - '0');
    }
    return n >= least ? s + n : NULL;
}

bool dr_sample_name_parse(const char *output_name, const char *name, dr_sample_name_parts *out)
{
    int64_t time = 0;
    int64_t seed = 0;
    if (output_name != NULL) {
        const size_t n = strlen(output_name);
        if (strncmp(name, output_name, n) != 0 || name[n] != '_') {
            return false;
        }
        name += n + 1;
    }
    out->at_epoch = name[0] == 'e';
    const char *s = take_digits(name + (out->at_epoch ? 1 : 0), 6, &out->number);
    s = s != NULL && *s == '_' ? take_digits(s + 1, 2, &out->index) : NULL;
    if (s == NULL || *s != '_') {
        return false;
    }
    const char *begin = s + 1;
    s = take_digits(begin, TIME_DIGITS, &time);
    if (s == NULL || s - begin != TIME_DIGITS) {
        return false;
    }
    memcpy(out->time, begin, TIME_DIGITS);
    out->time[TIME_DIGITS] = '\0';
    s = *s == '_' ? take_digits(s + 1, 1, &seed) : s;
    return s != NULL && strcmp(s, ".png") == 0;
}
