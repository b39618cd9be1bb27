/*
 * What the emulation says of cuDNN's binary interface, against cudnn_graph.h.
 */
#include "../emu/include/cudnn_names.h"

#include <cudnn_graph.h>
#include <stdio.h>

#define X(name, number) _Static_assert((name) == (number), #name);
DR_EMU_CUDNN_STATUS(X)
DR_EMU_CUDNN_DATA_TYPE(X)
DR_EMU_CUDNN_DESCRIPTOR_TYPE(X)
DR_EMU_CUDNN_ATTRIBUTE_TYPE(X)
DR_EMU_CUDNN_ATTRIBUTE(X)
DR_EMU_CUDNN_POINTWISE(X)
DR_EMU_CUDNN_REDUCE(X)
DR_EMU_CUDNN_HEURISTIC(X)
DR_EMU_CUDNN_NOTE(X)
DR_EMU_CUDNN_CONVOLUTION(X)
#undef X

int main(void)
{
    (void)puts("cudnn_graph.h says the same");
    return 0;
}
