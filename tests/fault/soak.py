#!/usr/bin/env python3
"""soak.py BIN_DIR [FOLDER] [--faults N] [--seed S] [--seconds L] [--program train_db|train_network]

One training job over N faults in a row (default 100). Ranks are killed, stopped, leave or find the disk full at
random steps or writes; the launcher is killed, or told to stop; the newest state is cut off or a bit of it turned;
every start may have another number of ranks. After each fault the job must go on from a state at least as new as
every whole one that it had announced; when it is done its weights and optimizer are those of a run without faults,
bit for bit, and no process and no temporary file is left.

FOLDER keeps the job: with --seconds it stops between two faults after that time, and the same command goes on;
without it the job lies in a temporary folder, which goes at the end unless something failed.
CI does ten faults (tests/fault/CMakeLists.txt).
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SHARDS = 3
HANG_S = 2
LIMIT_S = 120  # of one start, on a busy machine
INSIDE = ["kill", "kill", "exit", "stop", "enospc", "save"]  # --inject, at a random place
SIGNALS = ["term", "usr1", "int", "launcher", "rank"]
DAMAGE = ["cut", "flip"]
SAVED = re.compile(r"saved \S+-state: epoch \d+, step (\d+)$")
RESUMED = re.compile(r"resumed from \S+: epoch \d+, step (\d+) of|(--resume auto: no state)")


def fail(text):
    print("0 passed, 1 failed")
    raise SystemExit(f"soak: {text}")


class Job:
    def __init__(self, args):
        self.bin = pathlib.Path(args.bin).resolve()
        self.dir = pathlib.Path(args.folder or tempfile.mkdtemp(prefix="dreamrun_soak.")).resolve()
        self.program = args.program
        self.out = self.dir / "out"
        self.record = self.dir / "record.json"
        self.known = {"faults": 0, "starts": 0, "announced": 0, "kinds": {}, "seconds": 0.0,
                      "seed": args.seed, "program": args.program}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "SLURM_", "DREAMRUN_"))}
        self.env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "HOME": str(self.dir),
                     "XDG_CONFIG_HOME": str(self.dir), "OMPI_MCA_btl": "self,vader", "OMPI_MCA_mpi_yield_when_idle": "1",
                     "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "ASAN_OPTIONS": "detect_leaks=0", "SOURCE_DATE_EPOCH": "1700000000"}

    def prepare(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        if self.record.exists():
            found = json.loads(self.record.read_text())
            if (found["seed"], found["program"]) != (self.known["seed"], self.known["program"]):
                fail(f"{self.dir} holds another job: {found}")
            self.known = found
            return
        for command in (["make_pictures", "data", "--n", "4", "--size", "64"], ["init_model", "tiny", "model"]):
            subprocess.run([self.bin / "dreamrun", *command], cwd=self.dir, env=self.env, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.keep()

    def keep(self):
        self.record.write_text(json.dumps(self.known))

    def command(self, out, ranks, steps, options=(), flags=()):
        lora = ["--network_module", "networks.lora", "--network_dim", "4"] if self.program == "train_network" else []
        return [str(self.bin / "dreamrun"), "launch", "--num_processes", str(ranks), "--oversubscribe",
                "--restart_delay", "0", "--hang_timeout", str(HANG_S), *options, self.program,
                "--pretrained_model_name_or_path", "model", "--train_data_dir", "data/train", "--output_dir", str(out),
                "--num_cpu_threads_per_process", "1", "--resolution", "64", "--seed", "1", "--learning_rate", "1e-4",
                "--virtual_shards", str(SHARDS), "--max_train_steps", str(steps), "--progress", "json", *lora, *flags]

    def processes(self):
        """Those of this job, by their command line or, for what mpirun started, their environment."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    text = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.out).encode() in text:
                    found.append((int(entry.name), text.split(b"\0")))
        return found

    def wait_until_gone(self):
        end = time.monotonic() + 10
        while self.processes():
            if time.monotonic() > end:
                fail(f"processes outlive the run: {self.processes()}")
            time.sleep(0.02)

    def states(self):
        """Step and folder of each state that is whole as far as sizes tell, the newest first."""
        found = []
        for path in self.out.glob("*-state"):
            try:
                manifest = json.loads((path / "manifest.json").read_text())
                good = all((path / f["name"]).stat().st_size == f["bytes"] for f in manifest["files"])
                step = json.loads((path / "train_state.json").read_text())["current_step"]
            except (OSError, ValueError, KeyError):
                continue
            if good:
                found.append((step, path))
        return sorted(found, reverse=True)

    def announced(self):
        return self.known["announced"]

    def read(self, line):
        """What a run says of its states."""
        saved, resumed = SAVED.search(line), RESUMED.search(line)
        if saved:
            self.known["announced"] = max(self.announced(), int(saved.group(1)))
        if resumed:
            step = int(resumed.group(1) or 0)
            if step < self.announced():
                fail(f"step {self.announced()} was saved, but the run went on from step {step}")
            return step
        return None


def place(rng, at, kind, ranks):
    """Where an injected fault strikes: soon after the step at, or in one of the first saves."""
    if kind == "save":
        return f"kill:rank=0,write={rng.randint(1, 60)}"
    if kind == "enospc":
        return f"enospc:rank=0,write={rng.randint(8, 60)}"
    code = ",code=9" if kind == "exit" else ""
    return f"{kind}:rank={rng.randrange(ranks)},step={at + rng.randint(1, 2)}{code}"


def damage(job, rng, kind):
    """Cuts off a file of the newest state, or turns a bit of it; what it held is announced no more."""
    states = job.states()
    if len(states) < 2:
        return False
    path = rng.choice([p for p in states[0][1].iterdir() if p.stat().st_size > 0])
    size = path.stat().st_size
    if kind == "cut":
        os.truncate(path, rng.choice([0, 1, size // 2, size - 2]))
    else:
        with open(path, "r+b") as f:
            f.seek(rng.randrange(size))
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 1 << rng.randrange(8)]))
    job.known["announced"] = min(job.announced(), states[1][0])
    return True


def strike(job, rng, kind, launcher):
    """From outside, into a run that makes steps. False: there was nothing to strike."""
    if kind == "rank":
        ranks = [pid for pid, argv in job.processes() if argv[0].endswith(job.program.encode())]
        if not ranks:
            return False
        os.kill(rng.choice(ranks), signal.SIGKILL)
    else:
        number = {"term": signal.SIGTERM, "usr1": signal.SIGUSR1, "int": signal.SIGINT, "launcher": signal.SIGKILL}[kind]
        launcher.send_signal(number)
    return True


def follow(job, rng, run, inside, outside, log):
    """Reads a start's lines to its end, and strikes from outside when the faults inside are over. Returns the
    faults that were seen to happen."""
    wanted, made, attempt, full = rng.randint(1, 2), 0, 1, set()
    waiting = outside in SIGNALS
    done = []
    began = time.monotonic()
    for line in run.stdout:
        log.write(line)
        job.read(line)
        if "starting again (attempt" in line:
            done += [kind for kind in inside[attempt - 1:attempt] if kind != "enospc"]
            attempt, made = attempt + 1, 0
        if "No space left on device" in line and attempt not in full:
            full.add(attempt)
            done.append("enospc")
        if line.startswith('{"step"'):
            made += 1
            over = made >= wanted + (0 if attempt > len(inside) else 5)
            if over and waiting and strike(job, rng, outside, run):
                done.append(outside)
                waiting = outside == "rank"  # after which the launcher starts again: then it is told to stop
                outside = "term" if waiting else outside
                made = -9 if waiting else made
        if time.monotonic() > began + LIMIT_S:
            run.kill()
            fail("a start takes too long")
    return done


def expected(kinds, code):
    """The exit codes that the faults of a start may end it with."""
    codes = {0}
    for kind in kinds:
        codes |= {"term": {75}, "usr1": {75}, "int": {75}, "launcher": {137}, "enospc": {71}}.get(kind, set())
    return code in codes


def one_start(job, rng, log):
    """One launch with up to two faults that the launcher recovers from and one more from outside."""
    inside = [rng.choice(INSIDE) for _ in range(rng.randint(0, 2))]
    outside = rng.choice(SIGNALS + DAMAGE)
    ranks = rng.randint(1, SHARDS)
    at = max([s for s, _ in job.states()] or [0])
    specs = []
    for attempt, kind in enumerate(inside, 1):
        specs.append(f"{place(rng, at, kind, ranks)},attempt={attempt}")
        at += 2
    damaged = [outside] if outside in DAMAGE and damage(job, rng, outside) else []
    options = ["--max_restarts", "9", "--restart_policy", "always"]
    options += ["--inject", ";".join(specs)] if specs else []
    steps = 1000000 if outside in SIGNALS else at + 2
    log.write(f"=== start {job.known['starts'] + 1}: {ranks} ranks, inside {specs}, outside {outside}\n")
    log.flush()
    run = subprocess.Popen(job.command(job.out, ranks, steps, options, [
        "--resume", "auto", "--save_state", "--save_every_n_steps", "1", "--save_last_n_steps", "1",
        "--save_last_n_steps_state", "3"]), cwd=job.dir, env=job.env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, errors="replace")
    done = damaged + follow(job, rng, run, inside, outside, log)
    code = run.wait()
    code = 128 - code if code < 0 else code
    job.wait_until_gone()
    log.write(f"=== ended with {code}: {done}\n")
    log.flush()
    if not expected(inside + done, code):
        fail(f"a start with the faults {inside + [outside]} ended with {code}")
    job.known["starts"] += 1
    job.known["faults"] += len(done)
    job.known["kinds"] = dict(collections.Counter(job.known["kinds"]) + collections.Counter(done))


def same_files(a, b):
    if a.read_bytes() != b.read_bytes():
        fail(f"{a} and {b} differ")


def finish(job, log):
    """The last start, without a fault, against a run that never had one."""
    steps = max(s for s, _ in job.states()) + 2
    for out, flags in ((job.out, ["--resume", "auto"]), (job.dir / "straight", [])):
        got = subprocess.run(job.command(out, SHARDS - 1, steps, [], ["--save_state", *flags]), cwd=job.dir, env=job.env,
                             text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500)
        log.write(got.stdout)
        if got.returncode != 0:
            fail(f"{out}: exit code {got.returncode}\n{got.stdout[-2000:]}")
        if out == job.out:
            for line in got.stdout.splitlines():
                job.read(line)
    for straight in sorted((job.dir / "straight").rglob("*.safetensors")):
        same_files(straight, job.out / straight.relative_to(job.dir / "straight"))
    left = [p.name for p in job.out.iterdir() if ".tmp" in p.name]
    if left:
        fail(f"left behind: {left}")
    return steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--program", default="train_db", choices=["train_db", "train_network"])
    args = parser.parse_args()
    if shutil.which("mpirun") is None:
        print("0 passed, 0 failed, 1 skipped: no mpirun")
        return 77
    job = Job(args)
    job.prepare()
    began = time.monotonic()
    before = job.known["seconds"]
    with open(job.dir / "log", "a") as log:
        while job.known["faults"] < args.faults and time.monotonic() < began + args.seconds:
            one_start(job, random.Random(f"{args.seed} {job.known['starts']}"), log)
            job.known["seconds"] = before + time.monotonic() - began
            job.keep()
        k = job.known
        print(f"{k['faults']} faults in {k['starts']} starts, {k['seconds']:.0f} s: "
              + ", ".join(f"{n} {kind}" for kind, n in sorted(k["kinds"].items())) + f"; step {job.announced()}", flush=True)
        if k["faults"] < args.faults:
            print("not done: the same command goes on")
            return 0
        steps = finish(job, log)
    if args.folder is None:
        shutil.rmtree(job.dir)
    print(f"step {steps}: the bits of a run without faults, no announced state lost\n1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
