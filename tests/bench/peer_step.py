#!/usr/bin/env python3
"""The peer of bench_train.py and bench_lora.py: the same work by diffusers, in a process of its own. Prints JSON lines.

    peer_step.py unet sd15|tiny LATENT THREADS REPETITIONS    forward and backward, random weights
    peer_step.py train MODEL DATA RESOLUTION STEPS THREADS    load, encode the pictures, train: a line per step
    peer_step.py lora LATENT STEPS THREADS CHECKPOINTING(0|1) SD 1.5, rank 4 by peft, random weights: a line per step
"""
import glob
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

SD15 = dict(
    sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
    attention_head_dim=8, norm_num_groups=32,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
TINY = dict(
    sample_size=32, block_out_channels=(32, 64), layers_per_block=2, cross_attention_dim=32, attention_head_dim=8,
    norm_num_groups=32, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))


def peak_memory_gib():
    with open("/proc/self/status", encoding="ascii") as f:
        kib = next(line.split()[1] for line in f if line.startswith("VmHWM:"))
    return int(kib) / 2**20


def make_unet(config):
    """Random weights without the seconds that diffusers' own initialisation takes."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    unet = unet.to_empty(device="cpu")
    with torch.no_grad():
        for name, p in unet.named_parameters():
            if p.dim() > 1:
                p.uniform_(-1, 1).mul_((3.0 / (p.numel() / p.shape[0]))**0.5)
            else:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return unet


def bench_unet(network, latent, repetitions):
    config = SD15 if network == "sd15" else TINY
    unet = make_unet(config)
    x, noise = torch.randn(1, 4, latent, latent), torch.randn(1, 4, latent, latent)
    context, t, times = torch.randn(1, 77, config["cross_attention_dim"]), torch.tensor([500]), []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        F.mse_loss(unet(x, t, context).sample, noise).backward()
        for p in unet.parameters():
            p.grad = None
        times.append(time.perf_counter() - start)
    print(json.dumps({"network": network, "first_s": times[0], "min_s": min(times[1:]), "rss_gib": peak_memory_gib()}))


def load_picture(path, resolution):
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        image = picture.convert("RGB").resize((resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]


def train(model, data, resolution, steps):
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = UNet2DConditionModel.from_pretrained(os.path.join(model, "unet"))
    vae = AutoencoderKL.from_pretrained(os.path.join(model, "vae"))
    text_encoder = CLIPTextModel.from_pretrained(os.path.join(model, "text_encoder"))
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(model, "tokenizer"))
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, fused=True)
    text_encoder.requires_grad_(False)
    with torch.no_grad():
        latents = [vae.encode(load_picture(path, resolution)).latent_dist.sample() * vae.config.scaling_factor
                   for path in sorted(glob.glob(os.path.join(data, "*", "*.[jp][pn]g")))]
    ids = tokenizer("sks dog", padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    for step in range(1, steps + 1):
        start = time.perf_counter()
        x = latents[step % len(latents)]
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (1,))
        with torch.no_grad():
            states = text_encoder(ids)[0]
        F.mse_loss(unet(schedule.add_noise(x, noise, t), t, states).sample, noise).backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"step": step, "step_s": time.perf_counter() - start, "rss_gib": peak_memory_gib()}),
              flush=True)


LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


def make_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12,
                                         num_hidden_layers=12))
    return model.requires_grad_(False)


def lora(latent, steps, checkpointing):
    from peft import LoraConfig

    unet, text_encoder = make_unet(SD15).requires_grad_(False), make_text_encoder()
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=LORA_TARGETS))
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    x, ids = torch.randn(1, 4, latent, latent), torch.randint(0, 49000, (1, 77))
    for step in range(1, steps + 1):
        start = time.perf_counter()
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (1,))
        with torch.no_grad():
            states = text_encoder(ids)[0]
        F.mse_loss(unet(schedule.add_noise(x, noise, t), t, states).sample, noise).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"step": step, "step_s": time.perf_counter() - start, "rss_gib": peak_memory_gib(),
                          "trained": sum(p.numel() for p in trained)}), flush=True)


def main():
    kind, *args = sys.argv[1:]
    if kind == "unet":
        torch.set_num_threads(int(args[2]))
        bench_unet(args[0], int(args[1]), int(args[3]))
    elif kind == "lora":
        torch.set_num_threads(int(args[2]))
        lora(int(args[0]), int(args[1]), args[3] == "1")
    else:
        torch.set_num_threads(int(args[4]))
        train(args[0], args[1], int(args[2]), int(args[3]))


if __name__ == "__main__":
    main()
