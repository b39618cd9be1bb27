#!/usr/bin/env bash
# tests/cli/test_train_network.sh BIN_DIR - train_network as its user runs it: what it refuses, files to start from, a stop
# and going on, the loss on real photos.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" train_network "$1"
make_material
export program=train_network # for train
plain_flags=("${flags[@]}")
flags+=(--network_module networks.lora --network_dim 4)

# --- what is refused -----------------------------------------------------------------------------

bad_arguments() {
    refused 64 'no_such.module' 1 --network_module no_such.module
    refused 64 'conv_dimm' 1 --network_args conv_dimm=4
    refused 64 'conv_dim' 1 --network_args conv_dim=four
    refused 64 'algo' 1 --network_module lycoris.kohya --network_args algo=nothing
    refused 64 'network_dim' 1 --network_dim 0
}

# file NAME 'CODE of Python on t, a dict of name: (shape, floats)': the LoRA of a run, changed.
changed() {
    python3 - lora.safetensors "$1" "$2" <<'END'
import array, json, struct, sys
data = open(sys.argv[1], "rb").read()
n, = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + n])
meta = header.pop("__metadata__")
t = {k: (v["shape"], array.array("f", data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]))
     for k, v in header.items()}
exec(sys.argv[3])
header, body = {"__metadata__": meta}, b""
for k, (shape, values) in t.items():
    header[k] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + 4 * len(values)]}
    body += values.tobytes()
text = json.dumps(header).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + body)
END
}

# trained: lora.safetensors, of two steps.
trained() {
    train first --save_model_as safetensors --output_name lora
    mv first/lora.safetensors .
}

bad_weights() {
    trained
    refused 71 'none.safetensors' 1 --network_weights none.safetensors
    head -c 5000 lora.safetensors >cut.safetensors
    refused 65 'cut.safetensors' 1 --network_weights cut.safetensors
    head -c 5000 /dev/zero >zero.safetensors
    refused 65 'zero.safetensors' 1 --network_weights zero.safetensors
    refused 65 'rank 4, this run 8: give --network_dim 4' 1 --network_weights lora.safetensors --network_dim 8
    changed wide.safetensors 't = {k: (([s[0], s[1] + 1] + s[2:], array.array("f", [0.0] * (len(v) // s[1] * (s[1] + 1)))) if "lora_down" in k else (s, v)) for k, (s, v) in t.items()}'
    refused 65 'the LoRA is for another model' 1 --network_weights wide.safetensors
    changed odd.safetensors 't = {k: v for k, v in t.items() if "proj_in.lora_up" not in k}'
    refused 65 'is not whole' 1 --network_weights odd.safetensors
    changed text.safetensors 't = {"x": t[min(t)]}'
    refused 65 'no tensor has a name that a LoRA' 1 --network_weights text.safetensors
}

# --- files to start from -------------------------------------------------------------------------

starts() {
    trained
    train plain --network_weights lora.safetensors
    changed doubled.safetensors 't = {k.replace("lora_unet_", "lora_unet_unet_"): v for k, v in t.items()}'
    train doubled --network_weights doubled.safetensors
    holds doubled.err 'prefixes of its names are doubled'
    same_lora plain/last.safetensors doubled/last.safetensors
    changed zero.safetensors 't = {k: (s, array.array("f", [0.0] * len(v)) if "lora_up" in k else v) for k, (s, v) in t.items()}'
    train zero --network_weights zero.safetensors
    refuse_same plain/last.safetensors zero/last.safetensors
    train ranks --network_weights lora.safetensors --dim_from_weights --network_dim 9
    same_lora plain/last.safetensors ranks/last.safetensors
}

# data_of FILE: the bytes behind the header, whose metadata tell the time and the file that was started from.
data_of() {
    python3 -c 'import struct, sys; d = open(sys.argv[1], "rb").read(); sys.stdout.buffer.write(d[8 + struct.unpack("<Q", d[:8])[0]:])' "$1"
}

same_lora() {
    cmp <(data_of "$1") <(data_of "$2")
}

refuse_same() {
    ! cmp -s <(data_of "$1") <(data_of "$2") || fail "$1 and $2 have the same weights"
}

# --- a stop and going on -------------------------------------------------------------------------

# resumed flags...: stopped in step 5, with a state of step 3, and gone on with.
resumed() {
    local all=(--save_state --max_train_steps 8 "$@")
    train straight "${all[@]}"
    quiet=1 train out "${all[@]}" --save_every_n_steps 3 --inject exit:step=5,code=9 || equal $? 9 'exit code'
    train out "${all[@]}" --resume auto
    holds out.err 'resumed from'
    same_lora straight/last.safetensors out/last.safetensors
    local file
    for file in model.safetensors optimizer.safetensors; do
        cmp "straight/last-state/$file" "out/last-state/$file"
    done
}

# --- memory --------------------------------------------------------------------------------------

# planned WHAT flags...: KiB of the plan.
planned() {
    train plan --estimate --cache_latents --network_train_unet_only "${@:2}"
    kib "$1"
}

kib() {
    sed -En "s/.*[:,] $1 ([0-9.]+) (KiB|MiB|B).*/\\1 \\2/p" plan.err |
        awk '{ print $1 * ($2 == "MiB" ? 1024 : $2 == "KiB" ? 1 : 1 / 1024) }'
}

# The same of the U-Net itself, by train_db.
planned_of_model() {
    local flags=("${plain_flags[@]}")
    start plan "$bin/train_db" -- --estimate --cache_latents --stop_text_encoder_training=-1
    kib gradients
}

# What is frozen has no gradient and no optimizer state; before the first adapter nothing is kept and nothing goes back.
plans() {
    local none=0,0,0,0,0,0,0,0,0,0,0 all last first full
    local only_last="down_lr_weight=0,$none mid_lr_weight=0 up_lr_weight=$none,1"
    local only_first="down_lr_weight=0,1,${none%,0} mid_lr_weight=0 up_lr_weight=$none,0"
    full=$(planned_of_model)
    all=$(planned activations)
    # shellcheck disable=SC2086 # three words
    last=$(planned activations --network_args $only_last)
    # shellcheck disable=SC2086
    first=$(planned activations --network_args $only_first)
    echo "activations in KiB: $all, the last block alone $last, the first alone $first; gradients of the model $full"
    awk -v a="$all" -v l="$last" -v f="$first" 'BEGIN { exit !(l > 0 && l < 0.4 * a && f > 2 * l && f < a) }'
    # shellcheck disable=SC2086
    equal "$(planned gradients --network_args $only_last)" "$(planned gradients --network_args $only_first)" 'gradients'
    awk -v g="$(planned gradients)" -v o="$(planned optimizer)" -v full="$full" \
        'BEGIN { exit !(g > 0 && o > 1.98 * g && o < 2.02 * g && g < full / 20) }'
}

# --- learning ------------------------------------------------------------------------------------

# The loss of photos that are not trained on, at fixed noise and timesteps: after the first step (rate 1e-9: that of the
# model itself) and after the last.
validation_loss() {
    python3 -c 'import json, sys
print([r["validation_loss"] for r in map(json.loads, open(sys.argv[1])) if "validation_loss" in r][-1])' "$1"
}

learns_photos() {
    local taesd=${DR_SHARED:-}/taesd photos=${DR_SHARED:-}/dreambooth/dog
    if [ ! -d "$taesd" ] || [ ! -d "$photos" ]; then
        skip "no $taesd and $photos"
    fi
    mkdir pictures
    cp -r "$photos" 'pictures/10_sks dog'
    local all=(--train_data_dir pictures --vae "$taesd" --cache_latents --validation_split 0.4 --network_dim 16
        --network_alpha 16 --network_args conv_dim=16 conv_alpha=16 --train_batch_size 2 --seed 3)
    train before "${all[@]}" --max_train_steps 1 --learning_rate 1e-9 --validate_every_n_steps 1
    train after "${all[@]}" --max_train_steps 80 --learning_rate 2e-3 --validate_every_n_steps 80
    local a b
    a=$(validation_loss before.json)
    b=$(validation_loss after.json)
    echo "validation loss $a, then $b"
    awk -v a="$a" -v b="$b" 'BEGIN { exit !(b > 0 && b < 0.8 * a) }'
}

check 'modules and --network_args that are refused' bad_arguments
check 'files that --network_weights refuses' bad_weights
check 'files that a run starts from' starts
check 'LoRA of both parts goes on to the same bits' resumed --network_args conv_dim=2
check 'LoHa goes on to the same bits' resumed --network_module lycoris.kohya --network_args algo=loha
check 'what is frozen takes no memory but its weights' plans
check 'the loss of unseen photos falls' learns_photos
finish
