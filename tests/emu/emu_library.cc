/*
 * tests/emu/emu_library.cc - in place of NVIDIA's shared libraries: the emulation's functions by
 * their names.
 */
#include <cstring>
#include <cudnn_graph.h>

extern "C" {
#include "backend/cuda/cuda_library.h"
}

dr_status dr_cuda_library_open(const char *file, const dr_cuda_symbol *symbols, size_t n,
                               void **library)
{
    static const struct {
        const char *name;
        void *address;
    } known[] = {
#define X(name) {#name, reinterpret_cast<void *>(name)}
        X(cudnnBackendCreateDescriptor),
        X(cudnnBackendDestroyDescriptor),
        X(cudnnBackendExecute),
        X(cudnnBackendFinalize),
        X(cudnnBackendGetAttribute),
        X(cudnnBackendSetAttribute),
        X(cudnnCreate),
        X(cudnnDestroy),
        X(cudnnGetErrorString),
        X(cudnnGetLastErrorString),
        X(cudnnGetVersion),
        X(cudnnSetStream),
#undef X
    };
    for (size_t i = 0; i < n; i++) {
        *symbols[i].address = nullptr;
        for (const auto &k : known) {
            if (strcmp(k.name, symbols[i].name) == 0) {
                *symbols[i].address = k.address;
            }
        }
        if (*symbols[i].address == nullptr) {
            DR_FAIL(DR_DEVICE, "the emulated %s has no function %s", file, symbols[i].name);
        }
    }
    static int open;
    *library = &open;
    return DR_OK;
}

void dr_cuda_library_close(void *)
{
}
