"""Tiny Stable Diffusion models with random weights, written by diffusers and transformers.

Every size is small, but the networks have all parts of the real ones: U-Net with any channel list, CLIP with the
real vocabulary, a KL-VAE of four levels (latents are 1/8 of the picture).
"""
import os
import subprocess

import torch
from diffusers import (AutoencoderKL, AutoencoderTiny, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline,
                       UNet2DConditionModel)
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

# channels: block_out_channels; heads: "attention_head_dim" (a head count); groups: of the U-Net's group norms
SD1 = dict(v2=False, channels=(32, 64), heads=4, groups=32, layers=1, context=32, clip_layers=2, act="quick_gelu")
SD1_WIDE = dict(SD1, channels=(64, 96, 128, 128), heads=8, layers=2, context=40, clip_layers=3)
SD1_ODD = dict(SD1, channels=(32, 64, 64), heads=2, groups=16, layers=2, context=24, clip_layers=3)
SD2 = dict(v2=True, channels=(32, 64, 64), heads=[2, 4, 8], groups=16, layers=1, context=24, clip_layers=2, act="gelu")
SD2_WIDE = dict(SD2, channels=(32, 64, 96, 96), heads=[2, 4, 3, 6], layers=2, context=40, clip_layers=3)


def write_tokenizer(build, folder, v2):
    """The tokenizer's files, by dreamrun's own writer (tokenizer_peers.py checks them by their sha256)."""
    os.makedirs(folder)
    driver = os.path.join(build, "tests", "text_driver")
    subprocess.run([driver, *(["--v2"] if v2 else []), "--save", folder], check=True)
    return CLIPTokenizer.from_pretrained(folder)


def make_unet(spec):
    n = len(spec["channels"])
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=spec["channels"],
        down_block_types=("CrossAttnDownBlock2D",) * (n - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (n - 1),
        layers_per_block=spec["layers"], cross_attention_dim=spec["context"], attention_head_dim=spec["heads"],
        norm_num_groups=spec["groups"], use_linear_projection=spec["v2"])


def make_text_encoder(spec):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, max_position_embeddings=77, hidden_size=spec["context"],
        intermediate_size=3 * spec["context"], num_hidden_layers=spec["clip_layers"],
        num_attention_heads=spec["context"] // 8, hidden_act=spec["act"], projection_dim=spec["context"],
        bos_token_id=49406, eos_token_id=49407, pad_token_id=0 if spec["v2"] else 1))


def make_vae():
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16, 32, 32), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8, sample_size=64, scaling_factor=0.18215)
    # A narrow posterior, so that an error of its mean shows in the sampled latents.
    vae.quant_conv.bias.data[4:] -= 10.0
    return vae


def randomise(model):
    """
    More like a trained model: norm weights that are not 1, biases that are not 0, attention that is not uniform.
    Under uniform attention the gradients of queries and keys all but vanish and are rounding noise in any f32.
    """
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.data += 0.05 * torch.randn_like(p)
        elif any(part in name for part in ("to_q.", "to_k.", "q_proj.", "k_proj.")):
            p.data *= 3.0


def make_scheduler(v_prediction):
    common = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False,
                  steps_offset=1)
    if v_prediction:
        return DDIMScheduler(**common, clip_sample=False, prediction_type="v_prediction")
    return PNDMScheduler(**common, skip_prk_steps=True)


def write_model(folder, spec, tokenizer, seed, v_prediction=False):
    torch.manual_seed(seed)
    unet, text_encoder, vae = make_unet(spec), make_text_encoder(spec), make_vae()
    for model in (unet, text_encoder, vae):
        randomise(model)
    pipe = StableDiffusionPipeline(
        unet=unet, text_encoder=text_encoder, vae=vae, tokenizer=tokenizer, scheduler=make_scheduler(v_prediction),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder, safe_serialization=True)


def load_taesd(folder):
    """The real TAESD from its two files, as diffusers' AutoencoderTiny."""
    vae = AutoencoderTiny()
    # The decoder's file counts its clamp as layer 0; diffusers has no module for it.
    state = {f"encoder.layers.{k}": v for k, v in load_file(os.path.join(folder, "taesd_encoder.safetensors")).items()}
    for key, value in load_file(os.path.join(folder, "taesd_decoder.safetensors")).items():
        number, rest = key.split(".", 1)
        state[f"decoder.layers.{int(number) - 1}.{rest}"] = value
    vae.load_state_dict({k: v.float() for k, v in state.items()})
    return vae
