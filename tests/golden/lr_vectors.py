#!/usr/bin/env python3
"""Writes tests/golden/data/lr_vectors.h: factors of diffusers.optimization.get_scheduler.

Run with a Python that has torch and diffusers:  python tests/golden/lr_vectors.py
"""
import pathlib

import diffusers
import torch
from diffusers.optimization import get_scheduler

STEPS = 200
# name, total steps, warm-up, cycles, power, base lr
CASES = [
    ("constant", 200, 0, 1, 1.0, 1e-4),
    ("constant_with_warmup", 200, 0, 1, 1.0, 1e-4),
    ("constant_with_warmup", 200, 1, 1, 1.0, 1e-4),
    ("constant_with_warmup", 200, 33, 1, 1.0, 1e-4),
    ("linear", 200, 0, 1, 1.0, 1e-4),
    ("linear", 200, 20, 1, 1.0, 1e-4),
    ("linear", 150, 150, 1, 1.0, 1e-4),
    ("linear", 100, 130, 1, 1.0, 1e-4),
    ("cosine", 200, 0, 1, 1.0, 1e-4),
    ("cosine", 200, 50, 4, 1.0, 1e-4),
    ("cosine", 120, 7, 1, 1.0, 1e-4),
    ("cosine_with_restarts", 200, 0, 1, 1.0, 1e-4),
    ("cosine_with_restarts", 200, 20, 3, 1.0, 1e-4),
    ("cosine_with_restarts", 170, 9, 7, 1.0, 1e-4),
    ("polynomial", 200, 0, 1, 1.0, 1e-4),
    ("polynomial", 200, 20, 1, 2.0, 1e-4),
    ("polynomial", 180, 11, 1, 0.5, 3e-6),
    ("polynomial", 180, 11, 1, 3.0, 2e-7),
]


def factors(name, total, warmup, cycles, power, lr):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total,
                             num_cycles=cycles, power=power)
    return [float(schedule.lr_lambdas[0](step)) for step in range(STEPS)]


def main():
    out = [f"/* Made by tests/golden/lr_vectors.py with diffusers {diffusers.__version__}. */",
           "#ifndef DR_LR_VECTORS_H", "#define DR_LR_VECTORS_H", "",
           f"enum {{ LR_STEPS = {STEPS} }};", "", "typedef struct lr_vector {",
           "    const char *name;", "    int total, warmup, cycles;",
           "    double power, base_lr, factor[LR_STEPS];", "} lr_vector;", "",
           "static const lr_vector lr_vectors[] = {"]
    for name, total, warmup, cycles, power, lr in CASES:
        out.append(f'    {{"{name}", {total}, {warmup}, {cycles}, {power!r}, {lr!r},')
        line = "     {"
        for v in factors(name, total, warmup, cycles, power, lr):
            text = f"{v!r}, "
            if len(line) + len(text) > 100:
                out.append(line.rstrip())
                line = "      "
            line += text
        out.append(line.rstrip(", ") + "}},")
    out += ["};", "", "#endif", ""]
    path = pathlib.Path(__file__).parent / "data" / "lr_vectors.h"
    path.write_text("\n".join(out))


if __name__ == "__main__":
    main()
