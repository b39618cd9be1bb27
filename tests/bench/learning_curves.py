#!/usr/bin/env python3
"""Trains a small model of Stable Diffusion's topology from scratch, in the latent space of the real TAESD, on the photos
of $DR_SHARED/dreambooth: once with train_db, once with torch and diffusers, side by side. Draws both losses.

    learning_curves.py BUILD_DIR [--steps 800] [--picture docs/learning-curves.png]

Both begin with the same random weights and see the same latents, noise, timesteps and captions: train_db writes what a
step saw (--dump_dir), and torch takes its own step on it with its own gradients and its own AdamW; the files are removed
as they are used. Nothing else passes between the two. Ends with the numbers that docs/optimizers.md quotes.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw
from safetensors import safe_open
from transformers import CLIPTextModel

import tiny_models

SPEC = dict(tiny_models.SD1, channels=(32, 64, 64, 64), heads=4, groups=16, layers=1, context=32, clip_layers=2)
LR, WARMUP, BATCH, RESOLUTION = 1e-3, 20, 2, 128
SMOOTH = 50  # steps in a mean


def start_dreamrun(build, work, model, steps):
    shared = os.environ["DR_SHARED"]
    data = os.path.join(work, "data")
    os.makedirs(data)
    for folder in sorted(glob.glob(os.path.join(shared, "dreambooth", "*", ""))):
        os.symlink(folder.rstrip("/"), os.path.join(data, "1_" + os.path.basename(folder.rstrip("/"))))
    return subprocess.Popen(
        [os.path.join(build, "bin", "train_db"), f"--pretrained_model_name_or_path={model}", f"--train_data_dir={data}",
         f"--vae={os.path.join(shared, 'taesd')}", f"--resolution={RESOLUTION}", f"--train_batch_size={BATCH}",
         "--cache_latents", f"--max_train_steps={steps}", f"--learning_rate={LR}", "--lr_scheduler=constant_with_warmup",
         f"--lr_warmup_steps={WARMUP}", "--stop_text_encoder_training=-1", "--seed=1", f"--output_dir={work}/out",
         f"--dump_dir={work}/dump", f"--dump_steps={steps}", "--progress=json", "--num_cpu_threads_per_process=1"],
        stdout=open(os.path.join(work, "steps.json"), "w"), stderr=open(os.path.join(work, "log"), "w"))


def dumped(work, step, process):
    """What step saw, once its file is there; the file is removed."""
    path = os.path.join(work, "dump", f"step-{step:06d}-rank0.safetensors")
    while not os.path.exists(path):
        if process.poll() not in (None, 0):
            raise RuntimeError(open(os.path.join(work, "log")).read())
        time.sleep(0.02)
    with safe_open(path, "pt") as f:
        seen = {k: f.get_tensor(k) for k in ("noisy_latents", "noise", "timesteps", "input_ids")}
    os.remove(path)
    return seen


def torch_step(unet, encoder, optimizer, seen, step):
    for group in optimizer.param_groups:
        group["lr"] = LR * min(1.0, (step - 1) / WARMUP)
    with torch.no_grad():
        states = encoder(seen["input_ids"]).last_hidden_state
    pred = unet(seen["noisy_latents"], seen["timesteps"], states).sample
    loss = torch.nn.functional.mse_loss(pred, seen["noise"])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def train_both(build, work, steps):
    tokenizer = tiny_models.write_tokenizer(build, os.path.join(work, "tokenizer"), False)
    model = os.path.join(work, "model")
    tiny_models.write_model(model, SPEC, tokenizer, seed=1)
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
    encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder")
    print(f"U-Net: {sum(p.numel() for p in unet.parameters())} parameters; {steps} steps of {BATCH} photos", flush=True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    process = start_dreamrun(build, work, model, steps)
    losses = []
    for step in range(1, steps + 1):
        losses.append(torch_step(unet, encoder, optimizer, dumped(work, step, process), step))
        if step % 50 == 0:
            print(f"torch: step {step}, mean of the last 50 losses {np.mean(losses[-50:]):.4f}", flush=True)
    if process.wait() != 0:
        raise RuntimeError(open(os.path.join(work, "log")).read())
    ours = [json.loads(line)["loss"] for line in open(os.path.join(work, "steps.json"))]
    return np.array(ours), np.array(losses)


def smooth(x):
    return np.convolve(x, np.ones(SMOOTH) / SMOOTH, "valid")


def draw(ours, peer, path):
    """Both means of 50 steps, and their difference a thousand times over."""
    width, height, left, bottom = 900, 480, 70, 60
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    top_loss = 1.05 * max(smooth(ours).max(), smooth(peer).max())
    n = len(ours)

    def at(step, loss):
        return left + (width - left - 20) * step / n, height - bottom - (height - bottom - 30) * loss / top_loss

    for i in range(6):
        loss = top_loss * i / 5
        pen.line([at(0, loss), at(n, loss)], "#dddddd")
        pen.text((20, at(0, loss)[1] - 6), f"{loss:.2f}", "black")
        step = n * i // 5
        pen.text((at(step, 0)[0] - 8, height - bottom + 8), str(step), "black")
    for values, color, line_width in ((smooth(peer), "#d62728", 5), (smooth(ours), "#1f77b4", 2)):
        pen.line([at(i + SMOOTH, v) for i, v in enumerate(values)], color, line_width)
    apart = np.abs(smooth(ours) - smooth(peer))
    pen.line([at(i + SMOOTH, 1000 * v) for i, v in enumerate(apart)], "#999999", 1)
    pen.text((left + 20, 8), f"loss, mean of {SMOOTH} steps", "black")
    pen.text((left + 230, 8), "torch, diffusers", "#d62728")
    pen.text((left + 360, 8), "dreamrun", "#1f77b4")
    pen.text((left + 450, 8), "1000 x their difference", "#777777")
    pen.text((width // 2 - 20, height - 25), "step", "black")
    image.save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--picture")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        ours, peer = train_both(args.build, work, args.steps)
    apart = np.abs(ours - peer) / peer
    print(f"first {SMOOTH} steps: dreamrun {ours[:SMOOTH].mean():.4f}, torch {peer[:SMOOTH].mean():.4f}")
    print(f"last {SMOOTH} steps:  dreamrun {ours[-SMOOTH:].mean():.4f}, torch {peer[-SMOOTH:].mean():.4f}")
    print(f"largest difference of a step's loss: {apart[:10].max():.2g} in the first 10 steps, {apart.max():.2g} in all")
    print(f"largest difference of a mean of {SMOOTH}: {np.max(np.abs(smooth(ours) - smooth(peer)) / smooth(peer)):.2g}")
    if args.picture:
        draw(ours, peer, args.picture)


if __name__ == "__main__":
    main()
