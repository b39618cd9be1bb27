#!/usr/bin/env python3
"""Ten steps of every optimizer on the same gradients, beside the Python package that sd-scripts takes it from.

    optim_peers.py BUILD_DIR [--only NAME]

Gradients have a common direction and noise; tensors are a matrix, a vector, 3x3 and 1x1 convolutions and a matrix of
a second group with its own rate, which gets no gradient in the last steps. Weights are compared after every step.
torch takes square roots from MKL, which rounds some of them the other way: here they are rounded correctly, so that
AdamW, SGD and Lion can be asked for equal bits. The 8-bit optimizers are compared with bitsandbytes' algorithm (its
CUDA kernels') in numpy, blocks in memory order, and more loosely with its CPU code. Each run also passes its state
through its listing in the middle, and runs on 1 and 3 threads.
Ends with "N passed, N failed, N skipped"; exit status 1 on failure.
"""
import argparse
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitsandbytes.functional
import bitsandbytes.optim
import dadaptation
import lion_pytorch
import numpy as np
import prodigyopt
import schedulefree
import torch
import transformers
from dadaptation.experimental.dadapt_adam_preprint import DAdaptAdamPreprint
from diffusers.training_utils import EMAModel

STEPS = 10
FREEZE = 8
SHAPES = {"matrix": (48, 96), "vector": (77,), "conv": (16, 40, 3, 3), "point": (24, 17, 1, 1), "te.matrix": (70, 64)}
F = np.float32


class Score:
    passed = failed = 0

    def check(self, what, good, note):
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {what}: {note}", flush=True)


def correct_sqrt(t):
    return torch.from_numpy(np.sqrt(t.detach().numpy()))


def make_data(seed, spread=3.0):
    """Values and STEPS gradients by name; rows of the gradient differ in size by up to 10^spread."""
    rng = np.random.default_rng(seed)
    values = {n: (0.1 * rng.standard_normal(s)).astype(F) for n, s in SHAPES.items()}
    grads = []
    direction = {n: rng.standard_normal(s) for n, s in SHAPES.items()}
    size = {n: 10.0 ** rng.uniform(-spread, 0, (s[0],) + (1,) * (len(s) - 1)) for n, s in SHAPES.items()}
    for _ in range(STEPS):
        grads.append({n: (1e-2 * size[n] * (direction[n] + 0.5 * rng.standard_normal(s))).astype(F)
                      for n, s in SHAPES.items()})
    return values, grads


def ours(build, folder, name, rates, values, grads, settings, resume=4, threads=1):
    """Weights after each step, by name, then the weights to save, and what the driver printed."""
    shapes = " ".join(f"{n}:{','.join(map(str, s))}" for n, s in SHAPES.items())
    data = [values, *grads]
    np.concatenate([d[n].ravel() for d in data for n in SHAPES]).tofile(os.path.join(folder, "in"))
    done = subprocess.run([os.path.join(build, "tests", "optim_driver"), name, *map(repr, rates), str(STEPS),
                           str(FREEZE), str(resume), str(threads), shapes, os.path.join(folder, "in"),
                           os.path.join(folder, "out"), *settings], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    flat = np.fromfile(os.path.join(folder, "out"), F)
    result, at = [], 0
    for _ in range(STEPS + 1):
        step = {}
        for n, s in SHAPES.items():
            step[n] = flat[at:at + np.prod(s)].reshape(s)
            at += np.prod(s)
        result.append(step)
    return result, done.stdout


def torch_run(make, rates, values, grads, ema_decay=None):
    """The same by a torch optimizer; make(groups) builds it. With ema_decay diffusers' average is what is saved."""
    params = {n: torch.nn.Parameter(torch.from_numpy(v.copy())) for n, v in values.items()}
    groups = [{"params": [p for n, p in params.items() if not n.startswith("te.")]},
              {"params": [p for n, p in params.items() if n.startswith("te.")]}]
    if rates is not None:
        for group, rate in zip(groups, rates):
            group["lr"] = rate
    optimizer = make(groups)
    if hasattr(optimizer, "train"):
        optimizer.train()
    average = EMAModel(params.values(), decay=ema_decay) if ema_decay is not None else None
    result = []

    def snapshot():
        return {n: p.detach().numpy().copy() for n, p in params.items()}

    for step, grad in enumerate(grads):
        for n, p in params.items():
            p.grad = None if n.startswith("te.") and step >= FREEZE else torch.from_numpy(grad[n].copy())
        optimizer.step()
        result.append(snapshot())
        if average is not None:
            average.step(params.values())
    if average is not None:
        average.copy_to(params.values())
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    return result + [snapshot()], optimizer


# ---- bitsandbytes' blockwise optimizers (kOptimizerStatic8bit*StateBlockwise) in numpy ---------------

MAPS = [bitsandbytes.functional.create_dynamic_map(signed=s).numpy().astype(F) for s in (True, False)]
BLOCK = 256


def encode(x, code):
    """Codes and scales of a flat array, and what they stand for."""
    codes = np.zeros(x.size, np.uint8)
    scales = np.zeros(-(-x.size // BLOCK), F)
    middle = (code[1:] + code[:-1]) * F(0.5)
    for b in range(scales.size):
        part = slice(b * BLOCK, (b + 1) * BLOCK)
        scales[b] = np.abs(x[part]).max()
        scaled = x[part] / scales[b] if scales[b] > 0 else x[part]
        c = np.searchsorted(middle, scaled)
        if code[0] < 0:
            wrong = np.signbit(code[c]) != np.signbit(scaled)
            c = c + np.where(wrong, np.where(scaled > 0, 1, -1), 0)
        codes[part] = c
    return code[codes] * np.repeat(scales, BLOCK)[:x.size]


def memory_order(a):
    return a.transpose(0, 2, 3, 1).ravel() if a.ndim == 4 else a.ravel()


def file_order(flat, shape):
    return flat.reshape(shape[0], shape[2], shape[3], shape[1]).transpose(0, 3, 1, 2) if len(shape) == 4 \
        else flat.reshape(shape)


def numpy_8bit(kind, rates, values, grads, wd, b1, b2, eps=1e-8):
    result = []
    p = {n: memory_order(v).copy() for n, v in values.items()}
    m = {n: np.zeros_like(v) for n, v in p.items()}
    v2 = {n: np.zeros_like(v) for n, v in p.items()}
    for t, grad in enumerate(grads, 1):
        for n in SHAPES:
            if n.startswith("te.") and t > FREEZE:
                continue
            lr, g = rates[n.startswith("te.")], memory_order(grad[n])
            if kind == "adam":
                c1, c2 = 1 - b1**t, np.sqrt(1 - b2**t)
                m[n] = F(b1) * m[n] + F(1 - b1) * g
                v2[n] = F(b2) * v2[n] + F(1 - b2) * g * g
                p[n] = p[n] + F(-lr * c2 / c1) * (m[n] / (np.sqrt(v2[n]) + F(eps * c2)))
                p[n] = p[n] * F(1 - lr * wd)
            elif kind == "lion":
                p[n] = p[n] * F(1 - lr * wd) - F(lr) * np.sign(F(b1) * m[n] + F(1 - b1) * g)
                m[n] = F(b2) * m[n] + F(1 - b2) * g
            else:
                g = g + F(wd) * p[n]
                m[n] = g if t == 1 else F(b1) * m[n] + g
                p[n] = p[n] - F(lr) * m[n]
            if p[n].size >= 4096:
                m[n] = encode(m[n], MAPS[0])
                v2[n] = encode(v2[n], MAPS[1])
        result.append({n: file_order(p[n], SHAPES[n]).copy() for n in SHAPES})
    return result + [result[-1]]


# ---- the comparison --------------------------------------------------------------------------------

def movement_error(got, want, values):
    """
    Largest over steps and tensors: |difference| over |movement since the start|, both L2, after half a unit in the
    last place of every weight is taken off the difference (a small step rounds to that).
    """
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        for n in SHAPES:
            moved = np.linalg.norm((b[n].astype(np.float64) - values[n]).ravel())
            error = np.linalg.norm((a[n].astype(np.float64) - b[n]).ravel())
            error = max(0.0, error - 2.0**-24 * np.linalg.norm(b[n].ravel()))
            worst = max(worst, error / moved if moved > 0 else error)
    return worst


def different_bits(got, want):
    return sum(int((a[n] != b[n]).sum()) for a, b in zip(got, want, strict=True) for n in SHAPES)


def cases():
    """(our name, settings, rates, peer's (values, grads) -> (steps, optimizer or None), equal bits asked for, limit)"""
    def adamw(groups, **kw):
        return torch.optim.AdamW(groups, foreach=False, **kw)

    two, one = (1e-3, 5e-4), (1.0, 1.0)

    def peer(make, rates, ema_decay=None):
        return lambda values, grads: torch_run(make, rates, values, grads, ema_decay)[0]

    def simple(name, settings, make, rates=two, bits=False, limit=1e-6):
        return (name, settings, rates, peer(make, rates), bits, limit)

    yield simple("AdamW", [], adamw, bits=True)
    for decay in (0.9999, 0.3):  # that of the first ten updates is below the one, above the other
        yield ("AdamW", [f"ema_decay={decay}"], two, peer(adamw, two, decay), False, 1e-6)
    yield simple("AdamW", ["weight_decay=0.1", "betas=0.8,0.95", "eps=1e-6"],
                 lambda g: adamw(g, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6), bits=True)
    yield simple("AdamW", ["betas=(0.3, 0.9)"], lambda g: adamw(g, betas=(0.3, 0.9)), bits=True)
    yield simple("Lion", ["weight_decay=0.2"], lambda g: lion_pytorch.Lion(g, weight_decay=0.2), bits=True)
    yield simple("SGDNesterov", ["weight_decay=0.01", "momentum=0.8"],
                 lambda g: torch.optim.SGD(g, lr=1e-3, momentum=0.8, nesterov=True, weight_decay=0.01, foreach=False),
                 rates=(1e-1, 5e-2), bits=True)
    for settings, kw in (([], {}), (["weight_decay=0.01", "use_bias_correction=True", "d_coef=2.0"],
                                    {"weight_decay": 0.01, "use_bias_correction": True, "d_coef": 2.0}),
                         (["safeguard_warmup=True", "beta3=0.9", "growth_rate=1.5", "decouple=False",
                           "weight_decay=0.1"],
                          {"safeguard_warmup": True, "beta3": 0.9, "growth_rate": 1.5, "decouple": False,
                           "weight_decay": 0.1})):
        yield simple("Prodigy", settings, lambda g, kw=kw: prodigyopt.Prodigy(g, **kw), rates=one, limit=1e-5)
    yield simple("Prodigy", [], prodigyopt.Prodigy, rates=(1.0, 0.0), limit=1e-5)
    yield simple("DAdaptAdam", ["decouple=True", "weight_decay=0.01", "growth_rate=4"],
                 lambda g: dadaptation.DAdaptAdam(g, decouple=True, weight_decay=0.01, growth_rate=4), rates=one,
                 limit=1e-5)
    yield simple("DAdaptAdam", ["weight_decay=0.01", "use_bias_correction=True"],
                 lambda g: dadaptation.DAdaptAdam(g, weight_decay=0.01, use_bias_correction=True), rates=one,
                 limit=1e-5)
    yield simple("DAdaptation", ["d0=1e-5"], lambda g: DAdaptAdamPreprint(g, d0=1e-5), rates=one, limit=1e-5)
    yield simple("DAdaptAdamPreprint", ["decouple=True", "weight_decay=0.1"],
                 lambda g: DAdaptAdamPreprint(g, decouple=True, weight_decay=0.1), rates=one, limit=1e-5)
    yield simple("DAdaptLion", ["weight_decay=0.1"], lambda g: dadaptation.DAdaptLion(g, weight_decay=0.1), rates=one,
                 limit=1e-5)
    for name, settings, kw in (("AdaFactor", [], {}),
                               ("AdaFactor", ["warmup_init=True"], {"warmup_init": True}),
                               ("AdaFactor", ["scale_parameter=False", "weight_decay=0.1"],
                                {"scale_parameter": False, "weight_decay": 0.1})):
        yield (name, settings, two, peer(lambda g, kw=kw: transformers.Adafactor(g, **kw), None), False, 1e-5)
    yield simple("AdaFactor", ["relative_step=False", "scale_parameter=False", "beta1=0.9", "clip_threshold=0.5",
                               "eps=1e-20,1e-2", "decay_rate=-0.7"],
                 lambda g: transformers.Adafactor(g, relative_step=False, scale_parameter=False, beta1=0.9,
                                                  clip_threshold=0.5, eps=(1e-20, 1e-2), decay_rate=-0.7), limit=1e-5)
    yield simple("AdaFactor", ["relative_step=False"], lambda g: transformers.Adafactor(g, relative_step=False),
                 limit=1e-5)
    yield simple("AdamWScheduleFree", ["warmup_steps=4", "weight_decay=0.1", "r=0.5"],
                 lambda g: schedulefree.AdamWScheduleFree(g, warmup_steps=4, weight_decay=0.1, r=0.5, foreach=False),
                 limit=1e-5)
    yield simple("RAdamScheduleFree", ["betas=0.9,0.9"],
                 lambda g: schedulefree.RAdamScheduleFree(g, betas=(0.9, 0.9), foreach=False), limit=1e-5)
    yield simple("RAdamScheduleFree", ["silent_sgd_phase=False"],
                 lambda g: schedulefree.RAdamScheduleFree(g, silent_sgd_phase=False, foreach=False), limit=1e-5)
    yield simple("SGDScheduleFree", ["momentum=0.8", "weight_decay=0.1"],
                 lambda g: schedulefree.SGDScheduleFree(g, momentum=0.8, weight_decay=0.1, foreach=False),
                 rates=(1e-1, 5e-2), limit=1e-5)
    for name, kind, settings, hyper, rates in (
            ("AdamW8bit", "adam", [], (0.01, 0.9, 0.999), two),
            ("PagedAdamW8bit", "adam", ["weight_decay=0.2", "betas=0.8,0.9"], (0.2, 0.8, 0.9), two),
            ("Lion8bit", "lion", ["weight_decay=0.1"], (0.1, 0.9, 0.99), two),
            ("SGDNesterov8bit", "momentum", ["momentum=0.8", "weight_decay=0.01"], (0.01, 0.8, 0.0), (1e-1, 5e-2))):
        yield (name, settings, rates,
               lambda values, grads, kind=kind, hyper=hyper, rates=rates: numpy_8bit(kind, rates, values, grads, *hyper),
               False, 1e-6)


def loose_cases():
    """
    bitsandbytes itself on this CPU: coarser codes, other blocks in convolutions, and the weight decay before the
    update, so without it. Gradients of one size: where they differ by 10^3 in a block, v becomes 0 in either code.
    """
    two = (1e-3, 5e-4)
    yield "AdamW8bit", ["weight_decay=0"], two, lambda g: bitsandbytes.optim.AdamW8bit(g, weight_decay=0.0), 0.05
    yield "PagedAdamW32bit", ["weight_decay=0"], two, lambda g: bitsandbytes.optim.AdamW(g, weight_decay=0.0), 1e-5
    yield "SGDNesterov8bit", [], (1e-1, 5e-2), lambda g: bitsandbytes.optim.SGD8bit(g, lr=1e-3, momentum=0.9), 0.05


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    torch.Tensor.sqrt = correct_sqrt
    score = Score()
    with tempfile.TemporaryDirectory(prefix="dreamrun-optim-") as folder:
        for seed, (name, settings, rates, peer, bits, limit) in enumerate(cases()):
            if args.only is not None and args.only != name:
                continue
            what = " ".join([name, *settings])
            values, grads = make_data(seed)
            try:
                got, _ = ours(args.build, folder, name, rates, values, grads, settings)
                again, _ = ours(args.build, folder, name, rates, values, grads, settings, resume=-1, threads=3)
                want = peer(values, grads)
            except Exception as e:  # whatever a peer raises
                score.check(what, False, f"{type(e).__name__}: {e}")
                continue
            error = movement_error(got, want, values)
            score.check(what, error <= limit, f"{error:.2e} (at most {limit:.0e})")
            if bits:
                n = different_bits(got, want)
                score.check(f"{what}, equal bits", n == 0, f"{n} weights differ")
            n = different_bits(got, again)
            score.check(f"{what}, state through its listing, 1 and 3 threads", n == 0, f"{n} weights differ")
        for name, settings, rates, make, limit in loose_cases():
            if args.only is not None and args.only != name:
                continue
            values, grads = make_data(99, 0.0)
            got, _ = ours(args.build, folder, name, rates, values, grads, settings)
            want, _ = torch_run(make, rates, values, grads)
            error = movement_error(got, want, values)
            score.check(f"{name} beside bitsandbytes on a CPU", error <= limit, f"{error:.2e} (at most {limit:.0e})")
    print(f"{score.passed} passed, {score.failed} failed, 0 skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
