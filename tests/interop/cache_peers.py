#!/usr/bin/env python3
"""cache_peers.py BUILD - the latent cache and dreamrun check beside numpy, h5py and sd-scripts' rules.

h5py opens the cache in every form; numpy writes .npz caches as sd-scripts does, and they are imported, or
refused by name; bucket, resized size and crop of `dreamrun check --json` equal a transcription of the rules.
"""
import glob
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np
from PIL import Image

import photo_folders


class Score:
    passed = failed = 0

    def check(self, what, good, detail=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAILED: {what} {detail}")


class Place:
    def __init__(self, build, folder):
        self.bin, self.folder = os.path.join(build, "bin"), folder
        self.model = os.path.join(folder, "tiny")
        self.run("dreamrun", "init_model", "tiny", self.model)

    def run(self, program, *words, code=0):
        got = subprocess.run([os.path.join(self.bin, program), *words], capture_output=True, text=True, check=False,
                             timeout=300, cwd=self.folder)
        if got.returncode != code:
            raise RuntimeError(f"{program} {words}: {got.returncode}\n{got.stdout}\n{got.stderr}")
        return got.stdout, got.stderr

    def pictures(self, name, sizes):
        root = os.path.join(self.folder, name)
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(os.path.join(root, "2_sks thing"))
        rng = np.random.default_rng(1)
        for i, (w, h) in enumerate(sizes):
            pixels = rng.integers(0, 255, (h, w, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(os.path.join(root, "2_sks thing", f"{i:04d}.png"))
        return root

    def fill(self, root, cache, *flags):
        return self.run("cache_latents", "--pretrained_model_name_or_path", self.model, "--train_data_dir", root,
                        "--resolution", "128", "--enable_bucket", "--min_bucket_reso", "64", "--latent_cache_dir",
                        os.path.join(self.folder, cache), "--flip_aug", *flags)[1]

    def entries(self, cache):
        found = {}
        for path in sorted(glob.glob(os.path.join(self.folder, cache, "latents-*.h5"))):
            with h5py.File(path) as f:
                for data in f["latents"].values():
                    a = data.attrs
                    found[a["kind"].decode(), os.path.basename(a["image"].decode()), int(a["flip"])] = data[...]
        return found


def check_forms(score, place, root):
    exact = None
    for flags in ((), ("--latent_cache_dtype", "f16"), ("--latent_cache_dtype", "bf16")):
        cache = "cache" + "".join(flags)
        place.fill(root, cache, *flags)
        got = place.entries(cache)
        exact = exact or got
        score.check(f"h5py opens {cache}", set(got) == set(exact) and len(got) == 6, str(set(got)))
        share = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8}[flags[1] if flags else "f32"]
        worst = max(np.max(np.abs(got[k].astype("f4") - exact[k]) - share * np.abs(exact[k])) for k in exact)
        score.check(f"{cache} is rounded to nearest", worst <= (2**-24 if flags else 0), str(worst))
    place.fill(root, "drawn", "--latent_cache_content", "latents")
    for (_, image, flip), z in place.entries("drawn").items():
        mean, logvar = np.split(exact["moments", image, flip], 2)
        noise = (z - mean) / np.exp(0.5 * np.clip(logvar, -30, 20))
        score.check(f"{image} {flip} is a draw", z.shape == mean.shape and abs(noise.mean()) < 0.2
                    and abs(noise.std() - 1) < 0.15, f"{noise.mean()} {noise.std()}")
    return exact


def crop_ltrb(bucket, size):
    """get_crop_ltrb of sd-scripts."""
    bucket_ar, image_ar = bucket[0] / bucket[1], size[0] / size[1]
    if bucket_ar > image_ar:
        w, h = bucket[1] * image_ar, bucket[1]
    else:
        w, h = bucket[0], bucket[0] / image_ar
    left, top = (bucket[0] - w) // 2, (bucket[1] - h) // 2
    return left, top, left + w, top + h


def write_npz(path, moments, flipped, size, **changes):
    """One file as sd-scripts' save_latents_to_npz writes it."""
    rng = np.random.default_rng(2)

    def draw(m):
        mean, logvar = np.split(m, 2)
        return (mean + np.exp(0.5 * np.clip(logvar, -30, 20)) * rng.standard_normal(mean.shape)).astype("f4")

    bucket = (moments.shape[2] * 8, moments.shape[1] * 8)
    content = {"latents": draw(moments), "original_size": np.array(size), "crop_ltrb": np.array(crop_ltrb(bucket, size)),
               "latents_flipped": draw(flipped)}
    content.update(changes)
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return content


def check_import(score, place, root, sizes, exact):
    folder = os.path.join(root, "2_sks thing")

    def name(i, kind):
        return os.path.join(folder, f"{i:04d}" + (f"_{sizes[i][0]:04d}x{sizes[i][1]:04d}{kind}" if kind else "") + ".npz")

    def moments(i):
        return exact["moments", f"{i:04d}.png", 0], exact["moments", f"{i:04d}.png", 1]

    for kind in ("_sd", "_sdxl", ""):
        shutil.rmtree(os.path.join(place.folder, "imported"), ignore_errors=True)
        written = [write_npz(name(i, kind), *moments(i), sizes[i]) for i in range(3)]
        log = place.fill(root, "imported")
        got = place.entries("imported")
        score.check(f"all of {kind or 'old names'} are imported", "6 imported" in log and ", 0 to encode" in log, log)
        same = all(np.array_equal(got["npz", f"{i:04d}.png", f], written[i][("latents", "latents_flipped")[f]])
                   for i in range(3) for f in (0, 1))
        score.check(f"the values of {kind or 'old names'}", same)
        for i in range(3):
            os.remove(name(i, kind))
        log = place.fill(root, "imported")
        score.check("once imported they are no longer needed", ", 0 to encode" in log, log)
    bad = {
        "another bucket": ({"latents": np.zeros((4, 8, 8), "f4")}, "expected floating point (4,"),
        "another size": ({"original_size": np.array([500, 500])}, "original_size[0] is 500"),
        "another crop": ({"crop_ltrb": np.array([1.0, 2.0, 3.0, 4.0])}, "crop_ltrb[0] is 1"),
        "not finite": ({"latents": np.full_like(moments(0)[0][:4], np.nan)}, "not finite"),
        "another VAE": ({"latents": np.full_like(moments(0)[0][:4], 9.0)}, "not what this VAE makes"),
        "no latents": ({"latents": None}, "there is no array 'latents'"),
        "pickled": ({"latents": np.array([{}], dtype=object)}, "numbers in C order"),
    }
    for what, (changes, text) in bad.items():
        shutil.rmtree(os.path.join(place.folder, "imported"), ignore_errors=True)
        write_npz(name(0, "_sd"), *moments(0), sizes[0], **changes)
        log = place.fill(root, "imported")
        score.check(f"{what} is refused by name", text in log and "it is not used" in log and name(0, "_sd") in log, log)
        score.check(f"{what} is encoded", not any(k == "npz" and f == 0 for k, _, f in place.entries("imported")))
    write_npz(name(0, "_sd"), *moments(0), sizes[0])
    for what, change in (("older", lambda p: os.utime(p, (1, 1))),
                         ("damaged", lambda p: open(p, "r+b").truncate(300))):
        shutil.rmtree(os.path.join(place.folder, "imported"), ignore_errors=True)
        change(name(0, "_sd"))
        log = place.fill(root, "imported")
        score.check(f"{what} is refused", "it is not used" in log and "6 to encode" in log, log)
    os.remove(name(0, "_sd"))


def check_alpha_import(score, place):
    """Files with an alpha_mask: used where it is the alpha of the picture."""
    root = place.pictures("transparent", [])
    picture = os.path.join(root, "2_sks thing", "0000.png")
    size = (160, 120)
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA").save(picture)
    flags = ("--alpha_mask", "--alpha_color", "hidden")
    place.fill(root, "alpha", *flags)
    exact = place.entries("alpha")
    moments = [exact["moments", "0000.png", side] for side in (0, 1)]
    with Image.open(picture) as image:
        plane = np.array(image.getchannel("A"))
    sizes, mode = photo_folders.shapes_of(128, (64, 1024))
    plane = photo_folders.fit_picture(np.stack([plane] * 3, 2), sizes, 128 * 128, mode, False)[:, :, 0]
    alpha = plane.astype("f4") / np.float32(255)
    path = picture[:-4] + "_0160x0120_sd.npz"
    for what, mask, text in (("the picture's", alpha, "2 imported"), ("another one", alpha[:, ::-1], "is not the alpha"),
                             ("of another size", alpha[:-1], "'alpha_mask'"), ("none", None, "2 imported")):
        shutil.rmtree(os.path.join(place.folder, "imported"), ignore_errors=True)
        write_npz(path, *moments, size, alpha_mask=mask)
        log = place.fill(root, "imported", *flags)
        score.check(f"alpha_mask: {what}", text in log and ("it is not used" in log) == (text[0] != "2"), log)


def bucket_sizes(resolution, low, high, step):
    area = resolution[0] * resolution[1]
    side = int(math.sqrt(area) // step) * step
    found = {(side, side)}
    for w in range(low, high + 1, step):
        h = min(high, area // w // step * step)
        if h >= low:
            found |= {(w, h), (h, w)}
    return sorted(found)


def fit(size, sizes):
    """select_bucket of sd-scripts without no_upscale, and the crop of its trim_and_resize."""
    w, h = size
    ar = w / h
    bucket = size if size in sizes else min(sizes, key=lambda b: abs(b[0] / b[1] - ar))
    scale = bucket[1] / h if ar > bucket[0] / bucket[1] else bucket[0] / w
    resized = (int(w * scale + 0.5), int(h * scale + 0.5))
    return bucket, resized, ((resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2)


def check_json(score, place):
    rng = random.Random(3)
    sizes = [(rng.randint(16, 900), rng.randint(16, 900)) for _ in range(120)] + [(256, 256), (128, 512), (513, 512)]
    root = place.pictures("many", sizes)
    for resolution, low, high, step in (((256, 256), 128, 512, 64), ((512, 384), 256, 1024, 64)):
        out, _ = place.run("dreamrun", "check", "--json", "--train_data_dir", root, "--resolution",
                           f"{resolution[0]},{resolution[1]}", "--enable_bucket", "--min_bucket_reso", str(low),
                           "--max_bucket_reso", str(high), "--bucket_reso_steps", str(step), "--num_processes", "3",
                           "--train_batch_size", "2")
        d = json.loads(out)
        buckets = bucket_sizes(resolution, low, high, step)
        wrong = [i["path"] for i, size in zip(d["images"], sizes, strict=True)
                 if (tuple(i["bucket"]), tuple(i["resized"]), tuple(i["crop"])) != fit(size, buckets)
                 or (i["width"], i["height"]) != size]
        score.check(f"bucket, size and crop of {len(sizes)} pictures at {resolution}", not wrong, str(wrong[:3]))
        n = {}
        for size in sizes:
            n[fit(size, buckets)[0]] = n.get(fit(size, buckets)[0], 0) + 2
        batches = sum((v + 1) // 2 for v in n.values())
        t = d["totals"]
        score.check("totals", (t["samples_per_epoch"], t["batches_per_epoch"], t["steps_per_epoch"])
                    == (2 * len(sizes), batches, (batches + 2) // 3), str(t))
        score.check("names", set(d["images"][0]) == set("path width height bucket resized crop repeats is_reg caption "
                                                        "n_tokens".split()))


def main():
    score = Score()
    with tempfile.TemporaryDirectory(prefix="dreamrun-cache-") as folder:
        place = Place(os.path.abspath(sys.argv[1]), folder)
        sizes = [(160, 120), (128, 128), (100, 190)]
        root = place.pictures("set", sizes)
        exact = check_forms(score, place, root)
        check_import(score, place, root, sizes, exact)
        check_alpha_import(score, place)
        check_json(score, place)
    print(f"{score.passed} passed, {score.failed} failed, 0 skipped")
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    sys.exit(main())
