/* Operands, of which take() knows how many bytes are left, and the stack of values. */
#include "io/pickle_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_VALUE_BYTES = 256 << 20 }; /* of all values; see pickle.h */

dr_status dr_pickle_fail_at(const dr_pickle_machine *m, const char *what)
{
    DR_FAIL(DR_FORMAT, "%s: damaged pickle: %s at byte %zu of %zu", m->source, what, m->op_at,
            m->n);
}

/* ---- operands ---- */

dr_status dr_pickle_take(dr_pickle_machine *m, size_t n, const unsigned char **p)
{
    if (n > m->n - m->at) {
        return dr_pickle_fail_at(m, "it ends too early");
    }
    *p = m->bytes + m->at;
    m->at += n;
    return DR_OK;
}

/* A little-endian number of n bytes (at most 8). */
dr_status dr_pickle_take_number(dr_pickle_machine *m, size_t n, uint64_t *out)
{
    const unsigned char *p = NULL;
    DR_TRY(dr_pickle_take(m, n, &p));
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        *out |= (uint64_t)p[i] << (8 * i);
    }
    return DR_OK;
}

/* A length of n_length bytes and so many bytes. */
dr_status dr_pickle_take_counted(dr_pickle_machine *m, size_t n_length, const unsigned char **p,
                                 size_t *n)
{
    uint64_t length = 0;
    DR_TRY(dr_pickle_take_number(m, n_length, &length));
    if (length > m->n - m->at) {
        DR_FAIL(DR_FORMAT, "%s: damaged pickle: %llu bytes are announced at byte %zu, %zu are left",
                m->source, (unsigned long long)length, m->op_at, m->n - m->at);
    }
    *n = (size_t)length;
    return dr_pickle_take(m, *n, p);
}

/* The rest of a line, without its end. */
dr_status dr_pickle_take_line(dr_pickle_machine *m, const unsigned char **p, size_t *n)
{
    const unsigned char *end = memchr(m->bytes + m->at, '\n', m->n - m->at);
    if (end == NULL) {
        return dr_pickle_fail_at(m, "a line does not end");
    }
    *p = m->bytes + m->at;
    *n = (size_t)(end - *p);
    m->at += *n + 1;
    return DR_OK;
}

/* ---- values and stack ---- */

dr_status dr_pickle_count_bytes(dr_pickle_machine *m, size_t bytes)
{
    m->value_bytes += bytes;
    if (m->value_bytes > MAX_VALUE_BYTES) {
        DR_FAIL(DR_FORMAT,
                "%s: refused: the pickle would fill more than %d MiB with values, a model's fills "
                "less than 10",
                m->source, MAX_VALUE_BYTES >> 20);
    }
    return DR_OK;
}

dr_status dr_pickle_push(dr_pickle_machine *m, dr_pickle_ptr v)
{
    if (m->depth == m->stack_capacity) {
        DR_TRY(dr_pickle_count_bytes(m, (m->stack_capacity + 64) * sizeof *m->stack));
        m->stack_capacity = m->stack_capacity * 2 + 64;
        m->stack = dr_xrealloc((void *)m->stack, m->stack_capacity, sizeof *m->stack);
    }
    m->stack[m->depth++] = (dr_pickle_value *)(uintptr_t)v;
    return DR_OK;
}

dr_status dr_pickle_push_new(dr_pickle_machine *m, dr_pickle_kind kind, dr_pickle_value **out)
{
    DR_TRY(dr_pickle_count_bytes(m, sizeof **out));
    dr_pickle_value *v = dr_arena_alloc(m->arena, sizeof *v);
    v->kind = kind;
    *out = v;
    return dr_pickle_push(m, v);
}

/* Values of this frame: above the last mark. */
size_t dr_pickle_floor_of(const dr_pickle_machine *m)
{
    return m->n_marks > 0 ? m->marks[m->n_marks - 1] : 0;
}

dr_status dr_pickle_pop(dr_pickle_machine *m, dr_pickle_value **out)
{
    if (m->depth <= dr_pickle_floor_of(m)) {
        return dr_pickle_fail_at(m, "the stack is empty");
    }
    *out = m->stack[--m->depth];
    return DR_OK;
}

dr_status dr_pickle_top(const dr_pickle_machine *m, dr_pickle_value **out)
{
    if (m->depth <= dr_pickle_floor_of(m)) {
        return dr_pickle_fail_at(m, "the stack is empty");
    }
    *out = m->stack[m->depth - 1];
    return DR_OK;
}

/* Takes the last mark away; the values above it are items[0 .. n) and leave the stack, but stay
 * valid until the next dr_pickle_push. */
dr_status dr_pickle_pop_marked(dr_pickle_machine *m, dr_pickle_value ***items, size_t *n)
{
    if (m->n_marks == 0) {
        return dr_pickle_fail_at(m, "there is no mark");
    }
    const size_t base = m->marks[--m->n_marks];
    *n = m->depth - base;
    *items = m->stack + base;
    m->depth = base;
    return DR_OK;
}

dr_status dr_pickle_append(dr_pickle_machine *m, dr_pickle_value *v, dr_pickle_value *const *items,
                           size_t n)
{
    if (n > v->capacity - v->n) {
        const size_t capacity = (v->n + n) * 2 > 8 ? (v->n + n) * 2 : 8;
        DR_TRY(dr_pickle_count_bytes(m, capacity * sizeof *v->items));
        dr_pickle_ptr *grown = dr_arena_array(m->arena, capacity, sizeof *grown);
        for (size_t i = 0; i < v->n; i++) {
            grown[i] = v->items[i];
        }
        v->items = grown;
        v->capacity = (uint32_t)capacity; /* the bound on bytes keeps it far below 2^32 */
    }
    for (size_t i = 0; i < n; i++) {
        v->items[v->n++] = items[i];
    }
    return DR_OK;
}

/* A value of n items that were on the stack just before. */
dr_status dr_pickle_push_items(dr_pickle_machine *m, dr_pickle_kind kind,
                               dr_pickle_value *const *items, size_t n)
{
    DR_TRY(dr_pickle_count_bytes(m, sizeof(dr_pickle_value)));
    dr_pickle_value *v = dr_arena_alloc(m->arena, sizeof *v);
    v->kind = kind;
    if (n > 0) {
        DR_TRY(dr_pickle_append(m, v, items, n));
    }
    return dr_pickle_push(m, v);
}
