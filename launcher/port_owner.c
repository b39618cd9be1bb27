/* Who listens at a port, from /proc. */
#include "launcher/machine.h"

#include "base/file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Inode of the socket that listens at the port; 0: none is listed. */
static unsigned long listening_inode(const char *table, int port)
{
    char line[512];
    unsigned long found = 0;
    FILE *f = fopen(table, "re");
    while (f != NULL && found == 0 && fgets(line, (int)sizeof line, f) != NULL) {
        unsigned at = 0;
        unsigned state = 0;
        unsigned long inode = 0;
        int n = sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*d %lu",
                       &at, &state, &inode);
        if (n == 3 && at == (unsigned)port && state == 0x0a) {
            found = inode;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static bool has_socket(const char *pid, unsigned long inode)
{
    char dir[64];
    char want[48];
    dr_strv names = {0};
    bool found = false;
    (void)snprintf(dir, sizeof dir, "/proc/%.20s/fd", pid);
    (void)snprintf(want, sizeof want, "socket:[%lu]", inode);
    if (dr_list_dir(dir, &names) != DR_OK) {
        dr_error_clear();
    }
    for (size_t i = 0; i < names.n && !found; i++) {
        char path[PATH_MAX];
        char to[64] = "";
        (void)snprintf(path, sizeof path, "%s/%.40s", dir, names.at[i]);
        ssize_t n = readlink(path, to, sizeof to - 1);
        found = n > 0 && strcmp(to, want) == 0;
    }
    dr_strv_free(&names);
    return found;
}

static void describe(const char *pid, char *buf, size_t size)
{
    char path[64];
    char name[32] = "?";
    (void)snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
    FILE *f = fopen(path, "re");
    if (f != NULL && fgets(name, (int)sizeof name, f) != NULL) {
        name[strcspn(name, "\n")] = '\0';
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    (void)snprintf(buf, size, " (process %.20s, %s)", pid, name);
}

void dr_machine_port_owner(int port, char *buf, size_t size)
{
    unsigned long inode = listening_inode("/proc/net/tcp", port);
    inode = inode != 0 ? inode : listening_inode("/proc/net/tcp6", port);
    dr_strv names = {0};
    buf[0] = '\0';
    if (inode == 0 || dr_list_dir("/proc", &names) != DR_OK) {
        dr_error_clear();
        return;
    }
    for (size_t i = 0; i < names.n && buf[0] == '\0'; i++) {
        if (names.at[i][0] >= '1' && names.at[i][0] <= '9' && has_socket(names.at[i], inode)) {
            describe(names.at[i], buf, size);
        }
    }
    dr_strv_free(&names);
}
