#!/usr/bin/env python3
"""Measures the table of docs/performance.md again, ours and the peer in turn. Reports only: nothing passes or fails.

    bench_table.py BUILD_DIR FOLDER [--rows NAME,...] [--rounds 5]

FOLDER keeps what is made once and used again: a tiny model, five photos, and for the rows marked "big" a random SD 1.5
(4.3 GB) and a U-Net of half its width. Rows of U-Net compute are bench_train.py's and are started by it.

row          what it measures
unet         bench_train.py: forward and backward of SD 1.5 at 256 px and of a tiny U-Net, the whole tiny step, start
ops          AdamW and the gradient's norm over 860 M parameters, two threads; torch: fused AdamW, clip_grad_norm_
tiny-start   tiny model, latents cached: exec to the end of step 1, median of the spans of --profile
sd15         big: SD 1.5 at 256 px with AdamW and clipping: ready to step after exec, whole step, save, plan against peak
lora         big: the same for a LoRA of rank 4, 256 and 512 px
ranks        big: half-width U-Net, global batch 2: 1 rank x 1 thread at batch 1, 1 x 2, 2 x 1
disk         raw write with fsync and raw read of 3.44 GB, beside "save" of sd15

Needs the interop environment (tests/interop/requirements.txt). Every line is a JSON object; "other" is how many cores
other programs used meanwhile: above 0.2 the numbers say little.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time

import bench_train

HERE = os.path.dirname(os.path.abspath(__file__))
GIB = 2**30
UNET_FLOATS = 859_520_964

PEER_OPTIMIZER = """
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
n, size = 860, 50_000_000 // 50
ps = [torch.nn.Parameter(torch.rand(size) * 1e-3) for _ in range(100)]
for p in ps:
    p.grad = torch.rand(size) * 1e-3
o = torch.optim.AdamW(ps, lr=1e-6, fused=True)
best = {"adamw": 9e9, "clip": 9e9}
for _ in range(8):
    t = time.perf_counter(); o.step(); best["adamw"] = min(best["adamw"], time.perf_counter() - t)
    t = time.perf_counter(); torch.nn.utils.clip_grad_norm_(ps, 1e9); best["clip"] = min(best["clip"], time.perf_counter() - t)
print(json.dumps({k: v * n / 100 for k, v in best.items()}))
"""


def emit(**fields):
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in fields.items()}), flush=True)


class Bench:
    def __init__(self, build, folder, rounds):
        self.build, self.folder, self.rounds = build, folder, rounds

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def tiny(self):
        if not os.path.isdir(self.path("tiny", "data")):
            os.makedirs(self.path("tiny"), exist_ok=True)
            bench_train.make_inputs(self.build, self.path("tiny"))
        return self.path("tiny", "model")

    def sd15(self):
        path = self.path("sd15.safetensors")
        if not os.path.exists(path):
            subprocess.run([os.path.join(self.build, "bin", "dreamrun"), "init_model", "sd1", path], check=True)
        return path

    def half(self):
        """SD 1.5's U-Net at half width under the tiny model's text encoder and VAE."""
        path = self.path("half")
        if not os.path.isdir(path):
            import shutil
            import peer_step
            shutil.copytree(self.tiny(), path + ".new")
            shutil.rmtree(path + ".new/unet")
            config = dict(peer_step.SD15, block_out_channels=(160, 320, 640, 640), cross_attention_dim=32)
            peer_step.make_unet(config).save_pretrained(path + ".new/unet")
            os.rename(path + ".new", path)
        return path

    def train(self, model, steps, *flags, program="train_db", ranks=1, resolution=256):
        """Progress rows, seconds from exec to each of them, the log, and the process's peak (GiB)."""
        self.tiny()
        command = [os.path.join(self.build, "bin", program), f"--pretrained_model_name_or_path={model}",
                   f"--train_data_dir={self.path('tiny', 'data')}", f"--output_dir={self.path('out')}",
                   f"--resolution={resolution}", f"--max_train_steps={steps}", "--seed=1", "--learning_rate=1e-6",
                   "--cache_latents", f"--latent_cache_dir={self.path('cache')}", "--cache_latents_to_disk",
                   "--progress=json", *flags]
        if program == "train_db":
            command.append("--stop_text_encoder_training=-1")
        if ranks > 1:
            command = ["mpirun", "-n", str(ranks), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", *command]
        busy, own, start = bench_train.busy_s(), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        rows, log = [], self.path("log")
        with open(log, "w", encoding="utf-8") as err, \
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as process:
            for line in process.stdout:
                if line.startswith("{"):
                    rows.append(dict(json.loads(line), at_s=time.perf_counter() - start))
            code, usage = os.wait4(process.pid, 0)[1:]
            process.returncode = os.waitstatus_to_exitcode(code)
        wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(log, encoding="utf-8") as f:
            text = f.read()
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{text[-1500:]}")
        mine = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
        other = max(0.0, bench_train.busy_s() - busy - mine) / wall
        return rows, text, {"wall_s": wall, "peak_gib": usage.ru_maxrss / 2**20, "other": other}

    # ---- rows -----------------------------------------------------------------------------------------------------

    def unet(self):
        subprocess.run([sys.executable, os.path.join(HERE, "bench_train.py"), self.build, "--rounds", str(self.rounds)],
                       check=True)

    def ops(self):
        best = {}
        for _ in range(self.rounds):
            out = subprocess.run([os.path.join(self.build, "bin", "bench_ops"), "32", "optimizer"], check=True,
                                 capture_output=True, text=True).stdout
            for line in out.splitlines():
                words = line.split()
                if words[:1] == ["optimizer"]: # milliseconds of 100 Mi elements on two threads
                    ms = float(words[words.index("|") + 1])
                    seconds = ms * 1e-3 * UNET_FLOATS / (100 << 20)
                    best[words[1]] = min(seconds, best.get(words[1], 9e9))
            peer = json.loads(subprocess.run([sys.executable, "-c", PEER_OPTIMIZER, "2"], check=True, capture_output=True,
                                             text=True, env=dict(os.environ, **bench_train.TUNED)).stdout)
            for key, value in peer.items():
                best["torch " + key] = min(value, best.get("torch " + key, 9e9))
        emit(row="ops", **best, ours=best["adamw"] + best["sumsq"], peer=best["torch adamw"] + best["torch clip"])

    def tiny_start(self):
        found = []
        for i in range(self.rounds + 1): # the first fills the cache of latents
            trace = self.path("trace.json")
            for check in ("stop", "off"):
                rows, _, m = self.train(self.tiny(), 1, "--num_cpu_threads_per_process=2", f"--base_check={check}",
                                        f"--profile={trace}")
                with open(trace, encoding="utf-8") as f:
                    spans = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
                starts = {e["name"]: e["dur"] / 1e3 for e in spans if e["cat"] == "start"}
                if i > 0:
                    found.append((check, rows[0]["at_s"], rows[0]["step_s"], starts, m["other"]))
        for check in ("stop", "off"):
            best = min((f for f in found if f[0] == check), key=lambda f: f[1])
            emit(row="tiny-start", base_check=check, end_of_step1_s=best[1], step1_s=best[2], other=best[4],
                 **{f"{k} ms": v for k, v in best[3].items()})

    def big_steps(self, name, steps, *flags, **options):
        trace = self.path("trace.json")
        rows, log, m = self.train(self.sd15(), steps, "--num_cpu_threads_per_process=2", "--base_check=off",
                                  f"--profile={trace}", f"--profile_steps={steps}", *flags, **options)
        with open(trace, encoding="utf-8") as f:
            spans = [e for e in json.load(f)["traceEvents"] if e["ph"] == "X"]
        starts = {e["name"]: e["dur"] / 1e6 for e in spans if e["cat"] == "start"}
        saves = [e["dur"] / 1e6 for e in spans if e["name"] == "save" and e["dur"] > 1e3]
        first = next(e for e in spans if e["name"] == "step")
        parts = {}
        for e in spans:
            if e["tid"] == first["tid"] and e["name"] in ("zero gradients", "norm", "update"):
                parts[e["name"]] = min(e["dur"] / 1e6, parts.get(e["name"], 9e9))
        plan = next(line for line in log.splitlines() if line.startswith("memory:"))
        emit(row=name, ready_s=rows[0]["at_s"] - rows[0]["step_s"], step1_s=rows[0]["step_s"],
             step_s=min(r["step_s"] for r in rows[1:]), faults=[r["page_faults"] for r in rows], save_s=max(saves, default=0.0),
             end_gib=rows[-1]["memory_used_bytes"] / GIB, plan=plan, **m, **parts, **starts)

    def sd15_row(self):
        self.big_steps("sd15", 4)

    def lora(self):
        for px in (256, 512):
            self.big_steps(f"lora {px}", 4, "--network_module=networks.lora", "--network_dim=4",
                           "--network_train_unet_only", program="train_network", resolution=px)

    def ranks_row(self):
        best = {}
        for _ in range(max(1, self.rounds // 2)):
            for ranks, threads, batch in ((1, 1, 1), (1, 2, 2), (2, 1, 1)):
                rows, _, m = self.train(self.half(), 4, f"--num_cpu_threads_per_process={threads}", "--base_check=off",
                                        f"--train_batch_size={batch}", ranks=ranks)
                rate = ranks * batch / min(r["step_s"] for r in rows[1:])
                key = f"{ranks} x {threads} img/s"
                best[key] = max(rate, best.get(key, 0.0))
        emit(row="ranks", **best, scaling=best["2 x 1 img/s"] / (2 * best["1 x 1 img/s"]),
             against_threads=best["2 x 1 img/s"] / best["1 x 2 img/s"], other=m["other"])

    def disk(self):
        block, n, path = bytes(1 << 24), 205, self.path("raw")
        start = time.perf_counter()
        with open(path, "wb", buffering=0) as f:
            for _ in range(n):
                f.write(block)
            os.fsync(f.fileno())
        write_s, start, buffer = time.perf_counter() - start, time.perf_counter(), bytearray(1 << 24)
        with open(path, "rb", buffering=0) as f:
            while f.readinto(buffer):
                pass
        emit(row="disk", write_fsync_s=write_s, read_warm_s=time.perf_counter() - start)
        os.unlink(path)


ROWS = {"unet": Bench.unet, "ops": Bench.ops, "tiny-start": Bench.tiny_start, "sd15": Bench.sd15_row,
        "lora": Bench.lora, "ranks": Bench.ranks_row, "disk": Bench.disk}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("folder")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    bench = Bench(os.path.abspath(args.build), os.path.abspath(args.folder), args.rounds)
    for row in args.rows.split(","):
        ROWS[row](bench)


if __name__ == "__main__":
    main()
