#!/usr/bin/env python3
"""metadata_peers.py BUILD - fine-tuning metadata (.json, .jsonl) beside sd-scripts' rules.

Random metadata files over real folders; pictures, captions and repeats of `dreamrun check --json` equal a
transcription of FineTuningDataset, on the command line (--in_json) and as subsets of a dataset file.
"""
import glob
import json
import os
import random
import subprocess
import sys
import tempfile

from PIL import Image

ENDINGS = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".PNG", ".JPG", ".JPEG", ".WEBP", ".BMP"]


class Score:
    passed = failed = 0

    def check(self, what, good, detail=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAILED: {what} {detail}")


def glob_images(directory, base):
    found = {p for ext in ENDINGS for p in glob.glob(glob.escape(os.path.join(directory, base + ext)))}
    return sorted(found)


def load(path):
    """The metadata as FineTuningDataset reads it."""
    if not path.endswith(".jsonl"):
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    metadata = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.strip():
                line_md = json.loads(line)
                image_md = {"caption": line_md.get("caption", "")}
                if "tags" in line_md:
                    image_md["tags"] = line_md["tags"]
                metadata[line_md["image_path"]] = image_md
    return metadata


def expected(path, image_dir, wildcard, separator):
    """{path: caption}"""
    found = {}
    for key, md in load(path).items():
        abs_path = key if os.path.isabs(key) else os.path.join(image_dir, key)
        if not os.path.splitext(key)[1] or not os.path.exists(abs_path):
            paths = glob_images(os.path.dirname(abs_path), os.path.basename(key))
            abs_path = paths[0] if paths else abs_path
        caption, tags = md.get("caption"), md.get("tags")
        if caption is None:
            caption = ""
        if wildcard and tags:  # sd-scripts adds a separator for empty tags too, and loses tags without a caption
            tags = tags.replace("\n", separator)
            lines = [line for line in caption.split("\n") if line.strip() != ""]
            caption = "\n".join(f"{line}{separator}{tags}" for line in lines) if lines else tags
        elif tags:
            caption = (caption + separator if caption else "") + tags
        found[abs_path] = caption
    return found


def run(build, *words, code=0):
    got = subprocess.run([os.path.join(build, "bin", "dreamrun"), "check", "--json", *words], capture_output=True,
                         text=True, check=False, timeout=120)
    if got.returncode != code:
        raise RuntimeError(f"{words}: {got.returncode}\n{got.stdout[-1500:]}\n{got.stderr[-1500:]}")
    return json.loads(got.stdout) if got.stdout else None


def make_pictures(folder, rng):
    names = []
    for i in range(24):
        sub = rng.choice(["", "deep/er", "b c"])
        os.makedirs(os.path.join(folder, sub), exist_ok=True)
        name = os.path.join(sub, f"p{i}{rng.choice(ENDINGS)}")
        kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(name.rpartition(".")[2].lower(), name.rpartition(".")[2].upper())
        Image.new("RGB", (64 + i, 64), (i, 0, 0)).save(os.path.join(folder, name), format=kind)
        names.append(name)
    return names


def text(rng, lines):
    words = ["dog", "a {red|blue} cat", "1girl", "\u00e9t\u00e9", "", " x "]
    return "\n".join(", ".join(rng.choices(words, k=rng.randint(0, 3))) for _ in range(rng.randint(1, lines)))


def make_metadata(path, folder, names, rng):
    rows = {}
    for name in names:
        if rng.random() < 0.2:
            continue
        key = name if rng.random() < 0.6 else os.path.splitext(name)[0]
        key = os.path.join(folder, key) if rng.random() < 0.4 else key
        md = {}
        if rng.random() < 0.8:
            md["caption"] = text(rng, 3) if rng.random() < 0.9 else None
        if rng.random() < 0.6:
            md["tags"] = text(rng, 2)
        md["image_size"] = [1, 1]
        rows[key] = md
    with open(path, "w", encoding="utf-8") as f:
        if path.endswith(".json"):
            json.dump(rows, f, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2]))
        else:
            for key, md in rows.items():
                f.write(json.dumps({"image_path": key, **md}) + rng.choice(["\n", "\n\n"]))


def main():
    build, score, rng = os.path.abspath(sys.argv[1]), Score(), random.Random(4)
    with tempfile.TemporaryDirectory(prefix="dreamrun-metadata-") as top:
        folder = os.path.join(top, "pictures")
        names = make_pictures(folder, rng)
        for i in range(30):
            path = os.path.join(top, f"meta{i}" + (".json", ".jsonl")[i % 2])
            make_metadata(path, folder, names, rng)
            wildcard, separator, repeats = rng.random() < 0.5, rng.choice([",", ", ", ";"]), rng.randint(1, 5)
            want = expected(path, folder, wildcard, separator)
            common = ["--resolution", "64", "--caption_separator", separator] + ["--enable_wildcard"] * wildcard
            got = run(build, *common, "--in_json", path, "--train_data_dir", folder, "--dataset_repeats", str(repeats))
            score.check(f"{path}: pictures and captions", {r["path"]: r["caption"] for r in got["images"]} == want,
                        f"{[(r['path'], r['caption'], want.get(r['path'])) for r in got['images'] if r['caption'] != want.get(r['path'])][:3]}")
            score.check("repeats", all(r["repeats"] == repeats for r in got["images"]))
            config = os.path.join(top, "data.toml")
            with open(config, "w", encoding="utf-8") as f:
                f.write(f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '{folder}'\nmetadata_file = '{path}'\n")
            got = run(build, *common, "--dataset_config", config, "--dataset_repeats", str(repeats))
            score.check("as a subset", {r["path"]: r["caption"] for r in got["images"]} == want
                        and all(r["repeats"] == repeats for r in got["images"]))
        check_mistakes(score, build, top, folder, names)
    print(f"{score.passed} passed, {score.failed} failed, 0 skipped")
    return 1 if score.failed or not score.passed else 0


def check_mistakes(score, build, top, folder, names):
    path = os.path.join(top, "bad.json")
    cases = (
        ('{"nowhere": {"caption": "x"}}', 65, "'nowhere': no such picture in"),
        ('[1]', 65, "expected an object"),
        ('{"%s": "x"}' % names[0], 65, "expected an object with caption and tags"),
        ('{"%s": {"caption": 3}}' % names[0], 65, "caption is not text"),
        ('{"%s": {"tags": ["a"]}}' % names[0], 65, "tags is not text"),
        ('{', 65, "bad.json"),
        ('{}', 65, "no usable picture"),
    )
    for content, code, message in cases:
        with open(path, "w", encoding="utf-8") as f:
            f.write(content)
        got = run(build, "--resolution", "64", "--in_json", path, "--train_data_dir", folder, code=code)
        errors = [f["text"] for f in got["findings"] if f["level"] == "error"]
        score.check(f"{content} is refused: {message}", len(errors) == 1 and message in errors[0], str(errors))


if __name__ == "__main__":
    sys.exit(main())
