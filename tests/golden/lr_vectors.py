#!/usr/bin/env python3
"""Writes tests/golden/data/lr_vectors.h: factors of diffusers' and transformers' get_scheduler.

Run with a Python that has torch, diffusers and transformers:  python tests/golden/lr_vectors.py
"""
import pathlib

import diffusers
import torch
import transformers
from diffusers.optimization import get_scheduler

STEPS = 200
# name, total steps, warm-up, cycles, power, base lr; then what only some have: decay steps, time scale, least ratio,
# rules
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
    ("piecewise_constant", 200, 0, 1, 1.0, 1e-4, {"rules": "1:10,0.1:20,0.01"}),
    ("piecewise_constant", 200, 0, 1, 1.0, 1e-4, {"rules": "0.5"}),
    ("piecewise_constant", 200, 0, 1, 1.0, 1e-4, {"rules": "0:5,2:150,1.5:151,0"}),
    ("inverse_sqrt", 200, 0, 1, 1.0, 1e-4),
    ("inverse_sqrt", 200, 25, 1, 1.0, 1e-4),
    ("inverse_sqrt", 200, 25, 1, 1.0, 1e-4, {"timescale": 300}),
    ("cosine_with_min_lr", 200, 0, 1, 1.0, 1e-4, {"least": 0.0}),
    ("cosine_with_min_lr", 180, 17, 1, 1.0, 1e-4, {"least": 0.1}),
    ("cosine_with_min_lr", 200, 20, 3, 1.0, 1e-4, {"least": 0.25}),
    ("warmup_stable_decay", 200, 0, 1, 1.0, 1e-4, {"decay": 50}),
    ("warmup_stable_decay", 190, 20, 1, 1.0, 1e-4, {"decay": 60, "least": 0.1}),
    ("warmup_stable_decay", 150, 10, 3, 1.0, 1e-4, {"decay": 140, "least": 0.2}),
]


def factors(name, total, warmup, cycles, power, lr, decay=0, timescale=0, least=0.0, rules=None):
    """As sd-scripts' get_scheduler_fix asks for them."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    if name == "inverse_sqrt":
        schedule = transformers.optimization.get_inverse_sqrt_schedule(optimizer, warmup, timescale or None)
    elif name == "cosine_with_min_lr":
        schedule = transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, warmup, total, num_cycles=cycles / 2, min_lr_rate=least)
    elif name == "warmup_stable_decay":
        schedule = transformers.optimization.get_wsd_schedule(
            optimizer, warmup, decay, num_stable_steps=total - warmup - decay, min_lr_ratio=least,
            num_cycles=cycles / 2)
    else:
        schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total,
                                 num_cycles=cycles, power=power, step_rules=rules)
    return [float(schedule.lr_lambdas[0](step)) for step in range(STEPS)]


def main():
    out = [f"/* Made by tests/golden/lr_vectors.py with diffusers {diffusers.__version__}, "
           f"transformers {transformers.__version__}. */",
           "#ifndef DR_LR_VECTORS_H", "#define DR_LR_VECTORS_H", "",
           f"enum {{ LR_STEPS = {STEPS} }};", "", "typedef struct lr_vector {",
           "    const char *name;", "    int total, warmup, cycles;", "    double power, base_lr;",
           "    int decay, timescale;", "    double least;", "    const char *rules;",
           "    double factor[LR_STEPS];", "} lr_vector;", "",
           "static const lr_vector lr_vectors[] = {"]
    for name, total, warmup, cycles, power, lr, *more in CASES:
        more = more[0] if more else {}
        rules = f'"{more["rules"]}"' if "rules" in more else "NULL"
        out.append(f'    {{"{name}", {total}, {warmup}, {cycles}, {power!r}, {lr!r}, {more.get("decay", 0)}, '
                   f'{more.get("timescale", 0)}, {more.get("least", 0.0)!r}, {rules},')
        line = "     {"
        for v in factors(name, total, warmup, cycles, power, lr, **more):
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
