#!/usr/bin/env python3
"""Compares dreamrun's safetensors and latent cache with the official library and h5py.

    io_peers.py BUILD_DIR        (needs safetensors, numpy, torch, h5py)

- files written by safetensors: we read the same names, dtypes, shapes, bytes, metadata
- our copies of them: byte for byte what safetensors writes, and read back by it
- files made by hand, good and bad: accepted or refused exactly as safetensors does, except for the
  two points where io/safetensors.h is stricter
- a latent cache: h5py opens every file; keys, values and attributes match; a file that h5py wrote
  anew is read by us

Ends with "N passed, N failed"; exit status 1 when something failed.
"""
import glob
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

NUMPY_TYPES = [np.bool_, np.uint8, np.int8, np.int16, np.float16, np.int32, np.float32, np.float64,
               np.int64]


class Driver:
    def __init__(self, build):
        self.path = os.path.join(build, "tests", "io_driver")

    def run(self, *args):
        """(exit status, stdout, stderr)"""
        done = subprocess.run([self.path, *map(str, args)], capture_output=True, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def list(self, path):
        code, out, err = self.run("list", path)
        if code != 0:
            return None, err
        *tensors, meta = [json.loads(line) for line in out.splitlines()]
        return tensors, meta["metadata"]


class Score:
    passed = failed = 0

    def compare(self, question, got, want):
        if got == want:
            self.passed += 1
            return
        self.failed += 1
        if self.failed <= 20:
            print(f"FAILED {question}\n  dreamrun {str(got)[:300]}\n  expected {str(want)[:300]}")


def random_tensors(rng, n):
    tensors = {}
    for i in range(n):
        dtype = NUMPY_TYPES[rng.randrange(len(NUMPY_TYPES))]
        shape = [rng.randrange(0, 5) for _ in range(rng.randrange(0, 5))]
        name = rng.choice(["unet.down", "te", "größe", "a\"b\\c", "z\t", "犬"]) + f".{i}.weight"
        raw = rng.randbytes(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)
        values = np.frombuffer(raw, dtype=np.uint8)
        if dtype == np.bool_:
            values = values & 1
        tensors[name] = values.view(dtype).reshape(shape)
    return tensors


def check_round_trips(driver, score, folder):
    rng = random.Random(1)
    for case, n in enumerate([0, 1, 2, 3, 5, 8, 20, 50, 200, 5000]):
        tensors = random_tensors(rng, n)
        meta = [None, {"format": "pt"}, {"ss_\"tag\"\n": "b\u00e4r \x01\x7f/"}][case % 3]
        theirs, ours = (os.path.join(folder, f"{who}{case}.safetensors") for who in "to")
        save_file(tensors, theirs, metadata=meta)
        listed, got_meta = driver.list(theirs)
        score.compare(f"metadata of {n} tensors", got_meta, meta or {})
        want = [(t["name"], t["dtype"], t["shape"], t["hex"]) for t in listed or []]
        official = sorted(deserialize(open(theirs, "rb").read()), key=lambda x: x[0])
        score.compare(f"{n} tensors as deserialize gives them", sorted(want),
                      [(name, t["dtype"], t["shape"], bytes(t["data"])[:256].hex())
                       for name, t in official])
        code, _, err = driver.run("copy", theirs, ours)
        score.compare(f"copy of {n} tensors", (code, err), (0, ""))
        score.compare(f"bytes of {n} tensors", open(ours, "rb").read() == open(theirs, "rb").read(),
                      True)
        back = load_file(ours)
        score.compare(f"our {n} tensors in numpy", {k: (v.dtype, v.shape, v.tobytes())
                                                    for k, v in back.items()},
                      {k: (v.dtype, v.shape, v.tobytes()) for k, v in tensors.items()})
        with safe_open(ours, "np") as f:
            score.compare("our metadata", f.metadata(), meta)


def check_several_metadata_keys(driver, score, folder):
    """The official writer shuffles several keys: compare what is read, not bytes."""
    theirs, ours = os.path.join(folder, "mt"), os.path.join(folder, "mo")
    meta = {f"ss_{i}": str(i) for i in range(40)}
    save_file({"x": np.zeros(3, np.float32)}, theirs, metadata=meta)
    score.compare("40 metadata keys", driver.list(theirs)[1], meta)
    score.compare("copy", driver.run("copy", theirs, ours)[0], 0)
    with safe_open(ours, "np") as f:
        score.compare("our 40 metadata keys", f.metadata(), meta)


def check_bfloat16_and_foreign_types(driver, score, folder):
    path, ours = os.path.join(folder, "types"), os.path.join(folder, "types_o")
    types = [torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float32, torch.uint8,
             torch.int8, torch.int16, torch.int32, torch.float64]
    save_torch({f"{t}.{name}": torch.tensor([1, 0, 1], dtype=t) for t in types for name in "ba"},
               path, metadata={"format": "pt"})
    score.compare("copy of all types", driver.run("copy", path, ours)[0], 0)
    score.compare("bytes of all types", open(ours, "rb").read(), open(path, "rb").read())
    for dtype, size in [("F8_E4M3", 8), ("F8_E5M2", 8), ("F8_E8M0", 8), ("U16", 16), ("U32", 32),
                        ("U64", 64), ("C64", 64), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)]:
        open(path, "wb").write(make_file({"q": entry([8], 0, size, dtype)}, bytes(size)))
        score.compare(f"{dtype} by us", [t["dtype"] for t in driver.list(path)[0] or []], [dtype])
        score.compare(f"{dtype} by safetensors", accepted_officially(path), True)
        code, _, err = driver.run("copy", path, ours)
        score.compare(f"{dtype} is not copied", (code, dtype in err), (64, True))


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def make_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def accepted_officially(path):
    try:
        deserialize(open(path, "rb").read())
        return True
    except (SafetensorError, ValueError):
        return False


def hand_made():
    a = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    four = bytes(4)
    yield "no tensors", make_file({})
    yield "trailing bytes", make_file({}, four)
    yield "gap", make_file({"a": entry([1], 0, 4), "b": entry([1], 5, 9)}, bytes(9))
    yield "start gap", make_file({"a": entry([1], 4, 8)}, bytes(8))
    yield "overlap", make_file({"a": entry([1], 0, 4), "b": entry([1], 3, 7)}, bytes(7))
    yield "truncated", make_file({"a": entry([1], 0, 4)}, bytes(3))
    yield "wrong size", make_file({"a": entry([2], 0, 4)}, four)
    yield "scalar", make_file({"a": entry([], 0, 4)}, four)
    yield "empty name", make_file({"": entry([1], 0, 4)}, four)
    yield "zero sizes", make_file({"a": entry([1], 0, 4), "z": entry([0], 0, 0),
                                   "y": entry([3, 0], 4, 4)}, four)
    yield "zero size inside", make_file({"a": entry([1], 0, 4), "z": entry([0], 2, 2)}, four)
    yield "overflow", make_file({"a": entry([2**40, 2**40, 0], 0, 0)})
    yield "key order", make_file({"b": entry([1], 4, 8), "a": entry([1], 0, 4)}, bytes(8))
    yield "space before and after", make_file(b" \n{" + a + b"} \n ", four)
    yield "odd header", make_file(b"{" + a + b"}" + b" " * (len(a) % 2 + 1), four)
    yield "NUL padding", make_file(b"{" + a + b"}\0\0", four)
    yield "text after", make_file(b"{" + a + b"}x", four)
    yield "extra field", make_file(b'{"a":{"q":1,"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                                   four)
    yield "real in shape", make_file(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
                                     four)
    yield "negative size", make_file({"a": entry([-1], 0, 4)}, four)
    yield "three offsets", make_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}',
                                     four)
    yield "no dtype", make_file(b'{"a":{"shape":[1],"data_offsets":[0,4]}}', four)
    yield "unknown dtype", make_file({"a": entry([1], 0, 4, "F31")}, four)
    yield "lower case", make_file({"a": entry([1], 0, 4, "f32")}, four)
    yield "metadata null", make_file({"__metadata__": None, "a": entry([1], 0, 4)}, four)
    yield "metadata last", make_file({"a": entry([1], 0, 4), "__metadata__": {"k": "v"}}, four)
    yield "metadata number", make_file({"__metadata__": {"k": 1}})
    yield "metadata list", make_file({"__metadata__": []})
    yield "odd F4", make_file({"a": entry([3], 0, 2, "F4")}, bytes(2))
    yield "array", make_file(b"[]")
    yield "not UTF-8", make_file(b'{"\xff":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four)
    yield "empty header", make_file(b"")
    yield "no file at all", b""
    yield "short length", b"\1\2\3"
    yield "length past the end", struct.pack("<Q", 100) + b"{}"
    yield "length over the limit", struct.pack("<Q", 100_000_001) + b"{}"
    yield "length of all ones", b"\xff" * 8 + b"{}"


STRICTER = {  # accepted by safetensors, refused by us: see io/safetensors.h
    "duplicate name": make_file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "NUL in a name": make_file(b'{"a\\u0000":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
                               bytes(4)),
}


def check_hand_made(driver, score, folder):
    path = os.path.join(folder, "hand")
    for name, data in hand_made():
        open(path, "wb").write(data)
        code, _, err = driver.run("list", path)
        score.compare(name, code, 0 if accepted_officially(path) else 65)
        score.compare(f"{name}: a message when refused", bool(err), code != 0)
    for name, data in STRICTER.items():
        open(path, "wb").write(data)
        score.compare(f"{name}: stricter", driver.run("list", path)[0], 65)


def check_mutations(driver, score, folder):
    """Single-byte damage to a header: we accept what safetensors accepts, save the known points."""
    rng = random.Random(2)
    good = make_file({"__metadata__": {"k": "v"}, "a": entry([2], 0, 8),
                      "b": entry([3], 8, 11, "U8")}, bytes(11))
    path = os.path.join(folder, "mutant")
    for i in range(300):
        data = bytearray(good)
        data[rng.randrange(len(data) - 11)] = rng.choice(b'0123456789-.,:[]{}" xabUF')
        open(path, "wb").write(data)
        code = driver.run("list", path)[0]
        official = accepted_officially(path)
        duplicate = data.count(b'"a"') == 2 or data.count(b'"b"') == 2
        score.compare(f"mutant {i}: {bytes(data)}", code, 0 if official and not duplicate else 65)


def check_cache(driver, score, folder, n=100):
    cache = os.path.join(folder, "cache")
    score.compare("fill", driver.run("cache_fill", cache, n), (0, "", ""))
    files = sorted(glob.glob(os.path.join(cache, "latents-*.h5")))
    score.compare("segments", (len(files), len(os.listdir(cache))), (2, 2))
    seen = {}
    for path in files:
        with h5py.File(path) as f:
            score.compare("format", f.attrs["format"], b"dreamrun latents 1")
            for key, data in f["latents"].items():
                seen[data.attrs["image"].decode()] = (key, data[...], dict(data.attrs))
    score.compare("entries", len(seen), n)
    for i in range(n):
        key, data, attrs = seen[f"10_sks dog/bär {i}.png"]
        want = ((i * 1000 + np.arange(192)) / 8).astype("<f4").reshape(4, 6, 8)
        score.compare(f"values {i}", (data.dtype, data.shape, data.tobytes()),
                      (want.dtype, want.shape, want.tobytes()))
        score.compare(f"attributes {i}",
                      (len(key), attrs["bucket"], attrs["crop"], attrs["vae"], attrs["dtype"],
                       int(attrs["flip"]), len(attrs["xxh3"]), len(attrs)),
                      (32, b"64x48", b"0,3", b"", b"f32", i % 2, 32, 9))
    score.compare("check", driver.run("cache_check", cache, n), (0, f"{n}\n", ""))
    rewrite_by_h5py(files[0])
    score.compare("file rewritten by h5py", driver.run("cache_check", cache, n), (0, f"{n}\n", ""))


def rewrite_by_h5py(path):
    """The same content in a file that h5py makes, in its own choice of HDF5 structures."""
    with h5py.File(path) as old, h5py.File(path + ".new", "w", libver=("earliest", "v110")) as new:
        old.copy("latents", new)
        new.attrs.create("format", old.attrs["format"], dtype="S18")
    os.replace(path + ".new", path)


def main():
    driver, score = Driver(sys.argv[1]), Score()
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_round_trips, check_several_metadata_keys,
                      check_bfloat16_and_foreign_types, check_hand_made, check_mutations,
                      check_cache):
            check(driver, score, folder)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
