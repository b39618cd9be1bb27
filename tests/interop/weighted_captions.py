"""Weights in captions by sd-scripts' published rules, written anew: what --weighted_captions must give.

(x) 1.1 times, (x:w) w times, [x] 1/1.1 times; brackets nest; a backslash makes a bracket literal; what is never
closed reaches to the end; neighbours of equal weight are one fragment, and each fragment is tokenised by itself.
"""
import re

ELEMENT = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:[+-]?[.\d]+\)|\)|\]|[^\\()\[\]:]+|:")


def scale(parts, first, factor):
    for part in parts[first:]:
        part[1] *= factor


def parse(caption):
    """[[text, weight], ...]"""
    parts, round_open, square_open = [], [], []
    for element in ELEMENT.findall(caption):
        if element[0] == "\\":
            parts.append([element[1:], 1.0])
        elif element == "(":
            round_open.append(len(parts))
        elif element == "[":
            square_open.append(len(parts))
        elif element[0] == ":" and len(element) > 1 and round_open:
            scale(parts, round_open.pop(), float(element[1:-1]))
        elif element == ")" and round_open:
            scale(parts, round_open.pop(), 1.1)
        elif element == "]" and square_open:
            scale(parts, square_open.pop(), 1 / 1.1)
        else:
            parts.append([element, 1.0])
    for first in round_open:
        scale(parts, first, 1.1)
    for first in square_open:
        scale(parts, first, 1 / 1.1)
    merged = []
    for text, weight in parts or [["", 1.0]]:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += text
        else:
            merged.append([text, weight])
    return merged


def token_ids(tokenizer, caption, length):
    """(ids as sd-scripts' rows, weights of the 75 * rows + 2 joined positions)"""
    ids, weights = [], []
    for text, weight in parse(caption):
        some = tokenizer(text).input_ids[1:-1]
        ids += some
        weights += [weight] * len(some)
    ids, weights = ids[:length], weights[:length]
    weights = [1.0] + weights + [1.0] * (length + 1 - len(weights))
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = [bos] + ids + [eos] + [pad] * (length - len(ids))
    if length == 75:
        return ids, weights
    rows = []
    for at in range(1, length, 75):
        row = [bos] + ids[at:at + 75] + [ids[-1]]
        if pad != eos:
            row[-1] = eos if row[-2] not in (eos, pad) else row[-1]
            row[1] = eos if row[1] == pad else row[1]
        rows.append(row)
    return rows, weights
