"""Small ICC version 2 profiles, made from the text of ICC.1:2001-04: for tests of colour conversion.

matrix(primaries, gamma)   RGB display profile from xy chromaticities (D65 white), adapted to D50 (Bradford)
gray(gamma)                gray display profile
cmyk()                     CMYK output profile: an 8-bit table of 3 x 3 x 3 x 3 ink mixtures to Lab
"""

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))


def xyz(x, y):
    return np.array([x / y, 1.0, (1 - x - y) / y])


def fixed(v):
    return struct.pack(">i", int(round(v * 65536)))


def xyz_tag(v):
    return b"XYZ \0\0\0\0" + b"".join(fixed(c) for c in v)


def curve_tag(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, int(round(gamma * 256)))


def text_tag(text):
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + bytes(4 + 4 + 2 + 1 + 67)


def profile(kind, space, pcs, tags):
    tags = {b"desc": text_tag("test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz_tag(D50), **tags}
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02100000, kind, space, pcs)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(fixed(c) for c in D50)
    return head.ljust(128, b"\0") + table + body


def matrix(primaries, gamma):
    columns = np.stack([xyz(*p) for p in primaries], axis=1)
    white = xyz(0.3127, 0.3290)
    to_xyz = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    colorants = adapt @ to_xyz
    tags = {name: xyz_tag(colorants[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags.update({name: curve_tag(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray(gamma):
    return profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve_tag(gamma)})


def cmyk():
    steps = np.linspace(0, 1, 3)
    lab = bytearray()
    for c in steps:
        for m in steps:
            for y in steps:
                for k in steps:
                    light = 100 * (1 - 0.3 * c - 0.45 * m - 0.08 * y) * (1 - 0.9 * k)
                    a, b = 70 * m - 35 * c, 85 * y - 45 * c - 5 * m
                    fade = 1 - 0.95 * k
                    lab += bytes([int(max(light, 2) * 2.55), int(128 + a * fade), int(128 + b * fade)])
    identity = b"".join(fixed(float(i == j)) for i in range(3) for j in range(3))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 3, 0]) + identity + ramp * 4 + bytes(lab) + ramp * 3
    return profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})
