#!/usr/bin/env python3
"""Times loading a model into f32 memory beside torch and safetensors, in alternating runs. Reports only.

    bench_load.py BUILD_DIR [--gib 4] [--rounds 3] [--threads 1,2] [--dir /tmp] [--half]

The file (random values in the shapes of an SD 1.x U-Net's layers, repeated up to the size) is made on the spot and
removed. Every program reads it from the page cache into memory of its own: for safetensors that means a clone of each
tensor, whose pages would else be the file's. A row shows minima of the rounds, the peer's time over ours, and the same of CPU seconds, which other
programs disturb less.

Needs torch and safetensors; as much memory as the f32 weights take, twice.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

SHAPES = [(320, 4, 3, 3), (320,), (320, 320, 3, 3), (1280, 320), (1280,), (640, 640, 3, 3), (1280, 1280, 3, 3),
          (1280, 1280), (10240, 1280), (10240,), (1280, 5120), (1280, 2560, 3, 3), (77, 768), (3072, 768)]

PEERS = {
    "safetensors": "from safetensors.torch import load_file as load",
    "ckpt": "import functools, torch; load = functools.partial(torch.load, weights_only=True)",
}
PEER_PROGRAM = """
import sys, time, torch
{load}
torch.set_num_threads({threads})
start, cpu = time.perf_counter(), time.process_time()
state = load(sys.argv[1])
state = state.get("state_dict", state)
for name, t in state.items():
    state[name] = t.clone() if {clone} and t.dtype == torch.float32 else t.float()
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def make_file(path, kind, n_bytes, half):
    """In a process of its own, whose memory is gone afterwards."""
    program = f"""
import torch
from safetensors.torch import save_file
state, left, i = {{}}, {n_bytes}, 0
while left > 0:
    for shape in {SHAPES}:
        t = torch.full(shape, float(i % 7) / 3, dtype=torch.{'float16' if half else 'float32'})
        state[f"layer.{{i}}.weight"] = t
        left -= t.numel() * t.element_size()
        i += 1
if "{kind}" == "ckpt":
    torch.save({{"state_dict": state, "epoch": 1, "global_step": 2}}, "{path}")
else:
    save_file(state, "{path}", metadata={{"format": "pt"}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def peer_seconds(kind, path, threads):
    program = PEER_PROGRAM.format(load=PEERS[kind], threads=threads, clone=kind == "safetensors")
    done = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True)
    return tuple(map(float, done.stdout.split()))


def our_seconds(build, path, threads):
    done = subprocess.run([os.path.join(build, "tests", "bench_load"), path, str(threads)], check=True,
                          capture_output=True)
    return json.loads(done.stdout)


def measure(args, kind, folder):
    path = os.path.join(folder, "model")
    make_file(path, kind, int(args.gib * 2**30), args.half)
    for threads in map(int, args.threads.split(",")):
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(our_seconds(args.build, path, threads))
            theirs.append(peer_seconds(kind, path, threads))
        best = min(ours, key=lambda x: x["total_s"])
        wall, cpu = min(t[0] for t in theirs), min(t[1] for t in theirs)
        our_cpu = min(x["cpu_s"] for x in ours)
        print(f"| {kind}, {os.path.getsize(path) / 2**30:.1f} GiB {'F16' if args.half else 'F32'}, {threads} threads "
              f"| {min(x['open_s'] for x in ours) * 1e3:.1f} ms | {best['total_s']:.2f} s | {wall:.2f} s "
              f"| {wall / best['total_s']:.2f} | {our_cpu:.2f} s | {cpu:.2f} s | {cpu / our_cpu:.2f} |", flush=True)
    os.remove(path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--gib", type=float, default=4)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--dir", default="/tmp")
    p.add_argument("--half", action="store_true")
    args = p.parse_args()
    print("| file | open | dreamrun, all | peer | peer / ours | CPU, dreamrun | peer | peer / ours |\n"
          "|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        for kind in PEERS:
            measure(args, kind, folder)


if __name__ == "__main__":
    main()
