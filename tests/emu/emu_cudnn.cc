/*
 * tests/emu/emu_cudnn.cc - cuDNN's graph API: src/backend/cuda builds its graphs and looks for
 * plans with the same calls as for the real library, and emu_cudnn_run.cc computes what the graphs
 * say.
 *
 * As with cuDNN some graphs have no plan (here by their sizes: a third of the convolutions,
 * attention of queries that are a multiple of 5), the first configuration is one that must not be
 * taken, plans want workspace, and pointers must be aligned. A run fills its workspace, so work
 * that is too small or shared is seen.
 */
#include "emu_cudnn.h"

#include "emu_internal.h"

#include <cstdlib>
#include <cstring>
#include <cuda_runtime.h>

struct emu_cudnn_handle {
    cudaStream_t stream;
};

namespace
{
struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finished = false;
    std::map<int, std::vector<char>> values;
    emu_program program; /* of a graph, and of what is made of it */
    bool deterministic = true;
};

std::string last_error;

cudnnStatus_t refuse(const std::string &why, cudnnStatus_t st = CUDNN_STATUS_BAD_PARAM)
{
    last_error = why;
    return st;
}

descriptor *of(cudnnBackendDescriptor_t d)
{
    return static_cast<descriptor *>(d);
}

size_t size_of(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
        return sizeof(int64_t);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return sizeof(void *);
    case CUDNN_TYPE_FLOAT:
        return sizeof(float);
    default:
        return sizeof(int); /* enumerations */
    }
}

template <typename T> std::vector<T> list_of(const descriptor *d, int name)
{
    const auto at = d->values.find(name);
    std::vector<T> list(at == d->values.end() ? 0 : at->second.size() / sizeof(T));
    if (!list.empty()) {
        memcpy(&list[0], at->second.data(), list.size() * sizeof(T));
    }
    return list;
}

template <typename T> T value_of(const descriptor *d, int name, T otherwise)
{
    return list_of<T>(d, name).empty() ? otherwise : list_of<T>(d, name)[0];
}

descriptor *part_of(const descriptor *d, int name)
{
    return of(value_of<void *>(d, name, nullptr));
}

emu_tensor tensor_of(const descriptor *op, int name)
{
    const descriptor *d = part_of(op, name);
    emu_tensor t;
    if (d != nullptr) {
        t.id = value_of<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
        t.alignment = value_of<int64_t>(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1);
        t.type = value_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
        t.is_virtual = value_of<char>(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0) != 0;
        t.by_value = value_of<char>(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, 0) != 0;
        t.size = list_of<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS);
        t.stride = list_of<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES);
    }
    return t;
}

struct names { /* of one kind of convolution: x, w, y, which of them is made */
    int type, geometry, tensor[3], made, beta;
};
const names convolutions[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
     2,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
     0,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
     1,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

void read_convolution(const descriptor *d, const names &n, emu_operation *o)
{
    const descriptor *geometry = part_of(d, n.geometry);
    const std::vector<int64_t> before =
        list_of<int64_t>(geometry, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const std::vector<int64_t> stride =
        list_of<int64_t>(geometry, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    for (size_t k = 0; k < 3; k++) {
        o->in.push_back(tensor_of(d, n.tensor[k]));
    }
    o->out = o->in[static_cast<size_t>(n.made)];
    o->beta = value_of(d, n.beta, 0.0f);
    o->conv = {{before[0], before[1]}, {stride[0], stride[1]}};
}

emu_operation operation_of(const descriptor *d)
{
    emu_operation o;
    o.type = d->type;
    switch (d->type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        o.in = {tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_ADESC),
                tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_BDESC)};
        o.out = tensor_of(d, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
        break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        o.in = {tensor_of(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC)};
        if (part_of(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC) != nullptr) {
            o.in.push_back(tensor_of(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
        }
        o.out = tensor_of(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
        o.mode = value_of<int>(part_of(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR),
                               CUDNN_ATTR_POINTWISE_MODE, -1);
        break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        o.in = {tensor_of(d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC)};
        o.out = tensor_of(d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
        o.mode = value_of<int>(part_of(d, CUDNN_ATTR_OPERATION_REDUCTION_DESC),
                               CUDNN_ATTR_REDUCTION_OPERATOR, -1);
        break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        o.in = {tensor_of(d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC)};
        o.out = tensor_of(d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
        break;
    default:
        for (const names &n : convolutions) {
            if (n.type == d->type) {
                read_convolution(d, n, &o);
            }
        }
    }
    return o;
}

bool is_operation(const descriptor *d)
{
    switch (d->type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        return true;
    default:
        return false;
    }
}

/* The first product of attention: (N,heads,Sq,D) by (N,heads,D,Sk). */
const emu_operation *scores_of(const emu_program &p)
{
    for (const emu_operation &o : p) {
        if (o.type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
            return &o;
        }
    }
    return nullptr;
}

bool has_plan(const emu_program &p)
{
    const emu_operation *s = scores_of(p);
    if (s != nullptr) {
        return s->in[0].size[3] % 8 == 0 && s->in[0].size[3] <= 256 && s->out.size[2] % 5 != 0;
    }
    const std::vector<int64_t> &x = p[0].in[0].size;
    return (x[0] + x[1] + x[2] + x[3] + p[0].in[2].size[1]) % 3 != 0;
}

int64_t work_bytes(const emu_program &p)
{
    const emu_operation *s = scores_of(p);
    if (s == nullptr) {
        return (p[0].in[1].size[1] * 13 + p[0].in[1].size[0] * 7) % 257;
    }
    const std::vector<int64_t> &n = s->out.size;
    const bool forward = p[0].type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR;
    return forward ? 0 : n[0] * n[1] * ((n[2] + 63) / 64 * 64) * ((n[3] + 63) / 64 * 64) * 2;
}

cudnnStatus_t finish_graph(descriptor *d)
{
    std::map<int64_t, bool> made; /* virtual tensors */
    for (void *op : list_of<void *>(d, CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        d->program.push_back(operation_of(of(op)));
        for (const emu_tensor &t : d->program.back().in) {
            if (t.is_virtual && !made[t.id]) {
                return refuse("a tensor inside the graph is read before it is made");
            }
        }
        made[d->program.back().out.id] = true;
    }
    return d->program.empty() ? refuse("a graph of nothing") : CUDNN_STATUS_SUCCESS;
}

/* Two configurations: the first may sum in another order on every run. */
int64_t results(const descriptor *heuristic, int64_t most, void **found)
{
    const int mode = value_of<int>(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, -1);
    const descriptor *graph = part_of(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    if (mode != CUDNN_HEUR_MODE_A || !has_plan(graph->program)) {
        return 0;
    }
    for (int64_t i = 0; i < 2 && i < most; i++) {
        of(found[i])->program = graph->program;
        of(found[i])->deterministic = i == 1;
    }
    return 2;
}

std::vector<int> notes_of(const descriptor *engine)
{
    std::vector<int> notes;
    if (!engine->deterministic) {
        notes.push_back(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    }
    if (engine->program[0].in[0].type != CUDNN_DATA_FLOAT) {
        notes.push_back(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    }
    return notes;
}
} // namespace

size_t cudnnGetVersion(void)
{
    const char *text = getenv("DREAMRUN_EMU_CUDNN"); /* an older one has no attention */
    return text != nullptr ? strtoul(text, nullptr, 10) : 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS ? "success" : "refused by the emulation";
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    (void)snprintf(message, max_size, "%s", last_error.c_str());
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = new emu_cudnn_handle{nullptr};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, void *stream)
{
    handle->stream = static_cast<cudaStream_t>(stream);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    descriptor *d = new descriptor;
    d->type = type;
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    delete of(d);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n,
                                       const void *values)
{
    if (of(d)->finished) {
        return refuse("an attribute of what is finished");
    }
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < n; i++) {
        if (!of(static_cast<void *const *>(values)[i])->finished) {
            return refuse("a part that is not finished");
        }
    }
    const char *bytes = static_cast<const char *>(values);
    of(d)->values[name].assign(bytes, bytes + static_cast<size_t>(n) * size_of(type));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t which)
{
    descriptor *d = of(which);
    d->finished = true;
    if (is_operation(d)) {
        const std::string wrong = emu_check_operation(operation_of(d));
        return wrong.empty() ? CUDNN_STATUS_SUCCESS : refuse(wrong);
    }
    if (d->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
        return finish_graph(d);
    }
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        const descriptor *config = part_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
        d->program = config->program;
        d->deterministic = config->deterministic;
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t which,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t most, int64_t *n,
                                       void *values)
{
    const descriptor *d = of(which);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        *n = results(d, most, static_cast<void **>(values));
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
        *n = 1;
        descriptor *engine = of(*static_cast<void **>(values));
        engine->program = d->program;
        engine->deterministic = d->deterministic;
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
        const std::vector<int> notes = notes_of(d);
        *n = static_cast<int64_t>(notes.size());
        if (!notes.empty()) {
            memcpy(values, notes.data(), notes.size() * sizeof(int));
        }
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
        *n = 1;
        *static_cast<int64_t *>(values) = work_bytes(d->program);
    } else {
        return refuse("an attribute that the emulation does not know");
    }
    return CUDNN_STATUS_SUCCESS;
}

namespace
{
/* Checks one tensor's place; numbers given by value are copied into held now, as cuDNN does. */
bool place(const emu_tensor &t, emu_places *places, std::map<int64_t, float> *held)
{
    if (t.is_virtual) {
        return true;
    }
    const auto at = places->find(t.id);
    if (at == places->end() ||
        reinterpret_cast<uintptr_t>(at->second) % static_cast<uintptr_t>(t.alignment) != 0) {
        return false;
    }
    if (t.by_value) {
        (*held)[t.id] = *static_cast<const float *>(at->second);
        return true;
    }
    return emu_is_device(at->second, 1);
}
} // namespace

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t which,
                                  cudnnBackendDescriptor_t pack)
{
    const std::vector<int64_t> ids = list_of<int64_t>(of(pack), CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const std::vector<void *> pointers =
        list_of<void *>(of(pack), CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    void *work = value_of<void *>(of(pack), CUDNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
    const emu_program program = of(which)->program;
    const size_t bytes = static_cast<size_t>(work_bytes(program));
    emu_places places;
    std::map<int64_t, float> held;
    for (size_t i = 0; i < ids.size() && i < pointers.size(); i++) {
        places[ids[i]] = pointers[i];
    }
    for (const emu_operation &o : program) {
        bool fine = place(o.out, &places, &held);
        for (const emu_tensor &t : o.in) {
            fine = fine && place(t, &places, &held);
        }
        if (!fine) {
            return refuse("a tensor without a place in GPU memory, or at an odd one");
        }
    }
    if (!of(which)->deterministic || (bytes > 0 && !emu_is_device(work, bytes))) {
        return refuse("a plan that must not be taken, or too little workspace");
    }
    emu_count(EMU_GRAPH);
    emu_enqueue(handle->stream, [=]() {
        std::map<int64_t, float> values = held;
        emu_places now = places;
        for (auto &entry : values) {
            now[entry.first] = &entry.second;
        }
        if (bytes > 0) {
            memset(work, 0xff, bytes);
        }
        emu_run_program(program, now);
    });
    return CUDNN_STATUS_SUCCESS;
}
