/*
 * data/caption.h - the text of one fetch of one sample: dropout, shuffling, tag dropout.
 *
 * Layer:    data.
 * Source:   sd-scripts' process_caption (steps 2 to 4); its random choices are replaced by draws
 *           keyed with (seed, epoch, sample), so that they do not depend on ranks or workers.
 */
#ifndef DR_DATA_CAPTION_H
#define DR_DATA_CAPTION_H

#include "base/str.h"

typedef struct dr_caption_options {
    bool shuffle;                   /* --shuffle_caption                                        */
    int32_t keep_tokens;            /* --keep_tokens: the first ones stay in place              */
    const char *separator;          /* --caption_separator                                      */
    double dropout_rate;            /* --caption_dropout_rate: chance of an empty caption       */
    int32_t dropout_every_n_epochs; /* --caption_dropout_every_n_epochs; 0: never              */
    double tag_dropout_rate;        /* --caption_tag_dropout_rate, of each tag that is not kept */
} dr_caption_options;
/* Nothing is changed; separator ",". */
dr_caption_options dr_caption_options_default(void);
/* DR_INVALID for rates outside 0..1, negative counts, an empty separator. */
DR_MUST_USE dr_status dr_caption_options_validate(const dr_caption_options *o);

/*
 * Replaces *out (capacity is reused) by the processed caption. epoch counts from 1; sample is the
 * number of the sample in the epoch. With shuffling or tag dropout the tags are stripped and joined
 * by ", " whatever the separator is; otherwise the caption is unchanged.
 */
void dr_caption_process(const dr_caption_options *o, const char *caption, uint64_t seed,
                        uint32_t epoch, uint64_t sample, dr_str *out);

#endif
