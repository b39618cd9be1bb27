#!/usr/bin/env bash
# tests/fault/test_resume.sh BIN_DIR - a run that is stopped and gone on with ends as if it had not been.
# Models, optimizer states and the facts of the last state are compared byte by byte.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" resume "$1"
make_material
has_mpirun=$(command -v mpirun)

same_ends() {
    same_models "$1/last" "$2/last"
    local file
    for file in model.safetensors optimizer.safetensors train_state.json; do
        cmp "$1/last-state/$file" "$2/last-state/$file"
    done
}

# resumed_at 'STEPS' flags...: stops in each of the steps, with a state of three steps' distance at most,
# and goes on; an epoch has 14 samples.
resumed_at() {
    local steps=$1 step
    shift
    local all=(--save_state --max_train_steps 20 "$@")
    mkdir "$work/case/pictures"
    cp -r "$data/train/10_sks shape" "$work/case/pictures/3_sks shape"
    all+=(--train_data_dir "$work/case/pictures")
    train straight "${all[@]}"
    for step in $steps; do
        rm -rf out
        quiet=1 train out "${all[@]}" --save_every_n_steps 3 --inject "exit:step=$step,code=9" || equal $? 9 'exit code'
        train out "${all[@]}" --resume auto
        holds out.err 'resumed from'
        same_ends straight out
    done
}

# Stopped on 2 ranks, gone on with on 1 and 3, and the other way round.
other_ranks() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    local all=(--save_state --max_train_steps 8 --virtual_shards 4)
    train straight "${all[@]}"
    quiet=1 ranks 2 out "${all[@]}" --save_every_n_steps 2 --inject exit:step=6,code=9 || true
    cp -r out again
    train out "${all[@]}" --resume auto
    same_ends straight out
    ranks 3 again "${all[@]}" --resume "$PWD/again/at-step00000004-state"
    same_ends straight again
}

# What is no state is never replaced by one.
refuses_to_replace() {
    local got=0 quiet=1
    train out "$@" || got=$?
    equal "$got" 73 'exit code'
    holds out.err 'last-state: it exists and is no state of dreamrun'
}

# The newest whole state is taken; damaged ones are named.
damaged_states() {
    local all=(--save_state --max_train_steps 6)
    train straight "${all[@]}"
    train out "${all[@]}" --save_every_n_steps 2
    printf X | dd of=out/last-state/optimizer.safetensors bs=1 seek=5000 conv=notrunc status=none
    truncate -s -1 out/at-step00000006-state/model.safetensors
    train out "${all[@]}" --resume auto
    holds out.err 'last-state: optimizer.safetensors does not have the content that was saved'
    holds out.err 'model.safetensors has'
    holds out.err 'resumed from'
    same_ends straight out
    rm -r out/*-state
    train out "${all[@]}" --resume auto
    holds out.err 'the run starts at step 1'
    same_ends straight out
    mkdir out/last-state.kept
    mv out/last-state/train_state.json out/last-state.kept
    rm out/last-state/manifest.json
    refuses_to_replace "${all[@]}"
}

# what_differs 'text' flags...
what_differs() {
    local got=0 quiet=1
    train out --resume auto --max_train_steps 4 "${@:2}" || got=$?
    cat out.err
    equal "$got" 78 'exit code'
    holds out.err "$1"
}

unfitting_states() {
    local got=0 quiet=1
    train out --save_state
    what_differs '--learning_rate: the state has 0.0001, this run 0.001' --learning_rate 1e-3
    what_differs '--seed: the state has 1, this run 7' --seed 7
    what_differs '--optimizer_type: the state has unset, this run Lion' --optimizer_type Lion
    what_differs '--train_batch_size: the state has 1, this run 2' --train_batch_size 2
    few_pictures few
    what_differs 'dataset' --train_data_dir few
    "$bin/dreamrun" init_model tiny other --seed 9 >/dev/null
    what_differs 'model (hash of its weights)' --pretrained_model_name_or_path other
    train out --resume auto --max_train_steps 4 --learning_rate 1e-3 --resume_changed
    holds out.err '--resume_changed: the run goes on with other settings'
    train out --resume out/last-state --max_train_steps 1 || got=$?
    equal "$got" 64 'exit code'
    holds out.err 'raise --max_train_steps'
    rm -r out
    refused 64 'there is no such directory' 1 --resume nowhere
}

# Names and what goes to make room: the example of sd-scripts (every 10 steps, the last 30: 4 stay).
names_and_room() {
    train out --max_train_steps 6 --save_every_n_steps 1 --save_last_n_steps 3 --save_last_n_steps_state 1 --save_state
    equal "$(find out -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')" \
        'at-step00000003 at-step00000004 at-step00000005 at-step00000005-state at-step00000006 at-step00000006-state last last-state ' \
        'names'
    few_pictures few
    train out2 --train_data_dir few --max_train_epochs 4 --save_every_n_epochs 1 --output_name x --save_model_as safetensors
    equal "$(find out2 -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')" \
        'x-000001.safetensors x-000002.safetensors x-000003.safetensors x.safetensors ' 'names'
}

# A save in the middle that finds no room costs that save, not the run.
full_in_the_middle() {
    train straight --max_train_steps 3
    train out --max_train_steps 3 --save_every_n_steps 2 --inject 'enospc:write=4' || equal $? 71 'exit code'
    holds out.err 'warning: step 2: not saved'
    holds out.err 'error: '
    equal "$(grep -c '"step"' out.json)" 3 'steps'
    nothing_left out
}

check 'AdamW, accumulation over epoch ends' resumed_at '4 11 17' --gradient_accumulation_steps 2 --lr_scheduler cosine
check 'AdamW8bit, buckets, shuffled captions' resumed_at '8 14' --optimizer_type AdamW8bit --enable_bucket \
    --shuffle_caption --caption_dropout_rate 0.2 --min_bucket_reso 64
check 'Lion, cached latents, a stopping text encoder' resumed_at '6 13' --optimizer_type Lion --cache_latents \
    --stop_text_encoder_training 10
check 'AdaFactor, random noise' resumed_at '5 19' --optimizer_type AdaFactor --lr_scheduler cosine \
    --noise_offset 0.1 --noise_offset_random_strength
check 'Prodigy, min-SNR' resumed_at '7 16' --optimizer_type Prodigy --learning_rate 1 --min_snr_gamma 5
check 'schedule-free AdamW' resumed_at '10 15' --optimizer_type AdamWScheduleFree
check 'AdamW with a running average' resumed_at '12' --ema_decay 0.9
check 'other numbers of ranks' other_ranks
check 'damaged states' damaged_states
check 'states that do not fit' unfitting_states
check 'names, and room for them' names_and_room
check 'disk full in the middle' full_in_the_middle
finish
