#!/usr/bin/env bash
# tests/fault/test_promises.sh BIN_DIR - promises of docs/faults.md that no other test of this folder holds: stop
# requests that are not heeded, disks and files with a limit, states that are all damaged, weights that differ
# between ranks, memory that runs out, LoRAs over kills, pictures that vanish.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" promises "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
make_material
command -v mpirun >/dev/null || {
    echo "no mpirun"
    exit 77
}
unset DREAMRUN_CONFIG
export HOME=$work XDG_CONFIG_HOME=$work

launcher=("${mpi[@]}" "$bin/dreamrun" launch --oversubscribe --restart_delay 0)
lora=(--network_module networks.lora --network_dim 4 --save_state)

# lora_run RANKS OUT launch-options... -- flags...
lora_run() {
    local ranks=$1 out=$2 options=()
    shift 2
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    start "$out" "${launcher[@]}" --num_processes "$ranks" "${options[@]}" train_network -- "${lora[@]}" \
        --virtual_shards 2 "$@"
}

same_loras() {
    local file
    for file in last.safetensors last-state/model.safetensors last-state/model_1.safetensors \
        last-state/optimizer.safetensors; do
        cmp "$1/$file" "$2/$file"
    done
}

seconds_since() {
    python3 -c 'import sys, time; print(f"{time.time() - float(sys.argv[1]):.2f}")' "$1"
}

at_most() {
    echo "$3: $1 s, promised: $2 s"
    python3 -c 'import sys; sys.exit(float(sys.argv[1]) > float(sys.argv[2]))' "$1" "$2"
}

# --- stop requests -----------------------------------------------------------------------------------

# begun launch-options...: two ranks of which one stands still before its fourth step.
begun() {
    in_background "${launcher[@]}" --num_processes 2 --inject delay:rank=1,step=4,seconds=300 "$@" train_db -- \
        --output_dir "$PWD/out" --max_train_steps 9 --save_state --save_every_n_steps 1
    trap 'kill -9 $pid $(mine) 2>/dev/null || true' EXIT
    wait_for 'the state of step 3' 60 grep -qF 'at-step00000003-state: epoch' run.err
}

not_heeded() {
    local began quiet=1
    begun --grace 1
    began=$(date +%s.%N)
    kill -s TERM "$pid"
    wait_for 'the end of the run' 20 gone
    at_most "$(seconds_since "$began")" 3 'a run that does not save within --grace 1 is gone'
    ended 143 5
    holds run.err 'was stopped by SIGTERM; it did not end in time and was killed'
    "$bin/dreamrun" verify out >verify.out
    holds verify.out 'at-step00000003-state: step 3, every byte as it was saved'
}

interrupted_twice() {
    local began quiet=1
    begun --grace 300
    kill -s INT "$pid"
    sleep 0.7 # requests that lie closer together are one
    began=$(date +%s.%N)
    kill -s INT "$pid"
    wait_for 'the end of the run' 20 gone
    at_most "$(seconds_since "$began")" 2 'a run that was interrupted twice is gone'
    ended 130 5
    "$bin/dreamrun" verify out >verify.out
    holds verify.out 'at-step00000003-state: step 3, every byte as it was saved'
}

# --- disks -------------------------------------------------------------------------------------------

# A disk that fills up while the run goes on: saves are left out, the last one ends the run with its code, and
# what was saved stays whole.
disk_fills_up() {
    unshare --mount true 2>/dev/null || skip 'this user may not mount'
    mkdir disk
    local got=0 quiet=1
    # shellcheck disable=SC2016
    start full unshare --mount bash -c 'mount -t tmpfs -o size=6m none disk || exit 77
        got=0; "$@" || got=$?; "$0" verify disk >verify.out 2>&1; ls -A disk >left; exit $got' "$bin/dreamrun" \
        "$bin/dreamrun" launch --oversubscribe --num_processes 2 train_network -- "${lora[@]}" --virtual_shards 2 \
        --max_train_steps 9 --save_every_n_steps 1 --output_dir disk || got=$?
    cat full.err
    equal "$got" 71 'exit code'
    equal "$(grep -c '^{"step"' full.json)" 9 'steps'
    holds full.err 'not saved: disk/at-step'
    grep -qE 'No space left on device|are free in' full.err
    holds verify.out 'at-step00000001-state: step 1, every byte as it was saved'
    lacks verify.out DAMAGED
    equal "$(grep -c tmp left || true)" 0 'temporary files'
}

# A limit of files' sizes (ulimit -f, quotas report the same way) costs the save, not the process.
file_limit() {
    local got=0 quiet=1
    # shellcheck disable=SC2016
    start out bash -c 'ulimit -f 600; exec "$@"' limited "$bin/train_network" -- "${lora[@]}" \
        --max_train_steps 3 --save_every_n_steps 2 || got=$?
    cat out.err
    equal "$got" 71 'exit code'
    holds out.err 'warning: step 2: not saved: out/at-step00000002-state'
    holds out.err 'File too large'
    equal "$(grep -c '^{"step"' out.json)" 3 'steps'
    no_leftovers
}

# --- states ------------------------------------------------------------------------------------------

all_damaged() {
    local state got=0 quiet=1
    lora_run 1 out -- --max_train_steps 3 --save_every_n_steps 1
    for state in out/*-state; do
        truncate -s -1 "$state/optimizer.safetensors"
    done
    lora_run 1 out --max_restarts 3 -- --max_train_steps 5 --resume auto || got=$?
    cat out.err
    equal "$got" 65 'exit code'
    holds out.err 'out: no state to go on from is whole; damaged: 4'
    lacks out.err 'starting again'
}

# lora_over_kills RANKS flags...: killed in a step and in a save, with other numbers of ranks in between.
lora_over_kills() {
    local ranks=$1 quiet=1
    shift
    local all=(--max_train_steps 8 --save_every_n_steps 2 "$@")
    lora_run "$ranks" straight -- "${all[@]}"
    lora_run "$ranks" out --max_restarts 3 --inject 'kill:rank=0,step=4;kill:rank=0,write=40,attempt=2' -- "${all[@]}"
    equal "$(grep -c 'starting again' out.err)" 2 'restarts'
    same_loras straight out
    rm -r out
    lora_run "$ranks" out --inject kill:rank=0,step=6 -- "${all[@]}" || equal $? 137 'exit code'
    lora_run $((3 - ranks)) out -- "${all[@]}" --resume auto
    holds out.err 'at-step00000004-state: epoch 1, step 4 of 8'
    same_loras straight out
}

# --- numbers and memory ------------------------------------------------------------------------------

# A bit of one rank's weights turns: the next comparison names the rank, before anything is saved.
weights_differ() {
    local got=0 quiet=1
    start out "${launcher[@]}" --num_processes 3 --max_restarts 3 --inject flip:rank=1,step=3 train_network -- \
        "${lora[@]}" --max_train_steps 6 --save_every_n_steps 2 || got=$?
    cat out.err
    equal "$got" 76 'exit code'
    holds out.err 'step 4: rank 1 has other weights than rank 0 and most others'
    lacks out.err 'at-step00000004'
    holds out.err 'not started again'
    lora_run 2 two --inject flip:rank=0,step=2 -- --max_train_steps 6 --check_ranks_every 1 || got=$?
    equal "$got" 76 'exit code'
    holds two.err 'step 2: rank 1 has other weights than rank 0 (which of them is right cannot be told)'
    lora_run 2 none --inject flip:rank=0,step=2 -- --max_train_steps 3 --check_ranks_every 0
    start out "${launcher[@]}" --num_processes 3 train_network -- "${lora[@]}" --max_train_steps 6 --resume auto
    start straight "${launcher[@]}" --num_processes 3 train_network -- "${lora[@]}" --max_train_steps 6
    same_loras straight out
}

# The system kills a rank for its memory: said so, and not tried again as it is.
out_of_memory() {
    local group limit procs got=0 quiet=1
    if [ -w /sys/fs/cgroup/memory ] && [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
        group=/sys/fs/cgroup/memory/dreamrun_test.$$ limit=memory.limit_in_bytes
    elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
        group=/sys/fs/cgroup/dreamrun_test.$$ limit=memory.max
    else
        skip 'no cgroup with a limit of memory can be made'
    fi
    mkdir "$group" 2>/dev/null || skip 'no cgroup can be made'
    # shellcheck disable=SC2064
    trap "rmdir '$group' 2>/dev/null || true" EXIT
    echo $((700 << 20)) >"$group/$limit" || skip 'no limit can be set'
    procs=$group/cgroup.procs
    # shellcheck disable=SC2016
    start out bash -c 'echo $$ >"$1"; shift; exec "$@"' grouped "$procs" "${launcher[@]}" --num_processes 2 \
        --max_restarts 3 --inject oom:rank=1,step=2,mib=900 train_network -- "${lora[@]}" --max_train_steps 3 || got=$?
    cat out.err
    equal "$got" 137 'exit code'
    holds out.err 'rank 1 (host '
    holds out.err 'was killed by the system: out of memory on '
    holds out.err 'not started again: it would run out of memory again'
    wait_for 'an empty group' 5 rmdir "$group"
}

# --- data --------------------------------------------------------------------------------------------

# A picture that vanishes ends all ranks with its name; the states stay, and with it back the run goes on.
picture_vanishes() {
    local got=0
    cp -r "$data/train" pictures
    local all=(--train_data_dir "$PWD/pictures" --max_train_steps 12 --save_every_n_steps 1)
    lora_run 2 straight -- "${all[@]}"
    in_background "${launcher[@]}" --num_processes 2 --inject delay:step=3,seconds=3 train_network -- \
        --output_dir "$PWD/out" "${lora[@]}" --virtual_shards 2 "${all[@]}"
    wait_for 'the state of step 2' 60 grep -qF 'at-step00000002-state: epoch' run.err
    mv pictures/*/01.png .
    wait_for 'the end of the run' 60 gone
    wait "$pid" || got=$?
    cat run.err
    equal "$got" 71 'exit code'
    holds run.err '01.png: cannot open'
    mv 01.png pictures/*/
    lora_run 2 out -- "${all[@]}" --resume auto
    holds out.err 'resumed from'
    same_loras straight out
}

check 'a stop request that is not heeded' not_heeded
check 'interrupted twice' interrupted_twice
check 'a disk that fills up' disk_fills_up
check 'a limit of the size of files' file_limit
check 'no state is whole: 65' all_damaged
check 'a LoRA over kills, one rank' lora_over_kills 1
check 'a LoRA over kills, two ranks' lora_over_kills 2 --optimizer_type AdamW8bit
check 'weights that differ between ranks' weights_differ
check 'out of memory' out_of_memory
check 'a picture that vanishes' picture_vanishes
finish
