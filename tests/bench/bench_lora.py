#!/usr/bin/env python3
"""Times LoRA training beside diffusers + peft, on this machine, in alternating runs. Reports only: nothing passes or fails.

    bench_lora.py BUILD_DIR MODEL [--rows f32,checkpointing,bf16] [--resolution 512] [--steps 3] [--rounds 1] [--threads 2]

MODEL   Stable Diffusion 1.5 in any form train_network reads (`dreamrun init_model sd1 MODEL`: the numbers do not matter)
rows    f32; checkpointing: the same with it, on both sides; bf16: ours with --mixed_precision bf16 beside the peer's f32
columns the least seconds of a step but the first, and the most resident memory of the process over its whole life (what
        VmHWM says: start, loading and encoding included). Both sides hold the frozen text encoder and run it in each
        step; rank 4 on all 192 modules of the U-Net's transformer blocks, batch 1, AdamW, clipping. Each number is the
        least of the rounds; "ratio" is ours over the peer's.

Needs the interop environment (tests/interop/requirements.txt). One photo from $DR_SHARED/dreambooth.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import bench_train
import photo_folders

ROWS = {"f32": ([], 0), "checkpointing": (["--gradient_checkpointing"], 1), "bf16": (["--mixed_precision=bf16"], 0)}


def run(command, environment):
    """(least step_s but the first, most resident GiB)"""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(command, stdout=out, stderr=err, env=dict(os.environ, **environment)) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        lines = [json.loads(line) for line in out if line.startswith("{")]
        steps = [line["step_s"] for line in lines if "step_s" in line]
        if process.returncode != 0 or len(steps) < 2:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{err.read()[-1500:]}")
    return min(steps[1:]), usage.ru_maxrss / 2**20


def programs(args, folder, row):
    ours, checkpointing = ROWS[row]
    command = [os.path.join(args.build, "bin", "train_network"), f"--pretrained_model_name_or_path={args.model}",
               f"--train_data_dir={folder}", f"--output_dir={folder}/out", f"--resolution={args.resolution}",
               "--network_module=networks.lora", "--network_dim=4", "--network_train_unet_only", "--cache_latents",
               f"--max_train_steps={args.steps}", "--seed=1", "--progress=json",
               f"--num_cpu_threads_per_process={args.threads}", *ours]
    peer = ["lora", args.resolution // 8, args.steps, args.threads, checkpointing]
    peer = [sys.executable, os.path.join(bench_train.HERE, "peer_step.py"), *map(str, peer)]
    return {"dreamrun": (command, {}), "peft": (peer, {}), "tuned": (peer, bench_train.TUNED)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--programs", default="dreamrun,peft,tuned", help="of these; tuned: a malloc that keeps memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamrun-bench-") as folder:
        photo_folders.write_folder(folder, "1_sks dog", "dog", 1)
        for row in args.rows.split(","):
            best = {}
            for _ in range(args.rounds):
                for name, (command, environment) in programs(args, folder, row).items():
                    if name in args.programs.split(","):
                        pair = run(command, environment)
                        best[name] = tuple(map(min, pair, best.get(name, pair)))
            for name, (seconds, gib) in best.items():
                ours = best.get("dreamrun", (float("nan"),) * 2)
                ratio = f"ratio {ours[0] / seconds:.2f} {ours[1] / gib:.2f}"
                print(f"{row:16}{name:14}{seconds:8.2f} s{gib:8.2f} GiB   {ratio}", flush=True)


if __name__ == "__main__":
    main()
