#!/usr/bin/env python3
"""Tokenizing captions beside transformers' CLIPTokenizer (with ftfy, what sd-scripts uses) and CLIPTokenizerFast.

    python tests/bench/bench_tokenizer.py BUILD/tests/text_driver [ROUNDS]

Each round runs the three one after the other on the same 1000 captions, padded to 77 ids; the numbers are processor
seconds, the least of the rounds, so that other programs matter less. The ids are checked to be equal first.
"""
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

import transformers
from transformers import CLIPTokenizer, CLIPTokenizerFast

REPEATS = 50  # of all captions, for our side
ENGLISH = ("a photo of sks dog sitting on the grass in front of castle, highly detailed, artstation, 1girl, long hair, "
           "(best quality:1.2), 35mm, bokeh, d'Arc's,").split(" ")
ACCENTS = [*ENGLISH, "\u00e9t\u00e9,", "caf\u00e9 noir,", "\u6771\u4eac"]  # nearly every caption has one


def captions(words, n):
    rng = random.Random(1)
    return [" ".join(rng.choices(words, k=rng.randint(4, 40))) for _ in range(n)]


def our_seconds(driver, data):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([driver, "--bench", str(REPEATS)], input=data, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / REPEATS


def peer_seconds(tokenizer, texts):
    start = time.process_time()
    tokenizer(texts, padding="max_length", truncation=True, max_length=77)
    return time.process_time() - start


def main():
    driver, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core for everybody
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([driver, "--save", folder], check=True)
        slow = CLIPTokenizer.from_pretrained(folder)
        fast = CLIPTokenizerFast.from_pretrained(folder)
    assert slow.fix_text is not None, "the peer needs ftfy"
    for what, words in (("English", ENGLISH), ("with accents", ACCENTS)):
        race(what, captions(words, 1000), driver, slow, fast, rounds)


def race(what, texts, driver, slow, fast, rounds):
    data = b"".join(t.encode() + b"\0" for t in texts)
    lines = subprocess.run([driver, "--max_token_length", "75"], input=data, stdout=subprocess.PIPE, check=True).stdout
    ours = [list(map(int, line.split())) for line in lines.decode().splitlines()]
    assert ours == slow(texts, padding="max_length", truncation=True, max_length=77)["input_ids"], "ids differ"
    best = [1e9] * 3
    for _ in range(rounds):
        seconds = our_seconds(driver, data), peer_seconds(slow, texts), peer_seconds(fast, texts)
        best = [min(a, b) for a, b in zip(best, seconds, strict=True)]
    for name, s in zip(("dreamrun", "CLIPTokenizer", "CLIPTokenizerFast"), best, strict=True):
        print(f"{what}, {name}: {len(texts) / s:.0f} captions a second, {s / best[0]:.1f} times our time")


if __name__ == "__main__":
    main()
