#!/usr/bin/env bash
# tests/fault/test_bad_input.sh BIN_DIR - bad input: the documented exit code, one error line that names
# the thing, nothing half-written; on one rank, and on two ranks, where the message stands once.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" bad_input "$1"
make_material
has_mpirun=$(command -v mpirun)

# both CODE 'text' flags...: refused on one rank and on two.
both() {
    local n
    for n in 1 2; do
        if [ "$n" = 1 ] || [ -n "$has_mpirun" ]; then
            refused "$1" "$2" "$n" "${@:3}"
            rm -rf out
        fi
    done
}

# one CODE 'text' flags...: refused; options are read in the same way on any number of ranks.
one() {
    refused "$1" "$2" 1 "${@:3}"
    rm -rf out
}

# --- pictures ------------------------------------------------------------------------------------

wrong_level() {
    both 64 "is itself a <repeats>_<class> folder (4 pictures); give its parent: --train_data_dir='$data/train'" \
        --train_data_dir "$data/train/10_sks shape"
    both 64 "one level too high: the <repeats>_<class> folders are in $data/train; give" --train_data_dir "$data"
    mkdir flat
    cp "$data"/train/*/*.png flat
    both 64 "flat holds 4 pictures directly" --train_data_dir flat
    mkdir up
    mv flat "up/sks dog"
    both 64 "rename it to 'up/10_sks dog'" --train_data_dir up
    one 64 '--reg_data_dir: ' --reg_data_dir "$data/reg/1_shape"
}

no_pictures() {
    mkdir empty
    both 64 'empty holds no pictures' --train_data_dir empty
    both 64 '--train_data_dir: nowhere: no such directory' --train_data_dir nowhere
    mkdir -p bare/1_sks
    both 65 'bare: no usable picture' --train_data_dir bare
    touch file
    one 64 '--train_data_dir: file: not a directory' --train_data_dir file
    one 64 'same directory as --train_data_dir' --reg_data_dir "$data/train"
}

broken_pictures() {
    few_pictures few
    head -c 300 "$data"/train/*/02.png >few/1_sks/cut.png
    both 65 'few/1_sks/cut.png: truncated PNG' --train_data_dir few
    echo 'no picture' >few/1_sks/text.jpg
    both 65 'few/1_sks/text.jpg' --train_data_dir few
    holds error_text 'few/1_sks/cut.png'
    holds error_text 'cannot use 2 pictures; repair or remove, or give --skip_bad_images'
    rm few/1_sks/0?.png
    both 65 'no usable picture' --train_data_dir few --skip_bad_images
}

# Damage that only decoding shows: found when the latents are made, before the first step; else in
# the step that needs the picture. No model is written.
damaged_inside() {
    few_pictures few
    python3 -c '
data = bytearray(open("few/1_sks/00.png", "rb").read())
at = data.index(b"IDAT") + 4
for i in range(at + 20, at + 60):
    data[i] ^= 0xff
open("few/1_sks/00.png", "wb").write(data)'
    both 65 'few/1_sks/00.png' --train_data_dir few --cache_latents
    equal "$(cat out.json)" "" "steps"
    both 65 'few/1_sks/00.png' --train_data_dir few --max_train_epochs 2
    equal "$(cat out.json)" "" "steps" # found before training, not when its step came
    train out --train_data_dir few --skip_bad_images --max_train_epochs 1
    holds out.err '1 bad picture left out'
}

bad_captions() {
    few_pictures few
    printf 'caf\351 sks' >few/1_sks/00.caption
    both 65 'few/1_sks/00.caption: the caption is not UTF-8 (byte 0xe9 at offset 3)' --train_data_dir few
    : >few/1_sks/00.caption
    both 65 'few/1_sks/00.caption: the caption file is empty' --train_data_dir few
}

huge_picture() {
    few_pictures few
    python3 -c '
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
with open("few/1_sks/bomb.png", "wb") as f:
    f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2000000, 2000000, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))'
    one 65 'few/1_sks/bomb.png' --train_data_dir few
}

# --- models --------------------------------------------------------------------------------------

# rewrite FILE OUT 'python expression of h': a copy whose header and data are changed.
rewrite() {
    python3 - "$@" <<'END'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
(n,) = struct.unpack("<Q", data[:8])
h = json.loads(data[8:8 + n])
body = data[8 + n:]
tensors = {k: (v["dtype"], v["shape"], body[slice(*v["data_offsets"])]) for k, v in h.items() if k != "__metadata__"}
exec(sys.argv[3])
out, at, parts = {"__metadata__": h["__metadata__"]}, 0, []
for k, (dtype, shape, raw) in tensors.items():
    out[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
    at += len(raw)
    parts.append(raw)
text = json.dumps(out).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + b"".join(parts))
END
}

cut_models() {
    "$bin/dreamrun" init_model tiny whole.safetensors
    local size at
    size=$(stat -c %s whole.safetensors)
    for at in $((size - 1)) $((size / 2)) 1000 8 0; do
        head -c "$at" whole.safetensors >cut.safetensors
        one 65 'cut.safetensors' --pretrained_model_name_or_path cut.safetensors
    done
    both 65 'cut.safetensors' --pretrained_model_name_or_path cut.safetensors
    cp -r "$model" folder
    truncate -s 5000 folder/$unet
    both 65 "folder/$unet" --pretrained_model_name_or_path folder
    rm folder/$unet
    one 65 'folder/unet' --pretrained_model_name_or_path folder
    rm -r folder/vae
    one 65 'folder' --pretrained_model_name_or_path folder
}

no_models() {
    both 64 'nowhere: no such file or directory' --pretrained_model_name_or_path nowhere
    echo 'not a model' >text.safetensors
    one 65 'text.safetensors' --pretrained_model_name_or_path text.safetensors
    mkdir dir
    one 65 'dir: no Diffusers model' --pretrained_model_name_or_path dir
    touch m.ckpt
    one 65 'm.ckpt: the file is empty' --pretrained_model_name_or_path m.ckpt
    echo 'not a model' >m.ckpt
    one 65 'm.ckpt' --pretrained_model_name_or_path m.ckpt
    export HF_HUB_OFFLINE=1 HF_HOME=$PWD/hub
    one 64 'runwayml/stable-diffusion-v1-5: no such file or directory' \
        --pretrained_model_name_or_path runwayml/stable-diffusion-v1-5
    one 64 '--vae' --vae nowhere
    one 65 'dir' --vae dir
}

other_families() {
    "$bin/dreamrun" init_model tiny2v v2v
    "$bin/dreamrun" init_model tiny2 v2.safetensors
    both 64 'is a Stable Diffusion 2.x model' --pretrained_model_name_or_path v2v
    one 64 'is a Stable Diffusion 2.x model' --pretrained_model_name_or_path v2.safetensors
    both 64 'is a Stable Diffusion 1.x model' --v2
    both 64 'this model predicts v (v_prediction), but --v_parameterization is not given' \
        --pretrained_model_name_or_path v2v --v2
    one 64 'this model predicts noise (epsilon), but --v_parameterization is given' --v_parameterization
}

other_files() {
    "$bin/dreamrun" init_model tiny tiny.safetensors
    # a LoRA
    rewrite tiny.safetensors lora.safetensors '
tensors = {"lora_unet_down_blocks_0_attentions_0_proj_in." + k: ("F32", [4, 4], bytes(64))
           for k in ("lora_down.weight", "lora_up.weight")}'
    one 65 'LoRA' --pretrained_model_name_or_path lora.safetensors
    # an inpainting model: nine input channels
    rewrite tiny.safetensors inpaint.safetensors '
k = "model.diffusion_model.input_blocks.0.0.weight"
d, s, raw = tensors[k]
tensors[k] = (d, [s[0], 9, 3, 3], bytes(s[0] * 81 * 4))'
    both 65 'inpainting' --pretrained_model_name_or_path inpaint.safetensors
    # a tensor of another shape, one that is missing, one of another kind
    rewrite tiny.safetensors shape.safetensors '
k = "model.diffusion_model.time_embed.2.weight"
d, s, raw = tensors[k]
tensors[k] = (d, [s[0] // 2, s[1]], raw[:len(raw) // 2])'
    one 65 'time_embed.2.weight' --pretrained_model_name_or_path shape.safetensors
    rewrite tiny.safetensors missing.safetensors '
del tensors["model.diffusion_model.middle_block.1.norm.weight"]'
    one 65 'middle_block.1.norm.weight' --pretrained_model_name_or_path missing.safetensors
    rewrite tiny.safetensors kind.safetensors '
k = "model.diffusion_model.out.2.bias"
d, s, raw = tensors[k]
tensors[k] = ("I32", s, raw)'
    one 65 'out.2.bias' --pretrained_model_name_or_path kind.safetensors
}

# --- options -------------------------------------------------------------------------------------

options() {
    both 64 '--resolution: found 100, expected a multiple of 64; the nearest are 64 and 128' --resolution 100
    one 64 '--resolution: found 65' --resolution 128,65
    one 64 '--resolution: found' --resolution 512x512
    one 64 '--resolution' --resolution 0
    both 64 'did you mean --max_train_steps?' --max_train_step_s 3
    one 64 "'stray' belongs to no option" stray
    both 64 '--async_upload is not available yet' --async_upload
    one 64 '--full_fp16 needs --mixed_precision too' --full_fp16
    one 64 '--deepspeed is not supported' --deepspeed
    both 64 '--cache_latents and --color_aug exclude each other' --cache_latents --color_aug
    one 64 '--cache_latents and --random_crop exclude each other' --cache_latents --random_crop
    one 64 '--cache_latents_to_disk and --color_aug exclude each other' --cache_latents_to_disk --color_aug
    one 64 '--dump_steps needs --dump_dir too' --dump_steps 2
    one 64 '--caption_dropout_rate' --caption_dropout_rate 2
    one 64 '--max_token_length' --max_token_length 100
    one 64 '--learning_rate' --learning_rate fast
    one 64 '--learning_rate' --learning_rate -1
    one 64 '--learning_rate' --learning_rate nan
    one 64 '--max_train_steps' --max_train_steps 0
    one 64 '--max_train_steps' --max_train_steps 99999999999999999999
    one 64 '--clip_skip' --clip_skip 3
    one 64 '--seed' --seed -1
}

# Numbers that would not fit where they are kept.
huge_numbers() {
    one 64 '--train_batch_size' --train_batch_size 99999999999
    one 64 '--gradient_accumulation_steps' --gradient_accumulation_steps 4294967297
    one 64 '--gradient_accumulation_steps' --gradient_accumulation_steps 5000
    one 64 '--virtual_shards' --virtual_shards 9000000000000000000
    one 64 '--max_train_epochs' --max_train_epochs 9000000000000000000
    one 64 '--num_cpu_threads_per_process' --num_cpu_threads_per_process 99999999999
    one 64 '--keep_tokens' --keep_tokens 99999999999
    one 64 '--min_bucket_reso' --enable_bucket --min_bucket_reso 99999999999
    one 64 '--lr_warmup_steps' --lr_scheduler linear --lr_warmup_steps 99999999999999999999
}

bucket_rules() {
    local options=(--enable_bucket --resolution 128)
    both 64 '--min_bucket_reso: found 256' "${options[@]}"
    one 64 '--max_bucket_reso: found 64' "${options[@]}" --min_bucket_reso 64 --max_bucket_reso 64
    one 64 '--bucket_reso_steps: found 32' "${options[@]}" --bucket_reso_steps 32
    one 64 '--min_bucket_reso' "${options[@]}" --min_bucket_reso 64 --bucket_reso_steps 128
}

schedule_rules() {
    both 64 '--lr_scheduler constant has no warm-up' --lr_warmup_steps 2
    both 64 '--lr_scheduler polynomial ends at 1e-07' --lr_scheduler polynomial --learning_rate 1e-8
    one 64 '--lr_scheduler: found' --lr_scheduler cosin
    one 64 '--optimizer_type DAdaptSGD is not available yet' --optimizer_type dadaptsgd
    one 64 "AdamW has no setting 'momentum'" --optimizer_args momentum=0.9
}

too_few_shards() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    refused 64 '--virtual_shards' 2 --virtual_shards 1
}

# --- output --------------------------------------------------------------------------------------

# Found before the first step, not after the last.
output_in_the_way() {
    local quiet=1 got=0
    touch file
    train file || got=$?
    equal "$got" 73 "exit code, output_dir a file"
    holds file.err 'error: file'
    equal "$(cat file.json)" "" "steps"
    mkdir -p dir/last
    touch dir/last/precious
    got=0
    train dir || got=$?
    equal "$got" 73 "exit code, the model's directory is none of ours"
    holds dir.err 'dir/last: the directory exists and is no model'
    equal "$(cat dir.json)" "" "steps"
    equal "$(find dir -type f)" dir/last/precious "files"
    mkdir -p dir2/last.safetensors
    got=0
    train dir2 --save_model_as safetensors || got=$?
    equal "$got" 73 "exit code, a directory in the way of the file"
    equal "$(cat dir2.json)" "" "steps"
    touch dir2/last
    got=0
    train dir2 || got=$?
    equal "$got" 73 "exit code, a file in the way of the directory"
    equal "$(cat dir2.json)" "" "steps"
}

# as_user command...: as a user without rights, when this is root.
output_not_writable() {
    local got=0
    mkdir sealed
    chmod 555 sealed
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid 65534 --regid 65534 --clear-groups true 2>/dev/null || skip 'setpriv is not allowed here'
        chmod 755 "$work" "$work/case"
        setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$bin/train_db" ||
            skip 'another user cannot reach the programs'
        setpriv --reuid 65534 --regid 65534 --clear-groups "$bin/train_db" \
            --pretrained_model_name_or_path "$model" --train_data_dir "$data/train" "${flags[@]}" \
            --output_dir sealed --max_train_steps 2 >out.json 2>out.err || got=$?
    else
        quiet=1 train sealed || got=$?
        mv sealed.err out.err
        mv sealed.json out.json
    fi
    cat out.err
    equal "$got" 73 "exit code"
    holds out.err 'error: sealed'
    equal "$(cat out.json)" "" "steps"
}

fault_specifications() {
    local spec
    for spec in kill burn:step=1 kill:step kill:step=0 kill:step=1,write=1 enospc:step=2 exit:step=1,code=300 \
        kill:step=1,host=2 delay:step=1,seconds=soon; do
        refused 64 "--inject $spec: " 1 --inject "$spec"
    done
    quiet=1 DREAMRUN_INJECT=exit:step=2,code=9 train out || equal $? 9 'exit code'
    holds out.err 'faults are injected on purpose: exit:step=2,code=9'
    equal "$(grep -c '"step"' out.json)" 1 'steps'
}

check 'wrong directory level' wrong_level
check 'no pictures' no_pictures
check 'truncated and unreadable pictures' broken_pictures
check 'pictures damaged inside' damaged_inside
check 'captions that are not UTF-8, or empty' bad_captions
check 'a picture of 4 terapixels' huge_picture
check 'models cut off' cut_models
check 'no models' no_models
check 'models of another family' other_families
check 'LoRA, inpainting, wrong tensors' other_files
check 'options' options
check 'numbers out of range' huge_numbers
check 'bucket rules' bucket_rules
check 'schedule and optimizer rules' schedule_rules
check 'fewer shards than ranks' too_few_shards
check 'faults that cannot be injected' fault_specifications
check 'output names that are taken' output_in_the_way
check 'output directory that is not writable' output_not_writable
finish
