#!/usr/bin/env python3
"""Compares dreamrun's data layer with Python itself and with a transcription of sd-scripts' rules.

    data_peers.py BUILD_DIR [PHOTO_DIR]     PHOTO_DIR: *.jpg in sub-folders; default
                                            $DR_SHARED/dreambooth. Needs cv2, PIL, numpy.

- buckets: make_bucket_resolutions and BucketManager.select_bucket, in Python arithmetic
- folder names: Python's own int() and str.split()
- captions: Python's own str.strip(), str.split(), text files read by open(..., "rt")
- caption options: caption_rules.py, a transcription of process_caption with the same random numbers
- random crop, crop around faces, colours: transcriptions, with the same random numbers; OpenCV and NumPy
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

import caption_rules

EXTENSIONS = [".png", ".jpg", ".jpeg", ".webp", ".bmp"]  # what dreamrun reads, in any case
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


EXAMPLES = [  # of sd-scripts' rules: caption, options, result; None: by the transcription alone
    ("a, b,,c, d ", dict(keep=9, shuffle=1), "a, b, , c, d"), ("a;b;c", dict(keep=9, separator=";", shuffle=1), "a, b, c"),
    ("a,b , c", {}, "a,b , c"), ("a\nb", {}, "a"), ("x", dict(every=5, epoch=10), ""), ("x", dict(every=5, epoch=11), "x"),
    ("x", dict(dropout=1), ""), ("x", dict(prefix="my", suffix="end"), "my x end"),
    ("a, b ||| c, d, e ||| f,g", dict(keep_separator="|||", tag_dropout=1), "a, b, f, g"),
    ("a;;;b, c", dict(secondary=";;;"), "a,b, c"), ("{{x}} {y}", dict(wildcard=1), "{x} y"),
    *[("a, b, c, d, e", dict(warmup_steps=0.1, n_steps=1000, step=s), ", ".join("abcde"[:n]))
      for s, n in ((0, 1), (50, 3), (99, 4), (100, 5))],
]
PIECES = ["a", "tag", "\u00e9", ",", ", ", ";", "|||", "|", "{", "}", "{{", "}}", "{x|y}", "\n", " ", "\u3000", ";;"]


def caption_options(rng):
    def some(value, rate=0.3):
        return value if rng.random() < rate else 0

    return dict(prefix=some("pre {p|q}") or "", suffix=some("suf") or "", wildcard=some(1, 0.5), shuffle=some(1, 0.5),
                keep=rng.randint(0, 3), keep_separator=some("|||", 0.5) or "", separator=rng.choice([",", ";", ", "]),
                secondary=some(";;") or "", dropout=some(0.3), every=some(rng.randint(1, 3), 0.2), tag_dropout=some(0.4),
                warmup_min=rng.randint(0, 3), warmup_steps=some(rng.choice([0.25, 0.5, 3, 40, 1.5]), 0.4),
                seed=rng.choice([0, 1, 42, 2**31]), epoch=rng.randint(1, 4), sample=rng.randint(0, 2**32 - 1),
                step=rng.randint(0, 50), n_steps=rng.choice([10, 100, 1]))


def check_processing(driver, score, rng, n):
    """Every caption option, random choices included."""
    base = dict(prefix="", suffix="", wildcard=0, shuffle=0, keep=0, keep_separator="", separator=",", secondary="",
                dropout=0, every=0, tag_dropout=0, warmup_min=1, warmup_steps=0, seed=1, epoch=1, sample=0, step=0, n_steps=1)
    cases = [(caption, {**base, **o}) for caption, o, _ in EXAMPLES]
    cases += [(random_text(rng, PIECES, 14), caption_options(rng)) for _ in range(n)]
    questions = []
    for caption, o in cases:
        words = [f"{k}={to_hex(v) if isinstance(v, str) else repr(v)}" for k, v in {**o, "caption": caption}.items()]
        questions.append("process " + " ".join(words))
    answers = driver.ask(questions)
    for (caption, o), got in zip(cases, answers):
        score.compare(f"{caption!r} {o}", got, to_hex(caption_rules.process(caption, o)))
    for (caption, o, want), got in zip(EXAMPLES, answers):
        score.compare(f"{caption!r} {o}", got, to_hex(want))


# ---- augmentation --------------------------------------------------------------------------------

def around_face(face, o, size, target, rng):
    """crop_target: the scaled size and the corner."""
    (cx, cy, w, h), (least, most), (width, height) = face, o["range"], size
    face_px, shorter = max(w, h), min(target)
    low = max(target[1] / height, target[0] / width)
    low = min(1.0, max(low, shorter / (face_px * most)))
    high = min(1.0, max(low, shorter / (face_px * least)))
    scale = low if low >= high else low + (high - low) * rng.random()
    nw, nh = max(int(width * scale + 0.5), target[0]), max(int(height * scale + 0.5), target[1])
    cx, cy = int(cx * scale + 0.5), int(cy * scale + 0.5)

    def randint(a, b):
        return a + rng.below(b - a + 1)

    corner = []
    for aim, length, p in ((target[1], nh, cy), (target[0], nw, cx)):
        at = p - aim // 2
        if o["random"]:
            reach = max(length - p, p)
            at += randint(0, reach) + randint(0, reach) - reach
        elif least != most and face_px > shorter // 10 and face_px >= 40:
            at += randint(-face_px // 20, face_px // 20)
        corner.append(max(0, min(at, length - aim)))
    return (nw, nh), (corner[1], corner[0])


def choose_cut(path, o, size, target):
    rng = caption_rules.Stream(o["seed"], o["epoch"], o["sample"], 8)
    bucket, resized = select_predefined([target], *size)
    parts = os.path.splitext(os.path.basename(path))[0].split("_")
    free = not o["bucketed"] and size[0] >= target[0] and size[1] >= target[1]
    if o["range"][1] > 0 and free and len(parts) >= 5:
        face = [int(x) for x in parts[-4:]]
        if face[0] > 0 and max(face[2:]) > 0:
            return around_face(face, o, size, target, rng)
    if not o["random"]:
        return resized, ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)
    resized = size if free else resized
    x = rng.below(resized[0] - bucket[0] + 1)
    return resized, (x, rng.below(resized[1] - bucket[1] + 1))


def check_cuts(driver, score, rng, n):
    questions, wants = [], []
    for _ in range(n):
        size = random_image(rng)
        target = rng.choice([(512, 512), (512, 768), (256, 256), (64, 128)])
        face = rng.choice(["", "_1_2_3", "_%d_%d_%d_%d" % tuple(rng.randint(0, 1500) for _ in range(4)),
                           "_%d_%d_%d_%d" % (size[0] // 2, size[1] // 3, 200, 150)])
        least = rng.choice([0, 0, 1.0, 2.0, 0.5])
        o = dict(random=rng.randrange(2), range=(least, least * rng.choice([1, 1.5, 3])), bucketed=rng.randrange(2),
                 seed=rng.randrange(2**32), epoch=rng.randint(1, 9), sample=rng.randrange(2**32))
        path = f"dir/a{face}.png"
        questions.append("cut %d %r %r %d %d %d %d %d %d %d %d %s" % (
            o["random"], *o["range"], o["bucketed"], *size, *target, o["seed"], o["epoch"], o["sample"], to_hex(path)))
        try:
            (w, h), (x, y) = choose_cut(path, o, size, target)
            wants.append(f"{w}x{h} {x},{y}")
        except TypeError:  # a picture that fits no bucket
            wants.append("error")
    for question, got, want in zip(questions, driver.ask(questions), wants):
        score.compare(question, got, want)


def check_colors(driver, score, rng):
    for _ in range(2000):
        key = (rng.randrange(2**32), rng.randint(1, 9), rng.randrange(2**32))
        draws = caption_rules.Stream(*key, 9)
        changed, which, u = draws.random(), draws.random(), draws.random()
        shift = -8 + 16 * u
        shift = shift + 180 if shift < 0 else shift
        want = (shift, 1.0) if changed <= 0.33 and which > 0.5 else \
            (0.0, 0.95 + (1.05 - 0.95) * u) if changed <= 0.33 else (0.0, 1.0)
        got = tuple(float.fromhex(x) for x in driver.ask(["colors %d %d %d" % key])[0].split())
        score.compare(f"colors {key}", got, want)
    with tempfile.TemporaryDirectory() as top:
        path, out = os.path.join(top, "in"), os.path.join(top, "out")
        pixels = np.random.default_rng(3).integers(0, 256, (1, 300000, 3), np.uint8)
        pixels[0, :4096] = np.stack(np.meshgrid(*[np.arange(16) * 17] * 3), -1).reshape(-1, 3)
        pixels.tofile(path)
        for hue, gamma in [(0.5, 1), (7.99, 1), (172.3, 1), (179.9, 1), (3.0, 1), (0, 0.95), (0, 1.05), (0, 1.0123), (0, 0.999)]:
            if hue > 0:
                hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
                hsv[:, :, 0] = (hsv[:, :, 0] + hue) % 180
                want = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
            else:
                want = np.clip(pixels**gamma, 0, 255).astype(np.uint8)
            driver.ask([f"recolor {hue} {gamma} {to_hex(path)} {to_hex(out)}"])
            got = np.fromfile(out, np.uint8).reshape(pixels.shape)
            score.compare(f"recolor {hue} {gamma}", int((got != want).sum()), 0)


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
            ending = rng.choice(EXTENSIONS[:4] + [".PNG", ".JPG", ".JPEG", ".Png", ".md", "x"])
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
        paths = [p for p in glob.glob(os.path.join(glob.escape(folder), "*"))
                 if os.path.splitext(p)[1].lower() in EXTENSIONS]
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

def fit_picture(image, sizes, area, mode, flip):
    """(H,W,3) bytes, resized, cut and mirrored as sd-scripts does it."""
    h, w = image.shape[:2]
    (bw, bh), (rw, rh) = select_no_upscale(area, 64, w, h) if mode == 1 else select_predefined(sizes, w, h)
    if (rw, rh) != (w, h):
        if w >= rw and h >= rh:
            image = cv2.resize(image, (rw, rh), interpolation=cv2.INTER_AREA)
        else:
            image = np.array(Image.fromarray(image).resize((rw, rh), Image.Resampling.LANCZOS))
    x, y = (rw - bw) // 2, (rh - bh) // 2
    image = image[y:y + bh, x:x + bw]
    return image[:, ::-1] if flip else image


def sample_pixels(path, sizes, area, mode, flip):
    """What sd-scripts feeds to the VAE: load, resize, centre crop, flip, scale."""
    with Image.open(path) as picture:
        image = fit_picture(np.array(picture.convert("RGB")), sizes, area, mode, flip)
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
    check_processing(driver, score, random.Random(7), 20000)
    check_cuts(driver, score, random.Random(8), 20000)
    check_colors(driver, score, random.Random(9))
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
