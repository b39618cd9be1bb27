#include "launcher/hosts.h"

#include "base/arena.h"
#include "base/file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void dr_hosts_add(dr_hosts *h, const char *name, int slots)
{
    if (h->n == h->cap) {
        size_t cap = h->cap > 0 ? 2 * h->cap : 8;
        dr_host *more = dr_xcalloc(cap, sizeof *more);
        if (h->n > 0) {
            memcpy(more, h->at, h->n * sizeof *more);
        }
        free(h->at);
        h->at = more;
        h->cap = cap;
    }
    dr_str copy = {0};
    dr_str_add(&copy, name);
    h->at[h->n++] = (dr_host){.name = copy.data, .slots = slots > 0 ? slots : 1};
}

void dr_hosts_label(dr_hosts *h, const char *label)
{
    dr_str copy = {0};
    dr_str_add(&copy, label);
    free(h->at[h->n - 1].label);
    h->at[h->n - 1].label = copy.data;
}

const char *dr_host_label(const dr_host *h)
{
    return h->label != NULL ? h->label : h->name;
}

void dr_hosts_free(dr_hosts *h)
{
    for (size_t i = 0; i < h->n; i++) {
        free(h->at[i].label);
        free(h->at[i].name);
    }
    free(h->at);
    *h = (dr_hosts){0};
}

int dr_hosts_slots(const dr_hosts *h)
{
    int n = 0;
    for (size_t i = 0; i < h->n; i++) {
        n += h->at[i].slots;
    }
    return n;
}

bool dr_hosts_remove(dr_hosts *h, const char *name)
{
    for (size_t i = 0; i < h->n; i++) {
        if (strcmp(h->at[i].name, name) == 0) {
            free(h->at[i].label);
            free(h->at[i].name);
            memmove(h->at + i, h->at + i + 1, (h->n - i - 1) * sizeof *h->at);
            h->n--;
            return true;
        }
    }
    return false;
}

/* --- hostfiles ---------------------------------------------------------------------------------
 */

/* One line of a hostfile, which is cut up. */
static dr_status read_line(dr_hosts *h, const char *path, int number, char *line)
{
    char *place = NULL;
    int64_t slots = 1;
    line[strcspn(line, "#")] = '\0';
    char *name = strtok_r(line, " \t\r", &place);
    if (name == NULL) {
        return DR_OK;
    }
    for (char *word = strtok_r(NULL, " \t\r", &place); word != NULL;
         word = strtok_r(NULL, " \t\r", &place)) {
        char *equals = strchr(word, '=');
        int64_t value = 0;
        bool good =
            equals != NULL && dr_parse_i64(equals + 1, &value) && value >= 1 && value <= 65536;
        if (!good || !(dr_str_starts(word, "slots=") || dr_str_starts(word, "max_slots=") ||
                       dr_str_starts(word, "max-slots="))) {
            DR_FAIL(DR_INVALID, "%s line %d: found '%s', expected slots=N, for example: %s slots=2",
                    path, number, word, name);
        }
        slots = dr_str_starts(word, "slots=") ? value : slots;
    }
    for (size_t i = 0; i < h->n; i++) {
        if (strcmp(h->at[i].name, name) == 0) { /* a host that stands twice offers both */
            h->at[i].slots += (int)slots;
            return DR_OK;
        }
    }
    dr_hosts_add(h, name, (int)slots);
    return DR_OK;
}

dr_status dr_hosts_read(dr_hosts *h, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    int number = 0;
    dr_status st = dr_file_read(path, 1 << 20, &text, &size);
    for (char *line = text; st == DR_OK && line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        st = read_line(h, path, ++number, line);
        line = end != NULL ? end + 1 : NULL;
    }
    free(text);
    if (st == DR_OK && h->n == 0) {
        DR_FAIL(DR_INVALID, "%s: names no host; expected lines such as: node1 slots=2", path);
    }
    return st;
}

/* --- Slurm -------------------------------------------------------------------------------------
 */

/* Tasks of the next node from "2(x3),1"; *left counts the repeats still to come. */
static int next_tasks(const char **text, int *left, int *tasks)
{
    if (*left == 0 && *text != NULL && isdigit((unsigned char)**text)) {
        char *end = NULL;
        *tasks = (int)strtol(*text, &end, 10);
        *left = 1;
        if (dr_str_starts(end, "(x")) {
            *left = (int)strtol(end + 2, &end, 10);
            end += *end == ')';
        }
        *text = *end == ',' ? end + 1 : end;
    }
    *left -= *left > 0;
    return *tasks > 0 ? *tasks : 1;
}

typedef struct node_reader {
    dr_hosts *hosts;
    const char *tasks;
    int left, n_tasks;
} node_reader;

static void add_node(node_reader *r, const char *prefix, size_t n_prefix, const char *middle,
                     const char *suffix, size_t n_suffix)
{
    dr_str name = {0};
    dr_str_add_n(&name, prefix, n_prefix);
    dr_str_add(&name, middle);
    dr_str_add_n(&name, suffix, n_suffix);
    dr_hosts_add(r->hosts, dr_str_get(&name), next_tasks(&r->tasks, &r->left, &r->n_tasks));
    dr_str_free(&name);
}

/* One range "01-12" or "7" of a bracket; leading zeros stay. */
static bool add_range(node_reader *r, const char *item, size_t n, const char *whole,
                      size_t n_prefix, const char *suffix, size_t n_suffix)
{
    char *end = NULL;
    long first = strtol(item, &end, 10);
    int width = (int)(end - item);
    long last = first;
    if (end == item) {
        return false;
    }
    if (*end == '-') {
        char *begin = end + 1;
        last = strtol(begin, &end, 10);
        if (end == begin) {
            return false;
        }
    }
    if (end != item + n || last < first || last - first > 65536) {
        return false;
    }
    for (long i = first; i <= last; i++) {
        char number[32];
        (void)snprintf(number, sizeof number, "%0*ld", width, i);
        add_node(r, whole, n_prefix, number, suffix, n_suffix);
    }
    return true;
}

/* One element of the list, "dn[1-3,7]x" or "head", of n bytes. */
static bool add_element(node_reader *r, const char *text, size_t n)
{
    const char *open = memchr(text, '[', n);
    if (open == NULL) {
        add_node(r, text, n, "", "", 0);
        return n > 0;
    }
    const char *close = memchr(open, ']', n - (size_t)(open - text));
    if (close == NULL) {
        return false;
    }
    const char *suffix = close + 1;
    for (const char *item = open + 1; item < close;) {
        const char *comma = memchr(item, ',', (size_t)(close - item));
        const char *end = comma != NULL ? comma : close;
        if (!add_range(r, item, (size_t)(end - item), text, (size_t)(open - text), suffix,
                       n - (size_t)(suffix - text))) {
            return false;
        }
        item = end + 1;
    }
    return true;
}

dr_status dr_hosts_from_slurm(dr_hosts *h, const char *nodes, const char *tasks)
{
    node_reader r = {.hosts = h, .tasks = tasks};
    bool good = *nodes != '\0';
    for (const char *p = nodes; good && *p != '\0';) {
        const char *end = p;
        int depth = 0;
        while (*end != '\0' && !(*end == ',' && depth == 0)) {
            depth += (*end == '[') - (*end == ']');
            end++;
        }
        good = add_element(&r, p, (size_t)(end - p));
        p = *end == ',' ? end + 1 : end;
    }
    if (!good) {
        DR_FAIL(DR_INVALID, "SLURM_JOB_NODELIST: found '%s', expected a list such as dn[1-3],head",
                nodes);
    }
    return DR_OK;
}

bool dr_hosts_share(dr_hosts *h, int n, bool oversubscribe)
{
    int left = n;
    for (size_t i = 0; i < h->n; i++) {
        h->at[i].ranks = 0;
    }
    bool moved = true;
    while (left > 0 && moved) {
        moved = false;
        for (size_t i = 0; i < h->n && left > 0; i++) {
            if (oversubscribe || h->at[i].ranks < h->at[i].slots) {
                h->at[i].ranks++;
                left--;
                moved = true;
            }
        }
    }
    return left == 0;
}
