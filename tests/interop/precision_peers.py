#!/usr/bin/env python3
"""Trains in 16 bits and does the steps again with torch: precision_peers.py BUILD_DIR [--keep FOLDER]

A small model on real photos (drawn ones where $DR_SHARED is missing), in bf16, fp16, full bf16 and full fp16, with
--dump_dir and a state after every step. For each step, from the state before it:

- truth: text states, prediction, loss and every gradient by transformers and diffusers in f64, on the same rounded
  weights and dumped inputs
- peer: the same networks in f32 under torch.autocast of that type (fp16: with the run's loss scale)
- ours may be FACTOR times as far from the truth as the peer is
- the update from the dumped gradients: masters as torch.optim.AdamW leaves them; 16-bit weights are a neighbour of
  what AdamW gives in f32: fp16 the nearest, bf16 without bias
- the loss scale of a run that overflows, step by step as torch.amp.GradScaler has it
- losses of all modes over STEPS steps within BAND of the f32 run's

Prints each check with the measured number; ends with "N passed, N failed"; exit status 1 on failure.
"""
import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

import optim_peers
import photo_folders
import tiny_models
from step_replay import Dump, relative, text_states

# Groups of several channels: a norm over one channel and few pixels amplifies any rounding without bound.
SPEC = dict(tiny_models.SD1, channels=(32, 64), groups=8, layers=1)
MODES = {
    "bf16": (torch.bfloat16, False, ("--mixed_precision=bf16",)),
    "fp16": (torch.float16, False, ("--mixed_precision=fp16",)),
    "full bf16": (torch.bfloat16, True, ("--mixed_precision=bf16", "--full_bf16")),
    "full fp16": (torch.float16, True, ("--mixed_precision=fp16", "--full_fp16")),
}
REPLAYED = 3
STEPS = 40
LR = 1e-4
# Measured on 2026-11-28 over all modes and steps: at most 1.68, the text encoder's gradient in full fp16 (autocast
# keeps its residual stream in F32); the U-Net's gradients are nearer to the truth than autocast's, x 0.87 to 0.95.
FACTOR = 2.5
UPDATE_LIMIT = 1e-5  # of masters, as in train_peers.py
# Largest |loss - f32 loss| / f32 loss of a step: measured values times about 4
# (8.2e-4, 1.8e-4, 4.3e-3, 2.1e-3 on 2026-11-28).
BAND = {"bf16": 3.5e-3, "fp16": 8e-4, "full bf16": 2e-2, "full fp16": 1e-2}


class Score:
    passed = failed = 0

    def check(self, what, good, note=""):
        self.passed += bool(good)
        self.failed += not good
        print(f"  {'ok    ' if good else 'FAILED'} {what}{': ' if note else ''}{note}", flush=True)


class Place:
    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        tokenizer = tiny_models.write_tokenizer(build, os.path.join(folder, "tokenizer"), False)
        self.model = os.path.join(folder, "model")
        tiny_models.write_model(self.model, SPEC, tokenizer, 1)
        self.train_data, self.reg_data = os.path.join(folder, "train"), os.path.join(folder, "reg")
        photo_folders.write_folder(self.train_data, "2_sks dog", "dog", 5)
        photo_folders.write_folder(self.reg_data, "1_dog", "dog2", 4)

    def train(self, name, *flags):
        """Returns (output folder, [the progress of every step])."""
        out = os.path.join(self.folder, "out", name.replace(" ", "_"))
        command = [os.path.join(self.build, "bin", "train_db"), f"--pretrained_model_name_or_path={self.model}",
                   f"--train_data_dir={self.train_data}", f"--output_dir={out}", "--resolution=128", "--seed=1",
                   f"--learning_rate={LR}", "--train_batch_size=2", "--progress=json", "--cache_latents",
                   "--save_model_as=diffusers_safetensors", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stderr[-1500:]}")
        return out, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


# ---- a step ---------------------------------------------------------------------------------------

def weights_before(place, out, step):
    """{"unet.name": tensor} as the networks were trained on in that step (from 1), before rounding."""
    if step == 1:
        files = {"unet": (place.model, "unet", "diffusion_pytorch_model.safetensors"),
                 "text_encoder": (place.model, "text_encoder", "model.safetensors")}
        files = {k: os.path.join(*v) for k, v in files.items()}
    else:
        state = os.path.join(out, f"at-step{step - 1:08d}-state")
        files = {"unet": os.path.join(state, "model.safetensors"),
                 "text_encoder": os.path.join(state, "model_1.safetensors")}
    return {f"{part}.{k}": v for part, path in files.items() for k, v in load_file(path).items()}


def networks(place, weights, dtype):
    """U-Net and text encoder with these weights, in that type."""
    unet = UNet2DConditionModel.from_pretrained(os.path.join(place.model, "unet"))
    text = CLIPTextModel.from_pretrained(os.path.join(place.model, "text_encoder"))
    for prefix, net in (("unet", unet), ("text_encoder", text)):
        for k, p in net.named_parameters():
            p.data = weights[f"{prefix}.{k}"].to(dtype)
    return unet.to(dtype), text.to(dtype)


def step_numbers(place, dump, weights, dtype, autocast, scale):
    """Text states, prediction, losses and gradients of a dumped step."""
    unet, text = networks(place, weights, dtype)
    context = torch.autocast("cpu", autocast) if autocast else contextlib.nullcontext()
    (g,) = dump.groups
    with context:
        states = text_states(text, g["input_ids"], 1)
        pred = unet(g["noisy_latents"].to(dtype), g["timesteps"], states).sample
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        loss = (pred.to(wide) - g["target"].to(wide)).square().mean((1, 2, 3))
    ((loss * g["loss_weights"].to(wide)).sum() / dump.number("global_batch") * scale).backward()
    grads = {f"{prefix}.{k}": p.grad.double() / scale for prefix, net in (("unet", unet), ("text_encoder", text))
             for k, p in net.named_parameters()}
    return {"text states": states.detach(), "prediction": pred.detach(), "loss": loss.detach(),
            "gradient of the U-Net": joined(grads, "unet."), "gradient of the text encoder": joined(grads, "text_")}


def joined(grads, prefix):
    return torch.cat([grads[k].double().flatten() for k in sorted(grads) if k.startswith(prefix)])


def check_numbers(score, place, mode, out, steps):
    dtype, _, _ = MODES[mode]
    worst = {}
    for step in range(1, REPLAYED + 1):
        dump = Dump(out + "-dump", step)
        rounded = {k: v.to(dtype).double() for k, v in weights_before(place, out, step).items()}
        scale = steps[step - 1]["loss_scale"]
        truth = step_numbers(place, dump, rounded, torch.float64, None, 1.0)
        peer = step_numbers(place, dump, {k: v.float() for k, v in rounded.items()}, torch.float32, dtype, scale)
        (g,) = dump.groups
        ours = {"text states": g["encoder_hidden_states"], "prediction": g["model_pred"], "loss": g["loss"],
                "gradient of the U-Net": joined(dump.grads, "unet."),
                "gradient of the text encoder": joined(dump.grads, "text_")}
        for name, want in truth.items():
            a, b = relative(ours[name], want), relative(peer[name], want)
            if a / b >= worst.get(name, (0.0,))[0]:
                worst[name] = (a / b, a, b)
    for name, (factor, a, b) in worst.items():
        # A loss is a mean of many errors that cancel: its own error is luck, so it is judged by the type's unit.
        unit = torch.finfo(dtype).eps / 4 if name == "loss" else 0.0
        score.check(f"{mode}: {name}", a <= max(FACTOR * b, unit),
                    f"error {a:.2e}, torch.autocast's {b:.2e}, x {factor:.2f}")


# ---- the update -----------------------------------------------------------------------------------

def adamw(before, m, v, step):
    """The weights after one step of AdamW in f32, from the moments it leaves behind."""
    f = np.float32
    b1, b2 = 1.0 - 0.9**step, 1.0 - 0.999**step
    denominator = np.sqrt(v) / f(math.sqrt(b2)) + f(1e-8)
    return before * f(1.0 - LR * 0.01) + f(-LR / b1) * m / denominator


def check_moments(m_before, v_before, m, v, g):
    """Largest relative error of the moments against lerp and addcmul in f64."""
    want_m = m_before + 0.1 * (g - m_before)
    want_v = 0.999 * v_before + 0.001 * g * g
    return max(np.linalg.norm(m - want_m) / np.linalg.norm(want_m), np.linalg.norm(v - want_v) / np.linalg.norm(want_v))


def memory_order(tensor):
    return optim_peers.memory_order(tensor.float().numpy()).ravel()


def moments_of(out, step, name):
    """exp_avg and exp_avg_sq of a parameter after that step; zeros before the first."""
    if step == 0:
        return None
    tensors = moments_of.cache.setdefault(
        (out, step), load_file(os.path.join(out, f"at-step{step:08d}-state", "optimizer.safetensors")))
    return tuple(tensors[f"{name}.{kind}"].numpy().ravel() for kind in ("exp_avg", "exp_avg_sq"))


moments_of.cache = {}


def check_updates(score, place, mode, out):
    dtype, full, _ = MODES[mode]
    exact, after_all, worst_moment = [], [], 0.0
    for step in range(1, REPLAYED + 1):
        dump = Dump(out + "-dump", step)
        clip = min(1.0, 1.0 / (dump.number("grad_norm") + 1e-6))
        before, after = weights_before(place, out, step), weights_before(place, out, step + 1)
        for name, gradient in dump.grads.items():
            m, v = moments_of(out, step, name)
            m0, v0 = moments_of(out, step - 1, name) or (np.zeros_like(m), np.zeros_like(v))
            g = memory_order(gradient).astype(np.float64) * clip
            if np.linalg.norm(g) > 1e-12:
                worst_moment = max(worst_moment, check_moments(m0.astype(np.float64), v0.astype(np.float64), m, v, g))
            start = before[name].to(dtype).float() if full else before[name].float()
            exact.append(adamw(memory_order(start), m, v, step))
            after_all.append(memory_order(after[name]))
    exact, after_all = np.concatenate(exact), np.concatenate(after_all)
    score.check(f"{mode}: moments of AdamW", worst_moment < UPDATE_LIMIT, f"{worst_moment:.2e}")
    if not full:
        error = np.abs(after_all - exact).max() / LR
        score.check(f"{mode}: masters, in units of the rate", error < 1e-2, f"{error:.2e}")
        return
    check_rounding(score, mode, dtype, exact, after_all)


def check_rounding(score, mode, dtype, exact, after):
    """Every 16-bit weight is one of the two around AdamW's f32 result, and the right one."""
    unit = torch.finfo(dtype).eps * 2.0 ** np.floor(np.log2(np.maximum(np.abs(exact), 1e-30)))
    if dtype == torch.float16:
        unit = np.maximum(unit, 2.0**-24)
        nearest = torch.from_numpy(exact).to(dtype).float().numpy()
        share = np.mean(nearest != after)  # ties that the last bit of the f32 result decides
        score.check(f"{mode}: weights are the nearest", share < 1e-3, f"{share:.1e} of {after.size} differ")
    distance = (after.astype(np.float64) - exact) / unit
    score.check(f"{mode}: weights are neighbours", np.abs(distance).max() < 1.001, f"{np.abs(distance).max():.4f} units")
    moved = distance[distance != 0.0]
    sigma = moved.std() / math.sqrt(moved.size)
    score.check(f"{mode}: no bias", abs(moved.mean()) < 5.0 * sigma, f"{moved.mean():+.1e} units, sigma {sigma:.1e}")


# ---- whole runs -----------------------------------------------------------------------------------

def check_loss_scale(score, place):
    """Regularisation pictures of an absurd weight: gradients overflow until the scale is small enough."""
    _, steps = place.train("overflow", "--mixed_precision=fp16", f"--reg_data_dir={place.reg_data}",
                           "--prior_loss_weight=1e5", "--max_train_steps=24", "--max_grad_norm=0")
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler, want, n_skipped = torch.amp.GradScaler("cpu"), [], 0
    for s in steps:
        overflows = s["skipped_steps"] > n_skipped
        n_skipped = s["skipped_steps"]
        p.grad = None
        scaler.scale(p.sum() * (math.inf if overflows else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        want.append(scaler.get_scale())
    got = [s["loss_scale"] for s in steps]
    score.check("loss scale as torch.amp.GradScaler's", got == want, f"{n_skipped} of {len(steps)} steps left out, "
                                                                     f"then {got[-1]:g}")
    score.check("steps were left out, and then taken", 0 < n_skipped < len(steps))


def check_band(score, mode, losses, base):
    worst = max(abs(a - b) / b for a, b in zip(losses, base, strict=True))
    score.check(f"{mode}: losses of {len(base)} steps", worst < BAND[mode], f"{worst:.2e} off f32's at most")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--keep", metavar="FOLDER")
    args = parser.parse_args()
    score = Score()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or temporary
        os.makedirs(folder, exist_ok=True)
        place = Place(args.build, folder)
        for mode, (_, _, flags) in MODES.items():
            print(mode, flush=True)
            out = os.path.join(folder, "out", mode.replace(" ", "_"))
            out, steps = place.train(mode, *flags, f"--max_train_steps={REPLAYED}", "--save_state",
                                     "--save_every_n_steps=1", f"--dump_dir={out}-dump", f"--dump_steps={REPLAYED}")
            check_numbers(score, place, mode, out, steps)
            check_updates(score, place, mode, out)
        print("whole runs", flush=True)
        check_loss_scale(score, place)
        _, base = place.train("f32 long", f"--max_train_steps={STEPS}")
        for mode, (_, _, flags) in MODES.items():
            _, steps = place.train(mode + " long", *flags, f"--max_train_steps={STEPS}")
            check_band(score, mode, [s["loss"] for s in steps], [s["loss"] for s in base])
    print(f"{score.passed} passed, {score.failed} failed")
    return score.failed != 0


if __name__ == "__main__":
    sys.exit(main())
