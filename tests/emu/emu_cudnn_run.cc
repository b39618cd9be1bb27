/*
 * tests/emu/emu_cudnn_run.cc - the operations of cuDNN graphs as plain loops. Tensors inside a
 * graph hold f32 numbers rounded to their type; sums are f32 in strips, of convolutions double.
 */
#include "emu_cudnn.h"

#include "dreamrun/status.h"
#include "tensor/dtype.h"

#include <cmath>
#include <unordered_map>

namespace
{
typedef std::vector<float> numbers; /* dense, the last dimension fastest */

dr_dtype dtype_of(cudnnDataType_t t)
{
    return t == CUDNN_DATA_HALF ? DR_F16 : t == CUDNN_DATA_BFLOAT16 ? DR_BF16 : DR_F32;
}

/* Calls f(dense index, offset in memory). */
template <typename F> void each_element(const emu_tensor &t, F f)
{
    std::vector<int64_t> at(t.size.size(), 0);
    const int64_t n = t.elements();
    int64_t offset = 0;
    for (int64_t i = 0; i < n; i++) {
        f(i, offset);
        for (size_t d = at.size(); d-- > 0;) {
            offset += t.stride[d];
            if (++at[d] < t.size[d]) {
                break;
            }
            offset -= t.size[d] * t.stride[d];
            at[d] = 0;
        }
    }
}

class machine
{
    const emu_places &places;
    std::map<int64_t, numbers> inside;

  public:
    explicit machine(const emu_places &places_) : places(places_)
    {
    }
    numbers read(const emu_tensor &t) const
    {
        if (t.is_virtual) {
            return inside.at(t.id);
        }
        const char *data = static_cast<const char *>(places.at(t.id));
        const dr_dtype type = dtype_of(t.type);
        numbers v(static_cast<size_t>(t.elements()));
        each_element(t, [&](int64_t i, int64_t offset) {
            dr_convert(&v[static_cast<size_t>(i)], DR_F32,
                       data + static_cast<size_t>(offset) * dr_dtype_size(type), type, 1);
        });
        return v;
    }
    void write(const emu_tensor &t, numbers v)
    {
        const dr_dtype type = dtype_of(t.type);
        if (t.is_virtual) {
            for (float &x : v) {
                uint32_t bits = 0;
                dr_convert(&bits, type, &x, DR_F32, 1);
                dr_convert(&x, DR_F32, &bits, type, 1);
            }
            inside[t.id] = std::move(v);
            return;
        }
        char *data = static_cast<char *>(places.at(t.id));
        each_element(t, [&](int64_t i, int64_t offset) {
            dr_convert(data + static_cast<size_t>(offset) * dr_dtype_size(type), type,
                       &v[static_cast<size_t>(i)], DR_F32, 1);
        });
    }
};

void matmul(machine &m, const emu_operation &o)
{
    const numbers a = m.read(o.in[0]);
    const numbers b = m.read(o.in[1]);
    const size_t rows = static_cast<size_t>(o.out.size[2]);
    const size_t cols = static_cast<size_t>(o.out.size[3]);
    const size_t depth = static_cast<size_t>(o.in[0].size[3]);
    numbers c(static_cast<size_t>(o.out.elements()));
    for (size_t item = 0; item < c.size() / (rows * cols); item++) {
        for (size_t i = 0; i < rows; i++) {
            float *sum = &c[(item * rows + i) * cols];
            for (size_t l = 0; l < depth; l++) {
                const float x = a[(item * rows + i) * depth + l];
                const float *row = &b[(item * depth + l) * cols];
                for (size_t j = 0; j < cols; j++) {
                    sum[j] += x * row[j];
                }
            }
        }
    }
    m.write(o.out, std::move(c));
}

float apply(int mode, float x, float y)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + y;
    case CUDNN_POINTWISE_SUB:
        return x - y;
    case CUDNN_POINTWISE_MUL:
        return x * y;
    case CUDNN_POINTWISE_DIV:
        return x / y;
    case CUDNN_POINTWISE_EXP:
        return expf(x);
    case CUDNN_POINTWISE_LOG:
        return logf(x);
    default:
        return NAN;
    }
}

/* out's sizes with the strides of a dense t, 0 where t has one element for all. */
emu_tensor spread(const emu_tensor &t, const emu_tensor &out)
{
    emu_tensor s = out;
    int64_t step = 1;
    for (size_t d = s.size.size(); d-- > 0;) {
        s.stride[d] = t.size[d] == 1 ? 0 : step;
        step *= t.size[d];
    }
    return s;
}

void pointwise(machine &m, const emu_operation &o)
{
    const numbers x = m.read(o.in[0]);
    numbers v(static_cast<size_t>(o.out.elements()));
    each_element(spread(o.in[0], o.out), [&](int64_t i, int64_t at) {
        v[static_cast<size_t>(i)] = x[static_cast<size_t>(at)];
    });
    const numbers y = o.in.size() > 1 ? m.read(o.in[1]) : numbers(1);
    each_element(o.in.size() > 1 ? spread(o.in[1], o.out) : o.out, [&](int64_t i, int64_t at) {
        float &value = v[static_cast<size_t>(i)];
        value = apply(o.mode, value, o.in.size() > 1 ? y[static_cast<size_t>(at)] : 0.0f);
    });
    m.write(o.out, std::move(v));
}

void reduce(machine &m, const emu_operation &o)
{
    const bool is_max = o.mode == CUDNN_REDUCE_TENSOR_MAX;
    const numbers x = m.read(o.in[0]);
    numbers v(static_cast<size_t>(o.out.elements()), is_max ? -INFINITY : 0.0f);
    each_element(spread(o.out, o.in[0]), [&](int64_t i, int64_t at) {
        float &value = v[static_cast<size_t>(at)];
        const float one = x[static_cast<size_t>(i)];
        value = is_max ? fmaxf(value, one) : value + one;
    });
    m.write(o.out, std::move(v));
}

/* The same elements at the same offsets, under other sizes. */
void reshape(machine &m, const emu_operation &o)
{
    const numbers x = m.read(o.in[0]);
    std::unordered_map<int64_t, float> memory;
    each_element(o.in[0],
                 [&](int64_t i, int64_t offset) { memory[offset] = x[static_cast<size_t>(i)]; });
    numbers v(static_cast<size_t>(o.out.elements()));
    each_element(o.out, [&](int64_t i, int64_t offset) {
        DR_CHECK(memory.count(offset) == 1, "cuDNN: a reshape reads what is not there");
        v[static_cast<size_t>(i)] = memory[offset];
    });
    m.write(o.out, std::move(v));
}

/* Calls f(image pixel, output pixel, tap) for every triple that meets; (n,c,h,w) sizes. */
template <typename F>
void each_meeting(const emu_convolution &c, const std::vector<emu_tensor> &t, F f)
{
    const std::vector<int64_t> &image = t[0].size;
    const std::vector<int64_t> &kernel = t[1].size;
    const std::vector<int64_t> &output = t[2].size;
    const int64_t outputs = output[0] * output[2] * output[3];
    for (int64_t y = 0; y < outputs; y++) {
        const int64_t n = y / (output[2] * output[3]);
        for (int64_t tap = 0; tap < kernel[2] * kernel[3]; tap++) {
            const int64_t h =
                y / output[3] % output[2] * c.stride[0] - c.before[0] + tap / kernel[3];
            const int64_t w = y % output[3] * c.stride[1] - c.before[1] + tap % kernel[3];
            if (h >= 0 && h < image[2] && w >= 0 && w < image[3]) {
                f((n * image[2] + h) * image[3] + w, y, tap);
            }
        }
    }
}

/* A tensor with channels last in memory, as it lies. */
std::vector<double> lying(const emu_places &places, const emu_tensor &t)
{
    std::vector<double> v(static_cast<size_t>(t.elements()));
    dr_convert(v.data(), DR_F64, places.at(t.id), dtype_of(t.type), v.size());
    return v;
}

void store(const emu_places &places, const emu_operation &o, const std::vector<double> &sums)
{
    const std::vector<double> old =
        o.beta != 0.0f ? lying(places, o.out) : std::vector<double>(sums.size());
    const dr_dtype type = dtype_of(o.out.type);
    char *data = static_cast<char *>(places.at(o.out.id));
    for (size_t i = 0; i < sums.size(); i++) {
        const float v = static_cast<float>(old[i]) + static_cast<float>(sums[i]);
        dr_convert(data + i * dr_dtype_size(type), type, &v, DR_F32, 1);
    }
}

void convolve(const emu_places &places, const emu_operation &o)
{
    const size_t made = o.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ? 2
                        : o.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR
                            ? 0
                            : 1;
    std::vector<double> v[3];
    for (size_t k = 0; k < 3; k++) {
        v[k] = k == made ? std::vector<double>(static_cast<size_t>(o.in[k].elements()))
                         : lying(places, o.in[k]);
    }
    const int64_t in = o.in[1].size[1];
    const int64_t out = o.in[1].size[0];
    const int64_t taps = o.in[1].size[2] * o.in[1].size[3];
    each_meeting(o.conv, o.in, [&](int64_t pixel, int64_t at, int64_t tap) {
        double *xs = &v[0][static_cast<size_t>(pixel * in)];
        for (int64_t c = 0; c < out; c++) {
            double *ws = &v[1][static_cast<size_t>((c * taps + tap) * in)];
            double &sum = v[2][static_cast<size_t>(at * out + c)];
            for (int64_t i = 0; i < in; i++) {
                if (made == 2) {
                    sum += xs[i] * ws[i];
                } else if (made == 0) {
                    xs[i] += sum * ws[i];
                } else {
                    ws[i] += sum * xs[i];
                }
            }
        }
    });
    store(places, o, v[made]);
}

bool broadcasts(const emu_tensor &t, const emu_tensor &to)
{
    for (size_t d = 0; d < to.size.size(); d++) {
        if (t.size.size() != to.size.size() || (t.size[d] != 1 && t.size[d] != to.size[d])) {
            return false;
        }
    }
    return true;
}

std::string check_convolution(const emu_operation &o)
{
    for (const emu_tensor &t : o.in) {
        const std::vector<int64_t> &s = t.size;
        if (t.is_virtual || s.size() != 4 ||
            t.stride != std::vector<int64_t>{s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]}) {
            return "a convolution of a tensor whose channels do not come last";
        }
    }
    const std::vector<int64_t> &x = o.in[0].size;
    const std::vector<int64_t> &w = o.in[1].size;
    const std::vector<int64_t> &y = o.in[2].size;
    if (x[0] != y[0] || x[1] != w[1] || y[1] != w[0] ||
        (y[3] - 1) * o.conv.stride[1] - o.conv.before[1] >= x[3]) {
        return "the sizes of a convolution do not meet";
    }
    return "";
}
} // namespace

std::string emu_check_operation(const emu_operation &o)
{
    switch (o.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: {
        const std::vector<int64_t> &a = o.in[0].size;
        const std::vector<int64_t> &b = o.in[1].size;
        const std::vector<int64_t> &c = o.out.size;
        return a[0] == b[0] && a[1] == b[1] && a[3] == b[2] &&
                       c == std::vector<int64_t>{a[0], a[1], a[2], b[3]}
                   ? ""
                   : "the sizes of a product do not meet";
    }
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        for (const emu_tensor &t : o.in) {
            if (!broadcasts(t, o.out)) {
                return "the sizes of a pointwise operation do not meet";
            }
        }
        return "";
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return broadcasts(o.out, o.in[0]) ? "" : "the sizes of a reduction do not meet";
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return o.in[0].elements() == o.out.elements() ? "" : "a reshape to another size";
    default:
        return check_convolution(o);
    }
}

void emu_run_program(const emu_program &program, const emu_places &places)
{
    machine m(places);
    for (const emu_operation &o : program) {
        switch (o.type) {
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
            matmul(m, o);
            break;
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
            pointwise(m, o);
            break;
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
            reduce(m, o);
            break;
        case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
            reshape(m, o);
            break;
        default:
            convolve(places, o);
        }
    }
}
