#!/usr/bin/env python3
"""Loss curves of 16-bit runs beside the f32 run, on real photos, and the memory they take. Reports only.

    bench_precision.py BUILD_DIR [--steps 200] [--json FILE]

A small model of SD topology (U-Net 64-96-128-128, 8 groups), 128 px, batch 2, AdamW 1e-4 constant, text encoder trained.
The same seed gives the same samples, noise and timesteps in every run, so curves are compared step by step.

columns worst   largest |loss - f32 loss| / f32 loss of a step
        mean    the same, averaged over the steps
        last    losses of the last 50 steps, averaged, over those of the f32 run, minus one
        skipped steps that fp16 left out
        plan    the memory that the run said it needs

Needs the interop environment (tests/interop/requirements.txt). Photos from $DR_SHARED/dreambooth.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))

import photo_folders
import tiny_models

SPEC = dict(tiny_models.SD1, channels=(64, 96, 128, 128), heads=8, groups=8, layers=2, context=64, clip_layers=3)
MODES = {
    "f32": (),
    "bf16": ("--mixed_precision=bf16",),
    "fp16": ("--mixed_precision=fp16",),
    "full bf16": ("--mixed_precision=bf16", "--full_bf16"),
    "full fp16": ("--mixed_precision=fp16", "--full_fp16"),
}
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def run(build, folder, steps, flags):
    """([progress of a step], planned bytes)."""
    command = [os.path.join(build, "bin", "train_db"), f"--pretrained_model_name_or_path={folder}/model",
               f"--train_data_dir={folder}/train", f"--output_dir={folder}/out", "--resolution=128", "--seed=1",
               "--learning_rate=1e-4", "--train_batch_size=2", "--progress=json", "--cache_latents",
               f"--max_train_steps={steps}", "--save_precision=float", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-1500:]}")
    number, unit = re.search(r"memory: needs ([\d.]+) (\w+) per rank", done.stderr).groups()
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], float(number) * UNITS[unit]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny_models.write_tokenizer(args.build, os.path.join(folder, "tokenizer"), False)
        tiny_models.write_model(os.path.join(folder, "model"), SPEC, tokenizer, 1)
        for i, (subject, n) in enumerate((("dog", 5), ("cat", 5), ("backpack", 4))):
            photo_folders.write_folder(os.path.join(folder, "train"), f"{4 + i}_sks {subject}", subject, n)
        print(f"{'':10}{'worst':>10}{'mean':>10}{'last':>10}{'skipped':>9}{'plan MiB':>10}")
        for name, flags in MODES.items():
            steps, plan = run(args.build, folder, args.steps, flags)
            losses = [s["loss"] for s in steps]
            base = results.setdefault("f32", {"losses": losses})["losses"]
            off = [abs(a - b) / b for a, b in zip(losses, base, strict=True)]
            last = sum(losses[-50:]) / sum(base[-50:]) - 1.0
            results[name] = {"losses": losses, "worst": max(off), "mean": sum(off) / len(off), "last": last,
                             "skipped": steps[-1]["skipped_steps"], "plan_bytes": plan}
            print(f"{name:10}{max(off):10.2e}{sum(off) / len(off):10.2e}{last:+10.2e}{steps[-1]['skipped_steps']:9}"
                  f"{plan / 2**20:10.1f}", flush=True)
    if args.json:
        with open(args.json, "w", encoding="ascii") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
