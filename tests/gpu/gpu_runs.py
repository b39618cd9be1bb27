"""tests/gpu/gpu_runs.py - runs of the trainer on a GPU for tests/gpu/full_size.py and tests/bench/gpu/bench.

Only Python's own library. `kind` is real, or emulated: then models and pictures are tiny, and memory is not
measured.
"""
import json
import re
import statistics
import subprocess
import threading
import time
from pathlib import Path

GIB = 2.0**30


class Run:
    """What one run of the trainer showed."""

    def __init__(self):
        self.rc = None
        self.steps = []  # JSON lines, one per step
        self.error = ""
        self.plan_bytes = None
        self.peak_bytes = None

    def ms(self):
        """Median of the steps after the second; None without steps."""
        times = [1e3 * s["step_s"] for s in self.steps[2:]] or [1e3 * s["step_s"] for s in self.steps]
        return statistics.median(times) if times else None


def used_by(pid):
    """Bytes of GPU memory of the process as the driver counts them, or None."""
    try:
        lines = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    found = [int(mib) for line in lines for p, mib in [line.split(",")] if int(p) == pid and mib.strip().isdigit()]
    return sum(found) * 2**20 if found else None


class Peak(threading.Thread):
    """Looks at a process's GPU memory until it ends."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.ended = pid, None, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            now = used_by(self.pid)
            if now is not None:
                self.most = max(self.most or 0, now)


def parse_size(text):
    number, unit = re.match(r"([\d.]+) (B|KiB|MiB|GiB|TiB)", text).groups()
    return float(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]


class Material:
    """Models and pictures, made once by dreamrun in a folder."""

    def __init__(self, tools, work, kind):
        self.tools, self.work, self.kind = Path(tools), Path(work), kind
        self.work.mkdir(parents=True, exist_ok=True)

    def make(self, *arguments):
        subprocess.run([str(self.tools / "dreamrun"), *map(str, arguments)], check=True,
                       stdout=subprocess.DEVNULL)

    def model(self, name):
        path = self.work / name
        if not path.exists():
            self.make("init_model", {"sd1": "tiny", "sd2v": "tiny2v"}[name] if self.kind == "emulated" else name,
                      path)
        return path

    def pictures(self, pixels):
        path = self.work / f"pictures{pixels}"
        if not path.exists():
            self.make("make_pictures", path, "--n", 4, "--size", pixels)
        return path / "train"


def train(program, model, pictures, out, flags, seconds, measure):
    """One run; flags is a list."""
    command = [str(program), "--pretrained_model_name_or_path", str(model), "--train_data_dir", str(pictures),
               "--output_dir", str(out), "--seed", "1", "--progress", "json", *map(str, flags)]
    run = Run()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
        peak = Peak(p.pid)
        if measure:
            peak.start()
        timer = threading.Timer(seconds, p.kill)
        timer.start()
        stdout, stderr = p.communicate()
        timer.cancel()
        peak.ended.set()
    run.rc = p.returncode
    run.peak_bytes = peak.most
    for line in stdout.splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            if "step_s" in fields:
                run.steps.append(fields)
    plan = re.search(r"needs ([\d.]+ \w+) per rank", stderr)
    run.plan_bytes = parse_size(plan.group(1)) if plan else None
    errors = [line for line in stderr.splitlines() if "error: " in line]
    run.error = errors[0] if errors else ("killed after %d s" % seconds if run.rc < 0 else "")
    return run


def gib(value):
    return "-" if value is None else "%.2f" % (value / GIB)


def now():
    return time.monotonic()
