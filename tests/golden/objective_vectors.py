#!/usr/bin/env python3
"""Writes tests/golden/data/objective_vectors.h: sd-scripts' loss weights and noise, by its formulas in torch.

Formulas: library/custom_train_functions.py (get_snr_scale, apply_*, pyramid_noise_like, apply_noise_offset,
fix_noise_scheduler_betas_for_zero_terminal_snr) and train_util.get_huber_threshold_if_needed.
Run with a Python that has torch:  python tests/golden/objective_vectors.py
"""
import math
import pathlib

import torch

T = [0, 1, 2, 50, 100, 333, 500, 750, 900, 998, 999]
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
AC = torch.cumprod(1 - BETAS, 0)
WEIGHTS = [  # (fields of dr_objective, v)
    ({}, False), ({"min_snr_gamma": 5.0}, False), ({"min_snr_gamma": 5.0}, True), ({"min_snr_gamma": 0.5}, False),
    ({"scale_v_pred_like_noise_pred": True}, True), ({"v_pred_like_loss": 0.7}, False),
    ({"debiased_estimation": True}, False), ({"debiased_estimation": True}, True),
    ({"min_snr_gamma": 3.0, "scale_v_pred_like_noise_pred": True, "debiased_estimation": True}, True),
    ({"min_snr_gamma": 1.0, "v_pred_like_loss": 0.25, "debiased_estimation": True}, False),
]
HUBER = [("DR_HUBER_SNR", 0.1, 1.0), ("DR_HUBER_SNR", 0.3, 2.0), ("DR_HUBER_EXPONENTIAL", 0.1, 1.0),
         ("DR_HUBER_EXPONENTIAL", 0.02, 1.5), ("DR_HUBER_CONSTANT", 0.1, 0.5)]
H, W, C, LH, LW = 5, 7, 4, 2, 3


def weight(t, v, min_snr_gamma=0.0, scale_v_pred_like_noise_pred=False, v_pred_like_loss=0.0,
           debiased_estimation=False):
    snr = (AC.sqrt() / (1 - AC).sqrt())[t] ** 2
    loss = torch.tensor(1.0)
    if min_snr_gamma:
        least = torch.minimum(snr, torch.full_like(snr, min_snr_gamma))
        loss = loss * (least / (snr + 1) if v else least / snr)
    capped = torch.minimum(snr, torch.ones_like(snr) * 1000)
    scale = capped / (capped + 1)
    if scale_v_pred_like_noise_pred:
        loss = loss * scale
    if v_pred_like_loss:
        loss = loss + loss / scale * torch.tensor(v_pred_like_loss)
    if debiased_estimation:
        loss = loss * (1 / (capped + 1) if v else 1 / torch.sqrt(capped))
    return loss.item()


def huber(kind, c, scale, t):
    if kind == "DR_HUBER_CONSTANT":
        return c * scale
    if kind == "DR_HUBER_EXPONENTIAL":
        return math.exp(-(-math.log(c) / 1000) * t) * scale
    sigma = ((1.0 - AC[t]) / AC[t]) ** 0.5
    return ((1 - c) / (1 + sigma) ** 2 + c).item()


def zero_terminal():
    bar_sqrt = AC.sqrt()
    first, last = bar_sqrt[0].clone(), bar_sqrt[-1].clone()
    bar_sqrt = (bar_sqrt - last) * (first / (first - last))
    bar = bar_sqrt**2
    alphas = torch.cat([bar[0:1], bar[1:] / bar[:-1]])
    betas = 1 - alphas
    return torch.cumprod(1.0 - betas, 0)


def numbers(values):
    return "{" + ", ".join(f"{float(v)!r}" for v in values) + "}"


def hwc(t):
    return t.permute(1, 2, 0).reshape(-1)


def main():
    torch.manual_seed(1)
    latents, noise = 0.5 + torch.randn(C, H, W), torch.randn(C, H, W)
    offset, level = torch.randn(C, 1, 1), torch.randn(C, LH, LW)
    mean = torch.abs(latents.mean((1, 2), keepdim=True))
    adaptive = torch.clamp(0.1 + -0.3 * mean, min=0.0)
    up = torch.nn.Upsample(size=(H, W), mode="bilinear")(level[None])[0]
    with_level = noise + up * 0.3**2
    out = ["/* Made by tests/golden/objective_vectors.py with torch; do not edit. */", "/* clang-format off */",
           "#ifndef DR_OBJECTIVE_VECTORS_H", "#define DR_OBJECTIVE_VECTORS_H", "",
           '#include "diffusion/objective.h"', "", f"enum {{ N_TIMES = {len(T)}, H = {H}, W = {W}, C = {C}, LH = {LH}, LW = {LW} }};",
           f"static const int times[N_TIMES] = {{{', '.join(map(str, T))}}};", "",
           "static const struct { dr_objective o; double weight[N_TIMES]; } weights[] = {"]
    for fields, v in WEIGHTS:
        text = ", ".join(f".{k} = {str(x).lower()}" for k, x in fields.items())
        kind = f".prediction = {'DR_PREDICT_V' if v else 'DR_PREDICT_EPSILON'}"
        out.append(f"    {{{{{kind}{', ' if text else ''}{text}}}, {numbers(weight(t, v, **fields) for t in T)}}},")
    out += ["};", "", "static const struct { dr_objective o; double c[N_TIMES]; } hubers[] = {"]
    for kind, c, scale in HUBER:
        out.append(f"    {{{{.huber_schedule = {kind}, .huber_c = {c}, .huber_scale = {scale}}}, "
                   f"{numbers(huber(kind, c, scale, t) for t in T)}}},")
    out += ["};", "", f"static const double zero_terminal_ac[N_TIMES] = {numbers(zero_terminal()[T])};", ""]
    for name, value in (("latents", hwc(latents)), ("noise", hwc(noise)), ("offset", offset.flatten()),
                        ("level", hwc(level)), ("with_offset", hwc(noise + 0.1 * offset)),
                        ("with_adaptive", hwc(noise + adaptive * offset)), ("with_level", hwc(with_level)),
                        ("with_unit_deviation", hwc(noise / noise.std()))):
        out.append(f"static const float {name}[] = {{{', '.join(f'{float(v)!r}f' for v in value)}}};")
    out += ["", "#endif", ""]
    (pathlib.Path(__file__).parent / "data" / "objective_vectors.h").write_text("\n".join(out))


if __name__ == "__main__":
    main()
