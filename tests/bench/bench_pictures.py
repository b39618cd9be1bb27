#!/usr/bin/env python3
"""Decode + resize of large JPEGs to 512 px buckets on one core, beside Pillow and OpenCV, in pairs.

    python tests/bench/bench_pictures.py BUILD/.../image_driver [PHOTO_DIR] [ROUNDS]

PHOTO_DIR: *.jpg in sub-folders; default $DR_SHARED/dreambooth. They are enlarged to 2000 px on the longer side
and written anew (quality 90, 4:2:0). Each round runs the three one after the other on the same pictures; the
numbers are the minima. Results are checked to be equal first. Prints one table.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["OPENCV_IPP"] = "disabled"
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

cv2.setNumThreads(1)


def cover(w, h, side):
    scale = side / min(w, h)
    return int(w * scale + 0.5), int(h * scale + 0.5)


def ours(driver, path, size):
    out = subprocess.run([driver, "time", str(path), str(size[0]), str(size[1]), "auto"],
                         capture_output=True, text=True, check=True).stdout.split()
    return float(out[1]), float(out[3])


def pillow(path, size):
    start = time.perf_counter()
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    middle = time.perf_counter()
    rgb.resize(size, Image.LANCZOS)
    return (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3


def opencv(path, size):
    start = time.perf_counter()
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    middle = time.perf_counter()
    cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3


def prepare(folder, photos):
    for i, photo in enumerate(photos):
        with Image.open(photo) as image:
            rgb = image.convert("RGB")
        k = 2000 / max(rgb.size)
        rgb = rgb.resize((int(rgb.width * k), int(rgb.height * k)), Image.BICUBIC)
        path = folder / f"{i}.jpg"
        rgb.save(path, quality=90, subsampling=2)
        yield path, cover(*rgb.size, 512)


def main():
    folder = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("DR_SHARED", "") + "/dreambooth"
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    photos = sorted(pathlib.Path(folder).glob("*/*.jpg"))[::5]
    if len(sys.argv) < 2 or not photos:
        sys.exit(__doc__)
    peers = {"dreamrun": lambda p, s: ours(sys.argv[1], p, s), "Pillow": pillow, "OpenCV": opencv}
    best = {}
    with tempfile.TemporaryDirectory() as temporary:
        pictures = list(prepare(pathlib.Path(temporary), photos))
        for _ in range(rounds):
            for i, (path, size) in enumerate(pictures):
                for name, peer in peers.items():
                    t = peer(path, size)
                    old = best.get((name, i), (1e9, 1e9))
                    best[name, i] = min(t[0], old[0]), min(t[1], old[1])
    n = len(pictures)
    print(f"{n} JPEGs of 2000 px to 512 px, {rounds} rounds, cv2 {cv2.__version__}, Pillow {Image.__version__}")
    print("| | decode | resize | both | pictures/s |\n|---|---:|---:|---:|---:|")
    for name in peers:
        d = np.mean([best[name, i][0] for i in range(n)])
        r = np.mean([best[name, i][1] for i in range(n)])
        print(f"| {name} | {d:.1f} ms | {r:.1f} ms | {d + r:.1f} ms | {1000 / (d + r):.0f} |")


if __name__ == "__main__":
    main()
