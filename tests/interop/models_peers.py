#!/usr/bin/env python3
"""Compares dreamrun's reading and writing of models with diffusers and transformers.

    models_peers.py BUILD_DIR        (needs diffusers, transformers, safetensors, torch)

- tiny random models that diffusers wrote, SD 1.x and 2.x kinds: every tensor is loaded equal; what we save as a
  directory and as a single file loads in StableDiffusionPipeline both ways with equal tensors; a directory made from
  our single file computes the same (its configs are ours)
- other forms in the wild: transformers 5's names, position_ids, old VAE attention names, half precision, EMA and
  schedule tensors, text encoders without "text_model."
- --vae in all its forms
- the single-file names of full-size models against the key maps of $DR_SHARED/keymaps (skipped without them)
- init_model's models load in diffusers; inspect counts what safetensors counts

Ends with "N passed, N failed, N skipped"; exit status 1 when something failed.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tiny_models

FOLDERS = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors",
           "vae": "vae/diffusion_pytorch_model.safetensors"}
TEXT = "cond_stage_model.transformer."


class Score:
    passed = failed = skipped = 0

    def check(self, question, good, detail=""):
        if good:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAILED {question} {detail}")

    def equal(self, question, got, want):
        """Two state dicts with the same names, shapes and bits."""
        wrong = sorted(set(got) ^ set(want)) or [
            k for k in want if got[k].shape != want[k].shape or got[k].dtype != want[k].dtype or
            not torch.equal(got[k], want[k])]
        self.check(question, not wrong, f"{len(wrong)} tensors, first {wrong[:3]}")


class Tools:
    def __init__(self, build):
        self.driver = os.path.join(build, "tests", "model_driver")
        self.tools = os.path.join(build, "bin", "dreamrun_tools")

    @staticmethod
    def run(words):
        done = subprocess.run(list(map(str, words)), capture_output=True, check=False, text=True)
        return done.returncode, done.stdout, done.stderr

    def drive(self, *words):
        code, out, err = self.run([self.driver, *words])
        if code != 0:
            raise RuntimeError(f"model_driver {' '.join(map(str, words))}: {err}")
        return out

    def dump(self, path, flags, folder):
        out = os.path.join(folder, "dump.safetensors")
        self.drive("dump", path, out, *flags)
        return load_file(out)


def state_of(model_dir):
    """All tensors of a Diffusers directory as our dump names them."""
    state = {}
    for part, name in FOLDERS.items():
        for key, value in load_file(os.path.join(model_dir, name)).items():
            state[f"{part}.{key}"] = value
    return state


def state_of_pipe(pipe):
    state = {}
    for part in FOLDERS:
        for key, value in getattr(pipe, part).state_dict().items():
            if not key.endswith("position_ids"):
                state[f"{part}.{key}"] = value
    return state


def load_pipe(path):
    return StableDiffusionPipeline.from_pretrained(path, local_files_only=True, safety_checker=None)


@torch.no_grad()
def outputs(pipe):
    """What the three networks compute from fixed inputs."""
    g = torch.Generator().manual_seed(5)
    ids = pipe.tokenizer("wow! a photo of sks dog", padding="max_length", max_length=77, truncation=True,
                         return_tensors="pt").input_ids
    states = pipe.text_encoder(ids)[0]
    x = torch.randn(1, 4, 16, 16, generator=g)
    image = torch.randn(1, 3, 64, 64, generator=g)
    noise = pipe.unet(x, torch.tensor([321]), states).sample
    latent = pipe.vae.encode(image).latent_dist.parameters
    picture = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample
    return {"ids": ids, "states": states, "noise": noise, "latent": latent, "picture": picture}


def flags_of(spec, v_prediction):
    return (["--v2"] if spec["v2"] else []) + (["--v_parameterization"] if v_prediction else [])


def check_model(tools, score, name, source, flags, folder):
    """Load, save both ways, load again there and here."""
    want = state_of(source)
    score.equal(f"{name}: load", tools.dump(source, flags, folder), want)

    copy, single, back = (os.path.join(folder, n) for n in ("copy", "single.safetensors", "back"))
    hashes = {tools.drive("save", source, copy, "diffusers_safetensors", *flags),
              tools.drive("save", source, single, "safetensors", *flags),
              tools.drive("save", single, back, "diffusers_safetensors", *flags)}
    score.check(f"{name}: one VAE hash for all forms", len(hashes) == 1, hashes)
    pipe, copied, made = load_pipe(source), load_pipe(copy), load_pipe(back)
    score.equal(f"{name}: saved directory in diffusers", state_of_pipe(copied), state_of_pipe(pipe))
    score.equal(f"{name}: directory from our file in diffusers", state_of_pipe(made), state_of_pipe(pipe))
    score.equal(f"{name}: and what it computes", outputs(made), outputs(pipe))
    score.check(f"{name}: prediction type",
                made.scheduler.config.prediction_type == pipe.scheduler.config.prediction_type)
    for part, file in FOLDERS.items():
        with open(os.path.join(source, file), "rb") as a, open(os.path.join(back, file), "rb") as b:
            score.check(f"{name}: {part} through a single file, byte for byte", a.read() == b.read())
    from_file = StableDiffusionPipeline.from_single_file(single, config=source, local_files_only=True,
                                                         safety_checker=None)
    score.equal(f"{name}: single file in diffusers", state_of_pipe(from_file), state_of_pipe(pipe))
    score.equal(f"{name}: single file here", tools.dump(single, flags, folder), want)

    again = os.path.join(folder, "again.safetensors")
    tools.drive("train", single, again, "safetensors", "F32", *flags)
    score.equal(f"{name}: trained over a single file", load_file(again), load_file(single))
    for kind, dtype in (("F16", torch.float16), ("BF16", torch.bfloat16)):
        tools.drive("train", source, copy, "diffusers_safetensors", kind, *flags)
        half = {k: v if k.startswith("vae.") else v.to(dtype) for k, v in want.items()}
        score.equal(f"{name}: trained tensors in {kind}", state_of(copy), half)
        score.equal(f"{name}: {kind} read again", tools.dump(copy, flags, folder),
                    {k: v.float() for k, v in half.items()})


def rewrite(path, change):
    state = change(load_file(path))
    save_file({k: v.contiguous() for k, v in state.items()}, path, metadata={"format": "pt"})


def check_wild_directory(tools, score, source, flags, folder):
    """Names that other writers use, in half precision; what we save has the usual ones."""
    wild = os.path.join(folder, "wild")
    shutil.copytree(source, wild)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def text(state):
        state = {k.removeprefix("text_model."): v.bfloat16() for k, v in state.items()}
        return state | {"embeddings.position_ids": torch.arange(77)[None].half()}

    def vae(state):
        for new, name in old.items():
            state = {k.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for k, v in state.items()}
        return {k: v.double() for k, v in state.items()}

    rewrite(os.path.join(wild, FOLDERS["text_encoder"]), text)
    rewrite(os.path.join(wild, FOLDERS["vae"]), vae)
    rewrite(os.path.join(wild, FOLDERS["unet"]), lambda state: {k: v.half() for k, v in state.items()})
    kept = {"unet": torch.float16, "text_encoder": torch.bfloat16, "vae": torch.float64}
    want = {k: v.to(kept[k.split(".")[0]]) for k, v in state_of(source).items()}
    score.equal("other names, load", tools.dump(wild, flags, folder), {k: v.float() for k, v in want.items()})
    saved = os.path.join(folder, "tame")
    tools.drive("save", wild, saved, "diffusers_safetensors", *flags)
    score.equal("other names, saved", state_of(saved), want)


def check_wild_single(tools, score, single, flags, folder):
    """Everything else in a single file stays; a text encoder without "text_model." gets it back."""
    wild, saved = os.path.join(folder, "wild.safetensors"), os.path.join(folder, "tame.safetensors")
    state = load_file(single)
    extra = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
             "model_ema.diffusion_modelout2bias": torch.randn(4), "betas": torch.rand(1000, dtype=torch.float64),
             "alphas_cumprod": torch.rand(1000).half(), "logvar": torch.zeros(0)}
    short = {k.replace(TEXT + "text_model.", TEXT): v for k, v in state.items()}
    short[TEXT + "embeddings.position_ids"] = torch.arange(77)[None]
    with safe_open(single, "pt") as f:
        save_file(short | extra, wild, metadata=f.metadata())
    tools.drive("train", wild, saved, "safetensors", "F16", *flags)
    trained = ("model.diffusion_model.", TEXT)
    want = {k: v.half() if k.startswith(trained) else v for k, v in state.items()} | extra
    want[TEXT + "text_model.embeddings.position_ids"] = torch.arange(77)[None]
    score.equal("single file keeps what it had", load_file(saved), want)


def check_vaes(tools, score, source, single, flags, folder):
    """--vae: the directory, the model, the checkpoint, the bare file with and without prefix, TAESD."""
    other, other_single = os.path.join(folder, "other"), os.path.join(folder, "other.safetensors")
    shutil.copytree(source, other)
    rewrite(os.path.join(other, FOLDERS["vae"]), lambda state: {k: v * 0.5 for k, v in state.items()})
    tools.drive("save", other, other_single, "safetensors", *flags)
    vae = {k: v for k, v in load_file(other_single).items() if k.startswith("first_stage_model.")}
    meta = {"dreamrun.vae.norm_num_groups": "8"}
    prefixed, bare = os.path.join(folder, "prefixed.safetensors"), os.path.join(folder, "bare.safetensors")
    save_file(vae, prefixed, metadata=meta)
    save_file({k.removeprefix("first_stage_model."): v for k, v in vae.items()}, bare, metadata=meta)
    want = {k: v for k, v in state_of(source).items() if not k.startswith("vae.")}
    want |= {k: v for k, v in state_of(other).items() if k.startswith("vae.")}
    forms = {"directory": os.path.join(other, "vae"), "model": other, "checkpoint": other_single, "file": prefixed,
             "bare file": bare, "file of a directory": os.path.join(other, FOLDERS["vae"])}
    for name, path in forms.items():
        for base in (source, single):
            score.equal(f"--vae {name}, load", tools.dump(base, [*flags, "--vae", path], folder), want)
            saved = os.path.join(folder, "with_vae")
            tools.drive("save", base, saved, "diffusers_safetensors", *flags, "--vae", path)
            score.equal(f"--vae {name}, saved", state_of(saved), want)
            score.equal(f"--vae {name}, in diffusers", state_of_pipe(load_pipe(saved)), want)
    saved = os.path.join(folder, "with_vae.safetensors")
    tools.drive("save", single, saved, "safetensors", *flags, "--vae", bare)
    score.equal("--vae over the VAE of a single file", load_file(saved), load_file(single) | vae)
    check_tiny_vae(tools, score, source, single, flags, folder)


def check_tiny_vae(tools, score, source, single, flags, folder):
    taesd = os.path.join(os.environ.get("DR_SHARED", ""), "taesd")
    if not os.path.isdir(taesd):
        score.skipped += 1
        return
    vae = tiny_models.load_taesd(taesd)
    vae_dir, saved = os.path.join(folder, "tiny_vae"), os.path.join(folder, "with_tiny")
    vae.save_pretrained(vae_dir)
    want = {f"vae.{k}": v for k, v in vae.state_dict().items()}
    for path in (taesd, vae_dir):
        got = tools.dump(source, [*flags, "--vae", path], folder)
        score.equal("--vae TAESD, load", {k: v for k, v in got.items() if k.startswith("vae.")}, want)
        tools.drive("save", source, saved, "diffusers_safetensors", *flags, "--vae", path)
        pipe = load_pipe(saved)
        score.check("--vae TAESD, class in diffusers", isinstance(pipe.vae, AutoencoderTiny))
        score.equal("--vae TAESD, in diffusers", {f"vae.{k}": v.float() for k, v in pipe.vae.state_dict().items()}, want)
    kept = os.path.join(folder, "kept.safetensors")
    tools.drive("save", single, kept, "safetensors", *flags, "--vae", taesd)
    score.equal("--vae TAESD leaves a single file's VAE", load_file(kept), load_file(single))
    code, _, err = tools.run([tools.driver, "save", source, kept, "safetensors", *flags, "--vae", taesd])
    score.check("--vae TAESD into a single file is refused", code == 64 and "tiny VAE" in err, (code, err))


def check_names(tools, score, family):
    path = os.path.join(os.environ.get("DR_SHARED", ""), "keymaps", f"stable_diffusion_sd{family}.json")
    if not os.path.exists(path):
        score.skipped += 1
        return
    with open(path, encoding="utf-8") as f:
        table = json.load(f)
    short = {"unet": "unet_", "text_encoder": "te_", "vae": "vae_"}
    ours = set()
    for line in tools.drive("names", family).splitlines():
        ldm, row, name = line.split("\t")
        part, key = name.split(".", 1)
        ours.add((ldm, int(row), short[part] + key))
    theirs = {(ldm, 0, name) for ldm, name in table["ldm_diffusers_keymap"].items()}
    for name, operator in table["diffusers_ldm_operator_map"].items():
        ldm, rows = operator["slice"]
        theirs.add((ldm, int(rows.split(":")[0]), name))
    skip = ("cond_stage_model.model.text_projection", "cond_stage_model.model.logit_scale")
    theirs = {t for t in theirs if ".resblocks.23." not in t[0] and t[0] not in skip}
    score.check(f"names of SD{family}", ours == theirs,
                (sorted(ours - theirs)[:3], sorted(theirs - ours)[:3]))


def check_init(tools, score, folder):
    for kind in ("tiny", "tiny2", "tiny2v"):
        path, single = os.path.join(folder, kind), os.path.join(folder, kind + ".safetensors")
        for words in ([path], [single, "--format", "safetensors"]):
            code, _, err = tools.run([tools.tools, "init_model", kind, *words, "--seed", 3])
            score.check(f"init_model {kind}", code == 0, err)
        pipe = load_pipe(path)
        score.equal(f"{kind}: in diffusers", state_of_pipe(pipe), state_of(path))
        from_file = StableDiffusionPipeline.from_single_file(single, config=path, local_files_only=True,
                                                             safety_checker=None)
        score.equal(f"{kind}: both formats are one model", state_of_pipe(from_file), state_of_pipe(pipe))
        check_statistics(score, kind, pipe)
        pipe.set_progress_bar_config(disable=True)
        images = pipe("sks dog", num_inference_steps=2, height=64, width=64, output_type="np").images
        score.check(f"{kind}: the pipeline runs", images.shape == (1, 64, 64, 3))


def check_statistics(score, kind, pipe):
    """Weights are distributed as torch initialises such layers."""
    for part in ("unet", "vae", "text_encoder"):
        for name, module in getattr(pipe, part).named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                bound = module.weight[0].numel()**-0.5
                n = module.weight.numel()
                tensors = [module.weight] + ([module.bias] if module.bias is not None else [])
                good = all(t.abs().max() <= bound for t in tensors)
                # uniform: deviation bound/sqrt(3); 6 standard errors of it and of the mean
                good = good and abs(module.weight.std() / (bound / 3**0.5) - 1) < 6 / n**0.5
                good = good and abs(module.weight.mean()) < 6 * bound / (3 * n)**0.5
            elif isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
                good = bool((module.weight == 1).all()) and bool((module.bias == 0).all())
            elif isinstance(module, torch.nn.Embedding):
                good = abs(module.weight.std() / 0.02 - 1) < 6 / (2 * module.weight.numel())**0.5
            else:
                continue
            if not good:
                score.check(f"{kind}: initial {part}.{name}", False)
                return
    score.check(f"{kind}: initial weights", True)


def check_inspect(tools, score, path):
    code, out, err = tools.run([tools.tools, "inspect", path, "--json", "--tensors"])
    score.check("inspect", code == 0, err)
    file = json.loads(out)["files"][0]
    with safe_open(path, "pt") as f:
        want = {k: (f.get_slice(k).get_dtype(), f.get_slice(k).get_shape()) for k in f.keys()}
        score.check("inspect: metadata", file["metadata"] == f.metadata())
    got = {t["name"]: (t["dtype"], t["shape"]) for t in file["tensors"]}
    score.check("inspect: names, dtypes, shapes", got == want)
    score.check("inspect: parameters",
                file["n_parameters"] == sum(t.numel() for t in load_file(path).values()))


def main():
    tools, score = Tools(sys.argv[1]), Score()
    with tempfile.TemporaryDirectory() as folder:
        tokenizers = {v2: tiny_models.write_tokenizer(sys.argv[1], os.path.join(folder, f"tokenizer{v2}"), v2)
                      for v2 in (False, True)}
        models = [("SD1", tiny_models.SD1, False), ("SD1 wide", tiny_models.SD1_WIDE, False),
                  ("SD1 odd", tiny_models.SD1_ODD, False), ("SD2", tiny_models.SD2, False),
                  ("SD2 wide, v", tiny_models.SD2_WIDE, True)]
        for seed, (name, spec, v_prediction) in enumerate(models):
            place = os.path.join(folder, str(seed))
            source = os.path.join(place, "source")
            tiny_models.write_model(source, spec, tokenizers[spec["v2"]], seed, v_prediction)
            check_model(tools, score, name, source, flags_of(spec, v_prediction), place)
        first = os.path.join(folder, "0")
        source, single = os.path.join(first, "source"), os.path.join(first, "single.safetensors")
        check_wild_directory(tools, score, source, [], first)
        check_wild_single(tools, score, single, [], first)
        check_vaes(tools, score, source, single, [], first)
        for family in (1, 2):
            check_names(tools, score, family)
        check_init(tools, score, folder)
        check_inspect(tools, score, single)
    print(f"{score.passed} passed, {score.failed} failed, {score.skipped} skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
