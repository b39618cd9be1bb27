#include "data/info_cache.h"

#include "base/file.h"
#include "base/log.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MAX_FILE_BYTES ((size_t)4 << 30)

/* Raise FORMAT when pictures are checked in another way. */
enum {
    FORMAT = 1,
    FRESH_S = 3,
    N_NUMBERS = 7
}; /* a clock's tick, and clocks of file servers that differ */

typedef struct known {
    const char *name; /* inside text */
    dr_size_px size;
    dr_file_stamp stamp;
    bool whole;
} known;

struct dr_info_cache {
    char *path, *dir;
    char head[160];
    char *text; /* the file as it was read, its lines cut by NUL */
    known *at;  /* by name */
    size_t n;
};

static int64_t to_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

dr_file_stamp dr_file_stamp_take(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return (dr_file_stamp){0};
    }
    return (dr_file_stamp){.bytes = (int64_t)st.st_size,
                           .mtime_ns = to_ns(st.st_mtim),
                           .ctime_ns = to_ns(st.st_ctim),
                           .inode = (uint64_t)st.st_ino,
                           .taken = true};
}

static bool is_same(const dr_file_stamp *a, const dr_file_stamp *b)
{
    return a->taken && b->taken && a->bytes == b->bytes && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns && a->inode == b->inode;
}

/* Inside the folder without its name. */
static const char *short_name(const dr_info_cache *c, const char *path)
{
    const size_t n = strlen(c->dir);
    return strncmp(path, c->dir, n) == 0 && path[n] == '/' ? path + n + 1 : path;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool take_number(char **at, int64_t *out)
{
    char *blank = strchr(*at, ' ');
    if (blank == NULL) {
        return false;
    }
    *blank = '\0';
    const bool good = dr_parse_i64(*at, out);
    *at = blank + 1;
    return good;
}

static bool take_line(char *line, known *out)
{
    int64_t v[N_NUMBERS];
    for (int i = 0; i < N_NUMBERS; i++) {
        if (!take_number(&line, &v[i])) {
            return false;
        }
    }
    *out = (known){.name = line,
                   .whole = v[0] != 0,
                   .size = {(int32_t)v[1], (int32_t)v[2]},
                   .stamp = {v[3], v[4], v[5], (uint64_t)v[6], true}};
    return v[1] >= 1 && v[1] <= INT32_MAX && v[2] >= 1 && v[2] <= INT32_MAX;
}

/* The part that the last line's hash is of; 0: no such line, or another hash. */
static size_t checked_part(const char *text, size_t n)
{
    char want[DR_XXH3_HEX];
    const size_t tail = strlen("end ") + strlen("\n") + DR_XXH3_HEX - 1;
    if (n < tail || memcmp(text + n - tail, "end ", 4) != 0 || text[n - 1] != '\n') {
        return 0;
    }
    dr_xxh3_hex(dr_xxh3_bytes(text, n - tail), want);
    return memcmp(text + n - tail + 4, want, DR_XXH3_HEX - 1) == 0 ? n - tail : 0;
}

static int by_name(const void *a, const void *b)
{
    const known *x = a;
    const known *y = b;
    return strcmp(x->name, y->name);
}

static void parse(dr_info_cache *c, size_t n)
{
    size_t n_lines = 0;
    const size_t head = strlen(c->head);
    if (n < head || memcmp(c->text, c->head, head) != 0) {
        return;
    }
    for (size_t i = head; i < n; i++) {
        n_lines += c->text[i] == '\n';
    }
    c->at = dr_xcalloc(n_lines + 1, sizeof *c->at);
    for (char *line = c->text + head; line < c->text + n;) {
        char *end = memchr(line, '\n', (size_t)(c->text + n - line));
        if (end == NULL) {
            break;
        }
        *end = '\0';
        c->n += take_line(line, &c->at[c->n]);
        line = end + 1;
    }
    if (c->n > 1) {
        qsort(c->at, c->n, sizeof *c->at, by_name);
    }
}

dr_info_cache *dr_info_cache_open(const char *dir, const dr_image_options *how)
{
    dr_info_cache *c = dr_xcalloc(1, sizeof *c);
    size_t n = 0;
    how = how != NULL ? how : &dr_image_defaults;
    c->path = dr_path_join(dir, ".dreamrun_pictures");
    c->dir = dr_path_join("", dir);
    (void)snprintf(c->head, sizeof c->head,
                   "dreamrun pictures %d version %s, %s, at most %llu pixels\n", FORMAT, DR_VERSION,
                   how->as_pillow ? "as Pillow" : "upright", (unsigned long long)how->max_pixels);
    if (dr_file_read(c->path, MAX_FILE_BYTES, &c->text, &n) != DR_OK) {
        dr_error_clear();
        return c;
    }
    n = checked_part(c->text, n);
    if (n > 0) {
        parse(c, n);
    }
    return c;
}

void dr_info_cache_close(dr_info_cache *c)
{
    if (c != NULL) {
        free(c->path);
        free(c->dir);
        free(c->text);
        free(c->at);
        free(c);
    }
}

static const known *find(const dr_info_cache *c, const char *path)
{
    const known wanted = {.name = short_name(c, path)};
    return c->n > 0 ? bsearch(&wanted, c->at, c->n, sizeof *c->at, by_name) : NULL;
}

bool dr_info_cache_find(const dr_info_cache *c, const char *path, const dr_file_stamp *stamp,
                        bool *whole, dr_size_px *size)
{
    const known *k = find(c, path);
    if (k == NULL || !is_same(&k->stamp, stamp) || (*whole && !k->whole)) {
        return false;
    }
    *size = k->size;
    *whole = k->whole;
    return true;
}

/* ---- writing ------------------------------------------------------------------------------- */

/* A file that was changed just now may change again within the same tick. */
static bool may_note(const dr_info_entry *e, int64_t now_ns)
{
    const int64_t limit = now_ns - (int64_t)FRESH_S * 1000000000;
    return e->stamp.taken && e->stamp.mtime_ns < limit && e->stamp.ctime_ns < limit &&
           strchr(e->path, '\n') == NULL;
}

static bool says_the_same(const dr_info_cache *c, const dr_info_entry *e)
{
    const known *k = find(c, e->path);
    return k != NULL && is_same(&k->stamp, &e->stamp) && k->whole == e->whole &&
           k->size.w == e->size.w && k->size.h == e->size.h;
}

static void add_entry(const dr_info_cache *c, const dr_info_entry *e, dr_str *out)
{
    dr_str_printf(out, "%d %d %d %lld %lld %lld %llu %s\n", e->whole ? 1 : 0, (int)e->size.w,
                  (int)e->size.h, (long long)e->stamp.bytes, (long long)e->stamp.mtime_ns,
                  (long long)e->stamp.ctime_ns, (unsigned long long)e->stamp.inode,
                  short_name(c, e->path));
}

void dr_info_cache_save(dr_info_cache *c, const dr_info_entry *at, size_t n)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    dr_str text = {0};
    size_t n_noted = 0;
    size_t n_same = 0;
    dr_str_add(&text, c->head);
    for (size_t i = 0; i < n; i++) {
        if (may_note(&at[i], to_ns(now))) {
            add_entry(c, &at[i], &text);
            n_noted++;
            n_same += says_the_same(c, &at[i]);
        }
    }
    if (n_same < n_noted || n_noted < c->n) {
        char hash[DR_XXH3_HEX];
        dr_xxh3_hex(dr_xxh3_bytes(dr_str_get(&text), text.len), hash);
        dr_str_printf(&text, "end %s\n", hash);
        if (dr_file_write(c->path, dr_str_get(&text), text.len) != DR_OK) {
            dr_warn("--cache_info: %s; the next start reads the pictures again",
                    dr_error_message());
            dr_error_clear();
        }
    }
    dr_str_free(&text);
}
