#!/usr/bin/env bash
# tests/cli/test_train_db.sh BIN_DIR - train_db as its user runs it, on one rank: tiny models, pictures
# of 64 x 64, every option that is available.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" train_db "$1"
make_material

# --- models in, models out -----------------------------------------------------------------------

# saves KIND flags...: from directory and file, to directory and file, all with the same weights.
saves() {
    local kind=$1
    shift
    "$bin/dreamrun" init_model "$kind" start
    "$bin/dreamrun" init_model "$kind" start.safetensors
    train a "$@" --pretrained_model_name_or_path start
    train b "$@" --pretrained_model_name_or_path start.safetensors
    train c "$@" --pretrained_model_name_or_path start.safetensors \
        --save_model_as diffusers_safetensors --output_name mine
    train d "$@" --pretrained_model_name_or_path start --save_model_as safetensors
    holds a.err 'saved a/last'
    local want="a/last b/last.safetensors c/mine d/last.safetensors"
    if [ "$kind" != tiny ]; then # single files of SD 2.x have a config beside them
        want="a/last b/last.safetensors b/last.yaml c/mine d/last.safetensors d/last.yaml"
    fi
    equal "$(echo a/* b/* c/* d/*)" "$want" "output folders"
    same_models a/last c/mine
    cmp start/$vae a/last/$vae
    differ start/$unet a/last/$unet
    differ start/$text_encoder a/last/$text_encoder
    equal "$(cd start && find . -type f | sort)" "$(cd a/last && find . -type f | sort)" "files"
    # both saved files go on in the same way
    train e "$@" --pretrained_model_name_or_path b/last.safetensors --save_model_as diffusers_safetensors
    train f "$@" --pretrained_model_name_or_path d/last.safetensors --save_model_as diffusers_safetensors
    train g "$@" --pretrained_model_name_or_path a/last
    same_models e/last f/last
    same_models e/last g/last
    no_leftovers
}

replaces_its_own_model() {
    train out
    cp -r out/last before
    train out --seed 2
    differ before/$unet out/last/$unet
    equal "$(ls out)" last "output folder"
    touch out/last/notes.txt
    train out
    same_models before out/last
    [ -f out/last/notes.txt ]
}

# --- length --------------------------------------------------------------------------------------

epochs() {
    few_pictures few
    train out --train_data_dir few --max_train_epochs 3 --max_train_steps 1
    equal "$(of_steps step out.json)" "1 2 3 4 5 6" steps
    equal "$(of_steps epoch out.json)" "1 1 2 2 3 3" epochs
    train out --train_data_dir few --max_train_epochs 2 --train_batch_size 2
    equal "$(of_steps samples out.json)" "2 2" samples
    train out --train_data_dir few --max_train_epochs 1 --train_batch_size 3
    equal "$(of_steps samples out.json)" "2" "samples of a batch that the set does not fill"
}

accumulates() {
    train out --gradient_accumulation_steps 2
    equal "$(of_steps samples out.json)" "2 2" "samples of each step"
    few_pictures few
    train out --train_data_dir few --gradient_accumulation_steps 2 --max_train_epochs 3
    equal "$(of_steps epoch out.json)" "1 2 3" "epochs of one step each"
}

checkpoints() {
    train a --train_batch_size 2
    train b --train_batch_size 2 --gradient_checkpointing
    same_models a/last b/last
    equal "$(of_steps loss a.json)" "$(of_steps loss b.json)" losses
}

# --- pictures ------------------------------------------------------------------------------------

buckets() {
    few_pictures few
    picture few/1_sks/wide.png 300 80
    picture few/1_sks/tall.png 60 220
    picture few/1_sks/tall2.png 70 250
    local options=(--train_data_dir few --enable_bucket --resolution 128 --max_train_epochs 1
        --train_batch_size 2)
    train out "${options[@]}" --min_bucket_reso 64 --max_bucket_reso 256
    grep -E '^ +[0-9]+ +64 x 256 +2 +2$' out.err
    grep -E '^ +[0-9]+ +128 x 128 +2 +2$' out.err
    grep -E '^ +[0-9]+ +256 x 64 +1 +1$' out.err
    equal "$(of_steps samples out.json | tr ' ' '\n' | sort | xargs)" "1 2 2" "samples of the steps"
    rm few/1_sks/{wide,tall}.png
    train small "${options[@]}" --bucket_no_upscale
    grep -E '^ +[0-9]+ +64 x 192 +1 +1$' small.err
    train wide --resolution 128,64
    grep -E '^ +[0-9]+ +128 x 64 ' wide.err
}

regularises() {
    train plain --reg_data_dir "$data/reg" --max_train_steps 4
    holds plain.err "samples per epoch: 40 training + 40 regularisation (4 pictures)"
    train none --reg_data_dir "$data/reg" --prior_loss_weight 0 --max_train_steps 4
    differ plain/last/$unet none/last/$unet
    # a step is one training or one regularisation picture: those of weight 0 have no loss
    equal "$(of_steps loss none.json | tr ' ' '\n' | grep -cE '^0(\.0)?$')" \
        "$(paste -d' ' <(of_steps loss plain.json | tr ' ' '\n') <(of_steps loss none.json | tr ' ' '\n') |
            awk '$1 != $2 && $2 == 0' | wc -l)" "steps without loss"
    train pure
    differ plain/last/$unet pure/last/$unet
}

caches() {
    train memory --cache_latents --max_train_steps 4
    holds memory.err 'latents: 0 of 4 are cached, 4 to encode'
    equal "$(of_steps data_s memory.json | wc -w)" 4 steps
    train flipped --cache_latents --flip_aug --max_train_steps 4
    holds flipped.err 'latents: 0 of 8 are cached, 8 to encode'
    differ memory/last/$unet flipped/last/$unet
    train live --flip_aug --max_train_steps 4
    train still --max_train_steps 4
    differ live/last/$unet still/last/$unet
}

caches_on_disk() {
    cp -r "$data/train" pictures
    local options=(--train_data_dir pictures --cache_latents_to_disk)
    train a "${options[@]}"
    holds a.err '0 of 4 are cached, 4 to encode'
    [ -d pictures/.latent_cache ]
    train b "${options[@]}"
    holds b.err '4 of 4 are cached, 0 to encode'
    lacks b.err 'warning: pictures/.latent_cache'
    same_models a/last b/last
    # an edited picture is encoded again, the others are not
    cp pictures/*/02.png pictures/10_sks*/00.png
    train c "${options[@]}"
    cp "$data"/train/*/00.png pictures/10_sks*/00.png
    train d "${options[@]}"
    same_models a/last d/last
    # a folder of its own
    train e "${options[@]}" --latent_cache_dir shared
    holds e.err '0 of 4 are cached'
    [ -d shared ]
    same_models a/last e/last
    # another resolution, flips: other entries, in the same cache
    train f "${options[@]}" --flip_aug
    holds f.err '4 of 8 are cached, 4 to encode'
    train g "${options[@]}" --resolution 128
    holds g.err '0 of 4 are cached'
    holds g.err '00.png is encoded again: it was cached for another size or crop (64x64 at 0,0, now 128x128'
    "$bin/dreamrun" init_model tiny other --seed 7
    train h "${options[@]}" --vae other
    holds h.err '00.png is encoded again: it was cached with another VAE ('
    train i "${options[@]}" --latent_cache_dtype bf16
    holds i.err '00.png is encoded again: it was cached in another form'
    holds i.err '(moments F32, now moments BF16)'
    no_leftovers
}

changed_picture() {
    cp -r "$data/train" pictures
    train a --train_data_dir pictures --cache_latents_to_disk
    cp "$data"/reg/*/01.png pictures/10_sks*/00.png
    train b --train_data_dir pictures --cache_latents_to_disk
    holds b.err '3 of 4 are cached, 1 to encode'
    holds b.err '00.png is encoded again: the picture was edited since it was cached'
    train c --train_data_dir pictures --cache_latents
    same_models b/last c/last
}

# Every way in which a cache can be damaged: the run warns, encodes again and repairs it.
damaged_cache() {
    local how=$1 file
    few_pictures few
    local options=(--train_data_dir few --cache_latents_to_disk --latent_cache_dir cache)
    train good "${options[@]}"
    while IFS= read -r file; do
        case $how in
            cut) truncate -s $(($(stat -c %s "$file") / 2)) "$file" ;;
            empty) truncate -s 0 "$file" ;;
            noise) head -c "$(stat -c %s "$file")" /dev/zero | tr '\0' 'x' >"$file.x" && mv "$file.x" "$file" ;;
            flip) python3 -c '
import sys
data = bytearray(open(sys.argv[1], "rb").read())
for at in range(len(data) // 2, len(data), 97):
    data[at] ^= 0x10
open(sys.argv[1], "wb").write(data)' "$file" ;;
        esac
    done < <(find cache -type f)
    train again "${options[@]}"
    same_models good/last again/last
    lacks again.err '2 of 2 are cached'
    holds again.err 'warning: '
    train repaired "${options[@]}"
    holds repaired.err '2 of 2 are cached, 0 to encode'
    lacks repaired.err 'warning: cache'
    same_models good/last repaired/last
}

bad_pictures_left_out() {
    few_pictures few
    head -c 300 "$data"/train/*/02.png >few/1_sks/cut.png
    echo text >few/1_sks/none.jpg
    train out --train_data_dir few --skip_bad_images --max_train_epochs 1
    holds out.err '--skip_bad_images: left out 2 pictures'
    holds out.err 'few/1_sks/cut.png'
    holds out.err 'few/1_sks/none.jpg'
    holds out.err '2 bad pictures left out'
    equal "$(of_steps step out.json)" "1 2" steps
}

# Mixed upper and lower case, a gray BMP made here, and the options of pictures.
picture_options() {
    few_pictures few
    mv few/1_sks/01.png few/1_sks/01.PnG
    {
        printf 'BM\x36\x30\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x40\0\0\0\x40\0\0\0\1\0\x18\0'
        head -c 24 /dev/zero
        head -c 12288 /dev/zero | tr '\0' '\200'
    } >few/1_sks/02.bmp
    picture few/1_sks/03.png 150 90
    local options=(--train_data_dir few --max_train_epochs 1)
    train seen "${options[@]}"
    equal "$(of_steps step seen.json)" "1 2 3 4" steps
    train nearest "${options[@]}" --resize_interpolation nearest --alpha_color '#102030'
    train compat "${options[@]}" --compat sd-scripts
    holds compat.err 'as sd-scripts reads them'
    same_models seen/last compat/last # nothing here that the two read differently
    refused 64 "--alpha_color: 'blueish' is no colour" 1 "${options[@]}" --alpha_color blueish
    refused 64 '--tf32 all: CPUs have no TF32' 1 "${options[@]}" --tf32 all
    refused 65 'more than the limit of 4096' 1 "${options[@]}" --max_image_pixels 4096
    : >few/1_sks/04.jxl
    train jxl "${options[@]}"
    holds jxl.err '.avif and .jxl cannot be read'
    holds jxl.err '04.jxl'
}

# --- captions and text encoder -------------------------------------------------------------------

captions() {
    few_pictures few
    local options=(--train_data_dir few --dump_dir dump --dump_steps 4 --max_train_steps 4)
    train plain "${options[@]}"
    mv dump plain.dump
    train txt "${options[@]}" --caption_extension txt
    mv dump txt.dump
    train shuffled "${options[@]}" --shuffle_caption --keep_tokens 1
    mv dump shuffled.dump
    train dropped "${options[@]}" --caption_dropout_rate 1
    mv dump dropped.dump
    train every "${options[@]}" --caption_dropout_every_n_epochs 2
    mv dump every.dump
    train tags "${options[@]}" --caption_tag_dropout_rate 1 --keep_tokens 2
    mv dump tags.dump
    python3 "$here/../support/dumped_ids.py" plain.dump txt.dump shuffled.dump dropped.dump \
        every.dump tags.dump >ids
    cat ids
    equal "$(grep -c . ids)" 24 "lines of ids"
    # plain: two captions; without caption files: the class for both
    equal "$(grep ^plain ids | cut -d' ' -f3- | sort -u | wc -l)" 2 "captions"
    equal "$(grep ^txt ids | cut -d' ' -f3- | sort -u | wc -l)" 1 "captions of the class alone"
    equal "$(grep ^dropped ids | cut -d' ' -f3- | sort -u)" "49406 49407" "dropped captions"
    equal "$(grep -c '^every.* 49406 49407$' ids)" 2 "epoch 2 without captions, epoch 1 with them"
    equal "$(grep -c '^tags' ids)" 4 "tags"
    differ plain/last/$unet shuffled/last/$unet
}

long_captions() {
    few_pictures few
    python3 -c 'print(", ".join(["red round shape"] * 40))' >few/1_sks/00.caption
    local options=(--train_data_dir few --max_train_epochs 1 --dump_dir dump --dump_steps 2)
    train a "${options[@]}"
    holds a.err 'warning'
    header dump/step-000001-rank0.safetensors | grep -o '"input_ids":{[^}]*"shape":\[[0-9,]*\]' >shape
    holds shape '[1,77]'
    rm -r dump
    train b "${options[@]}" --max_token_length 150
    header dump/step-000001-rank0.safetensors | grep -o '"input_ids":{[^}]*"shape":\[[0-9,]*\]' >shape
    holds shape '[1,2,77]'
    rm -r dump
    train c "${options[@]}" --max_token_length 225
    header dump/step-000001-rank0.safetensors | grep -o '"input_ids":{[^}]*"shape":\[[0-9,]*\]' >shape
    holds shape '[1,3,77]'
    differ a/last/$unet b/last/$unet
    differ b/last/$unet c/last/$unet
}

skips_layers() {
    train a
    train b --clip_skip 2
    train c --clip_skip 1
    differ a/last/$unet b/last/$unet
    same_models a/last c/last
}

stops_text_encoder() {
    train never --stop_text_encoder_training=-1
    cmp "$model/$text_encoder" never/last/$text_encoder
    train zero --stop_text_encoder_training 0
    cmp "$model/$text_encoder" zero/last/$text_encoder
    same_models never/last zero/last
    train two
    train stopped --stop_text_encoder_training 2 --max_train_steps 4
    cmp two/last/$text_encoder stopped/last/$text_encoder
    differ two/last/$unet stopped/last/$unet
    train on --max_train_steps 4
    differ on/last/$text_encoder stopped/last/$text_encoder
}

text_encoder_rate() {
    train same --learning_rate_te 1e-4
    train unset
    same_models same/last unset/last
    train still --learning_rate_te 0
    cmp "$model/$text_encoder" still/last/$text_encoder
    train one --max_train_steps 1
    train one_still --max_train_steps 1 --learning_rate_te 0
    cmp one/last/$unet one_still/last/$unet
    train other --learning_rate_te 5e-5
    differ unset/last/$text_encoder other/last/$text_encoder
}

# --- optimizer -----------------------------------------------------------------------------------

# schedule 'lr of four steps' flags...
schedule() {
    local want=$1
    shift
    train out --max_train_steps 4 --learning_rate 1e-3 "$@"
    equal "$(of_steps lr out.json | tr ' ' '\n' | awk '{ printf "%.7f ", $1 }')" "$want" "learning rates"
}

schedules() {
    schedule '0.0010000 0.0010000 0.0010000 0.0010000 ' --lr_scheduler constant
    schedule '0.0000000 0.0005000 0.0010000 0.0010000 ' --lr_scheduler constant_with_warmup \
        --lr_warmup_steps 2
    schedule '0.0000000 0.0005000 0.0010000 0.0005000 ' --lr_scheduler linear --lr_warmup_steps 50%
    schedule '0.0010000 0.0008536 0.0005000 0.0001464 ' --lr_scheduler cosine
    schedule '0.0010000 0.0005000 0.0010000 0.0005000 ' --lr_scheduler cosine_with_restarts \
        --lr_scheduler_num_cycles 2
    schedule '0.0010000 0.0005625 0.0002501 0.0000626 ' --lr_scheduler polynomial \
        --lr_scheduler_power 2
}

optimizer_settings() {
    train a
    train b --optimizer_type adamw --optimizer_args weight_decay=0.01 betas=0.9,0.999 eps=1e-8
    same_models a/last b/last
    train c --optimizer_args weight_decay=0.5
    differ a/last/$unet c/last/$unet
    train d --max_grad_norm 0
    train e --max_grad_norm 0.001
    differ d/last/$unet e/last/$unet
}

learns() {
    train out --max_train_steps 60 --learning_rate 1e-3 --cache_latents --train_batch_size 2
    of_steps loss out.json | tr ' ' '\n' |
        awk 'NR <= 10 { a += $1 } { l[NR] = $1 }
             END { for (i = NR - 9; i <= NR; i++) b += l[i]; print a / 10, b / 10; exit !(NR == 60 && b < 0.8 * a) }'
}

# --- what is printed -----------------------------------------------------------------------------

json_lines() {
    train out --max_train_steps 3
    python3 - out.json <<'END'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert [r["step"] for r in rows] == [1, 2, 3], rows
for r in rows:
    assert r["steps"] == 3 and r["epoch"] == 1 and r["epochs"] == 1, r
    assert r["loss"] > 0 and r["lr"] == 1e-4 and r["grad_norm"] > 0 and r["samples"] == 1, r
    assert r["step_s"] > 0 and r["data_s"] >= 0, r
END
    train plain --max_train_steps 3 --progress plain
    equal "$(cat plain.json)" "" stdout
    holds plain.err 'step 1/3'
    holds plain.err 'step 3/3'
    lacks plain.err $'\r'
    holds plain.err 'memory: needs'
    train silent --console_log_level ERROR
    equal "$(cat silent.err)" "" "stderr at level ERROR"
}

dumps() {
    train out --max_train_steps 3 --dump_dir new/dump --dump_steps 2 --train_batch_size 2
    equal "$(ls new/dump)" "$(printf 'step-000001-rank0.safetensors\nstep-000002-rank0.safetensors')" dumps
    header new/dump/step-000002-rank0.safetensors >header.json
    python3 - header.json <<'END'
import json, sys
h = json.load(open(sys.argv[1]))
meta = h.pop("__metadata__")
want = {"latents": [2, 4, 8, 8], "noise": [2, 4, 8, 8], "noisy_latents": [2, 4, 8, 8],
        "model_pred": [2, 4, 8, 8], "target": [2, 4, 8, 8], "timesteps": [2], "input_ids": [2, 77],
        "encoder_hidden_states": [2, 77, 32], "loss_weights": [2], "loss": [2]}
for name, shape in want.items():
    assert h[name]["shape"] == shape, (name, h[name])
grads = [n for n in h if n.startswith("grad.")]
assert any(n.startswith("grad.unet.") for n in grads)
assert any(n.startswith("grad.text_encoder.") for n in grads)
assert meta["step"] == "2" and meta["epoch"] == "1", meta
END
    train quiet --max_train_steps 3 --train_batch_size 2
    same_models out/last quiet/last
}

help_and_version() {
    "$bin/train_db" --help >help
    holds help '--pretrained_model_name_or_path'
    "$bin/dreamrun" launch train_db --help >help2
    cmp help help2
}

check 'tiny: directory and file in and out, same weights' saves tiny
check 'tiny2: the same' saves tiny2 --v2
check 'tiny2v: the same' saves tiny2v --v2 --v_parameterization
check 'an older model of the same name is replaced whole' replaces_its_own_model
check 'max_train_epochs counts epochs' epochs
check 'gradient accumulation' accumulates
check 'gradient checkpointing changes no bit' checkpoints
check 'buckets, rectangles, no upscaling' buckets
check 'regularisation pictures' regularises
check 'latents cached in memory, flips' caches
check 'latents cached on disk' caches_on_disk
check 'a changed picture is encoded again' changed_picture
check 'a cache file cut in half is repaired' damaged_cache cut
check 'an empty cache file is repaired' damaged_cache empty
check 'a cache file of rubbish is repaired' damaged_cache noise
check 'a cache file with wrong bits is repaired' damaged_cache flip
check 'bad pictures are left out and counted' bad_pictures_left_out
check 'kinds of pictures and their options' picture_options
check 'captions: extension, shuffling, dropout' captions
check 'captions of 150 and 225 tokens' long_captions
check 'clip_skip' skips_layers
check 'stop_text_encoder_training' stops_text_encoder
check 'learning_rate_te' text_encoder_rate
check 'the six schedules' schedules
check 'optimizer settings, clipping' optimizer_settings
check 'the loss falls' learns
check 'progress as JSON lines and plain' json_lines
check 'dumps' dumps
check 'help' help_and_version
finish
