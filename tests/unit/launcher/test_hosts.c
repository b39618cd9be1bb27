#include "dr_test.h"

#include "base/file.h"
#include "launcher/hosts.h"

#include <stdlib.h>
#include <string.h>

static dr_status read_text(dr_hosts *h, const char *text)
{
    char *path = dr_path_join(dr_test_tmpdir(), "hosts");
    assert_ok(dr_file_write(path, text, strlen(text)));
    dr_status st = dr_hosts_read(h, path);
    free(path);
    return st;
}

/* "a:2 b:1", by slots or by ranks */
static void expect(const dr_hosts *h, bool ranks, const char *want)
{
    dr_str text = {0};
    for (size_t i = 0; i < h->n; i++) {
        dr_str_printf(&text, "%s%s:%d", i > 0 ? " " : "", h->at[i].name,
                      ranks ? h->at[i].ranks : h->at[i].slots);
    }
    assert_string_equal(dr_str_get(&text), want);
    dr_str_free(&text);
}

static void hostfiles_are_read(void **state)
{
    (void)state;
    dr_hosts h = {0};
    assert_ok(read_text(&h, "# cluster\nnode1 slots=2 max_slots=4\n\n  node2\t# one\nnode1\n"));
    expect(&h, false, "node1:3 node2:1");
    assert_int_equal(dr_hosts_slots(&h), 4);
    assert_true(dr_hosts_remove(&h, "node1"));
    assert_false(dr_hosts_remove(&h, "node1"));
    expect(&h, false, "node2:1");
    dr_hosts_free(&h);
    assert_error(read_text(&h, "a slots=0\n"), DR_INVALID, "line 1: found 'slots=0'");
    dr_hosts_free(&h);
    assert_error(read_text(&h, "a\nb cpus=2\n"), DR_INVALID, "line 2: found 'cpus=2'");
    dr_hosts_free(&h);
    assert_error(read_text(&h, "# nothing\n"), DR_INVALID, "names no host");
    dr_hosts_free(&h);
    assert_error(dr_hosts_read(&h, "/no/such/file"), DR_IO, "/no/such/file");
}

static void node_lists_of_slurm_are_expanded(void **state)
{
    (void)state;
    static const struct {
        const char *nodes, *tasks, *want;
    } cases[] = {
        {"dn1", NULL, "dn1:1"},
        {"dn[1-3]", "2(x3)", "dn1:2 dn2:2 dn3:2"},
        {"dn[08-10,12]", "4,2(x2),1", "dn08:4 dn09:2 dn10:2 dn12:1"},
        {"head,gpu[1-2]-ib", "1,8(x2)", "head:1 gpu1-ib:8 gpu2-ib:8"},
        {"a[1,3],b2,c[5-6]", NULL, "a1:1 a3:1 b2:1 c5:1 c6:1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dr_hosts h = {0};
        assert_ok(dr_hosts_from_slurm(&h, cases[i].nodes, cases[i].tasks));
        expect(&h, false, cases[i].want);
        dr_hosts_free(&h);
    }
    static const char *const bad[] = {"", "dn[1-", "dn[3-1]", "dn[a]", "dn[1-2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dr_hosts h = {0};
        assert_error(dr_hosts_from_slurm(&h, bad[i], NULL), DR_INVALID, "SLURM_JOB_NODELIST");
        dr_hosts_free(&h);
    }
}

static void ranks_are_dealt_in_turn(void **state)
{
    (void)state;
    dr_hosts h = {0};
    dr_hosts_add(&h, "a", 2);
    dr_hosts_add(&h, "b", 4);
    dr_hosts_add(&h, "c", 4);
    assert_true(dr_hosts_share(&h, 5, false));
    expect(&h, true, "a:2 b:2 c:1");
    assert_true(dr_hosts_share(&h, 8, false));
    expect(&h, true, "a:2 b:3 c:3");
    assert_false(dr_hosts_share(&h, 11, false));
    assert_true(dr_hosts_share(&h, 11, true));
    expect(&h, true, "a:4 b:4 c:3");
    dr_hosts_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostfiles_are_read),
        cmocka_unit_test(node_lists_of_slurm_are_expanded),
        cmocka_unit_test(ranks_are_dealt_in_turn),
    };
    return DR_TEST_MAIN("hosts", tests);
}
