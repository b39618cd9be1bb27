#!/usr/bin/env bash
# tests/mpi/test_zero.sh BIN_DIR - --zero_stage 1: the optimizer's state shared out over ranks makes
# the same model and the same state, bit for bit, and goes on on any number of ranks.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" zero "$1"
command -v mpirun >/dev/null || {
    echo "no mpirun"
    exit 77
}
make_material

options=(--virtual_shards 4 --train_batch_size 1 --save_state_on_train_end --max_train_steps 3
    --check_ranks_every 1)

# as_whole N options...: N ranks with the state shared out do as one rank.
as_whole() {
    local n=$1
    shift
    [ -d whole ] || train whole "${options[@]}" "$@"
    ranks "$n" parts "${options[@]}" --zero_stage 1 "$@"
    same_models whole/last parts/last
    same_states whole parts
    equal "$(of_steps loss parts.json)" "$(of_steps loss whole.json)" losses
    equal "$(of_steps lr parts.json)" "$(of_steps lr whole.json)" rates
}

same_states() {
    local file
    for file in optimizer.safetensors model.safetensors model_1.safetensors; do
        cmp "$1/last-state/$file" "$2/last-state/$file" || return 1
    done
}

any_number() {
    local n
    for n in 1 2 3 4; do
        as_whole "$n"
        rm -r parts
    done
}

stateful() {
    as_whole 3 --optimizer_type AdamW8bit
    rm -r whole
    as_whole 2 --optimizer_type Adafactor --optimizer_args relative_step=False scale_parameter=True \
        --max_grad_norm 0
}

other_weights() {
    as_whole 3 --ema_decay 0.9
    rm -r whole
    as_whole 2 --optimizer_type AdamWScheduleFree --save_every_n_steps 2
}

narrow() {
    as_whole 2 --mixed_precision bf16
    rm -r whole
    as_whole 3 --mixed_precision bf16 --full_bf16 --optimizer_type Lion
}

# The state of 3 ranks goes on on 2, and on one that keeps everything; and the other way round.
resumed() {
    local run=("${options[@]}" --max_train_steps 4)
    train whole "${run[@]}"
    ranks 3 parts "${run[@]}" --zero_stage 1 --save_every_n_steps 2 --save_state
    local state=parts/at-step00000002-state
    ranks 2 two "${run[@]}" --zero_stage 1 --resume "$state"
    train one "${run[@]}" --resume "$state"
    same_models whole/last two/last
    same_models whole/last one/last
    same_states whole two
    same_states whole one
}

# Rank 0 finds the disk full in the middle of a state: the others wait for nothing.
disk_full() {
    local rc=0 quiet=1
    ranks 3 parts "${options[@]}" --zero_stage 1 --save_every_n_steps 1 --save_state \
        --inject enospc:rank=0,write=90 || rc=$?
    cat parts.err
    equal "$rc" 71 "exit code"
    holds parts.err 'not saved'
}

# What the plan says is what a rank keeps.
planned() {
    train whole --estimate
    ranks 4 parts --virtual_shards 4 --zero_stage 1 --estimate
    python3 - whole.err parts.err <<'P'
import re, sys
unit = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
def optimizer(path):
    n, u = re.search(r"optimizer ([\d.]+) (\w+)", open(path).read()).groups()
    return float(n) * unit[u]
whole, part = map(optimizer, sys.argv[1:])
assert 0.25 <= part / whole < 0.4, (whole, part)
P
}

refusals() {
    refused 64 '--zero_stage 1: Prodigy needs sums over all weights' 2 "${options[@]}" --zero_stage 1 \
        --optimizer_type Prodigy --learning_rate 1
    refused 64 '--zero_stage 2: gradients and weights are not sharded here' 1 --zero_stage 2
}

check 'AdamW on 1, 2, 3 and 4 ranks: the bits of one rank' any_number
check 'states by blocks, and states of whole tensors' stateful
check 'averages of weights, and weights that are not those of the steps' other_weights
check '16-bit weights, with and without masters' narrow
check 'a state goes on on another number of ranks, with and without' resumed
check 'a full disk in the middle of a state' disk_full
check 'the memory plan counts the part' planned
check 'optimizers that cannot, and stages that are not there' refusals
finish
