#include "golden_compare.h"

#include "base/file.h"
#include "dr_test.h"
#include "io/json.h"
#include "model_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check_error(const char *what, double got, double want, double scale, double limit)
{
    const double error = fabs(got - want) / scale;
    if (!(error <= limit)) {
        print_error("%s: %.12g, expected %.12g, off by %.3g of %.6g\n", what, got, want, error,
                    scale);
    }
    assert_at_most(error, limit);
}

void golden_check_numbers(const char *what, const double *got, size_t n, const golden_numbers *want,
                          double floor, double limit)
{
    const double rms = fmax(want->l2 / sqrt((double)n), floor);
    check_error(what, dr_model_case_l2(got, n), want->l2, rms * sqrt((double)n), limit);
    for (size_t i = 0; i < want->n_first; i++) {
        check_error(what, got[i], want->first[i], rms, limit);
    }
}

void golden_check(const char *what, const dr_tensor *got, const golden_stats *want, double limit)
{
    const size_t n = (size_t)dr_numel(got);
    double *v = dr_model_case_logical(got);
    const golden_numbers numbers = {.l2 = want->l2, .first = want->first, .n_first = 4};
    golden_check_numbers(what, v, n, &numbers, 0.0, limit);
    check_error(what, v[n - 1], want->last, want->l2 / sqrt((double)n), limit);
    free(v);
}

bool golden_load(const char *key, golden_stats *out)
{
    if (dr_test_shared() == NULL) {
        DR_SKIP("shared");
        return false;
    }
    char *path = dr_path_join(dr_test_shared(), "golden.json");
    dr_json_doc *doc = NULL;
    char full[96];
    assert_ok(dr_json_open(&doc, path));
    (void)snprintf(full, sizeof full, "%s/l2", key);
    assert_ok(dr_json_get_double(doc, full, &out->l2, NULL));
    (void)snprintf(full, sizeof full, "%s/last", key);
    assert_ok(dr_json_get_double(doc, full, &out->last, NULL));
    for (int i = 0; i < 4; i++) {
        (void)snprintf(full, sizeof full, "%s/first/%d", key, i);
        assert_ok(dr_json_get_double(doc, full, &out->first[i], NULL));
    }
    dr_json_close(doc);
    free(path);
    return true;
}
