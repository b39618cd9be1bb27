/*
 * tests/emu/emu_cudnn.h - a cuDNN graph as emu_cudnn.cc reads it from descriptors and
 * emu_cudnn_run.cc computes it.
 */
#ifndef DR_EMU_CUDNN_H
#define DR_EMU_CUDNN_H

#include <cudnn_graph.h>
#include <map>
#include <string>
#include <vector>

struct emu_tensor {
    int64_t id = 0, alignment = 1;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    bool is_virtual = false, by_value = false;
    std::vector<int64_t> size, stride;
    int64_t elements() const
    {
        int64_t n = 1;
        for (const int64_t s : size) {
            n *= s;
        }
        return n;
    }
};

struct emu_convolution {
    int64_t before[2], stride[2];
};

struct emu_operation {
    cudnnBackendDescriptorType_t type = CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR;
    std::vector<emu_tensor>
        in; /* convolutions: x or dx, w or dw, y or dy; out says which is made */
    emu_tensor out;
    int mode = 0; /* of pointwise operations and reductions */
    float beta = 0.0f;
    emu_convolution conv = {};
};

typedef std::vector<emu_operation> emu_program;

/* Where tensors lie, by their ids. */
typedef std::map<int64_t, void *> emu_places;

/* Computes the program now. */
void emu_run_program(const emu_program &program, const emu_places &places);
/* What is wrong with an operation's sizes, or an empty text. */
std::string emu_check_operation(const emu_operation &o);

#endif
