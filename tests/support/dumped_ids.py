"""dumped_ids.py DIR...: token ids of all samples in dump folders, one line each.

"name step ids": the folder's name up to its first dot, the step, the ids without the padding.
"""
import json
import pathlib
import struct
import sys


def input_ids(path):
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    entry = header["input_ids"]
    begin, end = entry["data_offsets"]
    raw = data[8 + n + begin : 8 + n + end]
    kind = {"I32": "i", "I64": "q"}[entry["dtype"]]
    flat = struct.unpack("<%d%s" % (len(raw) // struct.calcsize(kind), kind), raw)
    row = entry["shape"][-1]
    return [flat[i : i + row] for i in range(0, len(flat), row)]


for folder in map(pathlib.Path, sys.argv[1:]):
    for path in sorted(folder.iterdir()):
        for ids in input_ids(path):
            end = ids.index(49407) + 1
            print(folder.name.split(".")[0], path.name.split("-")[1], *ids[:end])
