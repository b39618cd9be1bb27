/* Scalars and containers: one function for each opcode, named after pickletools' names. */
#include "io/pickle_internal.h"

#include "base/str.h"

#include <string.h>

/* ---- scalars ---- */

static dr_status push_int(dr_pickle_machine *m, int64_t i)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_INT, &v));
    v->i = i;
    return DR_OK;
}

static dr_status push_text(dr_pickle_machine *m, dr_pickle_kind kind, const unsigned char *p,
                           size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, kind, &v));
    v->text = (const char *)p;
    v->n = n;
    return DR_OK;
}

static dr_status push_counted(dr_pickle_machine *m, dr_pickle_kind kind, size_t n_length)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_take_counted(m, n_length, &p, &n));
    return push_text(m, kind, p, n);
}

/* An integer of n bytes, two's complement. */
static dr_status push_long(dr_pickle_machine *m, size_t n_length)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    uint64_t bits = 0;
    DR_TRY(dr_pickle_take_counted(m, n_length, &p, &n));
    if (n > 8) {
        return push_text(m, DR_PICKLE_LONG, p, n);
    }
    for (size_t i = 0; i < 8; i++) {
        const unsigned char sign = n > 0 && p[n - 1] >= 0x80 ? 0xff : 0;
        bits |= (uint64_t)(i < n ? p[i] : sign) << (8 * i);
    }
    return push_int(m, (int64_t)bits);
}

static dr_status push_bool(dr_pickle_machine *m, bool b)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_BOOL, &v));
    v->i = b;
    return DR_OK;
}

dr_status dr_pickle_op_none(dr_pickle_machine *m)
{
    dr_pickle_value *v = NULL;
    return dr_pickle_push_new(m, DR_PICKLE_NONE, &v);
}

dr_status dr_pickle_op_true(dr_pickle_machine *m)
{
    return push_bool(m, true);
}

dr_status dr_pickle_op_false(dr_pickle_machine *m)
{
    return push_bool(m, false);
}

dr_status dr_pickle_op_binint(dr_pickle_machine *m)
{
    uint64_t v = 0;
    DR_TRY(dr_pickle_take_number(m, 4, &v));
    return push_int(m, (int32_t)(uint32_t)v);
}

dr_status dr_pickle_op_binint1(dr_pickle_machine *m)
{
    uint64_t v = 0;
    DR_TRY(dr_pickle_take_number(m, 1, &v));
    return push_int(m, (int64_t)v);
}

dr_status dr_pickle_op_binint2(dr_pickle_machine *m)
{
    uint64_t v = 0;
    DR_TRY(dr_pickle_take_number(m, 2, &v));
    return push_int(m, (int64_t)v);
}

dr_status dr_pickle_op_long1(dr_pickle_machine *m)
{
    return push_long(m, 1);
}

dr_status dr_pickle_op_long4(dr_pickle_machine *m)
{
    return push_long(m, 4);
}

dr_status dr_pickle_op_binfloat(dr_pickle_machine *m)
{
    const unsigned char *p = NULL;
    dr_pickle_value *v = NULL;
    uint64_t bits = 0;
    DR_TRY(dr_pickle_take(m, 8, &p)); /* big-endian */
    for (int i = 0; i < 8; i++) {
        bits = bits << 8 | p[i];
    }
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_FLOAT, &v));
    memcpy(&v->d, &bits, sizeof bits);
    return DR_OK;
}

/* "12\n", "12L\n", "00\n" and "01\n" (booleans). */
dr_status dr_pickle_op_int_line(dr_pickle_machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[24] = "";
    int64_t i = 0;
    DR_TRY(dr_pickle_take_line(m, &p, &n));
    if (n == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1')) {
        return push_bool(m, p[1] == '1');
    }
    n -= n > 0 && p[n - 1] == 'L' ? 1 : 0;
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_i64(text, &i)) {
        return dr_pickle_fail_at(m, "an integer that is none");
    }
    return push_int(m, i);
}

dr_status dr_pickle_op_float_line(dr_pickle_machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    char text[64] = "";
    double d = 0;
    DR_TRY(dr_pickle_take_line(m, &p, &n));
    if (n < sizeof text) {
        memcpy(text, p, n);
    }
    if (!dr_parse_f64(text, &d)) {
        return dr_pickle_fail_at(m, "a number that is none");
    }
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_push_new(m, DR_PICKLE_FLOAT, &v));
    v->d = d;
    return DR_OK;
}

/* A quoted string of protocol 0; escapes stay as written, as no name of a tensor has them. */
dr_status dr_pickle_op_string_line(dr_pickle_machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_take_line(m, &p, &n));
    if (n < 2 || (p[0] != '\'' && p[0] != '"') || p[n - 1] != p[0]) {
        return dr_pickle_fail_at(m, "a string without quotes");
    }
    return push_text(m, DR_PICKLE_STR, p + 1, n - 2);
}

dr_status dr_pickle_op_unicode_line(dr_pickle_machine *m)
{
    const unsigned char *p = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_take_line(m, &p, &n));
    return push_text(m, DR_PICKLE_STR, p, n);
}

dr_status dr_pickle_op_string1(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 1);
}

dr_status dr_pickle_op_string4(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 4);
}

dr_status dr_pickle_op_string8(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_STR, 8);
}

dr_status dr_pickle_op_bytes1(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 1);
}

dr_status dr_pickle_op_bytes4(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 4);
}

dr_status dr_pickle_op_bytes8(dr_pickle_machine *m)
{
    return push_counted(m, DR_PICKLE_BYTES, 8);
}

/* ---- containers ---- */

dr_status dr_pickle_op_mark(dr_pickle_machine *m)
{
    if (m->n_marks == m->marks_capacity) {
        DR_TRY(dr_pickle_count_bytes(m, (m->marks_capacity + 64) * sizeof *m->marks));
        m->marks_capacity = m->marks_capacity * 2 + 64;
        m->marks = dr_xrealloc(m->marks, m->marks_capacity, sizeof *m->marks);
    }
    m->marks[m->n_marks++] = m->depth;
    return DR_OK;
}

dr_status dr_pickle_push_marked(dr_pickle_machine *m, dr_pickle_kind kind)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_pop_marked(m, &items, &n));
    if (kind == DR_PICKLE_DICT && n % 2 != 0) {
        return dr_pickle_fail_at(m, "a key without value");
    }
    return dr_pickle_push_items(m, kind, items, n);
}

dr_status dr_pickle_op_tuple(dr_pickle_machine *m)
{
    return dr_pickle_push_marked(m, DR_PICKLE_TUPLE);
}

dr_status dr_pickle_op_list(dr_pickle_machine *m)
{
    return dr_pickle_push_marked(m, DR_PICKLE_LIST);
}

dr_status dr_pickle_op_dict(dr_pickle_machine *m)
{
    return dr_pickle_push_marked(m, DR_PICKLE_DICT);
}

dr_status dr_pickle_op_frozenset(dr_pickle_machine *m)
{
    return dr_pickle_push_marked(m, DR_PICKLE_SET);
}

static dr_status push_tuple(dr_pickle_machine *m, size_t n)
{
    if (m->depth - dr_pickle_floor_of(m) < n) {
        return dr_pickle_fail_at(m, "the stack is empty");
    }
    m->depth -= n;
    return dr_pickle_push_items(m, DR_PICKLE_TUPLE, m->stack + m->depth, n);
}

dr_status dr_pickle_op_tuple1(dr_pickle_machine *m)
{
    return push_tuple(m, 1);
}

dr_status dr_pickle_op_tuple2(dr_pickle_machine *m)
{
    return push_tuple(m, 2);
}

dr_status dr_pickle_op_tuple3(dr_pickle_machine *m)
{
    return push_tuple(m, 3);
}

dr_status dr_pickle_op_empty_tuple(dr_pickle_machine *m)
{
    return dr_pickle_push_items(m, DR_PICKLE_TUPLE, NULL, 0);
}

dr_status dr_pickle_op_empty_list(dr_pickle_machine *m)
{
    return dr_pickle_push_items(m, DR_PICKLE_LIST, NULL, 0);
}

dr_status dr_pickle_op_empty_dict(dr_pickle_machine *m)
{
    return dr_pickle_push_items(m, DR_PICKLE_DICT, NULL, 0);
}

dr_status dr_pickle_op_empty_set(dr_pickle_machine *m)
{
    return dr_pickle_push_items(m, DR_PICKLE_SET, NULL, 0);
}

static bool takes_pairs(const dr_pickle_value *v)
{
    return v->kind == DR_PICKLE_DICT || v->kind == DR_PICKLE_CALL;
}

/* Elements go into lists and sets. What a CALL made may dr_pickle_take them too: then they are not
 * kept. */
static dr_status add_elements(dr_pickle_machine *m, dr_pickle_value *const *items, size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_top(m, &v));
    if (v->kind == DR_PICKLE_CALL) {
        return DR_OK;
    }
    if (v->kind != DR_PICKLE_LIST && v->kind != DR_PICKLE_SET) {
        return dr_pickle_fail_at(m, "elements for something that is no list");
    }
    return dr_pickle_append(m, v, items, n);
}

dr_status dr_pickle_op_append(dr_pickle_machine *m)
{
    dr_pickle_value *item = NULL;
    DR_TRY(dr_pickle_pop(m, &item));
    return add_elements(m, &item, 1);
}

dr_status dr_pickle_op_appends(dr_pickle_machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_pop_marked(m, &items, &n));
    return add_elements(m, items, n);
}

static dr_status add_pairs(dr_pickle_machine *m, dr_pickle_value *const *items, size_t n)
{
    dr_pickle_value *v = NULL;
    DR_TRY(dr_pickle_top(m, &v));
    if (!takes_pairs(v) || n % 2 != 0) {
        return dr_pickle_fail_at(
            m, "keys for something that is no dictionary, or a key without value");
    }
    return dr_pickle_append(m, v, items, n);
}

dr_status dr_pickle_op_setitem(dr_pickle_machine *m)
{
    if (m->depth - dr_pickle_floor_of(m) < 3) {
        return dr_pickle_fail_at(m, "the stack is empty");
    }
    m->depth -= 2;
    return add_pairs(m, m->stack + m->depth, 2);
}

dr_status dr_pickle_op_setitems(dr_pickle_machine *m)
{
    dr_pickle_value **items = NULL;
    size_t n = 0;
    DR_TRY(dr_pickle_pop_marked(m, &items, &n));
    return add_pairs(m, items, n);
}
