#!/usr/bin/env python3
"""Times training beside diffusers, on this machine, in alternating runs. Reports only: nothing passes or fails.

    bench_train.py BUILD_DIR [--quick] [--threads 2] [--rounds 5] [--json FILE]

rows    U-Net of SD 1.5, 256 px, batch 1, f32: forward and backward, and the process's peak memory (not --quick)
        a tiny U-Net (1.4 M parameters, 32x32 latents): the same
        a whole step of a tiny model: text states, U-Net, clipping, AdamW
        start: from exec to the end of the first step, pictures encoded (5 photos, 256 px)
columns the minimum over all rounds; a round runs each program once, one after the other. "tuned" is diffusers
        with a malloc that keeps freed memory. "x" is the better of the two over ours. "other" is how many cores
        other programs used during our best run: above 0.2 the numbers say little.

Needs the interop environment (tests/interop/requirements.txt). Photos from $DR_SHARED/dreambooth.
"""
import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}
RESOLUTION = 256


def busy_s():
    """CPU seconds that the whole machine has worked."""
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / os.sysconf("SC_CLK_TCK")


def run(command, extra_env):
    """([JSON objects of stdout], seconds to the first of them, cores that other programs used)."""
    start, busy, own = time.perf_counter(), busy_s(), resource.getrusage(resource.RUSAGE_CHILDREN)
    lines, first = [], None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=dict(os.environ, **extra_env)) as process:
        for line in process.stdout:
            if line.startswith("{"):
                first = time.perf_counter() - start if first is None else first
                lines.append(json.loads(line))
        errors = process.stderr.read()
    if process.returncode != 0 or not lines:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{errors[-1500:]}")
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    return lines, first, max(0.0, busy_s() - busy - mine) / wall


class Row:
    """One comparison: programs by name, and what to take from their output."""

    def __init__(self, title, programs, measure):
        self.title, self.programs, self.measure = title, programs, measure
        self.best, self.other = {}, 0.0

    def round(self):
        for name, (command, env) in self.programs.items():
            lines, first, other = run(command, env)
            for key, value in self.measure(lines, first).items():
                best = self.best.setdefault(key, {})
                if name == "dreamrun" and value < best.get(name, float("inf")):
                    self.other = other
                best[name] = min(value, best.get(name, float("inf")))

    def report(self):
        for key, best in self.best.items():
            peer = min(best["diffusers"], best["tuned"])
            numbers = "".join(f"{best[name]:12.4g}" for name in ("dreamrun", "diffusers", "tuned"))
            print(f"{self.title:34}{key:10}{numbers}{peer / best['dreamrun']:8.2f}{self.other:8.2f}", flush=True)


def with_peer(ours, peer):
    command = [sys.executable, os.path.join(HERE, "peer_step.py"), *map(str, peer)]
    return {"dreamrun": (list(map(str, ours)), {}), "diffusers": (command, {}), "tuned": (command, TUNED)}


def unet_row(build, title, network, threads, repetitions):
    arguments = [network, 32, threads, repetitions]
    programs = with_peer([os.path.join(build, "tests", "bench_unet"), *arguments], ["unet", *arguments])
    return Row(title, programs, lambda lines, _: {"s": lines[0]["min_s"], "GiB": lines[0]["rss_gib"]})


def train_programs(build, folder, threads, steps):
    model, data = os.path.join(folder, "model"), os.path.join(folder, "data")
    ours = [os.path.join(build, "bin", "train_db"), f"--pretrained_model_name_or_path={model}",
            f"--train_data_dir={data}", f"--output_dir={folder}/out", f"--resolution={RESOLUTION}",
            f"--max_train_steps={steps}", "--stop_text_encoder_training=-1", "--cache_latents", "--seed=1",
            "--learning_rate=1e-5", "--progress=json", f"--num_cpu_threads_per_process={threads}"]
    return with_peer(ours, ["train", model, data, RESOLUTION, steps, threads])


def make_inputs(build, folder):
    import photo_folders
    import tiny_models

    spec = dict(tiny_models.SD1, heads=8, layers=2)
    tokenizer = tiny_models.write_tokenizer(build, os.path.join(folder, "tokenizer"), False)
    tiny_models.write_model(os.path.join(folder, "model"), spec, tokenizer, seed=0)
    photo_folders.write_folder(os.path.join(folder, "data"), "20_sks dog", "dog", 5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--quick", action="store_true", help="one round of the tiny rows, to see that it runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file for the numbers")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes
    build = os.path.abspath(args.build)
    with tempfile.TemporaryDirectory(prefix="dreamrun-bench-") as folder:
        make_inputs(build, folder)
        repetitions = 10 if args.quick else 40
        rows = [unet_row(build, "tiny U-Net, forward+backward", "tiny", args.threads, repetitions),
                Row("tiny model, whole step", train_programs(build, folder, args.threads, 5 if args.quick else 30),
                    lambda lines, _: {"s": min(x["step_s"] for x in lines[1:])}),
                Row("start to the end of step 1", train_programs(build, folder, args.threads, 1),
                    lambda _, first: {"s": first})]
        if not args.quick:
            rows.insert(0, unet_row(build, "SD 1.5 U-Net 256 px, fwd+bwd", "sd15", args.threads, 2))
        print(f"{'':34}{'':10}{'dreamrun':>12}{'diffusers':>12}{'tuned':>12}{'x':>8}{'other':>8}", flush=True)
        for row in rows:
            for _ in range(1 if args.quick else args.rounds):
                row.round()
            row.report()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({row.title: row.best for row in rows}, f, indent=1)


if __name__ == "__main__":
    main()
