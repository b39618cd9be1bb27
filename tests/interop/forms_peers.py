#!/usr/bin/env python3
"""Every form of model file in and out, beside torch, diffusers and transformers.

    forms_peers.py BUILD_DIR

- Diffusers directories as their writers make them: .bin, variants, shards, mixtures: every tensor is loaded equal
- single files: torch's zip and legacy stream, state_dict or not; VAE files of all kinds; what tells noise from v
- dreamrun convert between all forms: the same bits; what we write loads in torch.load(weights_only=True), safetensors,
  diffusers (from_pretrained, from_single_file) and transformers; precisions are torch's casts
- the .yaml of an SD 2.x checkpoint, the metadata of a trained one, the configs of real models

Ends with "N passed, N failed, N skipped"; exit status 1 when something failed.
"""
import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile

import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import tiny_models
from models_peers import FOLDERS, Score, Tools, flags_of, load_pipe, rewrite, state_of, state_of_pipe

FORMS = {"safetensors": "a.safetensors", "ckpt": "a.ckpt", "diffusers_safetensors": "a_dir", "diffusers": "a_bin"}


def convert(tools, score, source, target, *words):
    code, out, err = tools.run([tools.tools, "convert", source, target, *words])
    score.check(f"convert {os.path.basename(source)} {os.path.basename(target)} {words}", code == 0, err)
    return out + err


def read_any(path):
    """All tensors of a single file or directory as their own libraries read them."""
    if os.path.isdir(path):
        state = {}
        for part, name in FOLDERS.items():
            torch_name = name.replace("/model.safetensors", "/pytorch_model.bin").replace(".safetensors", ".bin")
            weights = os.path.join(path, name)
            if os.path.exists(weights):
                tensors = load_file(weights)
            else:
                tensors = torch.load(os.path.join(path, torch_name), weights_only=True)
            state |= {f"{part}.{k}": v for k, v in tensors.items()}
        return state
    if path.endswith(".safetensors"):
        return load_file(path)
    return torch.load(path, weights_only=True)["state_dict"]


# --- in ----------------------------------------------------------------------------------------------------------


def check_directories(tools, score, source, flags, folder):
    """Directories that diffusers and transformers wrote."""
    want, pipe = state_of(source), load_pipe(source)
    half = {k: v.half().float() for k, v in want.items()}
    forms = {"bin": dict(safe_serialization=False), "fp16": dict(variant="fp16"),
             "shards": dict(max_shard_size="1MB"), "bin shards": dict(safe_serialization=False, max_shard_size="1MB"),
             "bin fp16": dict(safe_serialization=False, variant="fp16"),
             "odd shards": dict(variant="mine", max_shard_size="1MB")}
    for name, words in forms.items():
        path = os.path.join(folder, name.replace(" ", "_"))
        is_half = words.get("variant") == "fp16"
        (load_pipe(source).to(torch.float16) if is_half else pipe).save_pretrained(path, **words)
        score.equal(f"{name}: load", tools.dump(path, flags, folder), half if is_half else want)
    full, mixed = os.path.join(folder, "fp16"), os.path.join(folder, "mixed")
    shutil.copytree(source, mixed)
    for part in FOLDERS:
        for file in os.listdir(os.path.join(full, part)):
            if "fp16" in file:
                shutil.copy(os.path.join(full, part, file), os.path.join(mixed, part, file))
    score.equal("full precision before a variant", tools.dump(mixed, flags, folder), want)


def check_single_files(tools, score, single, want, flags, folder):
    """torch's containers, and dictionaries of all kinds around the tensors."""
    state = load_file(single)
    with safe_open(single, "pt") as f:
        meta = f.metadata()
    ema = state | {"model_ema.diffusion_modelconv": torch.ones(3), "model_ema.decay": torch.tensor(0.5)}
    path = os.path.join(folder, "form.ckpt")
    contents = {"state_dict": {"state_dict": state, "epoch": 4, "global_step": 9, "metadata": meta},
                "lightning": {"state_dict": ema, "callbacks": {"x": [1, None]}, "lr_schedulers": [], "metadata": meta}}
    for name, content in contents.items():
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            score.equal(f"{name}, zip {zipped}", tools.dump(path, flags, folder), want)
    # counters add up, everything else stays
    torch.save(contents["lightning"] | {"epoch": 4, "global_step": 9}, path)
    again = os.path.join(folder, "again.ckpt")
    tools.drive("train", path, again, "ckpt", "F32", *flags)
    score.equal("ckpt over ckpt keeps what it had", read_any(again), ema)
    saved = torch.load(again, weights_only=True)
    score.check("counters", (saved["epoch"], saved["global_step"]) == (4, 9), saved.keys())


def check_vaes(tools, score, source, single, want, flags, folder):
    """VAE files alone, in both kinds of names and all containers."""
    ldm = {k: v * 0.5 for k, v in load_file(single).items() if k.startswith("first_stage_model.")}
    own = {k: v * 0.5 for k, v in load_file(os.path.join(source, FOLDERS["vae"])).items()}
    old = {k.replace(".to_q.", ".query.").replace(".to_k.", ".key.").replace(".to_v.", ".value.")
           .replace(".to_out.0.", ".proj_attn."): v[..., None, None] if ".to_" in k and v.dim() == 2 else v
           for k, v in own.items()}
    groups = {"metadata": {"dreamrun.vae.norm_num_groups": "8"}}
    bare = {k.removeprefix("first_stage_model."): v for k, v in ldm.items()}
    want = {k: v * 0.5 if k.startswith("vae.") else v for k, v in want.items()}
    files = {"prefixed.ckpt": ldm, "bare.pt": bare, "diffusers.bin": own, "old.bin": old}
    for name, state in files.items():
        path = os.path.join(folder, name)
        torch.save({"state_dict": state} | groups, path)
        score.equal(f"--vae {name}", tools.dump(source, [*flags, "--vae", path], folder), want)


def check_prediction(tools, score, single, folder):
    """What tells that a single file of the SD 2.x kind predicts v; wrong flags are errors that name it."""
    state = load_file(single)
    with safe_open(single, "pt") as f:
        meta = {k: v for k, v in f.metadata().items() if k != "dreamrun.prediction_type"}
    config = os.path.splitext(single)[0] + ".yaml"
    cases = {"metadata": (state, meta | {"modelspec.prediction_type": "v"}, False, "modelspec.prediction_type"),
             "v_pred": (state | {"v_pred": torch.zeros(0)}, meta, False, "v_pred"),
             "yaml": (state, meta, True, "yaml.yaml")}
    for name, (tensors, metadata, with_yaml, word) in cases.items():
        path = os.path.join(folder, f"{name}.safetensors")
        save_file(tensors, path, metadata=metadata)
        if with_yaml:
            shutil.copy(config, os.path.join(folder, f"{name}.yaml"))
        out = os.path.join(folder, "dump.safetensors")
        code, _, err = tools.run([tools.driver, "dump", path, out, "--v2"])
        score.check(f"v told by {name}", code == 64 and word in err and "use --v2 --v_parameterization" in err, err)
        code, _, err = tools.run([tools.driver, "dump", path, out])
        score.check("--v2 is missing", code == 64 and "use --v2 --v_parameterization" in err, err)
        code, _, err = tools.run([tools.driver, "dump", path, out, "--v2", "--v_parameterization"])
        score.check(f"right flags by {name}", code == 0, err)
    corrected = os.path.join(folder, "corrected")
    text = convert(tools, score, os.path.join(folder, "yaml.safetensors"), corrected, "--prediction_type", "epsilon")
    score.check("a correction is said", "predicts v; the new model says noise" in text, text)
    with open(os.path.join(corrected, "scheduler", "scheduler_config.json"), encoding="utf-8") as f:
        score.check("corrected prediction type", json.load(f)["prediction_type"] == "epsilon")


# --- out ---------------------------------------------------------------------------------------------------------


def check_pairs(tools, score, kind, folder):
    """All forms into all forms, bit for bit, and into the libraries."""
    start = os.path.join(folder, "start.safetensors")
    code, _, err = tools.run([tools.tools, "init_model", kind, start, "--seed", 5])
    score.check(f"init_model {kind}", code == 0, err)
    wanted = {}
    for form, name in FORMS.items():
        convert(tools, score, start, os.path.join(folder, name), "--to", form)
        wanted[form] = read_any(os.path.join(folder, name))
    score.equal(f"{kind}: both single files", wanted["ckpt"], load_file(start))
    score.equal(f"{kind}: both directories", wanted["diffusers"], wanted["diffusers_safetensors"])
    for form, name in FORMS.items():
        for other, target in FORMS.items():
            path = os.path.join(folder, "pair_" + target)
            convert(tools, score, os.path.join(folder, name), path, "--to", other)
            score.equal(f"{kind}: {form} to {other}", read_any(path), wanted[other])
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    check_libraries(score, kind, folder, wanted["diffusers"])
    check_precision(tools, score, kind, folder)


def check_libraries(score, kind, folder, want):
    path = {form: os.path.join(folder, name) for form, name in FORMS.items()}
    for form in ("diffusers", "diffusers_safetensors"):
        pipe = load_pipe(path[form])
        score.equal(f"{kind}: {form} in diffusers", state_of_pipe(pipe), want)
        score.check(f"{kind}: safety checker", pipe.safety_checker is None and pipe.feature_extractor is None)
        parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
        for part, cls in parts.items():
            state = cls.from_pretrained(os.path.join(path[form], part)).state_dict()
            score.equal(f"{kind}: {part} of {form}", {f"{part}.{k}": v for k, v in state.items()},
                        {k: v for k, v in want.items() if k.startswith(part + ".")})
    for form in ("safetensors", "ckpt"):
        pipe = StableDiffusionPipeline.from_single_file(path[form], config=path["diffusers_safetensors"],
                                                        local_files_only=True, safety_checker=None)
        score.equal(f"{kind}: {form} in diffusers", state_of_pipe(pipe), want)


def check_precision(tools, score, kind, folder):
    source, extra = os.path.join(folder, FORMS["ckpt"]), {"model_ema.decay": torch.tensor(0.9)}
    content = torch.load(source, weights_only=True)
    content["state_dict"] = dict(content["state_dict"]) | extra
    wide = os.path.join(folder, "wide.ckpt")
    torch.save(content, wide)
    for word, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        for form in ("safetensors", "ckpt", "diffusers"):
            path = os.path.join(folder, "cast_" + FORMS[form])
            convert(tools, score, wide, path, "--to", form, "--precision", word)
            base = content["state_dict"] if form != "diffusers" else read_any(os.path.join(folder, FORMS[form]))
            cast = {k: v if k in extra or not v.is_floating_point() else v.to(dtype) for k, v in base.items()}
            score.equal(f"{kind}: {form} in {word}", read_any(path), cast)


def check_yaml(tools, score, folder):
    shared = os.path.join(os.environ.get("DR_SHARED", ""), "yaml")
    if not os.path.isdir(shared):
        score.skipped += 1
        return
    for kind, name in (("sd2", "v2-inference.yaml"), ("sd2v", "v2-inference-v.yaml")):
        path = os.path.join(folder, name)
        tools.drive("yaml", kind, path)
        with open(path, encoding="utf-8") as ours, open(os.path.join(shared, name), encoding="utf-8") as theirs:
            score.check(f"yaml of {kind}", yaml.safe_load(ours) == yaml.safe_load(theirs))


def check_real_configs(tools, score):
    shared = os.path.join(os.environ.get("DR_SHARED", ""), "configs")
    if not os.path.isdir(shared):
        score.skipped += 1
        return
    one = "channels 320..1280 heads 8..8 context 768 layers 12 act quick_gelu vae 128 v 0\n"
    two = "channels 320..1280 heads 5..20 context 1024 layers 23 act gelu vae 128 v {}\n"
    models = {"runwayml-stable-diffusion-v1-5": one, "stable-diffusion-v1-4": one,
              "stable-diffusion-2-1-base": two.format(0), "stable-diffusion-2-1": two.format(1)}
    for name, text in models.items():
        score.check(f"config of {name}", tools.drive("config", os.path.join(shared, name)) == text)


def check_training(tools, score, build, folder):
    """What train_db writes, as its options say."""
    model, data, out = (os.path.join(folder, n) for n in ("start.safetensors", "data", "out"))
    tools.run([tools.tools, "make_pictures", data, "--n", 2, "--size", 64])
    words = [os.path.join(build, "bin", "train_db"), "--v2", "--v_parameterization", "--pretrained_model_name_or_path",
             model, "--train_data_dir", os.path.join(data, "train"), "--output_dir", out, "--resolution", 64,
             "--max_train_steps", 1, "--seed", 1]
    code, _, err = tools.run([*words, "--output_name", "dog", "--save_precision", "fp16", "--metadata_author", "me"])
    score.check("train", code == 0, err)
    path = os.path.join(out, "dog.safetensors")
    with safe_open(path, "pt") as f:
        meta = f.metadata()
    with open(path, "rb") as f:
        data_hash = hashlib.sha256(f.read()[8 + struct.unpack("<Q", open(path, "rb").read(8))[0]:]).hexdigest()
    want = {"modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": "stable-diffusion-v2-768-v",
            "modelspec.title": "dog", "modelspec.author": "me", "modelspec.resolution": "64x64",
            "modelspec.prediction_type": "v", "modelspec.hash_sha256": "0x" + data_hash,
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models", "ss_v2": "True",
            "ss_base_model_version": "sd_v2_v", "ss_steps": "1", "ss_output_name": "dog", "format": "pt"}
    score.check("metadata", meta.items() >= want.items(), set(want.items()) - set(meta.items()))
    before, after = load_file(model), load_file(path)
    vae = {k for k in before if k.startswith("first_stage_model.")}
    score.equal("the VAE is not rounded", {k: after[k] for k in vae}, {k: before[k] for k in vae})
    trained = ("model.diffusion_model.", "cond_stage_model.model.transformer.resblocks.0.")
    score.check("trained tensors in fp16", all(v.dtype == torch.float16 for k, v in after.items()
                                               if k.startswith(trained)))
    score.check("yaml beside it", os.path.exists(os.path.join(out, "dog.yaml")))
    for form, name in (("ckpt", "last.ckpt"), ("diffusers", "last"), ("diffusers_safetensors", "last")):
        code, _, err = tools.run([*words, "--save_model_as", form])
        score.check(f"--save_model_as {form}", code == 0, err)
        state = read_any(os.path.join(out, name))
        score.check(f"tensors of {form}", len(state) > 100 and all(v.dtype == torch.float32 for v in state.values()
                                                                   if v.is_floating_point()))
    saved = torch.load(os.path.join(out, "last.ckpt"), weights_only=True)
    score.check("counters of a ckpt", (saved["epoch"], saved["global_step"]) == (1, 1))


def main():
    tools, score = Tools(sys.argv[1]), Score()
    with tempfile.TemporaryDirectory() as folder:
        tokenizers = {v2: tiny_models.write_tokenizer(sys.argv[1], os.path.join(folder, f"tokenizer{v2}"), v2)
                      for v2 in (False, True)}
        for spec, v in ((tiny_models.SD1_WIDE, False), (tiny_models.SD2, True)):
            place = os.path.join(folder, f"in{spec['v2']}")
            source, single, flags = os.path.join(place, "source"), os.path.join(place, "one.safetensors"), flags_of(spec, v)
            tiny_models.write_model(source, spec, tokenizers[spec["v2"]], 7, v)
            want = state_of(source)
            tools.drive("save", source, single, "safetensors", *flags)
            check_directories(tools, score, source, flags, place)
            check_single_files(tools, score, single, want, flags, place)
            check_vaes(tools, score, source, single, want, flags, place)
        for kind in ("tiny", "tiny2v"):
            place = os.path.join(folder, kind)
            os.mkdir(place)
            check_pairs(tools, score, kind, place)
        check_prediction(tools, score, os.path.join(folder, "tiny2v", "start.safetensors"), folder)
        check_training(tools, score, sys.argv[1], os.path.join(folder, "tiny2v"))
        check_yaml(tools, score, folder)
        check_real_configs(tools, score)
    print(f"{score.passed} passed, {score.failed} failed, {score.skipped} skipped")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
