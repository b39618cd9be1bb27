#!/usr/bin/env python3
"""Golden vectors of the text encoder, the autoencoders, the noise schedule and the samplers.

Peers: transformers CLIPTextModel, diffusers AutoencoderKL, AutoencoderTiny, all schedulers
that sd-scripts samples with, torch. Networks run in f64 with the weights of tests/support/golden_input.h.
Writes data/models_vectors.h and data/diffusion_vectors.h beside this script. The vectors of the
real TAESD weights need the folder of test material in DR_SHARED.

Run: python tests/golden/models_vectors.py
"""
import math
import os
import pathlib
import sys

import diffusers
import numpy as np
import torch
import transformers
from safetensors.torch import load_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
import sd_schedulers
MASK = 0xFFFFFFFFFFFFFFFF


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def uniform(key, n):
    with np.errstate(over="ignore"):
        z = np.arange(n, dtype=np.uint64) + np.uint64(fnv(key))
        z += np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-24 - 0.5


def fill(key, shape, scale=3.4641016151377544):
    values = (uniform(key, int(np.prod(shape))) * scale).astype(np.float32)
    return torch.from_numpy(values.astype(np.float64)).reshape(shape)


def param(key, shape):
    u = uniform(key, int(np.prod(shape)))
    if len(shape) >= 2:
        u = u * math.sqrt(12.0 / np.prod(shape[1:]))
    elif key.endswith(".bias"):
        u = 0.1 * u
    else:
        u = 1.0 + 0.2 * u
    return torch.from_numpy(u.astype(np.float32).astype(np.float64)).reshape(tuple(shape))


def set_params(model, prefix=""):
    for name, p in model.named_parameters():
        p.data = param(prefix + name, p.shape)


def numbers(values):
    return ", ".join(repr(float(v)) for v in values)


def stats(t):
    """Initializer of golden_stats (golden_compare.h)."""
    t = t.detach().double().flatten()
    return "{%r, {%s}, %r}" % (t.norm().item(), numbers(t[:4]), t[-1].item())


def clip_case(name, skip, tokens, cfg):
    config = transformers.CLIPTextConfig(attention_dropout=0.0, **cfg)
    model = transformers.CLIPTextModel(config).double().eval()
    prefix = "" if hasattr(model, "text_model") else "text_model."
    set_params(model, prefix)
    body = getattr(model, "text_model", model)
    ids = torch.from_numpy(
        np.floor((uniform("input.ids", 2 * tokens) + 0.5) * cfg["vocab_size"]).astype(np.int64)
    ).reshape(2, tokens)
    hidden = model(ids, output_hidden_states=True).hidden_states[-skip]
    out = body.final_layer_norm(hidden)
    (out * fill("input.dout", out.shape)).sum().backward()
    grads = []
    for key, p in model.named_parameters():
        g = torch.zeros_like(p) if p.grad is None else p.grad
        g = g.flatten()
        grads.append(
            '     {"%s", %r, {%s}},' % (prefix + key, g.norm().item(), numbers(g[:2]))
        )
    return """    {.name = "%s", .vocab = %d, .positions = %d, .width = %d, .mlp_width = %d, .layers = %d,
     .heads = %d, .act = "%s", .clip_skip = %d, .tokens = %d,
     .out = %s,
     .n_grads = %d,
     .grads = {
%s
     }},
""" % (
        name, cfg["vocab_size"], cfg["max_position_embeddings"], cfg["hidden_size"],
        cfg["intermediate_size"], cfg["num_hidden_layers"], cfg["num_attention_heads"],
        cfg["hidden_act"], skip, tokens, stats(out), len(grads), "\n".join(grads),
    )


def clip_vectors():
    a = dict(vocab_size=99, max_position_embeddings=11, hidden_size=24, intermediate_size=40,
             num_hidden_layers=3, num_attention_heads=3, hidden_act="quick_gelu")
    b = dict(vocab_size=50, max_position_embeddings=9, hidden_size=40, intermediate_size=56,
             num_hidden_layers=2, num_attention_heads=5, hidden_act="gelu")
    cases = (clip_case("quick_gelu", 1, 11, a) + clip_case("quick_gelu, skip 2", 2, 11, a)
             + clip_case("gelu, short text", 1, 7, b) + clip_case("gelu, no layer", 3, 9, b))
    return """static const struct {
    const char *name;
    int vocab, positions, width, mlp_width, layers, heads;
    const char *act;
    int clip_skip, tokens;
    golden_stats out;
    int n_grads;
    struct {
        const char *name;
        double l2, first[2];
    } grads[56];
} golden_clip[] = {
%s};
""" % cases


def vae_case(name, image, **cfg):
    model = diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(cfg["block_out_channels"]),
        up_block_types=["UpDecoderBlock2D"] * len(cfg["block_out_channels"]), **cfg
    ).double().eval()
    set_params(model)
    with torch.no_grad():
        moments = model.encode(fill("input.image", image) * 0.25).latent_dist.parameters
        n, c, h, w = moments.shape
        decoded = model.decode(fill("input.latent", (n, c // 2, h, w))).sample
    return """    {.name = "%s", .latent = %d, .n_levels = %d, .channels = {%s}, .layers = %d, .groups = %d,
     .image = {%s},
     .moments = %s,
     .decoded = %s},
""" % (name, c // 2, len(cfg["block_out_channels"]), numbers_int(cfg["block_out_channels"]),
       cfg["layers_per_block"], cfg["norm_num_groups"], numbers_int(image), stats(moments),
       stats(decoded))


def numbers_int(values):
    return ", ".join(str(v) for v in values)


def vae_vectors():
    cases = vae_case("two levels", (2, 3, 12, 8), block_out_channels=[32, 64],
                     layers_per_block=1, norm_num_groups=32, latent_channels=4)
    cases += vae_case("three odd levels", (1, 3, 20, 28), block_out_channels=[8, 20, 12],
                      layers_per_block=2, norm_num_groups=4, latent_channels=3)
    return """static const struct {
    const char *name;
    int latent, n_levels, channels[4], layers, groups;
    int64_t image[4]; /* N, C, H, W */
    golden_stats moments, decoded;
} golden_vae[] = {
%s};
""" % cases


def tiny_case(name, model, image, latent_scale, cfg):
    with torch.no_grad():
        latents = model.encode(fill("input.image", image) * 0.5).latents
        decoded = model.decode(fill("input.latent", latents.shape) * latent_scale).sample
    return """%s {.name = "%s", .width = %d, .n_stages = %d, .encoder_blocks = {%s},
     .decoder_blocks = {%s}, .latent = %d, .image = {%s},
     .latents = %s,
     .decoded = %s}""" % (
        "   ", name, cfg["encoder_block_out_channels"][0], len(cfg["num_encoder_blocks"]),
        numbers_int(cfg["num_encoder_blocks"]), numbers_int(cfg["num_decoder_blocks"]),
        cfg["latent_channels"], numbers_int(image), stats(latents), stats(decoded))


def real_taesd():
    folder = pathlib.Path(os.environ["DR_SHARED"]) / "taesd"
    model = diffusers.AutoencoderTiny().double().eval()
    state = {}
    for key, value in load_file(folder / "taesd_encoder.safetensors").items():
        state["encoder.layers." + key] = value.double()
    for key, value in load_file(folder / "taesd_decoder.safetensors").items():
        layer, rest = key.split(".", 1)
        state["decoder.layers.%d.%s" % (int(layer) - 1, rest)] = value.double()
    model.load_state_dict(state, strict=True)
    return model


def tiny_vectors():
    cfg = dict(encoder_block_out_channels=(6, 6, 6), decoder_block_out_channels=(6, 6, 6),
               num_encoder_blocks=(1, 2, 1), num_decoder_blocks=(2, 1, 1), latent_channels=5)
    model = diffusers.AutoencoderTiny(**cfg).double().eval()
    set_params(model)
    cases = [tiny_case("odd", model, (2, 3, 12, 20), 1.0, cfg)]
    real = dict(encoder_block_out_channels=(64,), num_encoder_blocks=(1, 3, 3, 3),
                num_decoder_blocks=(3, 3, 3, 1), latent_channels=4)
    cases.append(tiny_case("real", real_taesd(), (1, 3, 32, 24), 2.0, real))
    return """static const struct {
    const char *name;
    int width, n_stages, encoder_blocks[4], decoder_blocks[4], latent;
    int64_t image[4];
    golden_stats latents, decoded; /* decoded: of unit-variance noise; real: twice that */
} golden_tiny[] = {
%s};
""" % ",\n".join(cases)


def bits(tensor):
    words = tensor.to(torch.float32).numpy().view(np.uint32)
    lines = []
    for i in range(0, len(words), 8):
        lines.append("    " + ", ".join("0x%08x" % w for w in words[i:i + 8]) + ",")
    return "\n".join(lines)


def schedule_vectors():
    s = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                num_train_timesteps=1000)
    ac = s.alphas_cumprod
    tables = {"golden_betas": s.betas, "golden_alphas_cumprod": ac, "golden_sqrt_ac": ac**0.5,
              "golden_sqrt_one_minus_ac": (1 - ac) ** 0.5}
    text = ""
    for name, table in tables.items():
        text += "static const uint32_t %s[1000] = {\n%s\n};\n" % (name, bits(table))
    return text


SAMPLE = 7  # numbers per latent


def sampler_case(kind, prediction, steps, sd_scripts=True, karras=False, zero_snr=False):
    s = sd_schedulers.make(kind, prediction, sd_scripts, karras, zero_snr)
    s.set_timesteps(steps)
    start = float(s.init_noise_sigma)
    x = fill("sampler.noise", (SAMPLE,)).float() * s.init_noise_sigma
    scaled = []
    for i, t in enumerate(s.timesteps):
        scaled.append(float(s.scale_model_input(x, t)[0]))
        output = fill("sampler.output.%d" % i, (SAMPLE,)).float()
        sd_schedulers.draw_from(kind, lambda shape, key="sampler.noise.%d" % i: fill(key, shape).float())
        x = s.step(output, t, x).prev_sample
    flags = "".join(", .%s = true" % n for n, on in
                    (("as_sd_scripts", sd_scripts), ("karras", karras), ("zero_snr", zero_snr)) if on)
    return """    {.kind = "%s", .prediction = "%s", .steps = %d%s, .calls = %d, .init = %r,
     .timesteps = {%s},
     .scaled = {%s},
     .final = {%s}},
""" % (kind, prediction, steps, flags, len(scaled), start, numbers(s.timesteps), numbers(scaled), numbers(x))


def sampler_vectors():
    cases = ""
    for prediction in ("epsilon", "v_prediction"):
        for kind in sd_schedulers.CLASSES:
            for steps in (4 if kind == "pndm" else 1, 7, 16):
                cases += sampler_case(kind, prediction, steps)
            if kind not in ("ddim", "pndm", "euler_a"):
                cases += sampler_case(kind, prediction, 8, karras=True)
        for kind in ("ddim", "pndm"):
            for steps in (1, 2, 12):
                cases += sampler_case(kind, prediction, steps, sd_scripts=False)
    for kind in ("ddim", "euler", "euler_a", "dpmsolver++"):
        cases += sampler_case(kind, "v_prediction", 8, sd_scripts=False, zero_snr=True)
    return """/* Model output of call i: golden fill of "sampler.output.<i>"; start: "sampler.noise" * init; noise
 * of call i: "sampler.noise.<i>". */
enum { GOLDEN_SAMPLE = %d };
static const struct {
    const char *kind, *prediction;
    int steps, calls;
    bool as_sd_scripts, karras, zero_snr;
    double init, timesteps[32];
    double scaled[32]; /* first number of the scaled model input of each call */
    double final[GOLDEN_SAMPLE];
} golden_samplers[] = {
%s};
""" % (SAMPLE, cases)


def write(name, text):
    head = "/* Written by tests/golden/models_vectors.py with torch %s, diffusers %s,\n" % (
        torch.__version__.split("+")[0], diffusers.__version__)
    head += " * transformers %s. Do not edit. */\n" % transformers.__version__
    head += "/* clang-format off */\n#include <stdbool.h>\n#include <stdint.h>\n\n"
    (HERE / "data" / name).write_text(head + text)


if __name__ == "__main__":
    write("diffusion_vectors.h", "\n".join([schedule_vectors(), sampler_vectors()]))
    torch.set_default_dtype(torch.float64)  # transformers builds its causal mask in this type
    write("models_vectors.h",
          "\n".join(['#include "../golden_compare.h"\n', clip_vectors(), vae_vectors(), tiny_vectors()]))
