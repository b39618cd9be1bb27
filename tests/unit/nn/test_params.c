#include "dr_test.h"

#include "nn/params.h"

#include <string.h>

typedef struct fixture {
    dr_arena arena;
    dr_params set;
} fixture;

static int setup(void **state)
{
    static fixture f;
    dr_arena_init(&f.arena);
    dr_params_init(&f.set, &f.arena);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    dr_params_deinit(&f->set);
    dr_arena_deinit(&f->arena);
    return 0;
}

static void offsets_segments_and_lookup(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    assert_panics((void)dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(3), "early"));
    assert_int_equal(dr_params_begin_segment(set), 0);
    dr_param *a = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(3), "block.%d.bias", 7);
    dr_param *b = dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(2, 3, 1, 5), "conv.weight");
    assert_int_equal(dr_params_begin_segment(set), 1);
    dr_param *c = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(4, 4), "last.weight");
    assert_ptr_equal(dr_params_find(set, "block.7.bias"), a);
    assert_null(dr_params_find(set, "block.7"));
    assert_int_equal(b->offset, 16);
    assert_int_equal(c->offset, 48);
    assert_int_equal(set->n_elems, 64);
    assert_int_equal(dr_params_count(set), 3 + 30 + 16);
    int64_t begin;
    int64_t end;
    dr_params_segment_range(set, 0, &begin, &end);
    assert_true(begin == 0 && end == 48);
    dr_params_segment_range(set, 1, &begin, &end);
    assert_true(begin == 48 && end == 64);
}

static void frozen_entries_get_no_gradient(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    (void)dr_params_begin_segment(set);
    dr_param *a = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(3), "a");
    dr_param *b = dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(2, 3, 1, 5), "b");
    a->trainable = false;
    float values[64];
    float grads[64];
    dr_params_bind(set, DR_F32, values, grads);
    assert_null(a->grad.data);
    assert_ptr_equal(b->grad.data, grads + 16);
    assert_int_equal(b->value.dim[3], 3); /* (O,KH,KW,I) */
    dr_params_bind(set, DR_F32, values, NULL);
    assert_null(b->grad.data);
}

/* Element (o,i,h,w) is 1000 o + 100 i + 10 h + w; a 700-element kernel crosses several chunks. */
static void file_order_is_memory_order_permuted(void **state)
{
    enum { O = 3, I = 7, H = 20, W = 5 };
    dr_params *set = &((fixture *)*state)->set;
    (void)dr_params_begin_segment(set);
    const dr_param *p = dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(O, I, H, W), "w");
    static double memory[O * H * W * I];
    static float file[O * I * H * W];
    static char unaligned[sizeof file + 1];
    for (int o = 0, n = 0; o < O; o++) {
        for (int i = 0; i < I; i++) {
            for (int h = 0; h < H; h++) {
                for (int w = 0; w < W; w++) {
                    file[n++] = (float)(o * 1000 + i * 100) + (float)h + (float)w * 0.125f;
                }
            }
        }
    }
    memcpy(unaligned + 1, file, sizeof file);
    dr_param_from_file_order(p, unaligned + 1, DR_F32, memory, DR_F64);
    for (int o = 0, n = 0; o < O; o++) {
        for (int h = 0; h < H; h++) {
            for (int w = 0; w < W; w++) {
                for (int i = 0; i < I; i++) {
                    assert_true(memory[n++] == o * 1000 + i * 100 + h + w * 0.125);
                }
            }
        }
    }
    static float back[O * I * H * W];
    dr_param_to_file_order(p, memory, DR_F64, back, DR_F32);
    assert_memory_equal(back, file, sizeof file);
}

static void matrices_only_convert(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    (void)dr_params_begin_segment(set);
    const dr_param *p = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(41, 31), "w");
    static uint16_t half[41 * 31];
    static float full[41 * 31];
    for (int i = 0; i < 41 * 31; i++) {
        half[i] = dr_f32_to_f16((float)i);
    }
    dr_param_from_file_order(p, half, DR_F16, full, DR_F32);
    for (int i = 0; i < 41 * 31; i++) {
        assert_true(full[i] == (float)i);
    }
    static uint16_t back[41 * 31];
    dr_param_to_file_order(p, full, DR_F32, back, DR_F16);
    assert_memory_equal(back, half, sizeof half);
}

/* 100 entries in 5 segments, the middle one empty: the entries stay where they are. */
static void many_entries_and_an_empty_segment(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    dr_param *first = NULL;
    int64_t next = 0;
    for (int s = 0; s < 5; s++) {
        (void)dr_params_begin_segment(set);
        for (int i = 0; s != 2 && i < 25; i++) {
            dr_param *p = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(1 + i), "s%d.%d", s, i);
            first = first != NULL ? first : p;
            assert_int_equal(p->offset % 16, 0);
            assert_int_equal(p->offset, next);
            assert_int_equal(p->segment, s);
            next = p->offset + (p->n + 15) / 16 * 16;
        }
    }
    assert_ptr_equal(set->at[0], first);
    assert_int_equal(set->n, 100);
    assert_int_equal(set->n_elems, next);
    int64_t expected = 0;
    for (int s = 0; s < 5; s++) { /* the ranges cover the memory without gaps */
        int64_t begin;
        int64_t end;
        dr_params_segment_range(set, s, &begin, &end);
        assert_int_equal(begin, expected);
        assert_true(s == 2 ? begin == end : begin < end);
        expected = end;
    }
    assert_int_equal(expected, set->n_elems);
}

static void a_dry_bind_gives_addresses_to_all(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    (void)dr_params_begin_segment(set);
    dr_param *a = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(3, 5), "a");
    dr_param *b = dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(2, 3, 1, 5), "b");
    dr_params_bind_dry(set, DR_F64, true);
    assert_non_null(a->value.data);
    assert_non_null(a->grad.data);
    assert_int_equal((char *)b->value.data - (char *)a->value.data, 16 * 8);
    assert_int_equal(b->value.dtype, DR_F64);
    assert_int_equal(b->grad.dim[3], 3);
    dr_params_bind_dry(set, DR_F32, false);
    assert_non_null(a->value.data);
    assert_null(a->grad.data);
    dr_params_set_trainable(set, false);
    dr_params_bind_dry(set, DR_F32, true);
    assert_null(a->grad.data);
    assert_null(b->grad.data);
}

static void bad_entries_panic(void **state)
{
    dr_params *set = &((fixture *)*state)->set;
    char name[300];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)dr_params_begin_segment(set);
    assert_panics((void)dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(0), "empty"));
    assert_panics((void)dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(3), "%s", name));
    assert_int_equal(set->n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(offsets_segments_and_lookup, setup, teardown),
        cmocka_unit_test_setup_teardown(frozen_entries_get_no_gradient, setup, teardown),
        cmocka_unit_test_setup_teardown(file_order_is_memory_order_permuted, setup, teardown),
        cmocka_unit_test_setup_teardown(matrices_only_convert, setup, teardown),
        cmocka_unit_test_setup_teardown(many_entries_and_an_empty_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dry_bind_gives_addresses_to_all, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_entries_panic, setup, teardown),
    };
    return DR_TEST_MAIN("params", tests);
}
