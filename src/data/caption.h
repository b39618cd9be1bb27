/*
 * data/caption.h - the text of one fetch of one sample: prefix, dropout, wildcards, shuffling,
 * warm-up.
 *
 * Layer:    data.
 * Source:   sd-scripts' process_caption; its random choices are replaced by draws keyed with
 *           (seed, epoch, sample), so that they do not depend on ranks or workers.
 */
#ifndef DR_DATA_CAPTION_H
#define DR_DATA_CAPTION_H

#include "base/str.h"

typedef struct dr_caption_options { /* texts may be NULL or "": not used, the separator excepted */
    const char *prefix, *suffix;    /* --caption_prefix, _suffix: joined by one blank          */
    bool wildcard;                  /* --enable_wildcard: {a|b|c}, and one of several lines     */
    bool shuffle;                   /* --shuffle_caption                                        */
    int32_t keep_tokens;            /* --keep_tokens: the first ones stay in place              */
    const char *keep_separator;     /* --keep_tokens_separator: fixed SEP flexible [SEP fixed]  */
    const char *separator;          /* --caption_separator                                      */
    const char *secondary;          /* --secondary_separator: becomes the separator at the end  */
    double dropout_rate;            /* --caption_dropout_rate: chance of an empty caption       */
    int32_t dropout_every_n_epochs; /* --caption_dropout_every_n_epochs; 0: never              */
    double tag_dropout_rate;        /* --caption_tag_dropout_rate, of each tag that is not kept */
    int32_t warmup_min;             /* --token_warmup_min: tags at the start                    */
    double warmup_steps;            /* --token_warmup_step; below 1 a share of the run          */
} dr_caption_options;
/* Nothing is changed; separator ",". */
dr_caption_options dr_caption_options_default(void);
/* DR_INVALID for rates outside 0..1, negative counts, an empty separator. */
DR_MUST_USE dr_status dr_caption_options_validate(const dr_caption_options *o);
/* Whether two fetches of a caption can differ: then what it makes cannot be kept. */
bool dr_caption_varies(const dr_caption_options *o);

typedef struct dr_caption_use { /* which fetch of which sample */
    uint64_t seed;
    uint32_t epoch;        /* from 1 */
    uint64_t sample;       /* number of the sample in the epoch */
    int64_t step, n_steps; /* optimizer steps done, and of the whole run: for the warm-up */
} dr_caption_use;
/*
 * Replaces *out (capacity is reused) by the processed caption. With shuffling, warm-up or tag
 * dropout the tags are stripped and joined by ", " whatever the separator is. Of several lines the
 * first is taken, with wildcards a random one.
 */
void dr_caption_process(const dr_caption_options *o, const char *caption, const dr_caption_use *use,
                        dr_str *out);

#endif
