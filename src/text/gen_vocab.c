/*
 * gen_vocab VOCAB.txt.gz OUT.c - build-time program: OpenAI's merge list as C tables
 * (text/vocabulary.h). The list is one comment line, then one merge "left right" per line, of which
 * CLIP uses the first 48,894.
 */
#include "base/arena.h"
#include "base/str.h"
#include "text/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { N_SLOTS = 1 << 17, MAX_LINE = 1024 };

static struct {
    char *text; /* owned; the program ends before it would be freed */
    uint16_t id;
} slots[N_SLOTS];
static uint16_t left[DR_VOCAB_N_MERGES], right[DR_VOCAB_N_MERGES];
static uint16_t by_pair[DR_VOCAB_N_MERGES], first[DR_VOCAB_SIZE + 1];

static size_t find_slot(const char *text)
{
    uint32_t h = 2166136261U; /* FNV-1a */
    for (const char *p = text; *p != '\0'; p++) {
        h = (h ^ (unsigned char)*p) * 16777619U;
    }
    size_t i = h % N_SLOTS;
    while (slots[i].text != NULL && strcmp(slots[i].text, text) != 0) {
        i = (i + 1) % N_SLOTS;
    }
    return i;
}

static bool add_token(const char *text, unsigned id)
{
    size_t i = find_slot(text);
    if (slots[i].text != NULL) {
        return false;
    }
    slots[i].text = dr_xcalloc(strlen(text) + 1, 1);
    memcpy(slots[i].text, text, strlen(text));
    slots[i].id = (uint16_t)id;
    return true;
}

static bool find_token(const char *text, uint16_t *id)
{
    size_t i = find_slot(text);
    *id = slots[i].id;
    return slots[i].text != NULL;
}

static bool add_byte_symbols(void)
{
    bool ok = true;
    for (unsigned s = 0; s < DR_VOCAB_WORD_END; s++) {
        uint32_t c = dr_vocab_codepoint_of_symbol(s); /* below U+0800 */
        char text[8] = {(char)c};
        if (c >= 0x80) {
            text[0] = (char)(0xC0U | c >> 6);
            text[1] = (char)(0x80U | (c & 0x3FU));
        }
        ok = add_token(text, s) && ok;
        memcpy(text + strlen(text), "</w>", 5);
        ok = add_token(text, s + DR_VOCAB_WORD_END) && ok;
    }
    return ok;
}

/* One line "left right\n"; a merge makes a new token out of two known ones. */
static bool add_merge(char *line, unsigned rank)
{
    line[strcspn(line, "\r\n")] = '\0';
    char *space = strchr(line, ' ');
    if (space == NULL) {
        return false;
    }
    *space = '\0';
    if (!find_token(line, &left[rank]) || !find_token(space + 1, &right[rank])) {
        return false;
    }
    memmove(space, space + 1, strlen(space + 1) + 1);
    return add_token(line, DR_VOCAB_FIRST_MERGE + rank);
}

static int compare_pairs(const void *a, const void *b)
{
    uint16_t x = *(const uint16_t *)a;
    uint16_t y = *(const uint16_t *)b;
    int by_left = (left[x] > left[y]) - (left[x] < left[y]);
    return by_left != 0 ? by_left : (right[x] > right[y]) - (right[x] < right[y]);
}

static void index_pairs(void)
{
    for (unsigned r = 0; r < DR_VOCAB_N_MERGES; r++) {
        by_pair[r] = (uint16_t)r;
    }
    qsort(by_pair, DR_VOCAB_N_MERGES, sizeof *by_pair, compare_pairs);
    unsigned at = 0;
    for (unsigned id = 0; id <= DR_VOCAB_SIZE; id++) {
        while (at < DR_VOCAB_N_MERGES && left[by_pair[at]] < id) {
            at++;
        }
        first[id] = (uint16_t)at;
    }
}

static void write_array(FILE *f, const char *name, const uint16_t *values, unsigned n)
{
    fprintf(f, "\nconst uint16_t dr_vocab_%s[%u] = {", name, n);
    for (unsigned i = 0; i < n; i++) {
        fprintf(f, "%s%u,", i % 16 == 0 ? "\n    " : " ", values[i]);
    }
    fprintf(f, "\n};\n");
}

static bool write_tables(const char *path)
{
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        return false;
    }
    fprintf(f, "/* Written by gen_vocab. */\n#include \"text/vocabulary.h\"\n");
    write_array(f, "left", left, DR_VOCAB_N_MERGES);
    write_array(f, "right", right, DR_VOCAB_N_MERGES);
    write_array(f, "by_pair", by_pair, DR_VOCAB_N_MERGES);
    write_array(f, "first", first, DR_VOCAB_SIZE + 1);
    bool ok = ferror(f) == 0;
    return fclose(f) == 0 && ok;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: gen_vocab VOCAB.txt.gz OUT.c\n");
        return 64;
    }
    char line[MAX_LINE];
    gzFile in = gzopen(argv[1], "rb");
    if (in == NULL || gzgets(in, line, MAX_LINE) == NULL) {
        fprintf(stderr, "gen_vocab: %s: cannot read; run cluster/fetch-vocab again\n", argv[1]);
        return 71;
    }
    bool ok = add_byte_symbols();
    for (unsigned r = 0; r < DR_VOCAB_N_MERGES && ok; r++) {
        ok = gzgets(in, line, MAX_LINE) != NULL && add_merge(line, r);
        if (!ok) {
            fprintf(stderr, "gen_vocab: %s: line %u is no merge of two known tokens\n", argv[1],
                    r + 2);
        }
    }
    (void)gzclose(in);
    if (!ok) {
        return 65;
    }
    index_pairs();
    if (!write_tables(argv[2])) {
        fprintf(stderr, "gen_vocab: %s: cannot write\n", argv[2]);
        return 73;
    }
    return 0;
}
