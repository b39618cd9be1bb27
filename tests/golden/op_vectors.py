#!/usr/bin/env python3
"""Writes data/op_vectors.h: what PyTorch computes for every op, in float64, on small cases.

Run with Python >= 3.10, torch and diffusers (made with torch 2.15.0, diffusers 0.38.0; any recent
version gives the same numbers to about 1e-15):

    python3 tests/golden/op_vectors.py

Inputs are not stored: both sides make them from their key (golden_input in this file,
tests/support/golden_input.c). All arrays are in memory order: images (N,H,W,C), filters (O,KH,KW,I).
Arrays of more than FULL numbers are stored as mean, L2 norm, first four, last.
"""
import math
import os

import numpy as np
import torch
import torch.nn.functional as F

FULL = 48
SQRT12 = math.sqrt(12.0)
cases = []  # (name, numbers of the whole array)


def golden_input(key, n):
    """FNV-1a of the key, splitmix64 of the index, 24 bits: uniform in [-0.5, 0.5)."""
    h = 0xCBF29CE484222325
    for byte in key.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.arange(n, dtype=np.uint64) + np.uint64(h) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 0.5


def tensor(key, shape, scale=1.0, grad=True):
    """Uniform numbers of the given standard deviation."""
    values = (scale * SQRT12 * golden_input(key, math.prod(shape))).astype(np.float32)
    return torch.from_numpy(values).double().reshape(shape).requires_grad_(grad)


def f32(x):
    """A hyper-parameter as the C side holds it: rounded to float."""
    return float(np.float32(x))


def expect(name, value):
    cases.append((name, value.detach().double().contiguous().flatten().tolist()))


def nchw(t):
    return t.permute(0, 3, 1, 2)


def nhwc(t):
    return t.permute(0, 2, 3, 1)


def gradients(case, y, dy, **inputs):
    grads = torch.autograd.grad(y, list(inputs.values()), dy)
    for name, grad in zip(inputs, grads):
        expect(f"{case}.d{name}", grad)


def linear(case, rows, n_in, n_out):
    x = tensor(f"{case}.x", (rows, n_in))
    w = tensor(f"{case}.w", (n_out, n_in))
    b = tensor(f"{case}.b", (n_out,))
    dy = tensor(f"{case}.dy", (rows, n_out), grad=False)
    y = F.linear(x, w, b)
    expect(f"{case}.y", y)
    gradients(case, y, dy, x=x, w=w, b=b)


def conv2d(case, x_shape, n_out, kernel, stride, top, left, bottom, right):
    n_in = x_shape[3]
    x = tensor(f"{case}.x", x_shape)
    w = tensor(f"{case}.w", (n_out, *kernel, n_in))
    b = tensor(f"{case}.b", (n_out,))
    y = nhwc(F.conv2d(F.pad(nchw(x), (left, right, top, bottom)), nchw(w), b, stride=stride))
    dy = tensor(f"{case}.dy", tuple(y.shape), grad=False)
    expect(f"{case}.y", y)
    gradients(case, y, dy, x=x, w=w, b=b)


def groupnorm(case, shape, groups, eps, silu):
    eps = f32(eps)
    x = tensor(f"{case}.x", shape)
    gamma = tensor(f"{case}.gamma", shape[3:])
    beta = tensor(f"{case}.beta", shape[3:])
    y = nhwc(F.group_norm(nchw(x), groups, gamma, beta, eps))
    y = F.silu(y) if silu else y
    dy = tensor(f"{case}.dy", shape, grad=False)
    flat = nchw(x).reshape(shape[0], groups, -1)
    expect(f"{case}.y", y)
    expect(f"{case}.stats", torch.stack((flat.mean(2), (flat.var(2, unbiased=False) + eps).rsqrt()), 2))
    gradients(case, y, dy, x=x, gamma=gamma, beta=beta)


def layernorm(case, rows, channels, eps):
    eps = f32(eps)
    x = tensor(f"{case}.x", (rows, channels))
    gamma = tensor(f"{case}.gamma", (channels,))
    beta = tensor(f"{case}.beta", (channels,))
    y = F.layer_norm(x, (channels,), gamma, beta, eps)
    dy = tensor(f"{case}.dy", (rows, channels), grad=False)
    expect(f"{case}.y", y)
    expect(f"{case}.stats", torch.stack((x.mean(1), (x.var(1, unbiased=False) + eps).rsqrt()), 1))
    gradients(case, y, dy, x=x, gamma=gamma, beta=beta)


def attention(case, n, sq, sk, heads, d, causal):
    q = tensor(f"{case}.q", (n, sq, heads * d))
    k = tensor(f"{case}.k", (n, sk, heads * d))
    v = tensor(f"{case}.v", (n, sk, heads * d))
    dout = tensor(f"{case}.do", (n, sq, heads * d), grad=False)
    qh, kh, vh = (t.reshape(n, -1, heads, d).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(qh, kh, vh, is_causal=causal)
    out = out.transpose(1, 2).reshape(n, sq, heads * d)
    scores = qh @ kh.transpose(2, 3) / math.sqrt(d)
    if causal:
        scores = scores.masked_fill(torch.ones(sq, sk).triu(1).bool(), -math.inf)
    expect(f"{case}.o", out)
    expect(f"{case}.lse", scores.logsumexp(3))
    gradients(case, out, dout, q=q, k=k, v=v)


def activation(case, function):
    x = tensor(f"{case}.x", (40,), 3.0)
    dy = tensor(f"{case}.dy", (40,), grad=False)
    y = function(x)
    expect(f"{case}.y", y)
    gradients(case, y, dy, x=x)


def geglu(case, rows, width):
    from diffusers.models.activations import GEGLU

    x = tensor(f"{case}.x", (rows, 2 * width))
    module = GEGLU(2 * width, width, bias=False).double()
    module.proj = torch.nn.Identity()
    y = module(x)
    dy = tensor(f"{case}.dy", (rows, width), grad=False)
    expect(f"{case}.y", y)
    gradients(case, y, dy, x=x)


def sums():
    x = tensor("add.x", (33,))
    z = tensor("add.z", (33,))
    expect("add.y", 0.5 * x - 3.0 * z)
    expect("add.scaled", 0.5 * x)
    before = tensor("rows.y", (2, 5, 3))
    t = tensor("rows.t", (2, 3))
    dy = tensor("rows.dy", (2, 5, 3), grad=False)
    y = before + t[:, None, :]
    expect("rows.y", y)
    gradients("rows", y, dy, t=t)


def layout():
    a = tensor("concat.a", (2, 2, 2, 3))
    b = tensor("concat.b", (2, 2, 2, 2))
    dy = tensor("concat.dy", (2, 2, 2, 5), grad=False)
    y = nhwc(torch.cat((nchw(a), nchw(b)), 1))
    expect("concat.y", y)
    gradients("concat", y, dy, a=a, b=b)
    x = tensor("upsample2x.x", (2, 2, 3, 2))
    dy = tensor("upsample2x.dy", (2, 4, 6, 2), grad=False)
    y = nhwc(F.interpolate(nchw(x), scale_factor=2.0, mode="nearest"))
    expect("upsample2x.y", y)
    gradients("upsample2x", y, dy, x=x)


def embedding():
    from diffusers.models.embeddings import get_timestep_embedding

    i = torch.arange(6)
    ids = ((5 * i * i + 3 * i) % 7).reshape(2, 3)
    tokens = tensor("embedding.tokens", (7, 5))
    positions = tensor("embedding.positions", (4, 5))
    dy = tensor("embedding.dy", (2, 3, 5), grad=False)
    y = F.embedding(ids, tokens) + positions[:3]
    expect("embedding.y", y)
    gradients("embedding", y, dy, tokens=tokens, positions=positions)
    t = 333 * torch.arange(4) % 1000
    for channels in (6, 320):
        y = get_timestep_embedding(t, channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        expect(f"timestep_embedding.{channels}.y", y)


def diffusion():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    x, z = (tensor(f"mix.{k}", (3, 2, 2, 4)) for k in "xz")
    a, b = (tensor(f"mix.{k}", (3,)) for k in "ab")
    expect("mix.y", a[:, None, None, None] * x + b[:, None, None, None] * z)
    pred = tensor("mse.pred", (3, 2, 2, 4))
    target = tensor("mse.target", (3, 2, 2, 4))
    dloss = tensor("mse.dloss", (3,), grad=False)
    loss = F.mse_loss(pred, target, reduction="none").mean((1, 2, 3))
    expect("mse.loss", loss)
    gradients("mse", loss, dloss, pred=pred)
    pred = tensor("mse.masked.pred", (3, 2, 2, 4))
    target = tensor("mse.masked.target", (3, 2, 2, 4))
    dloss = tensor("mse.masked.dloss", (3,), grad=False)
    mask = tensor("mse.masked.mask", (3, 2, 2), grad=False)
    loss = (F.mse_loss(pred, target, reduction="none") * mask[..., None]).mean((1, 2, 3))
    expect("mse.masked.loss", loss)
    gradients("mse.masked", loss, dloss, pred=pred)
    moments = tensor("posterior_sample.moments", (2, 2, 2, 8), 20.0)  # reaches both clamps
    noise = tensor("posterior_sample.noise", (2, 2, 2, 4))
    posterior = DiagonalGaussianDistribution(nchw(moments))
    expect("posterior_sample.z", nhwc(posterior.mean + posterior.std * nchw(noise)))
    expect("posterior_sample.mean", nhwc(posterior.mode()))


def optimizer():
    x = tensor("sumsq.x", (1000,))
    expect("sumsq.out", (x * x).sum())
    for dtype, name in ((torch.float64, "F64"), (torch.float32, "F32")):
        p = torch.nn.Parameter(tensor("adamw.p", (40,), grad=False).to(dtype))
        torch_adamw = torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
                                        weight_decay=0.01, foreach=False)
        for step in (1, 2, 3):
            p.grad = 0.5 * tensor(f"adamw.g{step}", (40,), 0.1, grad=False).to(dtype)
            torch_adamw.step()
        suffix = "" if name == "F64" else ".F32"
        expect("adamw.p" + suffix, p)
        expect("adamw.m" + suffix, torch_adamw.state[p]["exp_avg"])
        expect("adamw.v" + suffix, torch_adamw.state[p]["exp_avg_sq"])


def numbers_of(values):
    if len(values) <= FULL:
        return values
    mean = math.fsum(values) / len(values)
    l2 = math.sqrt(math.fsum(v * v for v in values))
    return [mean, l2, *values[:4], values[-1]]


HEAD = """/* Written by tests/golden/op_vectors.py with torch %s; do not edit. */
/* clang-format off */
#ifndef DR_OP_VECTORS_H
#define DR_OP_VECTORS_H

#include <stddef.h>

enum { DR_OP_VECTOR_FULL = %d }; /* longer arrays: mean, L2, first four, last */

static const struct dr_op_vector {
    const char *name;
    size_t n;
    double number[DR_OP_VECTOR_FULL];
} dr_op_vectors[] = {
"""


def write(path):
    with open(path, "w", encoding="ascii") as out:
        out.write(HEAD % (torch.__version__.split("+")[0], FULL))
        for name, values in cases:
            text = ", ".join("%.17g" % v for v in numbers_of(values))
            out.write('{"%s", %d, {%s}},\n' % (name, len(values), text))
        out.write("};\n\n#endif\n")


def main():
    linear("linear.small", 5, 7, 3)
    linear("linear.large", 77, 96, 130)
    conv2d("conv2d.3x3", (1, 4, 5, 3), 2, (3, 3), 1, 1, 1, 1, 1)
    conv2d("conv2d.strided", (2, 7, 6, 3), 4, (3, 3), 2, 1, 1, 1, 1)
    conv2d("conv2d.asymmetric", (2, 6, 6, 3), 4, (3, 3), 2, 0, 0, 1, 1)
    conv2d("conv2d.1x1", (2, 3, 3, 5), 4, (1, 1), 1, 0, 0, 0, 0)
    conv2d("conv2d.uneven", (1, 5, 4, 2), 3, (3, 2), 1, 2, 0, 0, 1)
    conv2d("conv2d.wide", (2, 8, 8, 40), 70, (3, 3), 1, 1, 1, 1, 1)
    groupnorm("groupnorm.plain", (2, 3, 2, 4), 2, 1e-6, False)
    groupnorm("groupnorm.silu", (2, 3, 5, 64), 32, 1e-5, True)
    layernorm("layernorm", 9, 33, 1e-5)
    attention("attention.self", 2, 5, 5, 2, 4, False)
    attention("attention.cross", 2, 17, 77, 3, 40, False)
    attention("attention.causal", 2, 33, 33, 2, 16, True)
    activation("activation.silu", F.silu)
    activation("activation.gelu", F.gelu)
    activation("activation.quick_gelu", lambda x: x * torch.sigmoid(1.702 * x))
    activation("activation.relu", F.relu)
    activation("activation.tanh3", lambda x: 3.0 * torch.tanh(x / 3.0))
    geglu("geglu", 4, 5)
    sums()
    layout()
    embedding()
    diffusion()
    optimizer()
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "op_vectors.h"))


if __name__ == "__main__":
    main()
