#define _GNU_SOURCE /* renameat2 */
#include "base/tree.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
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
