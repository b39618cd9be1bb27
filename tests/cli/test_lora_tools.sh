#!/bin/sh
# tests/cli/test_lora_tools.sh DREAMRUN_TOOLS - merge_lora, extract_lora and resize_lora as a user types them.
set -eu
# shellcheck source-path=SCRIPTDIR source=cases.sh
. "$(dirname "$0")/cases.sh"

tools=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_lora.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 "$here/make_weights.py" "$work"
cd "$work"

# --- merge_lora: usage ---
expect 0 'Usage: dreamrun merge_lora --save_to FILE --models FILE...' "$tools" merge_lora --help
expect 64 '--models is missing' "$tools" merge_lora --save_to a.safetensors
expect 64 '--save_to is missing' "$tools" merge_lora --models kohya.safetensors
expect 64 '--ratios has 2 numbers, but --models has 1 files' \
    "$tools" merge_lora --models kohya.safetensors --ratios 1 2 --save_to a.safetensors
expect 64 'is written as .safetensors, .ckpt, .pt, .pth or .bin' \
    "$tools" merge_lora --models kohya.safetensors --save_to a.png
expect 64 '--concat is for LoRAs that become one LoRA' \
    "$tools" merge_lora --sd_model m --concat --models kohya.safetensors --save_to a.safetensors
expect 64 '--concat keeps all ranks' \
    "$tools" merge_lora --concat --new_rank 4 --models kohya.safetensors --save_to a.safetensors
expect 64 'did you mean --ratios?' "$tools" merge_lora --rations 1 --models kohya.safetensors --save_to a.safetensors
expect 64 "found 'x', expected nothing more" "$tools" merge_lora x
expect 73 'cannot create' "$tools" merge_lora --models kohya.safetensors --save_to none/a.safetensors

# --- merge_lora: files ---
expect 0 '2 of its 2 modules are zero and change nothing; the first is lora_te_text_model' \
    "$tools" merge_lora --models kohya.safetensors --save_to a.safetensors
expect 0 'LoRA with names of kohya, made for SD 1.x' "$tools" inspect a.safetensors
expect 0 'metadata "ss_network_dim": "Dynamic"' "$tools" inspect a.safetensors
expect 0 'metadata "modelspec.title": "a"' "$tools" inspect a.safetensors
expect 0 'prefixes of its names are doubled (lora_unet_unet_down_blocks_0' \
    "$tools" merge_lora --models doubled.safetensors --save_to b.safetensors
refuse 'broken' "$tools" inspect b.safetensors
expect 0 'which it would mix' "$tools" merge_lora --shuffle --models kohya.safetensors --save_to a.safetensors
expect 0 '2 modules of 1 LoRA(s), 2 of them exact' \
    "$tools" merge_lora --models kohya.safetensors --no_metadata --save_to b.safetensors
refuse 'modelspec' "$tools" inspect b.safetensors
expect 64 'has no rank; say with --new_rank' \
    "$tools" merge_lora --models whole.safetensors --save_to b.safetensors
expect 64 'is a DoRA, whose effect depends on the model' \
    "$tools" merge_lora --models dora.safetensors --save_to b.safetensors
expect 64 'belongs to OFT' "$tools" merge_lora --models oft.safetensors --save_to b.safetensors
expect 65 'is not whole, or its shapes do not fit together' \
    "$tools" merge_lora --models half.safetensors --save_to b.safetensors
expect 65 'made for different models' \
    "$tools" merge_lora --models kohya.safetensors sd2.safetensors --save_to b.safetensors
expect 65 'no tensor has a name that a LoRA' "$tools" merge_lora --models flux.safetensors --save_to b.safetensors
expect 0 'tiny with random weights' "$tools" init_model tiny model
expect 65 'but down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight is [' \
    "$tools" merge_lora --sd_model model --models kohya.safetensors --save_to merged
expect 64 'but --v2 is given' "$tools" merge_lora --sd_model model --v2 --models kohya.safetensors --save_to merged
expect 73 'is no model' "$tools" merge_lora --sd_model model --models xl.safetensors --save_to .

# --- resize_lora ---
expect 0 'Usage: dreamrun resize_lora --model FILE --save_to FILE' "$tools" resize_lora --help
expect 64 '--model is missing' "$tools" resize_lora --save_to a.safetensors
expect 64 '--save_to is missing' "$tools" resize_lora --model kohya.safetensors
expect 64 'give both or neither' \
    "$tools" resize_lora --model kohya.safetensors --dynamic_method sv_fro --save_to a.safetensors
expect 64 'take a share of at most 1' "$tools" resize_lora --model kohya.safetensors --dynamic_method sv_fro \
    --dynamic_param 2 --save_to a.safetensors
expect 64 'takes a ratio of at least 1' "$tools" resize_lora --model kohya.safetensors --dynamic_method sv_ratio \
    --dynamic_param 0.5 --save_to a.safetensors
expect 64 'expected one of sv_ratio, sv_fro, sv_cumulative' "$tools" resize_lora --model kohya.safetensors --dynamic_method sv \
    --dynamic_param 0.5 --save_to a.safetensors
expect 0 'LAPACK on the CPU' "$tools" resize_lora --device cuda --model kohya.safetensors --save_to a.safetensors
expect 0 '2 modules, rank 1; keeps 100.0000 %' "$tools" resize_lora --model kohya.safetensors --save_to a.safetensors
expect 0 'rank 8 to 1, keeps 100.00 %' "$tools" resize_lora --verbose --model kohya.safetensors --save_to a.safetensors
expect 0 'dimension is resized from 8-16 to 4; ' "$tools" inspect a.safetensors
expect 64 'it has no rank that could be cut' "$tools" resize_lora --model dora.safetensors --save_to a.safetensors

# --- extract_lora ---
expect 0 'Usage: dreamrun extract_lora --model_org MODEL' "$tools" extract_lora --help
expect 64 '--model_tuned is missing' "$tools" extract_lora --model_org model --save_to a.safetensors
expect 64 'is written as .safetensors' "$tools" extract_lora --model_org model --model_tuned model --save_to a
expect 64 'only models of Stable Diffusion 1.x and 2.x can be read' \
    "$tools" extract_lora --sdxl --model_org model --model_tuned model --save_to a.safetensors
expect 64 'but --v2 is given' "$tools" extract_lora --v2 --model_org model --model_tuned model --save_to a.safetensors
expect 65 'do not differ' "$tools" extract_lora --model_org model --model_tuned model --save_to c.safetensors
expect 0 'weights' "$tools" init_model --seed 1 tiny other
expect 0 'norm (Frobenius) of the difference' \
    "$tools" extract_lora --model_org model --model_tuned other --conv_dim 2 --save_to c.safetensors
expect 0 'modules: U-Net 277, text encoder 12' "$tools" inspect c.safetensors
finish
