#!/usr/bin/env python3
"""Draws one step of a --profile file: what each thread did when, and how much time each kind of work took.

    plot_profile.py TRACE.json OUT.png [--step N] [--title TEXT]      N: default the last step of the file

Needs Pillow. Times of the bars below are those of innermost spans on the main threads, so they add up to the step.
"""
import argparse
import json

from PIL import Image, ImageDraw

COLOURS = {"conv": "#4477aa", "linear": "#66ccee", "attention": "#ee6677", "norm": "#ccbb44", "pointwise": "#228833",
           "layout": "#99aa77", "embedding": "#bbbbbb", "diffusion": "#bbbbbb", "optimizer": "#aa3377",
           "reduce": "#222255", "data": "#ee8866", "save": "#661100"}
OTHER = "#cccccc"
WIDTH, LEFT, ROW, BAR = 860, 150, 22, 14


def read(path):
    with open(path, encoding="utf-8") as f:
        events = json.load(f)["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    return [e for e in events if e["ph"] == "X"], names


def leaves(spans):
    """Pieces (begin, length, kind) of time, each of the innermost span that covers it."""
    out, stack, at = [], [], None

    def add(until):
        nonlocal at
        if stack and until > at:
            out.append((at, until - at, stack[-1][1]))
        at = until

    for e in sorted(spans, key=lambda e: (e["ts"], -e["dur"])):
        while stack and stack[-1][0] <= e["ts"]:
            add(stack[-1][0])
            stack.pop()
        add(e["ts"])
        stack.append((e["ts"] + e["dur"], e["cat"]))
    while stack:
        add(stack[-1][0])
        stack.pop()
    return out


def pieces_of_step(spans, step):
    """{thread: [(begin, end, kind)]} in seconds of the step."""
    begin, end = step["ts"], step["ts"] + step["dur"]
    inside = [e for e in spans if e["ts"] < end and e["ts"] + e["dur"] > begin]
    out = {}
    for row in sorted({(e["pid"], e["tid"]) for e in inside}):
        for at, length, kind in leaves([e for e in inside if (e["pid"], e["tid"]) == row]):
            a, b = max(at, begin), min(at + length, end)
            if a < b:
                out.setdefault(row, []).append(((a - begin) / 1e6, (b - begin) / 1e6, kind))
    return out


def draw(pieces, names, length, title):
    totals = {}
    for a, b, kind in pieces[min(pieces)]:
        totals[kind] = totals.get(kind, 0) + b - a
    kinds = sorted(totals, key=totals.get, reverse=True)[:12]
    image = Image.new("RGB", (WIDTH, ROW * (len(pieces) + len(kinds) + 3)), "white")
    pen, y = ImageDraw.Draw(image), ROW + 4
    pen.text((8, 6), title, fill="black")

    def bar(label, spans, note=""):
        nonlocal y
        pen.text((8, y), label, fill="black")
        for a, b, kind in spans:
            x = LEFT + (WIDTH - LEFT - 90) * a / length
            until = LEFT + (WIDTH - LEFT - 90) * b / length
            pen.rectangle((x, y, max(x, until - 1), y + BAR), fill=COLOURS.get(kind, OTHER))
        pen.text((WIDTH - 84, y), note, fill="black")
        y += ROW

    for row in pieces:
        bar(f"rank {row[0]} {names[row]}", pieces[row], f"{length:.3f} s")
    y += ROW // 2
    for kind in kinds:
        bar(kind, [(0, totals[kind], kind)], f"{totals[kind]:.3f} {100 * totals[kind] / length:4.1f}%")
    return image


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("out")
    parser.add_argument("--step", type=int)
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    spans, names = read(args.trace)
    steps = [e for e in spans if e["name"] == "step" and e["pid"] == 0]
    step = next((e for e in steps if e["args"]["n"] == args.step), steps[-1])
    pieces = pieces_of_step(spans, step)
    draw(pieces, names, step["dur"] / 1e6, args.title or f"step {step['args']['n']}").save(args.out, optimize=True)


main()
