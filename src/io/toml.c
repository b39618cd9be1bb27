/* TOML's structure: keys, tables, lists, and which of them may be defined where. */
#include "io/toml_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NESTING = 64, MAX_KEY_PARTS = 64, MAX_BYTES = 16 << 20 };

/* --- the text ------------------------------------------------------------------------------- */

int dr_toml_column(const dr_toml *t, const char *where)
{
    int column = 1;
    for (const char *p = t->line_start; p < where; p++) {
        column += ((unsigned char)*p & 0xc0) != 0x80;
    }
    return column;
}

dr_status dr_toml_fail(const dr_toml *t, const char *where, const char *fmt, ...)
{
    char message[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    DR_FAIL(DR_FORMAT, "%s:%d:%d: %s", t->source, t->line, dr_toml_column(t, where), message);
}

bool dr_toml_starts(const dr_toml *t, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(t->end - t->at) >= n && memcmp(t->at, word, n) == 0;
}

bool dr_toml_newline(dr_toml *t)
{
    if (!dr_toml_starts(t, "\n") && !dr_toml_starts(t, "\r\n")) {
        return false;
    }
    t->at += *t->at == '\r' ? 2 : 1;
    t->line++;
    t->line_start = t->at;
    return true;
}

void dr_toml_name_char(const dr_toml *t, const char *where, char out[40])
{
    if (where >= t->end) {
        (void)snprintf(out, 40, "the end of the file");
    } else if (*where == '\n' || (*where == '\r' && where + 1 < t->end && where[1] == '\n')) {
        (void)snprintf(out, 40, "the end of the line");
    } else if ((unsigned char)*where < 0x20 || *where == 0x7f) {
        (void)snprintf(out, 40, "the control character U+%04X", (unsigned)(unsigned char)*where);
    } else {
        int n = 1;
        while (where + n < t->end && ((unsigned char)where[n] & 0xc0) == 0x80) {
            n++;
        }
        (void)snprintf(out, 40, "'%.*s'", n, where);
    }
}

static void skip_blanks(dr_toml *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t')) {
        t->at++;
    }
}

static dr_status skip_comment(dr_toml *t)
{
    if (t->at == t->end || *t->at != '#') {
        return DR_OK;
    }
    while (t->at < t->end && *t->at != '\n' && !dr_toml_starts(t, "\r\n")) {
        if (((unsigned char)*t->at < 0x20 && *t->at != '\t') || *t->at == 0x7f) {
            char name[40];
            dr_toml_name_char(t, t->at, name);
            return dr_toml_fail(t, t->at, "%s is not allowed in a comment", name);
        }
        t->at++;
    }
    return DR_OK;
}

/* Blanks, comments and line ends between the elements of a list. */
static dr_status skip_lines(dr_toml *t)
{
    do {
        skip_blanks(t);
        DR_TRY(skip_comment(t));
    } while (dr_toml_newline(t));
    return DR_OK;
}

static dr_status end_line(dr_toml *t, const char *what)
{
    skip_blanks(t);
    DR_TRY(skip_comment(t));
    if (t->at < t->end && !dr_toml_newline(t)) {
        char name[40];
        dr_toml_name_char(t, t->at, name);
        return dr_toml_fail(t, t->at, "expected the end of the line behind %s, found %s", what,
                            name);
    }
    return DR_OK;
}

/* --- tables while they are built -------------------------------------------------------------- */

typedef struct builder builder;
typedef struct node { /* a value with what is needed to know who may add to it */
    dr_config_value v;
    bool of_tables; /* LIST made by [[name]] */
    bool defined;   /* TABLE: has had its [name], or keys of an earlier section */
    bool closed;    /* TABLE: inline */
    int section;    /* TABLE: the section whose dotted keys made it or added to it; 0: none */
    int line;       /* where it was defined, for messages */
} node;

typedef struct slot { /* of the hash table of all members */
    const node *table;
    const char *name;
    size_t member;
    uint64_t hash;
} slot;

struct builder {
    dr_toml t;
    node *root;
    slot *slots;
    size_t n_slots, n_used;
    int section, last_section;
    int depth;
};

static uint64_t hash_of(const node *table, const char *name)
{
    uint64_t h = 0xcbf29ce484222325ULL ^ (uint64_t)(uintptr_t)table; /* FNV-1a */
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 0x100000001b3ULL;
    }
    return h ^ h >> 29;
}

static slot *find_slot(const builder *b, const node *table, const char *name, uint64_t hash)
{
    size_t i = (size_t)hash & (b->n_slots - 1);
    while (b->slots[i].table != NULL && !(b->slots[i].hash == hash && b->slots[i].table == table &&
                                          strcmp(b->slots[i].name, name) == 0)) {
        i = (i + 1) & (b->n_slots - 1);
    }
    return &b->slots[i];
}

static void grow_slots(builder *b)
{
    slot *old = b->slots;
    size_t n = b->n_slots;
    b->n_slots = n > 0 ? n * 2 : 64;
    b->slots = dr_xcalloc(b->n_slots, sizeof *b->slots);
    for (size_t i = 0; i < n; i++) {
        if (old[i].table != NULL) {
            *find_slot(b, old[i].table, old[i].name, old[i].hash) = old[i];
        }
    }
    free(old);
}

static node *member_of(const builder *b, const node *table, const char *name)
{
    const slot *s = find_slot(b, table, name, hash_of(table, name));
    return s->table != NULL ? (node *)table->v.members[s->member].value : NULL;
}

static node *new_node(builder *b, dr_config_kind kind, const char *where)
{
    node *n = dr_arena_alloc(b->t.arena, sizeof *n);
    n->v.kind = kind;
    n->v.line = n->line = b->t.line;
    n->v.column = dr_toml_column(&b->t, where);
    return n;
}

/* Room for one more in an array of the arena that doubles. */
static void *make_room(dr_arena *a, void *old, size_t n, size_t size)
{
    if (n > 0 && (n & (n - 1)) != 0) {
        return old;
    }
    char *wider = dr_arena_array(a, n > 0 ? n * 2 : 1, size);
    if (n > 0) {
        memcpy(wider, old, n * size);
    }
    return wider;
}

typedef struct key_part {
    const char *name;
    const char *where;
} key_part;

typedef struct key_path {
    key_part parts[MAX_KEY_PARTS];
    int n;
} key_path;

static void add_member(builder *b, node *table, const key_part *key, node *value)
{
    dr_config_value *v = &table->v;
    v->members = make_room(b->t.arena, v->members, v->n, sizeof *v->members);
    v->members[v->n] =
        (dr_config_member){key->name, &value->v, b->t.line, dr_toml_column(&b->t, key->where)};
    if ((b->n_used + 1) * 2 > b->n_slots) {
        grow_slots(b);
    }
    uint64_t hash = hash_of(table, key->name);
    *find_slot(b, table, key->name, hash) = (slot){table, key->name, v->n, hash};
    b->n_used++;
    v->n++;
}

static void add_item(builder *b, node *list, node *value)
{
    list->v.items = make_room(b->t.arena, list->v.items, list->v.n, sizeof *list->v.items);
    list->v.items[list->v.n++] = &value->v;
}

/* --- keys ------------------------------------------------------------------------------------- */

static bool is_bare_key(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
           c == '-';
}

static dr_status take_key_part(builder *b, key_part *out)
{
    dr_toml *t = &b->t;
    out->where = t->at;
    if (t->at < t->end && (*t->at == '"' || *t->at == '\'')) {
        size_t n = 0;
        DR_TRY(dr_toml_string(t, true, &out->name, &n));
        if (strlen(out->name) != n) {
            return dr_toml_fail(t, out->where, "a key with the character U+0000 is not supported");
        }
        return DR_OK;
    }
    while (t->at < t->end && is_bare_key(*t->at)) {
        t->at++;
    }
    if (t->at == out->where) {
        char name[40];
        dr_toml_name_char(t, t->at, name);
        return dr_toml_fail(t, t->at, "expected a key, found %s%s", name,
                            t->at < t->end && (unsigned char)*t->at >= 0x80
                                ? "; keys with such characters stand in quotes"
                                : "");
    }
    out->name = dr_arena_strndup(t->arena, out->where, (size_t)(t->at - out->where));
    return DR_OK;
}

static dr_status take_key(builder *b, key_path *out)
{
    for (out->n = 0; out->n < MAX_KEY_PARTS;) {
        skip_blanks(&b->t);
        DR_TRY(take_key_part(b, &out->parts[out->n]));
        out->n++;
        skip_blanks(&b->t);
        if (b->t.at == b->t.end || *b->t.at != '.') {
            return DR_OK;
        }
        b->t.at++;
    }
    return dr_toml_fail(&b->t, b->t.at, "a key of more than %d parts", MAX_KEY_PARTS);
}

static dr_status refuse_again(const builder *b, const key_part *key, const node *old)
{
    return dr_toml_fail(&b->t, key->where, "'%s' is defined a second time; the first is in line %d",
                        key->name, old->line);
}

/* The table behind the first n - 1 parts of a dotted key, made where it is missing. */
static dr_status enter_dotted(builder *b, node *from, const key_path *key, node **out)
{
    node *table = from;
    for (int i = 0; i < key->n - 1; i++) {
        const key_part *part = &key->parts[i];
        node *next = member_of(b, table, part->name);
        if (next == NULL) {
            next = new_node(b, DR_CONFIG_TABLE, part->where);
            add_member(b, table, part, next);
        } else if (next->v.kind != DR_CONFIG_TABLE || next->closed || next->defined ||
                   (next->section != 0 && next->section != b->section)) {
            return dr_toml_fail(&b->t, part->where,
                                "'%s' is complete since line %d; nothing can be added to it here",
                                part->name, next->line);
        }
        next->section = b->section;
        table = next;
    }
    *out = table;
    return DR_OK;
}

/* --- values ------------------------------------------------------------------------------------
 */

static dr_status take_value(builder *b, node **out);

static dr_status take_pair(builder *b, node *table)
{
    key_path key;
    DR_TRY(take_key(b, &key));
    if (b->t.at == b->t.end || *b->t.at != '=') {
        char name[40];
        dr_toml_name_char(&b->t, b->t.at, name);
        return dr_toml_fail(&b->t, b->t.at, "expected '=' behind the key '%s', found %s",
                            key.parts[key.n - 1].name, name);
    }
    /* where the key stands must be told before the value moves on to another line */
    node *parent = NULL;
    DR_TRY(enter_dotted(b, table, &key, &parent));
    const key_part *last = &key.parts[key.n - 1];
    const node *old = member_of(b, parent, last->name);
    if (old != NULL) {
        return refuse_again(b, last, old);
    }
    dr_config_member place = {last->name, NULL, b->t.line, dr_toml_column(&b->t, last->where)};
    b->t.at++;
    skip_blanks(&b->t);
    node *value = NULL;
    DR_TRY(take_value(b, &value));
    value->line = place.line;
    add_member(b, parent, last, value);
    parent->v.members[parent->v.n - 1].line = place.line;
    parent->v.members[parent->v.n - 1].column = place.column;
    return DR_OK;
}

static dr_status take_list(builder *b, node *list)
{
    dr_toml *t = &b->t;
    const int line = t->line;
    t->at++;
    for (;;) {
        DR_TRY(skip_lines(t));
        if (t->at < t->end && *t->at == ']') {
            break;
        }
        node *item = NULL;
        DR_TRY(take_value(b, &item));
        add_item(b, list, item);
        DR_TRY(skip_lines(t));
        if (t->at < t->end && *t->at == ',') {
            t->at++;
        } else if (t->at == t->end || *t->at != ']') {
            char name[40];
            dr_toml_name_char(t, t->at, name);
            return dr_toml_fail(t, t->at, "expected ',' or ']' in the list of line %d, found %s",
                                line, name);
        }
    }
    t->at++;
    return DR_OK;
}

static dr_status take_inline_table(builder *b, node *table)
{
    dr_toml *t = &b->t;
    const int outer = b->section;
    b->section = ++b->last_section;
    t->at++;
    skip_blanks(t);
    bool more = t->at == t->end || *t->at != '}';
    while (more) {
        DR_TRY(take_pair(b, table));
        skip_blanks(t);
        more = t->at < t->end && *t->at == ',';
        if (!more && (t->at == t->end || *t->at != '}')) {
            char name[40];
            dr_toml_name_char(t, t->at, name);
            return dr_toml_fail(t, t->at, "expected ',' or '}' in an inline table, found %s%s",
                                name,
                                t->at < t->end && (*t->at == '\n' || *t->at == '\r')
                                    ? "; inline tables stand on one line"
                                    : "");
        }
        t->at += more;
    }
    t->at++;
    table->closed = true;
    b->section = outer;
    return DR_OK;
}

static dr_status take_value(builder *b, node **out)
{
    dr_toml *t = &b->t;
    char first = t->at < t->end ? *t->at : '\0';
    bool nested = first == '[' || first == '{';
    dr_config_kind kind = first == '['   ? DR_CONFIG_LIST
                          : first == '{' ? DR_CONFIG_TABLE
                                         : DR_CONFIG_STRING;
    node *value = new_node(b, kind, t->at);
    *out = value;
    if (nested && ++b->depth > MAX_NESTING) {
        return dr_toml_fail(t, t->at, "more than %d lists and tables inside each other",
                            MAX_NESTING);
    }
    if (nested) {
        DR_TRY(first == '[' ? take_list(b, value) : take_inline_table(b, value));
        b->depth--;
        return DR_OK;
    }
    if (first == '"' || first == '\'') {
        return dr_toml_string(t, false, &value->v.text, &value->v.n);
    }
    return dr_toml_scalar(t, &value->v);
}

/* --- [table] and [[list of tables]] ------------------------------------------------------------
 */

/* The table that holds the last part of a header's key. */
static dr_status enter_header(builder *b, const key_path *key, node **out)
{
    node *table = b->root;
    for (int i = 0; i < key->n - 1; i++) {
        const key_part *part = &key->parts[i];
        node *next = member_of(b, table, part->name);
        if (next == NULL) {
            next = new_node(b, DR_CONFIG_TABLE, part->where);
            add_member(b, table, part, next);
        } else if (next->of_tables) {
            next = (node *)next->v.items[next->v.n - 1];
        }
        if (next->v.kind != DR_CONFIG_TABLE || next->closed) {
            return dr_toml_fail(
                &b->t, part->where,
                "'%s' is %s since line %d, not a table that "
                "can be added to",
                part->name, next->closed ? "an inline table" : dr_config_kind_name(next->v.kind),
                next->line);
        }
        table = next;
    }
    *out = table;
    return DR_OK;
}

static dr_status open_table(builder *b, node *parent, const key_part *last, node **out)
{
    node *table = member_of(b, parent, last->name);
    if (table == NULL) {
        table = new_node(b, DR_CONFIG_TABLE, last->where);
        add_member(b, parent, last, table);
    } else if (table->v.kind != DR_CONFIG_TABLE || table->closed || table->defined ||
               table->section != 0) {
        return refuse_again(b, last, table);
    }
    table->defined = true;
    table->line = b->t.line;
    *out = table;
    return DR_OK;
}

static dr_status open_item(builder *b, node *parent, const key_part *last, node **out)
{
    node *list = member_of(b, parent, last->name);
    if (list == NULL) {
        list = new_node(b, DR_CONFIG_LIST, last->where);
        list->of_tables = true;
        add_member(b, parent, last, list);
    } else if (!list->of_tables) {
        return refuse_again(b, last, list);
    }
    node *table = new_node(b, DR_CONFIG_TABLE, last->where);
    table->defined = true;
    add_item(b, list, table);
    *out = table;
    return DR_OK;
}

static dr_status take_header(builder *b, node **current)
{
    dr_toml *t = &b->t;
    const bool item = dr_toml_starts(t, "[[");
    const char *close = item ? "]]" : "]";
    key_path key;
    node *parent = NULL;
    t->at += item ? 2 : 1;
    DR_TRY(take_key(b, &key));
    if (!dr_toml_starts(t, close)) {
        char name[40];
        dr_toml_name_char(t, t->at, name);
        return dr_toml_fail(t, t->at, "expected '%s' behind the name of the table, found %s", close,
                            name);
    }
    DR_TRY(enter_header(b, &key, &parent));
    const key_part *last = &key.parts[key.n - 1];
    DR_TRY(item ? open_item(b, parent, last, current) : open_table(b, parent, last, current));
    t->at += strlen(close);
    b->section = ++b->last_section;
    return end_line(t, "the name of a table");
}

/* --- the document -------------------------------------------------------------------------------
 */

/* Offset of the first byte that is not UTF-8, or a NUL character; n when there is none. */
static size_t first_bad_byte(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        size_t more = s[i] < 0x80 ? 0 : s[i] >= 0xf0 ? 3 : s[i] >= 0xe0 ? 2 : 1;
        uint32_t cp = more == 0 ? s[i] : s[i] & (0x3fU >> more);
        if (s[i] == 0 || (s[i] >= 0x80 && s[i] < 0xc2) || s[i] > 0xf4 || more >= n - i) {
            return i;
        }
        for (size_t k = 1; k <= more; k++) {
            if ((s[i + k] & 0xc0) != 0x80) {
                return i;
            }
            cp = cp << 6 | (s[i + k] & 0x3fU);
        }
        if (cp < least[more] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
            return i;
        }
        i += more + 1;
    }
    return n;
}

static dr_status check_text(dr_toml *t)
{
    size_t n = (size_t)(t->end - t->at);
    size_t bad = first_bad_byte(t->at, n);
    if (n > MAX_BYTES) {
        DR_FAIL(DR_FORMAT, "%s: %zu bytes of TOML, at most %d are read", t->source, n, MAX_BYTES);
    }
    if (bad == n) {
        return DR_OK;
    }
    const char *where = t->at + bad;
    for (const char *p = t->at; p < where; p++) {
        if (*p == '\n') {
            t->line++;
            t->line_start = p + 1;
        }
    }
    return dr_toml_fail(t, where,
                        "the byte 0x%02x cannot stand in UTF-8 text; save the file as UTF-8",
                        (unsigned)(unsigned char)*where);
}

static dr_status take_document(builder *b)
{
    node *current = b->root;
    dr_toml *t = &b->t;
    while (t->at < t->end) {
        skip_blanks(t);
        if (t->at < t->end && *t->at == '[') {
            DR_TRY(take_header(b, &current));
            continue;
        }
        if (t->at < t->end && *t->at != '#' && *t->at != '\n' && !dr_toml_starts(t, "\r\n")) {
            DR_TRY(take_pair(b, current));
        }
        DR_TRY(end_line(t, "a value"));
    }
    return DR_OK;
}

dr_status dr_toml_parse(dr_config_doc **out, const char *source, const char *text, size_t n)
{
    *out = NULL;
    dr_config_doc *d = dr_xcalloc(1, sizeof *d);
    dr_arena_init(&d->arena);
    d->source = dr_arena_strdup(&d->arena, source);
    builder b = {.t = {.arena = &d->arena,
                       .source = d->source,
                       .text = text,
                       .at = text,
                       .end = text + n,
                       .line_start = text,
                       .line = 1},
                 .section = 1,
                 .last_section = 1};
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        b.t.at += 3;
        b.t.line_start += 3;
    }
    grow_slots(&b);
    b.root = new_node(&b, DR_CONFIG_TABLE, b.t.at);
    b.root->defined = true;
    dr_status st = check_text(&b.t);
    if (st == DR_OK) {
        st = take_document(&b);
    }
    free(b.slots);
    d->root = &b.root->v;
    if (st != DR_OK) {
        dr_config_close(d);
        return st;
    }
    *out = d;
    return DR_OK;
}
