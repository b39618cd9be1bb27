#!/usr/bin/env python3
"""full_size.py --bin GPU_BIN --tools BIN --work DIR --kind real|emulated --table FILE

A full-size model on the GPU: one step in F32 beside the CPU's, then the printed memory plan beside what the
driver measured. Writes the table; the last line of output is the summary. Exit code 1 when a number is off.
"""
import argparse
import os
import sys

import gpu_runs

# One step at 256 pixels. Sums of 1e9 numbers in other orders, and cuBLAS and cuDNN in F32: the loss agrees to
# 1e-5 and the norm to 1e-3 between any two of PyTorch's own backends; no GPU has been measured yet.
LOSS, NORM = 1e-4, 2e-3
RUNS = [
    ("SD1.5 512 f32, batch 1", []),
    ("SD1.5 512 bf16, batch 1", ["--mixed_precision", "bf16"]),
    ("SD1.5 512 bf16, checkpointing", ["--mixed_precision", "bf16", "--gradient_checkpointing"]),
    ("SD1.5 512 full_fp16, 8-bit Adam,", ["--mixed_precision", "fp16", "--full_fp16", "--use_8bit_adam",
                                          "--gradient_checkpointing"]),
]


def parity(a, m, problems):
    pixels = 256 if a.kind == "real" else 64
    flags = ["--resolution", pixels, "--max_train_steps", 1, "--train_batch_size", 1]
    results = []
    for device, program in (("cuda", a.bin), ("cpu", a.tools)):
        out = m.work / f"parity-{device}"
        run = gpu_runs.train(os.path.join(program, "train_db"), m.model("sd1"), m.pictures(pixels), out,
                             [*flags, "--tf32", "off", "--device", device], 200, False)
        if run.rc != 0 or not run.steps:
            problems.append(f"{device}: {run.error or run.rc}")
            return "one step on the CPU and on the GPU: " + problems[-1]
        results.append(run.steps[0])
    off = {key: abs(results[0][key] - results[1][key]) / abs(results[1][key]) for key in ("loss", "grad_norm")}
    if off["loss"] > LOSS or off["grad_norm"] > NORM:
        problems.append("the GPU's step differs from the CPU's")
    return "one step beside the CPU's at %d px: loss differs by %.1e (allowed %.0e), norm by %.1e (%.0e)" % (
        pixels, off["loss"], LOSS, off["grad_norm"], NORM)


def main():
    p = argparse.ArgumentParser()
    for name in ("bin", "tools", "work", "kind", "table"):
        p.add_argument("--" + name, required=True)
    a = p.parse_args()
    m = gpu_runs.Material(a.tools, a.work, a.kind)
    problems = []
    lines = [parity(a, m, problems), "%-34s %9s %9s %9s" % ("GiB", "plan", "driver", "ms/step")]
    pixels, steps = (512, 6) if a.kind == "real" else (64, 1)
    worst = None
    for name, flags in RUNS:
        run = gpu_runs.train(os.path.join(a.bin, "train_db"), m.model("sd1"), m.pictures(pixels), m.work / "out",
                             ["--resolution", pixels, "--max_train_steps", steps, "--train_batch_size", 1,
                              "--device", "cuda", *flags], 120, a.kind == "real")
        if run.rc == 64 or "not available" in run.error:
            lines.append("%-34s %s" % (name, "not in this build: " + run.error))
            continue
        if run.rc != 0:
            problems.append(name)
            lines.append("%-34s FAILED %s" % (name, run.error or run.rc))
            continue
        lines.append("%-34s %9s %9s %9.1f" % (name, gpu_runs.gib(run.plan_bytes), gpu_runs.gib(run.peak_bytes),
                                              run.ms()))
        if run.peak_bytes and run.plan_bytes:
            # The driver counts its own context too, about half a GiB, and cuBLAS's and cuDNN's modules.
            beyond = run.peak_bytes - run.plan_bytes
            worst = beyond if worst is None else max(worst, beyond)
            if beyond > 0.03 * run.plan_bytes + gpu_runs.GIB:
                problems.append(name + ": more memory than planned")
    with open(a.table, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    print("; ".join(problems) or "one step as on the CPU; at most %s GiB beside the plan" % gpu_runs.gib(worst))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
