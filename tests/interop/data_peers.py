#!/usr/bin/env python3
"""Compares dreamrun's data layer with Python itself and with a transcription of sd-scripts' rules.

    data_peers.py BUILD_DIR [PHOTO_DIR]     PHOTO_DIR: *.jpg in sub-folders; default
                                            $DR_SHARED/dreambooth. Needs cv2, PIL, numpy.

- buckets: make_bucket_resolutions and BucketManager.select_bucket, in Python arithmetic
- folder names: Python's own int() and str.split()
- captions: Python's own str.strip(), str.split(), text files read by open(..., "rt")
- whole folders: Python's glob, os.path.splitext, sorting, and the regularisation loop
- pixels of a sample: Pillow and OpenCV in sd-scripts' order, bit for bit, on the photos

Ends with "N passed, N failed"; exit status 1 when something failed.
"""
import glob
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib

import cv2
import numpy as np
from PIL import Image

EXTENSIONS = [".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG"]  # what dreamrun reads
MAX_SIDE = 65500  # dreamrun refuses larger resized pictures


class Driver:
    def __init__(self, build):
        path = os.path.join(build, "tests", "data_driver")
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)

    def ask(self, lines):
        """Answers to many lines; written by chunks that fit the pipe."""
        answers = []
        for start in range(0, len(lines), 200):
            part = lines[start:start + 200]
            self.process.stdin.write("".join(x + "\n" for x in part).encode())
            self.process.stdin.flush()
            answers += [self.process.stdout.readline().decode().rstrip("\n").strip() for _ in part]
        return answers


class Score:
    passed = failed = 0

    def compare(self, question, got, want):
        if got == want:
            self.passed += 1
            return
        self.failed += 1
        if self.failed <= 20:
            print(f"FAILED {question}\n  dreamrun {got}\n  expected {want}")


def to_hex(text):
    data = text if isinstance(text, bytes) else os.fsencode(text)
    return data.hex() if data else "-"


# ---- buckets -------------------------------------------------------------------------------------

def bucket_list(w, h, lo, hi, step):
    area = w * h
    side = int(math.sqrt(area) // step) * step
    sizes = {(side, side)}
    width = lo
    while width <= hi:
        height = min(hi, int((area // width) // step) * step)
        if height >= lo:
            sizes.add((width, height))
            sizes.add((height, width))
        width += step
    return sorted(sizes)


def select_predefined(sizes, w, h):
    aspect = w / h
    if (w, h) in sizes:
        bucket = (w, h)
    else:
        errors = [abs(a / b - aspect) for a, b in sizes]
        bucket = sizes[errors.index(min(errors))]
    scale = bucket[1] / h if aspect > bucket[0] / bucket[1] else bucket[0] / w
    resized = (int(w * scale + 0.5), int(h * scale + 0.5))
    if max(resized) > MAX_SIDE:
        return None
    return bucket, resized


def select_no_upscale(area, step, w, h):
    def round_to_steps(x):
        x = int(x + 0.5)
        return x - x % step

    aspect = w / h
    resized = (w, h)
    if w * h > area:
        width = math.sqrt(area * aspect)
        height = area / width
        width_first = round_to_steps(width)
        its_height = round_to_steps(width_first / aspect)
        height_first = round_to_steps(height)
        its_width = round_to_steps(height_first * aspect)
        if its_height == 0 or height_first == 0:
            return None  # ZeroDivisionError in sd-scripts
        error_w = abs(width_first / its_height - aspect)
        error_h = abs(its_width / height_first - aspect)
        if error_w < error_h:
            resized = (width_first, int(width_first / aspect + 0.5))
        else:
            resized = (int(height_first * aspect + 0.5), height_first)
    bucket = (resized[0] - resized[0] % step, resized[1] - resized[1] % step)
    if 0 in bucket:
        return None  # a bucket of size 0
    return bucket, resized


def format_fit(fit, w, h):
    if fit is None:
        return "unusable"
    (bw, bh), (rw, rh) = fit
    error = abs(bw / bh - w / h)
    return f"{bw}x{bh} {rw}x{rh} {(rw - bw) // 2},{(rh - bh) // 2} {error!r}"


def random_image(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.randint(1, 5000), rng.randint(1, 5000)
    if kind < 0.6:  # near the sizes where roundings change
        return 64 * rng.randint(1, 40) + rng.randint(-2, 2), 64 * rng.randint(1, 40) + rng.randint(-2, 2)
    if kind < 0.9:  # camera-like
        long_side = rng.randint(200, 9000)
        return rng.choice([(long_side, max(1, int(long_side * r))) for r in (1, 0.75, 2 / 3, 9 / 16, 0.8)])
    return int(2 ** rng.uniform(0, 15)), int(2 ** rng.uniform(0, 15))


def random_limits(rng):
    if rng.random() < 0.5:
        return rng.choice([(512, 512, 256, 1024, 64), (768, 768, 256, 1024, 64),
                           (768, 512, 384, 1280, 64), (1024, 1024, 512, 2048, 64)])
    step = rng.choice([8, 32, 64, 64, 128])
    w, h = step * rng.randint(1, 1600 // step), step * rng.randint(1, 1600 // step)
    lo = step * rng.randint(1, max(1, min(w, h) // step))
    hi = step * rng.randint(max(w, h) // step, max(w, h) // step + 20)
    return w, h, lo, hi, step


def check_buckets(driver, score, rng, n):
    limits = [random_limits(rng) for _ in range(2000)]
    lists = [bucket_list(*x) for x in limits]
    answers = driver.ask(["list %d %d %d %d %d" % x for x in limits])
    for question, got, want in zip(limits, answers, lists):
        score.compare(question, got, " ".join("%dx%d" % s for s in want))
    questions, wants = [], []
    for _ in range(n):
        k = rng.randrange(len(limits))
        res_w, res_h, _, _, step = limits[k]
        mode = rng.choice([0, 0, 1, 1, 2])
        w, h = random_image(rng)
        w, h = (w, h) if rng.random() < 0.5 else (h, w)
        if mode == 1:
            fit = select_no_upscale(res_w * res_h, step, w, h)
        else:
            fit = select_predefined(lists[k] if mode == 0 else [(res_w, res_h)], w, h)
        questions.append("fit %d %d %d %d %d %d %d %d" % (*limits[k], mode, w, h))
        wants.append(format_fit(fit, w, h))
    for question, got, want in zip(questions, driver.ask(questions), wants):
        parts = got.split()
        if len(parts) == 4:
            parts[3] = repr(float.fromhex(parts[3]))
        score.compare(question, " ".join(parts), want)


# ---- names and captions --------------------------------------------------------------------------

ALPHABET = ["0", "1", "2", "5", "9", "_", "_", "+", "-", " ", "a", "b", "\u0663", "\uff11", "\u00b2",
            "\u3000", "\u00a0", "\u0085", "\t", "\x1c", "\u2028", "\u00e9", "\U0001d7d9", "\U0001f436"]


def random_text(rng, alphabet, most):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))


def parse_name(name):
    tokens = name.split("_")
    try:
        repeats = int(tokens[0])
    except ValueError:
        return None
    return repeats, "_".join(tokens[1:])


def check_names(driver, score, rng, n):
    names = [random_text(rng, ALPHABET[:11], 3) + random_text(rng, ALPHABET, 6) for _ in range(n)]
    names += [str(x) + "_x" for x in (2**31, 2**63 - 1, -2**63)]
    for name, got in zip(names, driver.ask(["name " + to_hex(x) for x in names])):
        want = parse_name(name)
        score.compare(repr(name), got, "ignored" if want is None else f"{want[0]} {to_hex(want[1])}")


def process_caption(caption, keep, separator):
    tokens = [t.strip() for t in caption.strip().split(separator)]
    return ", ".join(tokens[:keep] + tokens[keep:])


def check_captions(driver, score, rng, n):
    alphabet = ALPHABET[9:] + [",", ",", ";", "|", "tag"]
    questions, wants = [], []
    for _ in range(n):
        caption = random_text(rng, alphabet, 20)
        separator = rng.choice([",", ", ", ";", "||", "tag", "\u3000", "\u00e9"])
        keep = rng.randint(0, 5)
        questions.append(f"caption {keep} {to_hex(separator)} {to_hex(caption)}")
        wants.append(to_hex(process_caption(caption, keep, separator)))
    for question, got, want in zip(questions, driver.ask(questions), wants):
        score.compare(question, got, want)


# ---- folders -------------------------------------------------------------------------------------

def png():
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data +
                struct.pack(">I", zlib.crc32(kind + data)))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(bytes(13 * 4))) + chunk(b"IEND", b""))


def make_tree(rng, base, extension):
    """A data folder with sub-folders, pictures and captions; some names are to be ignored."""
    os.makedirs(base)
    numbers = ["3_", "10_", "2", "+5_", " 1_", "\u0663_", "0_", "-1_", "x_", "1_0_"]
    for _ in range(rng.randint(2, 5)):
        name = rng.choice(numbers) + random_text(rng, ["a", "b", " ", "_", "\u00e9"], 5)
        folder = os.path.join(base, name)
        os.makedirs(folder, exist_ok=True)
        for _ in range(rng.randint(0, 6)):
            stem = random_text(rng, ["a", "B", "_", "1", ".", " ", "\u00e9", "[", "*"], 6) or "x"
            ending = rng.choice(EXTENSIONS + [".Png", ".md", ".webp", "x"])
            with open(os.path.join(folder, stem + ending), "wb") as f:
                f.write(png())
            if rng.random() < 0.6:
                text = random_text(rng, ["tag", ", ", "\n", "\r\n", "\r", " ", "\u3000", "\u00e9"], 6)
                short = "_".join(stem.split("_")[:-4])
                stem = short if rng.random() < 0.3 and short else stem
                with open(os.path.join(folder, stem + extension), "wb") as f:
                    f.write((text or "caption").encode())
    good = os.path.join(base, "4_good")
    os.makedirs(good, exist_ok=True)
    with open(os.path.join(good, "x.png"), "wb") as f:
        f.write(png())


def read_caption(path, extension):
    base = os.path.splitext(path)[0]
    candidates = [base]
    tokens = base.split("_")
    if len(tokens) >= 5:
        candidates.append("_".join(tokens[:-4]))
    for candidate in candidates:
        if os.path.isfile(candidate + extension):
            with open(candidate + extension, "rt", encoding="utf-8") as f:
                return f.readlines()[0].strip()
    return None


def list_subsets(base, extension):
    """[(repeats, [(path, caption)])], sub-folders in bytewise order."""
    subsets = []
    for name in sorted(os.listdir(base), key=os.fsencode):
        folder = os.path.join(base, name)
        parsed = parse_name(name)
        if not os.path.isdir(folder) or parsed is None or parsed[0] < 1:
            continue
        paths = []
        for ending in EXTENSIONS:
            paths += glob.glob(os.path.join(glob.escape(folder), "*" + ending))
        images = []
        for path in sorted(set(paths)):
            caption = read_caption(path, extension)
            images.append((path, parsed[1] if caption is None else caption))
        subsets.append((parsed[0], images))
    return subsets


def register(train, reg):
    """[(path, effective repeats, caption)]: sd-scripts' loop over regularisation pictures."""
    result = [[path, repeats, caption] for repeats, images in train for path, caption in images]
    total = sum(x[1] for x in result)
    reg_images = [(path, repeats, caption) for repeats, images in reg for path, caption in images]
    n, first, entries = 0, True, {}
    while n < total and reg_images:
        for path, repeats, caption in reg_images:
            if first:
                entries[path] = [path, repeats, caption]
                n += repeats
            else:
                entries[path][1] += 1
                n += 1
            if n >= total:
                break
        first = False
    return result + list(entries.values())


def check_trees(driver, score, rng, n):
    with tempfile.TemporaryDirectory() as top:
        for i in range(n):
            extension = rng.choice([".caption", ".txt"])
            train, reg = os.path.join(top, f"t{i}"), os.path.join(top, f"r_{i}_a_b_c_d")
            make_tree(rng, train, extension)
            make_tree(rng, reg, extension)
            with_reg = rng.random() < 0.7
            want = register(list_subsets(train, extension), list_subsets(reg, extension) if with_reg else [])
            question = f"tree {to_hex(train)} {to_hex(reg) if with_reg else '-'} {to_hex(extension)}"
            got = driver.ask([question])[0]
            score.compare(question, got,
                          " ".join(f"{to_hex(p)}:{r}:{to_hex(c)}" for p, r, c in want))


# ---- pixels --------------------------------------------------------------------------------------

def sample_pixels(path, sizes, area, mode, flip):
    """What sd-scripts feeds to the VAE: load, resize, centre crop, flip, scale."""
    with Image.open(path) as picture:
        image = np.array(picture.convert("RGB"))
    h, w = image.shape[:2]
    (bw, bh), (rw, rh) = select_no_upscale(area, 64, w, h) if mode == 1 else select_predefined(sizes, w, h)
    if (rw, rh) != (w, h):
        if w >= rw and h >= rh:
            image = cv2.resize(image, (rw, rh), interpolation=cv2.INTER_AREA)
        else:
            image = np.array(Image.fromarray(image).resize((rw, rh), Image.Resampling.LANCZOS))
    x, y = (rw - bw) // 2, (rh - bh) // 2
    image = image[y:y + bh, x:x + bw]
    image = image[:, ::-1] if flip else image
    return (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def check_pixels(driver, score, rng, photos):
    with tempfile.TemporaryDirectory() as top:
        out = os.path.join(top, "out.f32")
        for path in photos:
            w, h = rng.choice([(512, 512), (768, 512), (256, 256), (1024, 1024), (128, 64)])
            mode, flip = rng.randrange(3), rng.randrange(2)
            lo = min(w, h, 256)
            sizes = [(w, h)] if mode == 2 else bucket_list(w, h, lo, 2048, 64)
            question = f"pixels {lo} {w} {h} {mode} {flip} {to_hex(path)} {to_hex(out)}"
            want = sample_pixels(path, sizes, w * h, mode, flip)
            got = driver.ask([question])[0]
            score.compare(f"{path} {question}", got, f"{want.shape[1]} {want.shape[0]}")
            if got == f"{want.shape[1]} {want.shape[0]}":
                pixels = np.fromfile(out, np.float32).reshape(want.shape)
                score.compare(f"{path} {question}", int((pixels != want).sum()), 0)


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__)
        return 64
    driver, score, rng = Driver(sys.argv[1]), Score(), random.Random(20240517)
    check_buckets(driver, score, rng, 100000)
    check_names(driver, score, rng, 20000)
    check_captions(driver, score, rng, 20000)
    check_trees(driver, score, rng, 300)
    shared = os.path.join(os.environ.get("DR_SHARED", ""), "dreambooth")
    folder = sys.argv[2] if len(sys.argv) == 3 else shared
    photos = sorted(glob.glob(os.path.join(folder, "*", "*.jpg")))
    check_pixels(driver, score, rng, photos)
    driver.process.stdin.close()
    driver.process.wait()
    skipped = "" if photos else f" (pixels were not compared: no *.jpg in sub-folders of {folder})"
    print(f"{score.passed} passed, {score.failed} failed{skipped}")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
