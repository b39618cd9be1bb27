#!/usr/bin/env bash
# tests/fault/test_samples.sh BIN_DIR - sample pictures of a run: when, under which names, the same on any
# number of ranks; and nothing that happens to them changes the training.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" samples "$1"
make_material
few_pictures "$work/few"
has_mpirun=$(command -v mpirun)
prompts=$work/prompts.txt
cat >"$prompts" <<'END'
# comment
a photo of sks shape --d 1 --s 2 --w 64 --h 64
a (red:1.3) shape --w 70 --h 64 --s 2 --ss euler_a --n "ugly" --l 5.5
no seed --s 2 --w 64 --h 64 --ss dpmsolver++
END

# Two samples per epoch: 5 steps are 3 epochs, the last one cut short.
run=(--train_data_dir "$work/few" --max_train_steps 5 --save_state_on_train_end)
sampled=(--sample_prompts "$prompts" --sample_at_first)

same_ends() {
    local file
    same_models "$1/last" "$2/last"
    for file in model.safetensors optimizer.safetensors train_state.json; do
        cmp "$1/last-state/$file" "$2/last-state/$file"
    done
}

# same_pictures A B: the same files with the same content.
same_pictures() {
    equal "$(ls "$1/sample")" "$(ls "$2/sample")" 'pictures'
    local file
    for file in "$1/sample"/*.png; do
        cmp "$file" "$2/sample/${file##*/}"
    done
}

names() {
    (cd "$1/sample" && echo *)
}

stamp=$(date -d @$SOURCE_DATE_EPOCH +%Y%m%d%H%M%S)

by_steps() {
    local n
    train plain "${run[@]}"
    train out "${run[@]}" "${sampled[@]}" --output_name my --sample_every_n_steps 2
    for n in e000000 000002 000004; do
        echo "my_${n}_00_${stamp}_1.png my_${n}_01_$stamp.png my_${n}_02_$stamp.png"
    done | LC_ALL=C sort | tr '\n' ' ' >expected
    equal "$(names out) " "$(cat expected)my_grid.png " names
    mv out/my out/last
    mv out/my-state out/last-state
    same_ends plain out
}

by_epochs() {
    local n
    train plain "${run[@]}"
    train out "${run[@]}" --sample_prompts "$prompts" --sample_every_n_epochs 1 --sample_every_n_steps 1
    for n in 1 2 3; do
        echo "e00000${n}_00_${stamp}_1.png e00000${n}_01_$stamp.png e00000${n}_02_$stamp.png"
    done | tr '\n' ' ' >expected
    equal "$(names out) " "$(cat expected)grid.png " names
    same_ends plain out
}

# The average of the weights is what is drawn, as it is what is saved: dreamrun sample gives the same bytes.
# averaged flags...
averaged() {
    train plain "${run[@]}" "$@"
    train out "${run[@]}" "$@" --sample_prompts "$prompts" --sample_every_n_steps 5
    same_ends plain out
    "$bin/dreamrun" sample --model out/last --sample_prompts "$prompts" --compat sd-scripts --output_dir drawn \
        --seed 0 --num_cpu_threads_per_process 1 >/dev/null
    cmp "drawn/00000_1.png" "out/sample/000005_00_${stamp}_1.png"
}

lora() {
    start plain "$bin/train_network" -- "${run[@]}" --network_module networks.lora "$@"
    start out "$bin/train_network" -- "${run[@]}" --network_module networks.lora "$@" "${sampled[@]}" \
        --sample_every_n_steps 2
    cmp plain/last.safetensors out/last.safetensors
    equal "$(find out/sample -name '*.png' | wc -l)" 10 'pictures and the grid'
    start first "$bin/train_network" -- "${run[@]}" --network_module networks.lora "$@" "${sampled[@]}" --seed 2
    cmp "first/sample/e000000_00_${stamp}_1.png" "out/sample/e000000_00_${stamp}_1.png" # nothing is learned yet
    differ "out/sample/e000000_00_${stamp}_1.png" "out/sample/000004_00_${stamp}_1.png"
}

sixteen_bits() {
    train plain "${run[@]}" --mixed_precision bf16
    train out "${run[@]}" --mixed_precision bf16 "${sampled[@]}" --sample_every_n_steps 2
    same_ends plain out
    equal "$(find out/sample -name '*.png' | wc -l)" 10 'pictures and the grid'
}

on_ranks() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    train plain "${run[@]}" --virtual_shards 2
    train one "${run[@]}" "${sampled[@]}" --virtual_shards 2 --sample_every_n_steps 2
    ranks 2 two "${run[@]}" "${sampled[@]}" --virtual_shards 2 --sample_every_n_steps 2
    same_ends plain one
    same_ends plain two
    same_pictures one two
    # more ranks than prompts
    head -n 2 "$prompts" >one.txt
    train one2 "${run[@]}" --sample_prompts one.txt --virtual_shards 3 --sample_every_n_steps 1
    ranks 3 three "${run[@]}" --sample_prompts one.txt --sample_every_n_steps 1
    same_ends one2 three
    same_pictures one2 three
}

resumed() {
    local all=("${run[@]}" "${sampled[@]}" --sample_every_n_steps 1) quiet=1
    train straight "${all[@]}"
    train out "${all[@]}" --save_state --save_every_n_steps 2 --inject exit:step=4,code=9 || true
    train out "${all[@]}" --resume auto
    rm -rf out/at-step*
    same_ends straight out
    same_pictures straight out
}

# bad CODE 'text' flags...
bad() {
    refused "$1" "$2" 1 "${run[@]}" --sample_every_n_steps 1 "${@:3}"
}

bad_prompts() {
    echo 'a --w 64 --h 64 --s 2 --ss nothing' >bad.txt
    bad 65 'bad.txt:1: sampler "nothing"' --sample_prompts bad.txt
    bad 71 'none.txt: cannot open' --sample_prompts none.txt
    printf 'fine --s 2\n\xff --s 2\n' >bytes.txt
    bad 65 'bytes.txt: prompt 2' --sample_prompts bytes.txt
    bad 64 'Karras sigmas with the sampler ddim' --sample_prompts "$prompts" --sample_karras
    bad 64 'sample pictures need --sample_prompts'
    if [ -n "$has_mpirun" ]; then
        refused 65 'bad.txt:1: sampler "nothing"' 2 "${run[@]}" --sample_every_n_steps 1 --sample_prompts bad.txt
    fi
}

# No room for the pictures, and a decoder that gives no numbers: the run goes on.
failing_pictures() {
    train plain "${run[@]}"
    mkdir out
    echo 'no folder' >out/sample
    train out "${run[@]}" "${sampled[@]}"
    holds out.err 'sample pictures are missing'
    holds out.err 'the run goes on'
    same_ends plain out
    cp -r "$model" damaged
    python3 - "damaged/$vae" <<'END'
import json, struct, sys
with open(sys.argv[1], "r+b") as f:
    n, = struct.unpack("<Q", f.read(8))
    at = json.loads(f.read(n))["decoder.conv_out.bias"]["data_offsets"][0]
    f.seek(8 + n + at)
    f.write(struct.pack("<f", float("nan")))
END
    train nan "${run[@]}" "${sampled[@]}" --pretrained_model_name_or_path damaged
    holds nan.err "warning: step 0: sample picture 2 is left out: the VAE's decoder gave NaN or infinity"
    cmp "plain/last/$unet" "nan/last/$unet"
    equal "$(find nan/sample -name '*.png')" '' 'pictures'
}

says_nothing_is_drawn() {
    train out --sample_prompts "$prompts" --sample_every_n_epochs 0
    holds out.err 'below 1, so it draws nothing'
    holds out.err 'no pictures are drawn without'
    [ ! -e out/sample ]
}

check 'before the first step and by steps: names, same weights' by_steps
check 'by epochs, the last one cut short' by_epochs
check 'with a running average of the weights' averaged --ema_decay 0.9
check 'with a schedule-free optimizer' averaged --optimizer_type AdamWScheduleFree
check 'with the optimizer inside backward' averaged --fused_backward_pass --max_grad_norm 0
check 'train_network: a LoRA' lora
check 'mixed precision' sixteen_bits
check 'two and three ranks' on_ranks
check 'stopped and gone on with' resumed
check 'files of prompts that are wrong' bad_prompts
check 'pictures that fail' failing_pictures
check 'prompts without a time to draw them' says_nothing_is_drawn
finish
