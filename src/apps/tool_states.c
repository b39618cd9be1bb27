#include "apps/tool_states.h"

#include "apps/tool_words.h"
#include "base/file.h"
#include "io/json.h"
#include "train/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const program_names[] = {"dreamrun"};
static const dr_opt_table no_options = {
    .programs = program_names, .n_programs = 1, .syntax = DR_OPT_TO_WORD, .own_first = -1};

/* The one operand; *path NULL after --help. */
static dr_status read_path(const dr_tool_text *text, int argc, const char *const *argv,
                           const char **path)
{
    dr_optset o;
    *path = NULL;
    dr_optset_init(&o, &no_options, 0);
    dr_status st = dr_tool_words(&o, text, argc, argv, path);
    dr_optset_deinit(&o);
    return st;
}

/* --- states -------------------------------------------------------------------------------------
 */

/* One line on a state; false: it is damaged. */
static bool print_state(const char *path, bool hashes)
{
    int64_t step = 0;
    dr_status st = dr_state_verify(path, hashes);
    if (st == DR_OK) {
        st = dr_state_step(path, &step);
    }
    if (st == DR_OK) {
        (void)printf("%s: step %lld, %s\n", path, (long long)step,
                     hashes ? "every byte as it was saved" : "whole");
    } else {
        (void)printf("%s: DAMAGED: %s\n", path, dr_error_message());
    }
    return st == DR_OK;
}

/* Lines on all states in a folder. */
static dr_status print_states(const char *dir, bool hashes, int *n, int *n_damaged)
{
    dr_strv names = {0};
    DR_TRY(dr_list_dir(dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        if (dr_str_ends(names.at[i], DR_STATE_SUFFIX)) {
            char *path = dr_path_join(dir, names.at[i]);
            *n_damaged += !print_state(path, hashes);
            *n += 1;
            free(path);
        }
    }
    dr_strv_free(&names);
    return DR_OK;
}

dr_status dr_tool_verify(int argc, const char *const *argv)
{
    static const dr_tool_text text = {
        .usage = "Usage: dreamrun verify DIR\n\n"
                 "DIR is a training state, or the --output_dir of a run: reads every byte of its\n"
                 "states and compares them with what was saved. Exit code 65: one is damaged.\n\n",
        .operands = "DIR",
        .n_operands = 1};
    const char *path = NULL;
    int n = 1;
    int n_damaged = 0;
    DR_TRY(read_path(&text, argc, argv, &path));
    if (path == NULL) {
        return DR_OK;
    }
    char *manifest = dr_path_join(path, "manifest.json");
    dr_status st = DR_OK;
    if (dr_path_exists(manifest)) {
        n_damaged = !print_state(path, true);
    } else {
        n = 0;
        st = print_states(path, true, &n, &n_damaged);
    }
    free(manifest);
    DR_TRY(st);
    if (n == 0) {
        DR_FAIL(DR_INVALID, "%s: holds no training state (NAME" DR_STATE_SUFFIX ")", path);
    }
    if (n_damaged > 0) {
        DR_FAIL(DR_FORMAT, "%s: %d of %d states are damaged", path, n_damaged, n);
    }
    return DR_OK;
}

/* --- the record of a run ------------------------------------------------------------------------
 */

static const char *text_at(const dr_json_doc *d, const char *key)
{
    const char *text = "";
    bool found = false;
    if (dr_json_get_string(d, key, &text, &found) != DR_OK) {
        dr_error_clear();
    }
    return text;
}

static int64_t number_at(const dr_json_doc *d, const char *key)
{
    int64_t v = 0;
    bool found = false;
    if (dr_json_get_int(d, key, &v, &found) != DR_OK) {
        dr_error_clear();
    }
    return v;
}

static void print_event(const dr_json_doc *d)
{
    const char *event = text_at(d, "event");
    long long attempt = (long long)number_at(d, "attempt");
    (void)printf("%s attempt %lld ", text_at(d, "time"), attempt);
    if (strcmp(event, "start") == 0) {
        (void)printf("starts on %s: %lld ranks x %lld threads\n", text_at(d, "host"),
                     (long long)number_at(d, "ranks"), (long long)number_at(d, "threads"));
    } else if (strcmp(event, "restart") == 0) {
        (void)printf("is to come with %lld ranks: %s\n", (long long)number_at(d, "ranks"),
                     text_at(d, "why"));
    } else {
        (void)printf("ended: exit code %lld after step %lld (newest state: step %lld)%s%s\n",
                     (long long)number_at(d, "code"), (long long)number_at(d, "step"),
                     (long long)number_at(d, "state_step"),
                     text_at(d, "text")[0] != '\0' ? ": " : "", text_at(d, "text"));
    }
}

static dr_status print_events(const char *dir)
{
    char *text = NULL;
    size_t size = 0;
    dr_str path = {0};
    dr_str_printf(&path, "%s/.dreamrun/events.jsonl", dir);
    dr_status st = DR_OK;
    if (!dr_path_exists(dr_str_get(&path))) {
        (void)printf("no record of dreamrun launch\n");
    } else {
        st = dr_file_read(dr_str_get(&path), 64 << 20, &text, &size);
    }
    for (char *line = text; st == DR_OK && line != NULL && *line != '\0';) {
        dr_json_doc *d = NULL;
        size_t n = strcspn(line, "\n");
        if (dr_json_parse(&d, dr_str_get(&path), line, n) == DR_OK) {
            print_event(d);
        } else { /* the last line of a machine that lost power */
            (void)printf("(unreadable line: %s)\n", dr_error_message());
            dr_error_clear();
        }
        dr_json_close(d);
        line = line[n] != '\0' ? line + n + 1 : NULL;
    }
    free(text);
    dr_str_free(&path);
    return st;
}

static void print_writer(const char *dir)
{
    char text[512] = "";
    dr_str path = {0};
    dr_str_printf(&path, "%s/.dreamrun/lock", dir);
    int fd = open(dr_str_get(&path), O_RDONLY | O_CLOEXEC);
    dr_str_free(&path);
    if (fd < 0) {
        return;
    }
    bool busy = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? strcspn(text, "\n") : 0] = '\0';
    (void)printf("%s: %s\n", busy ? "is being written by" : "nobody writes; the last writer was",
                 text);
    (void)close(fd);
}

dr_status dr_tool_status(int argc, const char *const *argv)
{
    static const dr_tool_text text = {
        .usage = "Usage: dreamrun status DIR\n\n"
                 "What became of the run with this --output_dir: starts, ends and restarts with\n"
                 "their reasons, who writes there now, and its states.\n\n",
        .operands = "DIR",
        .n_operands = 1};
    const char *path = NULL;
    int n = 0;
    int n_damaged = 0;
    DR_TRY(read_path(&text, argc, argv, &path));
    if (path == NULL) {
        return DR_OK;
    }
    if (!dr_path_is_dir(path)) {
        DR_FAIL(DR_INVALID, "%s: there is no such folder; expected the --output_dir of a run",
                path);
    }
    DR_TRY(print_events(path));
    print_writer(path);
    DR_TRY(print_states(path, false, &n, &n_damaged));
    if (n == 0) {
        (void)printf("no training state\n");
    }
    return DR_OK;
}
