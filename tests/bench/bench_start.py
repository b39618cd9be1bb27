#!/usr/bin/env python3
"""bench_start.py BUILD [--rounds N] - how long until a user sees something.

Pairs, in turn: the first line of a training of the tiny model (train_db itself, dreamrun launch with one rank)
beside the first line of a script that only prints, started by accelerate launch (DR_VENV); and two ranks of
`train_db --help` by dreamrun launch beside mpirun alone. Medians, in seconds, from the start of the process.
"""
import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ENV = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_MCA_", "DREAMRUN_"))}
ENV |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def first_line(command):
    """Seconds to the first line of output; the program is then ended."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENV) as run:
        line = run.stdout.readline()
        took = time.perf_counter() - began
        run.kill()
        run.stdout.read()
    if not line:
        raise SystemExit(f"no output: {command}")
    return took


def whole(command):
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV, check=True)
    return time.perf_counter() - began


def show(name, times):
    print(f"{name:55} median {statistics.median(times):.3f} s, least {min(times):.3f} s, most {max(times):.3f} s")


def pairs(how, rounds, **commands):
    """Times of the commands in turn; a round before the first is not counted."""
    times = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            took = how(command)
            if number > 0:
                times[name].append(took)
    for name, values in times.items():
        show(name, values)
    first, second = list(times.values())[:2]
    differences = [a - b for a, b in zip(first, second)]
    print(f"  difference of the first two, median of pairs: {1e3 * statistics.median(differences):.1f} ms")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("build")
    options.add_argument("--rounds", type=int, default=9)
    args = options.parse_args()
    bin_dir = Path(args.build) / "bin"
    launch = [bin_dir / "dreamrun", "launch"]
    with tempfile.TemporaryDirectory() as work:
        model, data, hello = f"{work}/tiny", f"{work}/data", Path(work) / "hello.py"
        hello.write_text("print('hello', flush=True)\n")
        for words in (["init_model", "tiny", model], ["make_pictures", data, "--n", "4", "--size", "128"]):
            subprocess.run([bin_dir / "dreamrun", *words], check=True, stdout=subprocess.DEVNULL)
        train = ["--pretrained_model_name_or_path", model, "--train_data_dir", f"{data}/train", "--resolution", "64",
                 "--output_dir", f"{work}/out", "--max_train_steps", "2"]
        pairs(first_line, args.rounds, **{"first line: dreamrun launch train_db": [*launch, "train_db", *train],
                                          "first line: train_db": [bin_dir / "train_db", *train]})
        mpirun = ["mpirun", "-n", "2", "--bind-to", "none", "--oversubscribe", "--mca", "btl", "^tcp,openib"]
        pairs(whole, args.rounds, **{
            "two ranks, --help: dreamrun launch": [*launch, "--num_processes", "2", "--oversubscribe", "train_db", "--help"],
            "two ranks, --help: mpirun": [*mpirun, bin_dir / "train_db", "--help"]})
        peer = Path(os.environ.get("DR_VENV", "")) / "bin" / "accelerate"
        if peer.exists():
            pairs(first_line, max(2, args.rounds // 3), **{
                "first line: dreamrun launch train_db": [*launch, "train_db", *train],
                "first line: accelerate launch, a script that prints": [peer, "launch", "--cpu", "--num_processes", "1", hello]})


if __name__ == "__main__":
    main()
