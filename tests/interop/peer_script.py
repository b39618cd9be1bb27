"""What the scripts that train and compare with peers share: their command line, folder and last line."""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time

import diffusers
import torch
import transformers


def run(score, prefix, also, body):
    """body(build folder, work folder, wanted(name)); also: names that --only takes beside those of cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--only", help=f"cases whose name holds this text; also {also}")
    parser.add_argument("--keep", help="folder for models, pictures and results, kept")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    start = time.monotonic()
    folder = args.keep or tempfile.mkdtemp(prefix=f"dreamrun-{prefix}-")
    try:
        body(os.path.abspath(args.build), folder, lambda name: args.only is None or args.only in name)
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{time.monotonic() - start:.0f} s")
    print(f"{score.passed} passed, {score.failed} failed, {score.skipped} skipped")
    return 1 if score.failed else 0


def run_sections(score, place, checks, wanted):
    """checks: (name, function of score and place)."""
    for name, check in checks:
        if wanted(name):
            with score.section(name):
                check(score, place)
