#include "backend/cuda/cuda_library.h"

#include <dlfcn.h>

dr_status dr_cuda_library_open(const char *file, const dr_cuda_symbol *symbols, size_t n,
                               void **library)
{
    void *opened = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (opened == NULL) {
        DR_FAIL(
            DR_DEVICE,
            "training on a GPU needs %s: %s (install it, or name its folder in LD_LIBRARY_PATH)",
            file, dlerror());
    }
    for (size_t i = 0; i < n; i++) {
        *symbols[i].address = dlsym(opened, symbols[i].name);
        if (*symbols[i].address == NULL) {
            const dr_status st =
                dr_error_set(DR_DEVICE, __FILE__, __LINE__,
                             "%s has no function %s: it is older than this program expects", file,
                             symbols[i].name);
            (void)dlclose(opened);
            return st;
        }
    }
    *library = opened;
    return DR_OK;
}

void dr_cuda_library_close(void *library)
{
    if (library != NULL) {
        (void)dlclose(library);
    }
}
