#!/usr/bin/env python3
"""debug_peers.py BUILD - --debug_dataset in pseudo terminals of every kind, and without one.

What the terminal would show is decoded here and compared with the pictures as Pillow reads them.
"""
import base64
import html
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

LIMIT_S = 120  # many times what a loaded machine needs
QUERY = b"\x1b[c"
ANSWERS = {"kitty": b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", "sixel": b"\x1b[?62;4;22c", "blocks": b"\x1b[?62;22c",
           "silent": b""}


class Score:
    passed = failed = 0

    def check(self, what, good, detail=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAILED: {what} {detail}")


class Terminal:
    """A program in a pseudo terminal; reads until a text comes, writes keys."""

    def __init__(self, command, **env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", "COLORTERM": "truecolor", **env})
            os.execv(command[0], command)
        self.seen = b""

    def until(self, *texts):
        start, end = len(self.seen), time.monotonic() + LIMIT_S
        while not any(t in self.seen[start:] for t in texts):
            if time.monotonic() > end or not self.read():
                return None
        return self.seen[start:]

    def read(self):
        if not select.select([self.fd], [], [], 1.0)[0]:
            return True
        try:
            got = os.read(self.fd, 65536)
        except OSError:
            got = b""
        self.seen += got
        return bool(got)

    def key(self, keys):
        os.write(self.fd, keys)

    def end(self):
        """Exit code; None when it does not end."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        return None


def from_kitty(data):
    parts = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", data)
    head = dict(p.split(b"=") for p in parts[0][0].split(b","))
    pixels = base64.b64decode(b"".join(p[1] for p in parts))
    return np.frombuffer(pixels, np.uint8).reshape(int(head[b"v"]), int(head[b"s"]), 3)


def from_blocks(data):
    rows = []
    for line in data.split(b"\n"):
        cells = re.findall(rb"38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m\xe2\x96\x80", line)
        if cells:
            v = np.array(cells, dtype=int)
            rows += [v[:, :3], v[:, 3:]]
    return np.array(rows)


def from_sixel(data):
    body = re.search(rb'\x1bPq"1;1;(\d+);(\d+)(.*?)\x1b\\', data, re.S)
    w, h, text = int(body[1]), int(body[2]), body[3].decode()
    image, colors, x, top, color = np.full((h + 6, w, 3), -1), {}, 0, 0, 0
    for word in re.findall(r"#\d+;2;\d+;\d+;\d+|#\d+|!\d+[?-~]|[?-~]|\$|-", text):
        if ";" in word:
            n, _, *rgb = (int(v) for v in word[1:].split(";"))
            colors[n] = [v * 255 / 100 for v in rgb]
        elif word[0] == "#":
            color = int(word[1:])
        elif word == "$":
            x = 0
        elif word == "-":
            x, top = 0, top + 6
        else:
            count = int(word[1:-1]) if word[0] == "!" else 1
            for bit in range(6):
                if (ord(word[-1]) - 63) >> bit & 1:
                    image[top + bit, x:x + count] = colors[color]
            x += count
    return image[:h]


def make_set(folder):
    """Two smooth pictures and their captions."""
    root = os.path.join(folder, "set", "1_sks")
    os.makedirs(root)
    y, x = np.mgrid[0:64, 0:64]
    for i in range(2):
        pixels = np.stack([x * 4, y * 4, np.full_like(x, 120 * i)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(os.path.join(root, f"{i}.png"))
        with open(os.path.join(root, f"{i}.caption"), "w", encoding="utf-8") as f:
            f.write(f"caption <{i}> & more")
    return os.path.dirname(root)


def picture_of(page):
    i = 0 if b"/0.png" in page else 1
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([x * 4, y * 4, np.full_like(x, 120 * i)], -1)


def check_terminals(score, command):
    for kind, answer in ANSWERS.items():
        t = Terminal(command)
        t.until(QUERY)
        t.key(answer)
        page = t.until(b"tokens)")
        score.check(f"{kind}: a page comes", page is not None)
        if page is None:
            t.end()
            continue
        want = picture_of(page)
        if kind == "kitty":
            score.check("kitty: the picture itself", np.array_equal(from_kitty(page), want))
        elif kind == "sixel":
            got = from_sixel(page)
            blur = [a.reshape(16, 4, 16, 4, 3).mean((1, 3)) for a in (got, want)]
            score.check("sixel: the picture, dithered", got.min() >= 0 and np.abs(blur[0] - blur[1]).max() < 26,
                        str(np.abs(blur[0] - blur[1]).max()))
        else:
            got = from_blocks(page.replace(b"\r", b""))
            ys = np.linspace(0, 63, got.shape[0]).astype(int)
            xs = np.linspace(0, 63, got.shape[1]).astype(int)
            score.check(f"{kind}: the picture, smaller", np.abs(got - want[ys][:, xs]).max() < 20,
                        f"{got.shape} {np.abs(got - want[ys][:, xs]).max()}")
        score.check(f"{kind}: caption and place", b"1 of 2 samples" in page and re.search(rb"caption <\d> & more \(\d", page))
        t.key(b" ")
        second = t.until(b"tokens)")
        score.check(f"{kind}: space shows the next", second is not None and b"2 of 2 samples" in second)
        t.key(b"\x1b[D")
        back = t.until(b"tokens)")
        score.check(f"{kind}: the left arrow shows the one before", back is not None and b"1 of 2 samples" in back)
        t.key(b"\x1b")
        score.check(f"{kind}: Esc ends", t.end() == 0)
    for what, keys in (("the last page ends", b"  "), ("q ends", b"q")):
        t = Terminal(command)
        t.until(QUERY)
        t.key(ANSWERS["blocks"])
        t.until(b"tokens)")
        for key in keys.decode():
            t.key(key.encode())
        score.check(what, t.end() == 0)
    t = Terminal(command)
    t.until(QUERY)
    t.key(ANSWERS["blocks"])
    t.until(b"tokens)")
    os.close(t.fd)  # the window is closed
    deadline = time.monotonic() + LIMIT_S
    gone = False
    while not gone and time.monotonic() < deadline:
        gone = os.waitpid(t.pid, os.WNOHANG)[0] != 0
        time.sleep(0.05)
    if not gone:
        os.kill(t.pid, 9)
        os.waitpid(t.pid, 0)
    score.check("a closed window ends it", gone)


def check_sheet(score, command, folder):
    got = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    score.check("without a terminal it ends well", got.returncode == 0, got.stderr)
    sheet = np.array(Image.open(os.path.join(folder, "out", "last-dataset.png")))
    score.check("sheet: two cells", sheet.shape == (200, 396, 3), str(sheet.shape))
    cell = sheet[4:196, 4:196].reshape(64, 3, 64, 3, 3)[:, 1, :, 1].astype(int)
    want = picture_of(b"/0.png" if cell[40, 40, 2] < 60 else b"/1.png")
    score.check("sheet: the picture, larger", np.abs(cell - want)[20:60, 20:60].max() < 12, str(np.abs(cell - want).max()))
    with open(os.path.join(folder, "out", "last-dataset.html"), encoding="utf-8") as f:
        page = f.read()
    with open(os.path.join(folder, "out", "last-dataset.png"), "rb") as f:
        inside = base64.b64encode(f.read()).decode() in page
    score.check("page: holds the sheet", inside and "http" not in page)
    score.check("page: captions", all(f"caption <{i}> & more" in html.unescape(page) for i in range(2)))
    score.check("page: nothing unescaped", "caption <" not in page)


def main():
    score = Score()
    with tempfile.TemporaryDirectory(prefix="dreamrun-debug-") as folder:
        command = [os.path.join(os.path.abspath(sys.argv[1]), "bin", "train_db"), "--train_data_dir", make_set(folder),
                   "--resolution", "64", "--output_dir", os.path.join(folder, "out"), "--debug_dataset", "--seed", "1"]
        check_terminals(score, command)
        check_sheet(score, command, folder)
    print(f"{score.passed} passed, {score.failed} failed, 0 skipped")
    return 1 if score.failed or not score.passed else 0


if __name__ == "__main__":
    sys.exit(main())
