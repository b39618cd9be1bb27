#include "data/caption.h"

#include "base/arena.h"
#include "base/philox.h"
#include "data/pytext.h"

#include <stdlib.h>
#include <string.h>

dr_caption_options dr_caption_options_default(void)
{
    return (dr_caption_options){.separator = ","};
}

static dr_status check_rate(const char *flag, double rate)
{
    if (rate >= 0.0 && rate <= 1.0) {
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "%s %g is not between 0 and 1", flag, rate);
}

static dr_status check_count(const char *flag, int32_t count)
{
    if (count >= 0) {
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "%s %d is negative", flag, count);
}

dr_status dr_caption_options_validate(const dr_caption_options *o)
{
    DR_TRY(check_rate("--caption_dropout_rate", o->dropout_rate));
    DR_TRY(check_rate("--caption_tag_dropout_rate", o->tag_dropout_rate));
    DR_TRY(check_count("--keep_tokens", o->keep_tokens));
    DR_TRY(check_count("--caption_dropout_every_n_epochs", o->dropout_every_n_epochs));
    if (o->separator[0] == '\0') {
        DR_FAIL(DR_INVALID, "--caption_separator is empty; expected at least one character");
    }
    return DR_OK;
}

typedef struct tag { /* a stripped piece of the caption; may be empty */
    const char *text;
    size_t n;
} tag;

static size_t count_tags(const char *text, const char *end, const char *separator)
{
    size_t n = 1;
    for (const char *p = strstr(text, separator); p != NULL && p < end;
         p = strstr(p + strlen(separator), separator)) {
        n++;
    }
    return n;
}

/* caption.strip().split(separator), each stripped, empty ones kept; the caller frees. */
static tag *split_tags(const char *caption, const char *separator, size_t *n_tags)
{
    size_t step = strlen(separator);
    size_t n = strlen(caption);
    dr_py_strip(&caption, &n);
    const char *end = caption + n;
    size_t cap = count_tags(caption, end, separator);
    tag *tags = dr_xcalloc(cap, sizeof *tags);
    size_t count = 0;
    for (const char *at = caption;;) {
        const char *next = strstr(at, separator);
        bool last = next == NULL || next + step > end;
        DR_CHECK(count < cap, "caption split");
        tags[count] = (tag){at, (size_t)((last ? end : next) - at)};
        dr_py_strip(&tags[count].text, &tags[count].n);
        count++;
        if (last) {
            break;
        }
        at = next + step;
    }
    *n_tags = count;
    return tags;
}

static void shuffle_tags(dr_philox *random, tag *tags, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = dr_philox_below(random, (uint32_t)i);
        tag t = tags[i - 1];
        tags[i - 1] = tags[j];
        tags[j] = t;
    }
}

static void process_tags(const dr_caption_options *o, const char *caption, dr_philox *random,
                         dr_str *out)
{
    size_t n = 0;
    tag *tags = split_tags(caption, o->separator, &n);
    size_t fixed = (size_t)o->keep_tokens < n ? (size_t)o->keep_tokens : n;
    if (o->shuffle) {
        shuffle_tags(random, tags + fixed, n - fixed);
    }
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        bool drop = i >= fixed && o->tag_dropout_rate > 0.0 &&
                    (double)dr_philox_uniform(random) < o->tag_dropout_rate;
        if (!drop) {
            dr_str_add(out, any ? ", " : "");
            dr_str_add_n(out, tags[i].text, tags[i].n);
            any = true;
        }
    }
    free(tags);
}

void dr_caption_process(const dr_caption_options *o, const char *caption, uint64_t seed,
                        uint32_t epoch, uint64_t sample, dr_str *out)
{
    out->len = 0;
    dr_str_add(out, "");
    dr_philox random;
    dr_philox_init(&random, seed, DR_RANDOM_CAPTION, epoch, sample);
    double u =
        (double)dr_philox_uniform(&random); /* always drawn: other options keep their draws */
    bool off_epoch =
        o->dropout_every_n_epochs > 0 && epoch % (uint32_t)o->dropout_every_n_epochs == 0;
    if (u < o->dropout_rate || off_epoch) {
        return;
    }
    if (o->shuffle || o->tag_dropout_rate > 0.0) {
        process_tags(o, caption, &random, out);
    } else {
        dr_str_add(out, caption);
    }
}
