#!/usr/bin/env python3
"""Compares dreamrun's reader and writer of torch checkpoints with torch itself.

    torch_peers.py BUILD_DIR        (needs torch, safetensors, numpy)

- what torch.save writes (archive and old stream; views, shared storages, Parameters, every dtype,
  strided tensors, foreign classes beside the state_dict): the same names, shapes and bytes
- what we write: torch.load(weights_only=True), with and without mmap, and zipfile's checksums
- the same archives written again by zipfile: compressed, without checksums, with a comment
- hostile pickles: refused by the name of what they want, nothing runs, memory stays small

Ends with "N passed, N failed"; exit status 1 when something failed.
"""
import argparse
import collections
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch
from safetensors.torch import load_file

MEMORY = 512 << 20  # bytes of address space while a hostile file is read


class Driver:
    def __init__(self, build):
        self.path = os.path.join(build, "tests", "io_driver")

    def run(self, *args, memory=None):
        """(exit status, stdout, stderr)"""
        limit = memory and (lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)))
        done = subprocess.run([self.path, *map(str, args)], capture_output=True, check=False,
                              preexec_fn=limit, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")


class Score:
    passed = failed = 0

    def compare(self, question, got, want):
        if got == want:
            self.passed += 1
            return
        self.failed += 1
        if self.failed <= 20:
            print(f"FAILED {question}\n  dreamrun {str(got)[:400]}\n  expected {str(want)[:400]}")


# ---- what torch writes ----

class ModelCheckpoint:
    """Stands for a class of Lightning: anything can be in its state."""

    def __init__(self):
        self.best = {"score": torch.tensor(0.5), "paths": ["a", ("b", 3)], "n": 1 << 70}


class Settings(dict):
    pass


def many_types():
    types = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32,
             torch.int16, torch.int8, torch.uint8, torch.bool]
    return {str(t): (torch.arange(12).reshape(3, 4) % 5).to(t) for t in types}


def views():
    base = torch.arange(120.)
    grid = base.reshape(2, 3, 4, 5)
    return {"whole": base, "slice": base[7:19], "transposed": grid.permute(3, 1, 0, 2),
            "strided": base[1::7], "column": grid[:, 1, :, 2], "scalar": base[5],
            "channels_last": torch.arange(48.).reshape(1, 3, 4, 4).to(
                memory_format=torch.channels_last),
            "expanded": torch.arange(3.).expand(5, 3), "empty": torch.empty(0, 4),
            "half": torch.arange(10., dtype=torch.float16)[3:8], "one": grid[1:, 2:, 3:, 4:]}


def states():
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4))
    plain = module.state_dict()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    yield "plain", plain, plain
    yield "state_dict", {"state_dict": plain, "epoch": 3, "global_step": 1 << 40}, plain
    yield "twice", {"state_dict": {"state_dict": plain, "x": 1}, "epoch": -7}, plain
    yield "model", {"model": plain, "args": argparse.Namespace(lr=1e-4)}, plain
    yield "module", {"module": plain}, plain
    yield "types", many_types(), many_types()
    yield "views", views(), views()
    yield "named like a wrapper", {"model": torch.ones(2), "b": torch.zeros(1)}, \
        {"model": torch.ones(2), "b": torch.zeros(1)}
    yield "parameters", dict(module.named_parameters()), plain
    yield "names", {"größe.犬": torch.ones(2), "a b\n": torch.zeros(1)}, \
        {"größe.犬": torch.ones(2), "a b\n": torch.zeros(1)}
    yield "many", {f"layer.{i}.weight": torch.full((i % 5,), float(i)) for i in range(3000)}, \
        {f"layer.{i}.weight": torch.full((i % 5,), float(i)) for i in range(3000)}
    yield "lightning", {"callbacks": {ModelCheckpoint: ModelCheckpoint()}, "epoch": 5,
                        "hparams": Settings(lr=np.float64(1e-4), n=np.arange(3)),
                        "optimizer_states": [optimizer.state_dict()], "state_dict": plain,
                        "none": None, "big": 1 << 4000, "set": {1, 2}, "bytes": b"abc",
                        "global_step": 12, "dtype": torch.float16, "size": torch.Size([1])}, plain


def check_tensors(driver, score, question, path, want, folder):
    copy = os.path.join(folder, "copy.safetensors")
    code, _, err = driver.run("copy", path, copy)
    score.compare(f"{question}: read", (code, err), (0, ""))
    if code != 0:
        return
    got = load_file(copy)
    score.compare(f"{question}: names", sorted(got), sorted(want))
    for name, t in want.items():
        same = name in got and got[name].dtype == t.dtype and got[name].shape == t.shape and \
            torch.equal(got[name], t.detach())
        score.compare(f"{question}: {name}", same, True)


def rewritten(path, to, comment=b"", zip64=False, **how):
    """The archive at path again, written by zipfile."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", **how) as new:
        for name in old.namelist():
            with new.open(name, "w", force_zip64=zip64) as entry:
                entry.write(old.read(name))
        new.comment = comment
    return to


def check_torch_files(driver, score, folder):
    path, again = os.path.join(folder, "model.ckpt"), os.path.join(folder, "again.ckpt")
    for name, content, want in states():
        for protocol in (2, 3, 4, 5) if name in ("views", "lightning") else (2, 4):
            torch.save(content, path, pickle_protocol=protocol)
            check_tensors(driver, score, f"{name}, protocol {protocol}", path, want, folder)
            torch.save(content, path, pickle_protocol=protocol,
                       _use_new_zipfile_serialization=False)
            check_tensors(driver, score, f"{name}, stream, protocol {protocol}", path, want, folder)
        torch.save(content, path)
        rewritten(path, again, compression=zipfile.ZIP_DEFLATED)
        check_tensors(driver, score, f"{name}, deflated", again, want, folder)
        rewritten(path, again, comment=b"PK\5\6 a comment" * 100)
        check_tensors(driver, score, f"{name}, comment", again, want, folder)
        rewritten(path, again, zip64=True)
        check_tensors(driver, score, f"{name}, zip64", again, want, folder)
    torch.serialization.set_crc32_options(False)
    torch.save(views(), path)
    torch.serialization.set_crc32_options(True)
    check_tensors(driver, score, "no checksums", path, views(), folder)


def last_line(text):
    return text.splitlines()[-1] if text else ""


def check_facts(driver, score, folder):
    path = os.path.join(folder, "facts.pt")
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3, "global_step": 1 << 40}, path)
    _, out, _ = driver.run("list", path)
    score.compare("numbers", last_line(out),
                  '{"metadata":{},"epoch":3,"global_step":1099511627776,"kind":"ckpt (torch zip)"}')
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    _, out, _ = driver.run("list", path)
    score.compare("stream", last_line(out),
                  '{"metadata":{},"kind":"ckpt (torch stream, before 1.6)"}')
    unreadable = {"f8": torch.zeros(4, dtype=torch.float8_e4m3fn),
                  "u16": torch.zeros(3, dtype=torch.uint16), "c": torch.zeros(2) * 1j}
    for name, t in unreadable.items():
        torch.save({name: t}, path)
        code, _, err = driver.run("copy", path, path + ".out")
        want = {"f8": "F8_E4M3", "u16": "U16", "c": "C64"}[name]
        score.compare(f"{name} is named", (code, f"has dtype {want}, which" in err), (64, True))
        score.compare(f"{name} is listed", f'"dtype":"{want}"' in driver.run("list", path)[1], True)
    for t in (torch.eye(3).to_sparse(), torch.empty(2, device="meta")):
        torch.save({"a": t}, path)
        code, _, err = driver.run("list", path)
        score.compare("sparse or meta", (code, "_rebuild_" in err), (64, True))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    code, _, err = driver.run("list", path)
    score.compare("TorchScript", (code, "TorchScript" in err), (64, True))
    for content in ([torch.ones(1)], {"a": 1}, 5, {1: torch.ones(2)}, torch.ones(3)):
        torch.save(content, path)
        score.compare(f"no state_dict: {content}", driver.run("list", path)[0], 65)


def check_shards(driver, score, folder):
    parts = [{"a": torch.ones(2)}, {"b": torch.zeros(3, 2)}]
    names = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
    for part, name in zip(parts, names):
        torch.save(part, os.path.join(folder, name))
    index = os.path.join(folder, "pytorch_model.bin.index.json")
    with open(index, "w", encoding="utf-8") as f:
        f.write('{"metadata":{"total_size":32},"weight_map":{"a":"%s","b":"%s"}}' % tuple(names))
    check_tensors(driver, score, "shards", index, parts[0] | parts[1], folder)


# ---- what we write ----

def check_writer(driver, score, folder):
    source, ours = os.path.join(folder, "source.pt"), os.path.join(folder, "ours.ckpt")
    for name, content, want in states():
        torch.save(content, source)
        numbers = (-1, 0, 255, 256, 70000, 1 << 31, 1 << 40, -5) if name == "plain" else (-1, 3)
        for number in numbers:
            code, _, err = driver.run("ckpt", source, ours, number)
            score.compare(f"write {name}", (code, err), (0, ""))
            for mmap in (False, True):
                got = torch.load(ours, weights_only=True, mmap=mmap)
                if number != -1:
                    score.compare(f"{name}: numbers", (got["epoch"], got["global_step"], len(got)),
                                  (number, number, 3))
                    got = got["state_dict"]
                score.compare(f"{name}: names, mmap {mmap}", (type(got), list(got)),
                              (collections.OrderedDict, list(want)))
                score.compare(f"{name}: tensors", all(
                    got[k].dtype == t.dtype and got[k].shape == t.shape and torch.equal(got[k], t)
                    and got[k].is_contiguous() and got[k].data_ptr() % (64 if mmap else 1) == 0
                    for k, t in want.items()), True)
        with zipfile.ZipFile(ours) as z:
            score.compare(f"{name}: checksums", z.testzip(), None)
        check_tensors(driver, score, f"{name}: ours by us", ours, want, folder)


# ---- damage ----

def check_damage(driver, score, folder):
    """Cut-off and damaged files end with a message and without a crash."""
    rng = random.Random(4)
    path, bad = os.path.join(folder, "good"), os.path.join(folder, "bad")
    for new in (True, False):
        torch.save({"state_dict": views(), "x": ModelCheckpoint()}, path,
                   _use_new_zipfile_serialization=new)
        good = open(path, "rb").read()
        for i in range(60):
            with open(bad, "wb") as f:
                f.write(good[:rng.randrange(len(good))])
            code, _, err = driver.run("list", bad)
            score.compare(f"cut {i}", (code, bool(err)), (65, True))
        for i in range(150):
            data = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            with open(bad, "wb") as f:
                f.write(data)
            code, _, err = driver.run("list", bad)
            score.compare(f"damage {i}: status {code} {err}",
                          code in (0, 64, 65) and bool(err) == (code != 0), True)


# ---- hostile pickles ----

class Calls:
    """Pickles to a call of function(*args)."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Named:
    """Stands for module.name in a pickle, without importing it."""

    def __init__(self, module, name):
        self.text = f"c{module}\n{name}\n".encode()


def assemble(*parts):
    """A pickle from opcodes: bytes as they are, strings as SHORT_BINUNICODE, Named as GLOBAL."""
    out = b"\x80\x02"
    for p in parts:
        if isinstance(p, bytes):
            out += p
        elif isinstance(p, Named):
            out += p.text
        else:
            out += b"X" + struct.pack("<I", len(p.encode())) + p.encode()
    return out + b"."


def commands(marker):
    """(what must be named, pickle)"""
    touch = f"touch {marker}"
    write = f"open({marker!r}, 'w').close()"
    yield "system", pickle.dumps(Calls(os.system, touch), 2)
    yield "system", pickle.dumps(Calls(os.system, touch), 5)
    yield "eval", pickle.dumps(Calls(eval, write), 2)
    yield "builtins.exec", pickle.dumps(Calls(exec, write), 4)
    yield "subprocess.", pickle.dumps(Calls(subprocess.check_call, ["touch", marker]), 4)
    yield "getattr", assemble(Named("__builtin__", "getattr"), Named("collections", "OrderedDict"),
                              "x", b"\x86R")
    for module, name in [("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"),
                         ("subprocess", "Popen"), ("builtins", "eval"), ("__builtin__", "eval"),
                         ("builtins", "__import__"), ("builtins", "open"),
                         ("builtins", "compile"), ("builtins", "getattr"),
                         ("importlib", "import_module"), ("runpy", "run_path"),
                         ("shutil", "rmtree"), ("socket", "socket"), ("ctypes", "CDLL"),
                         ("pty", "spawn"), ("webbrowser", "open"), ("torch", "load"),
                         ("torch", "os.system"), ("torch.serialization", "os.system"),
                         ("numpy", "load"), ("operator", "attrgetter"), ("functools", "partial"),
                         ("pickle", "loads"), ("sys", "exit"), ("torch.hub", "load"),
                         ("numpy.testing._private.utils", "runstring")]:
        yield f"{module}.{name}", assemble(Named(module, name), touch, b"\x85R")
        yield f"{module}.{name}", assemble(module, name, b"\x93", touch, b"\x85R")
    yield "os.system", b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR."  # protocol 0
    yield "os.system", b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    yield "os.system", b"(cos\nsystem\nS'" + touch.encode() + b"'\no."
    # after the state_dict, in the state of an object, as a key, in the arguments of a tensor
    yield "os.system", assemble(b"}", "a", Named("os", "system"), touch, b"\x85Rs")
    yield "os.system", assemble(Named("a", "B"), b")R", Named("os", "system"), touch, b"\x85Rb")
    yield "os.system", assemble(b"}", Named("os", "system"), touch, b"\x85R", b"Ns")
    yield "the result of a call of a.make", assemble(Named("a", "make"), b")R", touch, b"\x85R")
    yield "something it built", assemble("text", touch, b"\x85R")
    yield "opcode 0x82", assemble(b"\x82\x01")


def bombs():
    """(name, pickle): each would fill memory or never end in a careless reader."""
    deep = b"(" * 1_000_000
    yield "memo place 2^31", assemble(b"}r\xff\xff\xff\x7f")
    yield "memo place in a text", assemble(b"}p99999999999\n")
    yield "10 GB string", assemble(b"\x8d" + struct.pack("<Q", 10 << 30))
    yield "10 GB bytes", assemble(b"\x8e" + struct.pack("<Q", 10 << 30))
    yield "4 GB long", assemble(b"\x8b" + struct.pack("<I", 0xFFFFFFF0))
    yield "4 GB string", assemble(b"X\xff\xff\xff\xff")
    yield "marks", assemble(deep)
    yield "nested lists", assemble(b"]" * 1_000_000 + b"a" * 999_999)
    yield "nested tuples", assemble(b")" + b"\x85" * 2_000_000)
    yield "laughs", assemble(b"]q\x00" + b"".join(
        b"]q%c(" % (i + 1) + b"h%c" % i * 10 + b"e" for i in range(100)) + b"h\x64")
    yield "a list in itself", assemble(b"]q\x00h\x00a")
    yield "a dictionary in itself", assemble(b"}q\x00", "state_dict", b"h\x00s")
    yield "duplicates", assemble(b"]" + b"2" * 30_000_000)
    yield "values", assemble(b"}" * 30_000_000)
    yield "memo", assemble(b"}" + b"".join(b"r" + struct.pack("<I", i) for i in range(3_000_000)))
    yield "reduce chain", assemble(Named("a", "b"), b")R" * 1_000_000)


def in_archive(data, records=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as z:
        z.writestr("m/data.pkl", data)
        for name, content in records:
            z.writestr(name, content)
        z.writestr("m/version", "3\n")
    return file.getvalue()


def tensor_pickle(storage, numel, offset, sizes, strides, key="0"):
    def number(n):
        return b"\x8a\x08" + struct.pack("<q", n)

    def numbers(ns):
        return b"(" + b"".join(number(n) for n in ns) + b"t"

    return assemble(b"}", "a", Named("torch._utils", "_rebuild_tensor_v2"), b"((", "storage",
                    Named("torch", storage), key, "cpu", number(numel) + b"tQ" + number(offset) +
                    numbers(sizes) + numbers(strides) + b"\x89}tRs")


def claims():
    """(name, archive): sizes that are not there."""
    def one(*tensor, **more):
        return in_archive(tensor_pickle(*tensor, **more), [("m/data/0", bytes(16))])

    yield "10 GB storage", one("FloatStorage", 10 << 28, 0, [4], [1])
    yield "10 GB by expanding", one("FloatStorage", 4, 0, [10 << 28], [0])
    yield "10 GB by overlap", one("FloatStorage", 4, 0, [10 << 28, 4], [0, 1])
    yield "past the end", one("FloatStorage", 4, 1, [4], [1])
    yield "stride past the end", one("FloatStorage", 4, 0, [2, 2], [3, 1])
    yield "overflowing sizes", one("FloatStorage", 4, 0, [1 << 40, 1 << 40], [0, 0])
    yield "overflowing strides", one("FloatStorage", 4, 0, [2, 2, 2], [2 ** 63 - 1] * 3)
    yield "overflowing offset", one("FloatStorage", 4, 2 ** 63 - 1, [1], [1])
    yield "overflowing storage", one("DoubleStorage", 2 ** 61, 0, [1], [1])
    yield "negative size", one("FloatStorage", 4, 0, [-1], [1])
    yield "negative offset", one("FloatStorage", 4, -1, [1], [1])
    yield "missing storage", one("FloatStorage", 4, 0, [4], [1], key="1")
    yield "a path as key", one("FloatStorage", 4, 0, [4], [1], key="../../x")
    yield "65 dimensions", one("FloatStorage", 4, 0, [1] * 65, [1] * 65)
    yield "too few strides", one("FloatStorage", 4, 0, [2, 2], [1])


def repeats():
    """(name, pickle): one long string, one tensor and one dictionary, each at many places."""
    def tensor(place):
        return Named("torch._utils", "_rebuild_tensor_v2").text + b"((" + b"U\x07storage" + \
            Named("torch", "FloatStorage").text + b"U\x010U\x03cpuK\x04tQK\x00(" + b"K\x01" * 60 + \
            b"t(" + b"K\x01" * 60 + b"t\x89}tR" + b"q%c" % place

    text = b"X" + struct.pack("<I", 4 << 20) + b"x" * (4 << 20) + b"q\x02"
    yield "one name for all", b"\x80\x02}(" + text + tensor(1) + b"h\x02h\x01" * 500_000 + b"u."
    yield "one tensor for all", b"\x80\x02}(" + b"".join(
        b"M" + struct.pack("<H", i % 65536) + (tensor(1) if i == 0 else b"h\x01")
        for i in range(2_000_000)) + b"u."
    yield "metadata", b"\x80\x02}(U\x08metadata}(" + text + b"U\x01a" + \
        b"h\x02h\x02" * 1_000_000 + b"uu."


def zip_bomb(folder):
    """A small archive whose entry says that it unpacks to 10 GB."""
    path = os.path.join(folder, "bomb.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("m/data.pkl", tensor_pickle("FloatStorage", 4, 0, [4], [1]))
        z.writestr("m/data/0", bytes(16))
    data = bytearray(open(path, "rb").read())
    central = data.rindex(b"PK\1\2")
    data[central + 24:central + 28] = struct.pack("<I", 0xF0000000)
    return bytes(data)


def check_hostile(driver, score, folder):
    marker, path = os.path.join(folder, "it-ran"), os.path.join(folder, "hostile.ckpt")

    def refused(question, data, texts=("",)):
        with open(path, "wb") as f:
            f.write(data)
        code, out, err = driver.run("copy", path, path + ".out", memory=MEMORY)
        score.compare(f"{question}: status and message {err[:300]}",
                      (code, out, all(t in err for t in texts)), (65, "", True))
        score.compare(f"{question}: nothing ran", os.path.exists(marker), False)

    for name, data in commands(marker):
        texts = (name,) if "opcode" in name else (name, "refused: ", "othing was run")
        refused(f"bare pickle, {name}", data, texts)
        if data[0] == 0x80:
            refused(f"archive, {name}", in_archive(data), texts)
    for name, data in bombs():
        refused(f"bomb, {name}", in_archive(data))
        refused(f"bare bomb, {name}", data)
    for name, data in repeats():
        refused(f"repeat, {name}", in_archive(data, [("m/data/0", bytes(16))]))
    for name, data in claims():
        refused(f"claim, {name}", data)
    refused("zip bomb", zip_bomb(folder), ("claims 4026531840 bytes",))


def main():
    driver, score = Driver(sys.argv[1]), Score()
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_torch_files, check_facts, check_shards, check_writer, check_damage,
                      check_hostile):
            check(driver, score, folder)
    print(f"{score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
