#!/usr/bin/env bash
# tests/fault/test_kills.sh BIN_DIR - one job killed again and again, and runs stopped anywhere: what is lost is at
# most what came after the newest state, and the end is that of a run that was never stopped, bit for bit.
#
# Moments are random, from the seed DR_SOAK_SEED (1). DR_SOAK=1: sixty kills and twenty-four stops, minutes
# instead of seconds; docs/states.md has what it found.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" kills "$1"
make_material
RANDOM=${DR_SOAK_SEED:-1}
n_kills=$([ -n "${DR_SOAK:-}" ] && echo 60 || echo 6)
n_stops=$([ -n "${DR_SOAK:-}" ] && echo 24 || echo 3)

# pictures DIR: four pictures, an epoch of twelve samples.
pictures() {
    mkdir -p "$1"
    cp -r "$data/train/10_sks shape" "$1/3_sks shape"
}

# numbers OUT: what the log that its last state names says, without times and memory. A run that was killed
# before its first state began another log.
numbers() {
    python3 -c '
import json, sys
out = sys.argv[1]
name = json.load(open(f"{out}/last-state/train_state.json"))["log"]
for line in open(f"{out}.log/{name}/steps.jsonl"):
    row = json.loads(line)
    row.pop("time")
    print({k: v for k, v in row.items() if k.split("/")[0] not in ("perf", "data", "mem")})' "$1"
}

same_ends() {
    same_models "$1/last" "$2/last"
    cmp "$1/last-state/model.safetensors" "$2/last-state/model.safetensors"
    cmp "$1/last-state/optimizer.safetensors" "$2/last-state/optimizer.safetensors"
    numbers "$1" >a.numbers
    numbers "$2" >b.numbers
    cmp a.numbers b.numbers
    [ -s a.numbers ]
}

# steps_done FILE.json: the last step that a process said it had done, or what it was resumed from.
steps_done() {
    local step
    step=$(sed -En 's/^\{"step": ([0-9]+),.*/\1/p' "$1.json" | tail -n 1)
    [ -n "$step" ] || step=$(sed -En 's/^resumed from .* step ([0-9]+) of.*/\1/p' "$1.err")
    echo "${step:-0}"
}

# resumed_step FILE.err: where it began; 0: at the start.
resumed_step() {
    local step
    step=$(sed -En 's/^resumed from .* step ([0-9]+) of.*/\1/p' "$1.err")
    echo "${step:-0}"
}

# A kind of death: a timer, a write to a file, the beginning of a step.
death() {
    case $((RANDOM % 3)) in
        0) printf -v limit '0.%03d' $((300 + RANDOM % 700)) ;;
        1) inject=(--inject "kill:write=$((1 + RANDOM % 120))") ;;
        2) inject=(--inject "kill:step=$((1 + RANDOM % steps))") ;;
    esac
}

killed_again_and_again() {
    local steps=30 every=3 kills=0 ends=0 rc was least limit inject
    pictures p
    local all=(--train_data_dir "$PWD/p" --max_train_steps "$steps" --save_state --save_every_n_steps "$every"
        --save_last_n_steps 6 --stop_text_encoder_training 20 --optimizer_type AdamW8bit)
    train straight "${all[@]}" --logging_dir straight.log
    while [ "$kills" -lt "$n_kills" ]; do
        limit=$limit_s inject=() rc=0 was=0
        [ ! -f out.json ] || was=$(steps_done out)
        death
        timeout -s KILL "$limit" "$bin/train_db" --pretrained_model_name_or_path "$model" --output_dir out "${flags[@]}" \
            "${all[@]}" --logging_dir out.log --resume auto "${inject[@]}" >out.json 2>out.err </dev/null || rc=$?
        if grep -qE '^(resumed from|--resume auto: no state)' out.err; then
            least=$(((was - 1) / every * every)) # the state of the step itself may have been in the making
            [ "$(resumed_step out)" -ge "$((least > 0 ? least : 0))" ] ||
                fail "kill $kills: it had done $was steps and went on from $(resumed_step out)"
        elif [ "$rc" != 137 ]; then
            cat out.err
            return 1
        fi
        if [ "$rc" = 0 ]; then
            same_ends straight out
            ends=$((ends + 1))
            rm -r out out.log out.json
        else
            equal "$rc" 137 'exit code'
            kills=$((kills + 1))
        fi
    done
    train out "${all[@]}" --logging_dir out.log --resume auto
    same_ends straight out
    echo "$kills kills, the job ended $((ends + 1)) times" >&3
}

# Stops at random steps of random configurations, in the middle of an epoch or of nothing.
stopped_anywhere() {
    local configurations=(
        '--gradient_accumulation_steps 2 --lr_scheduler cosine'
        '--optimizer_type AdamW8bit --enable_bucket --min_bucket_reso 64 --shuffle_caption'
        '--optimizer_type Lion --cache_latents --stop_text_encoder_training 9'
        '--optimizer_type Prodigy --learning_rate 1 --ip_noise_gamma 0.1'
        '--optimizer_type AdamWScheduleFree --min_snr_gamma 5'
        '--mixed_precision bf16 --full_bf16')
    local i c step every made=0
    pictures p
    for ((i = 0; i < n_stops; i++)); do
        c=$((i % 6)) step=$((2 + RANDOM % 15)) every=$((1 + RANDOM % 4))
        # shellcheck disable=SC2206
        local all=(--train_data_dir "$PWD/p" --max_train_steps 16 --save_state ${configurations[c]})
        [ -d "straight$c" ] || {
            train "straight$c" "${all[@]}" --logging_dir "straight$c.log"
            made=$((made + 1))
        }
        rm -rf out out.log
        quiet=1 train out "${all[@]}" --logging_dir out.log --save_every_n_steps "$every" \
            --inject "exit:step=$step,code=9" || equal $? 9 'exit code'
        train out "${all[@]}" --logging_dir out.log --resume auto
        same_ends "straight$c" out || fail "stopped before step $step, states every $every: ${configurations[c]}"
    done
    echo "$n_stops stops over $made configurations" >&3
}

exec 3>&1
check "killed $n_kills times" killed_again_and_again
check "stopped at $n_stops random steps" stopped_anywhere
finish
