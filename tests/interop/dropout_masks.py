"""The random numbers of adapters' dropout (base/philox.h, nn/adapter.h), from their description."""
import ctypes
import ctypes.util

import numpy as np
import torch

MODULE, ELEMENTS, RANKS, ROWS, OUTPUT = 17, 18, 19, 20, 21


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def name_hash(name):
    """The lower 64 bits of XXH3-128."""
    library = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
    library.XXH3_128bits.restype = Hash128
    library.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    return library.XXH3_128bits(name.encode(), len(name.encode())).low


def philox_uniform(seed, purpose, time, item, n):
    """n numbers in [0, 1) of the stream: Philox4x32-10, 24 bits each."""
    mask = np.uint64(0xFFFFFFFF)
    blocks = (n + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64), np.full(blocks, time, np.uint64),
         np.full(blocks, item & 0xFFFFFFFF, np.uint64), np.full(blocks, item >> 32, np.uint64)]
    k0 = (seed & 0xFFFFFFFF) ^ (purpose * 0x9E3779B9 & 0xFFFFFFFF)
    k1 = (seed >> 32 & 0xFFFFFFFF) ^ (purpose << 24 & 0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return (np.stack(c, 1).reshape(-1)[:n] >> np.uint64(8)).astype(np.float64) * 2.0**-24


class Batch:
    """The masks of one batch: seed, epoch and number of its first sample."""

    def __init__(self, seed, epoch, sample):
        self.seed, self.epoch, self.sample = seed, epoch, sample

    def numbers(self, purpose, name, n):
        item = self.sample | (name_hash(name) << 32 & 0xFFFFFFFF00000000)
        return torch.from_numpy(philox_uniform(self.seed, purpose, self.epoch, item, n))

    def keeps(self, purpose, name, chance, n):
        return (self.numbers(purpose, name, n) >= np.float32(chance)).double()

    def elements(self, purpose, name, chance, x):
        """Of x, (N,C,H,W) or (N,...,C), whose elements are numbered with the channels last; scaled."""
        last = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        keeps = self.keeps(purpose, name, chance, x.numel()).reshape(last.shape)
        keeps = keeps.permute(0, 3, 1, 2) if x.dim() == 4 else keeps
        return keeps / (1 - chance)

    def ranks(self, name, chance, x):
        """One number per sample and channel of x, as above; scaled."""
        channels = x.shape[1 if x.dim() == 4 else -1]
        keeps = self.keeps(RANKS, name, chance, x.shape[0] * channels) / (1 - chance)
        return keeps.reshape(x.shape[0], *((channels, 1, 1) if x.dim() == 4 else (1,) * (x.dim() - 2) + (channels,)))
