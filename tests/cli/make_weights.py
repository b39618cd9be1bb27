#!/usr/bin/env python3
"""make_weights.py FOLDER - files of weights that test_inspect.sh looks at; Python's own library only."""
import json
import os
import struct
import sys

folder = sys.argv[1]


def write(name, tensors, metadata=None, size=None):
    """A safetensors file of F32 zeros; tensors: name -> shape or (shape, value). size: a sparse file of so many bytes."""
    header, data, at = ({"__metadata__": metadata} if metadata else {}), b"", 0
    for key, shape in tensors.items():
        shape, value = shape if isinstance(shape, tuple) else (shape, 0.0)
        n = 1
        for d in shape:
            n *= d
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * n]}
        at += 4 * n
        data += struct.pack("<f", value) * n if size is None else b""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
        if size is not None:
            f.truncate(8 + len(text) + at)


BLOCK = "down_blocks_0_attentions_0_transformer_blocks_0"


def kohya(prefix, rank, width, alpha):
    name = f"{prefix}{BLOCK}_attn2_to_k"
    return {f"{name}.lora_down.weight": [rank, width], f"{name}.lora_up.weight": [320, rank],
            f"{name}.alpha": ([], alpha)}


text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
write("kohya.safetensors", {**kohya("lora_unet_", 8, 768, 4.0), f"{text}.lora_down.weight": [16, 768],
                            f"{text}.lora_up.weight": [768, 16], f"{text}.alpha": ([], 16.0)},
      {"ss_network_dim": "8", "ss_output_name": "a \u001b[31m name"})
write("sd2.safetensors", kohya("lora_unet_", 4, 1024, 1.0))
write("xl.safetensors", kohya("lora_unet_", 4, 2048, 1.0))
write("doubled.safetensors", kohya("lora_unet_unet_", 4, 768, 1.0))
name = f"lora_unet_{BLOCK}_attn2_to_k"
write("loha.safetensors", {f"{name}.hada_w1_a": [320, 8], f"{name}.hada_w1_b": [8, 768],
                           f"{name}.hada_w2_a": [320, 8], f"{name}.hada_w2_b": [8, 768], f"{name}.alpha": ([], 1.0)})
write("lokr.safetensors", {f"{name}.lokr_w1": [4, 4], f"{name}.lokr_w2_a": [80, 8], f"{name}.lokr_w2_b": [8, 192]})
write("dora.safetensors", {**kohya("lora_unet_", 8, 768, 4.0), f"{name}.dora_scale": [320, 1]})
write("whole.safetensors", {f"{name}.diff": ([32, 24], 1.0)})
write("oft.safetensors", {f"{name}.oft_blocks": [4, 8, 8]})
write("half.safetensors", {f"{name}.lora_down.weight": [4, 768]})
path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
write("peft.safetensors", {f"{path}.lora_A.weight": [4, 768], f"{path}.lora_B.weight": [320, 4]})
write("diffusers.safetensors", {f"{path}.lora.down.weight": [4, 768], f"{path}.lora.up.weight": [320, 4]})
conv = "lora_unet_down_blocks_0_resnets_0_conv1"
write("conv.safetensors", {f"{conv}.lora_down.weight": [4, 320, 3, 3], f"{conv}.lora_up.weight": [320, 4, 1, 1]})
unet = "model.diffusion_model."
write("inpainting.safetensors", {f"{unet}input_blocks.0.0.weight": [320, 9, 3, 3]})
write("xl_model.safetensors", {f"{unet}input_blocks.0.0.weight": [320, 4, 3, 3], "conditioner.embedders.0.x": [1]})
write("sd3.safetensors", {f"{unet}joint_blocks.0.x": [1]})
write("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": [4, 4]})
write("controlnet.safetensors", {"control_model.input_blocks.0.0.weight": [320, 4, 3, 3]})
write("embedding.safetensors", {"emb_params": [4, 768]})
write("token.safetensors", {"<cat>": [768]})
write("strange.safetensors", {f"{unet}input_blocks.0.0.weight": [320, 4, 3, 3], "betas": [10], "model_ema.decay": [],
                              "my.tensor": [2], "cond_stage_model.x": [1]})
write("large.safetensors", {f"{unet}input_blocks.0.0.weight": [320, 4, 3, 3], f"{unet}big": [1 << 20, 1 << 10]}, size=1)
length, header = 334643276, 104  # bytes of an official VAE; of a header that makes it so
text = json.dumps({"encoder.down_blocks.0.x": {"dtype": "F32", "shape": [(length - 8 - header) // 4],
                                               "data_offsets": [0, length - 8 - header]}})
with open(os.path.join(folder, "vae.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", header) + text.ljust(header).encode())
    f.truncate(length)
for name, start in {"page": b"<!DOCTYPE html><html><body>Not found", "lfs": b"version https://git-lfs.github.com/spec/v1\n"
                    b"oid sha256:00\nsize 4265146304\n", "pickle": b"cposix\nsystem\n(S'touch ran'\ntR."}.items():
    with open(os.path.join(folder, f"{name}.safetensors"), "wb") as f:
        f.write(start)
with open(os.path.join(folder, "kohya.safetensors"), "rb") as f:
    whole = f.read()
with open(os.path.join(folder, "cut.safetensors"), "wb") as f:
    f.write(whole[:-1])
