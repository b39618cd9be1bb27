/*
 * Helpers of the targets, and the replay driver: without libFuzzer, main() runs the target on every
 * file of the folders (or single files) that it is given, and fails when there is none.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256];

static void remove_folder(void)
{
    char path[600];
    DIR *d = opendir(folder);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        (void)unlink(path);
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    (void)rmdir(folder);
}

const char *dr_fuzz_dir(void)
{
    if (folder[0] == '\0') {
        const char *tmp = getenv("TMPDIR");
        (void)snprintf(folder, sizeof folder, "%s/dr-fuzz-XXXXXX", tmp != NULL ? tmp : "/tmp");
        DR_CHECK(mkdtemp(folder) != NULL, "%s: cannot create", folder);
        (void)atexit(remove_folder);
    }
    return folder;
}

const char *dr_fuzz_file(const char *name, const void *data, size_t size)
{
    static char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", dr_fuzz_dir(), name);
    FILE *f = fopen(path, "wbe");
    DR_CHECK(f != NULL, "%s: cannot create", path);
    DR_CHECK(fwrite(data, 1, size, f) == size && fclose(f) == 0, "%s: cannot write", path);
    return path;
}

void dr_fuzz_touch(const void *data, size_t size)
{
    static volatile unsigned char sum;
    for (size_t i = 0; i < size; i++) {
        sum = (unsigned char)(sum + ((const unsigned char *)data)[i]);
    }
}

#ifndef DR_FUZZ
static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        (void)fprintf(stderr, "%s: cannot read\n", path);
        exit(1);
    }
    const size_t n = (size_t)ftell(f);
    uint8_t *data = malloc(n > 0 ? n : 1); /* exact: a sanitizer sees a read past the end */
    rewind(f);
    if (data == NULL || fread(data, 1, n, f) != n) {
        (void)fprintf(stderr, "%s: cannot read %zu bytes\n", path, n);
        exit(1);
    }
    (void)fclose(f);
    (void)LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

static int replay(const char *path)
{
    char file[1200];
    int n = 0;
    DIR *d = opendir(path);
    if (d == NULL) {
        return replay_file(path);
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.') {
            (void)snprintf(file, sizeof file, "%s/%s", path, e->d_name);
            n += replay_file(file);
        }
    }
    (void)closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        n += replay(argv[i]);
    }
    (void)printf("%d inputs\n", n);
    return n > 0 ? 0 : 1;
}
#endif
