#!/usr/bin/env python3
"""torch_peer.py --model sd1|sd2v --pixels N --batch N --mode eager|compile [--lora R] [--gc 1] [--opt bnb8]

One U-Net training step of diffusers as its own training scripts do it, tuned: channels last, bf16 autocast,
fused AdamW (or bitsandbytes' 8-bit one), SDPA, TF32 where F32 is left, cudnn.benchmark, gradients clipped.
Latents and text states are given. Prints one JSON object: ms per step, the least of three rounds; peak memory.
--model tiny and --device cpu try the script without a GPU.
"""
import argparse
import json
import sys
import time

import diffusers
import torch
import torch.nn.functional as F

CONFIGS = {
    "sd1": dict(cross_attention_dim=768, attention_head_dim=8),
    "sd2v": dict(cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
    "tiny": dict(cross_attention_dim=32, attention_head_dim=2, block_out_channels=(32, 64), layers_per_block=1,
                 down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                 up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
}


def make_unet(a):
    unet = diffusers.UNet2DConditionModel(sample_size=64, **CONFIGS[a.model]).to(a.device)
    if a.gc:
        unet.enable_gradient_checkpointing()
    if a.lora:
        from peft import LoraConfig

        unet.requires_grad_(False)
        unet.to(torch.bfloat16)  # the frozen part in bf16, adapters in F32, as train_dreambooth_lora.py does
        unet.add_adapter(LoraConfig(r=a.lora, lora_alpha=a.lora, init_lora_weights="gaussian",
                                    target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
        for p in unet.parameters():
            if p.requires_grad:
                p.data = p.data.float()
    return unet.to(memory_format=torch.channels_last).train()


def make_optimizer(a, parameters):
    if a.opt == "bnb8":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(parameters, lr=1e-6)
    return torch.optim.AdamW(parameters, lr=1e-6, fused=a.device == "cuda")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", choices=CONFIGS, required=True)
    p.add_argument("--pixels", type=int, required=True)
    p.add_argument("--batch", type=int, required=True)
    p.add_argument("--mode", choices=("eager", "compile"), required=True)
    p.add_argument("--lora", type=int, default=0)
    p.add_argument("--gc", type=int, default=0)
    p.add_argument("--opt", choices=("fused", "bnb8"), default="fused")
    p.add_argument("--device", default="cuda")
    p.add_argument("--steps", type=int, default=20)
    a = p.parse_args()
    gpu = a.device == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(1)
    unet = make_unet(a)
    parameters = [q for q in unet.parameters() if q.requires_grad]
    optimizer = make_optimizer(a, parameters)
    net = torch.compile(unet) if a.mode == "compile" else unet
    size = a.pixels // 8
    x = torch.randn(a.batch, 4, size, size, device=a.device).to(memory_format=torch.channels_last)
    target = torch.randn(a.batch, 4, size, size, device=a.device)
    t = torch.randint(0, 1000, (a.batch,), device=a.device)
    states = torch.randn(a.batch, 77, CONFIGS[a.model]["cross_attention_dim"], device=a.device)

    def step():
        with torch.autocast(a.device, dtype=torch.bfloat16):
            prediction = net(x, t, states).sample
        F.mse_loss(prediction.float(), target).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def wait():
        if gpu:
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    best = float("inf")
    for _ in range(3):
        wait()
        begin = time.perf_counter()
        for _ in range(a.steps):
            step()
        wait()
        best = min(best, (time.perf_counter() - begin) / a.steps)
    peak = torch.cuda.get_device_properties(0).total_memory - torch.cuda.mem_get_info()[0] if gpu else None
    print(json.dumps(dict(ms=1e3 * best, peak_bytes=peak, torch=torch.__version__, diffusers=diffusers.__version__)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
