/*
 * Captions: are there any, are they where they are looked for, do they fit, what do they say.
 */
#include "train/check/dataset_check_internal.h"

#include "base/arena.h"
#include "base/file.h"
#include "text/tokenizer.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const caption_endings[] = {"txt", "caption", "cap", "tags", "text"};

const char *dr_checking_extension(const dr_checking *c, const dr_subset *s)
{
    const char *e = s->options->caption_extension;
    e = e != NULL ? e : c->o->caption_extension;
    return e[0] == '.' ? e + 1 : e;
}

/* Whether a file stands at the picture's path with another ending. */
static bool has_sibling(const char *picture, const char *ending)
{
    const char *dot = strrchr(picture, '.');
    dr_str path = {0};
    dr_str_add_n(&path, picture, dot != NULL ? (size_t)(dot - picture) : strlen(picture));
    dr_str_printf(&path, ".%s", ending);
    bool found = dr_path_exists(dr_str_get(&path));
    dr_str_free(&path);
    return found;
}

/* No picture has a caption file, and most have a text file with another ending. */
static void check_endings(dr_checking *c)
{
    size_t with = 0;
    const char *looked_for = dr_checking_extension(c, &c->d->subsets[0]);
    bool is_default = strcmp(looked_for, "caption") == 0; /* another one was chosen on purpose */
    for (size_t i = 0; i < c->d->n_images; i++) {
        const dr_subset *of = &c->d->subsets[c->d->images[i].subset];
        with += of->metadata_file != NULL ||
                has_sibling(c->d->images[i].path, dr_checking_extension(c, of));
    }
    for (size_t k = 0; with == 0 && k < sizeof caption_endings / sizeof *caption_endings; k++) {
        dr_examples e = {0};
        char fix[128];
        for (size_t i = 0; i < c->d->n_images; i++) {
            if (!c->d->images[i].is_reg && has_sibling(c->d->images[i].path, caption_endings[k])) {
                dr_examples_add(&e, "%s has a .%s file", c->d->images[i].path, caption_endings[k]);
            }
        }
        (void)snprintf(fix, sizeof fix,
                       "--caption_extension=.%s; if these files are no captions, move them away",
                       caption_endings[k]);
        char head[160];
        (void)snprintf(
            head, sizeof head,
            "no picture has a caption file with the ending .%s, but pictures have others",
            looked_for);
        dr_checking_report(c,
                           is_default && 2 * e.n > c->d->n_images - c->d->n_reg_images
                               ? DR_CHECK_ERROR
                               : DR_CHECK_WARNING,
                           "captions-elsewhere", head, &e, fix);
    }
}

static bool holds_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        bool starts = at == text || !isalpha((unsigned char)at[-1]);
        if (starts && !isalpha((unsigned char)at[n])) {
            return true;
        }
    }
    return false;
}

/* Mirrored pictures whose captions tell sides apart learn the opposite half of the time. */
static void check_sides(dr_checking *c)
{
    dr_examples e = {0};
    for (size_t i = 0; i < c->d->n_images; i++) {
        const char *text = c->d->images[i].caption;
        if (!c->d->subsets[c->d->images[i].subset].options->flip_aug) {
            continue;
        }
        if (holds_word(text, "left") || holds_word(text, "right")) {
            dr_examples_add(&e, "%s: %.80s", c->d->images[i].path, text);
        }
    }
    dr_checking_report(c, DR_CHECK_WARNING, "flip-sides",
                       "captions that say left or right, while --flip_aug mirrors their pictures",
                       &e, "leave --flip_aug out, or the words");
}

static void check_empty(dr_checking *c)
{
    dr_examples e = {0};
    for (size_t i = 0; i < c->d->n_images; i++) {
        if (c->d->images[i].caption[0] == '\0') {
            dr_examples_add(&e, "%s", c->d->images[i].path);
        }
    }
    dr_checking_report(c, DR_CHECK_WARNING, "caption-empty",
                       "pictures without a caption, and without a class name to stand for it", &e,
                       "write caption files, or name the folder <repeats>_<identifier> <class>");
}

/* Bytes of text whose tokens are the first `limit`: the longest beginning that fits. */
static dr_status fitting_bytes(dr_tokenizer *t, const char *text, size_t limit, size_t *bytes)
{
    size_t low = 0;
    size_t high = strlen(text);
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        while (middle < high && ((unsigned char)text[middle] & 0xC0) == 0x80) {
            middle++;
        }
        size_t n = 0;
        DR_TRY(dr_tokenizer_encode(t, text, middle, NULL, 0, &n));
        if (n <= limit) {
            low = middle;
        } else {
            high = middle - 1;
            while (high > low && ((unsigned char)text[high] & 0xC0) == 0x80) {
                high--;
            }
        }
    }
    *bytes = low;
    return DR_OK;
}

static dr_status count_tokens(dr_checking *c, dr_tokenizer *t)
{
    size_t limit = 75 * (size_t)c->o->token_rows;
    size_t most = 0;
    dr_examples e = {0};
    for (size_t i = 0; i < c->d->n_images; i++) {
        const char *text = c->d->images[i].caption;
        size_t n = 0;
        size_t kept = 0;
        dr_status st = dr_tokenizer_encode(t, text, strlen(text), NULL, 0, &n);
        if (st == DR_OK && n > limit) {
            st = fitting_bytes(t, text, limit, &kept);
        }
        if (st != DR_OK) {
            return dr_error_prefix(st, "caption of %s", c->d->images[i].path);
        }
        c->out->n_tokens[i] = (uint32_t)n;
        most = n > most ? n : most;
        if (n > limit) {
            size_t left = strlen(text + kept) + 1;
            c->out->tails[i] = dr_xcalloc(left, 1);
            memcpy(c->out->tails[i], text + kept, left);
            dr_examples_add(&e, "%s: %zu tokens; cut off: \"%.300s\"", c->d->images[i].path, n,
                            text + kept);
        }
    }
    char head[128];
    char fix[96];
    (void)snprintf(head, sizeof head, "captions of more than %zu tokens (the longest %zu)", limit,
                   most);
    (void)snprintf(fix, sizeof fix, "%s",
                   c->o->token_rows < 3 ? most > 150 || c->o->token_rows == 2
                                              ? "--max_token_length=225, or shorter captions"
                                              : "--max_token_length=150, or shorter captions"
                                        : "shorter captions");
    dr_checking_report(c, DR_CHECK_WARNING, "caption-truncated", head, &e, fix);
    return DR_OK;
}

/* Whether the first picture of a subset has its class name for a caption. */
static bool has_class_caption(const dr_checking *c, size_t subset)
{
    for (size_t i = 0; i < c->d->n_images; i++) {
        if (c->d->images[i].subset == subset) {
            return strcmp(c->d->images[i].caption, c->d->subsets[subset].class_tokens) == 0;
        }
    }
    return false;
}

/* In a plain DreamBooth folder the identifier is the first word of the class name: best one token
 * that means nothing yet. */
static dr_status check_identifiers(dr_checking *c, dr_tokenizer *t)
{
    dr_examples e = {0};
    for (size_t i = 0; i < c->d->n_subsets; i++) {
        const dr_subset *s = &c->d->subsets[i];
        size_t n_bytes = strcspn(s->class_tokens, " ");
        size_t n = 0;
        if (s->is_reg || s->is_validation || s->class_tokens[n_bytes] == '\0' ||
            !has_class_caption(c, i)) {
            continue;
        }
        DR_TRY(dr_tokenizer_encode(t, s->class_tokens, n_bytes, NULL, 0, &n));
        if (n > 1) {
            dr_examples_add(&e, "%s: '%.*s' is %zu tokens", s->dir, (int)n_bytes, s->class_tokens,
                            n);
        }
    }
    dr_checking_report(c, DR_CHECK_NOTE, "identifier-tokens", "identifiers that are not one token",
                       &e, "`dreamrun tokenize` shows the tokens of a word; sks and ohwx are one");
    return DR_OK;
}

dr_status dr_check_captions(dr_checking *c)
{
    check_endings(c);
    check_empty(c);
    check_sides(c);
    dr_tokenizer *t = dr_tokenizer_create(c->o->v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1);
    dr_status st = count_tokens(c, t);
    if (st == DR_OK) {
        st = check_identifiers(c, t);
    }
    dr_tokenizer_destroy(t);
    return st;
}
