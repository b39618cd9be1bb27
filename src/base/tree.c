#define _GNU_SOURCE /* renameat2 */
#include "base/tree.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    const bool full = dr_fault_at_write(); /* a place to be killed at */
    (void)full;                            /* a full disk does not hinder removing */
    return remove(path);
}

void dr_tree_remove(const char *path)
{
    enum { OPEN_DIRS = 16 };
    (void)nftw(path, remove_entry, OPEN_DIRS, FTW_DEPTH | FTW_PHYS);
}

void dr_tree_discard(const char *path)
{
    dr_str tmp = {0};
    dr_str_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
    dr_tree_remove(dr_str_get(&tmp)); /* of an earlier process with this number */
    if (!dr_fault_at_write() && rename(path, dr_str_get(&tmp)) == 0) {
        dr_tree_remove(dr_str_get(&tmp));
    }
    dr_str_free(&tmp);
}

/* The length of NAME in NAME.tmp.PID or NAME.tmp.PID.old, when nobody has the number PID. */
static size_t left_by_the_dead(const char *entry, bool *old)
{
    const char *at = NULL;
    for (const char *next = strstr(entry, ".tmp."); next != NULL; next = strstr(at + 1, ".tmp.")) {
        at = next;
    }
    char *end = NULL;
    const long pid = at != NULL ? strtol(at + strlen(".tmp."), &end, 10) : 0;
    if (pid <= 0) {
        return 0;
    }
    *old = strcmp(end, ".old") == 0;
    const bool gone = kill((pid_t)pid, 0) != 0 && errno == ESRCH;
    return gone && (*old || *end == '\0') ? (size_t)(at - entry) : 0;
}

static bool begins_with_one(const char *entry, const char *const *prefixes)
{
    while (*prefixes != NULL && !dr_str_starts(entry, *prefixes)) {
        prefixes++;
    }
    return *prefixes != NULL;
}

int dr_tree_sweep(const char *dir, const char *const *prefixes)
{
    dr_strv names = {0};
    int n = 0;
    if (dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear();
        return 0;
    }
    for (size_t i = 0; i < names.n; i++) {
        bool old = false;
        const char *entry = names.at[i];
        const size_t length = left_by_the_dead(entry, &old);
        if (length == 0 || !begins_with_one(entry, prefixes)) {
            continue;
        }
        char *path = dr_path_join(dir, entry);
        char *place = dr_path_join(dir, entry);
        place[strlen(place) - (strlen(entry) - length)] = '\0';
        if (!old || dr_path_exists(place) || rename(path, place) != 0) {
            dr_tree_remove(path);
        }
        n++;
        free(path);
        free(place);
    }
    dr_strv_free(&names);
    return n;
}

static dr_status move(const char *from, const char *to)
{
    if (dr_fault_at_write() || rename(from, to) != 0) {
        DR_FAIL(DR_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    }
    return DR_OK;
}

dr_status dr_tree_swap(const char *tmp, const char *path, bool *swapped)
{
    *swapped = dr_path_exists(path);
    if (!*swapped) {
        return move(tmp, path);
    }
    if (!dr_fault_at_write() && renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        return DR_OK;
    }
    /* not every file system can exchange (NFS) */
    dr_str old = {0};
    dr_str_printf(&old, "%s.old", tmp);
    dr_status st = move(path, dr_str_get(&old));
    if (st == DR_OK) {
        st = move(tmp, path);
        (void)rename(dr_str_get(&old), st == DR_OK ? tmp : path);
    }
    dr_str_free(&old);
    return st;
}
