#!/usr/bin/env bash
# tests/fault/test_ended_runs.sh BIN_DIR - runs that end early: full disks, NaN, killed ranks, signals.
# What was there before stays, nothing half-written is left, no process outlives the run.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" ended_runs "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
make_material
has_mpirun=$(command -v mpirun)

# --- full disks ----------------------------------------------------------------------------------

# with_small_disk MEGABYTES command...: $PWD/disk is a disk of that size, in a mount namespace of its
# own that ends with the command.
# shellcheck disable=SC2016
with_small_disk() {
    local size=$1
    shift
    mkdir disk
    unshare --mount true 2>/dev/null || skip 'this user may not mount'
    unshare --mount bash -c '
        mount -t tmpfs -o "size=$1m" none disk 2>/dev/null || exit 77
        shift
        "$@"' small_disk "$size" "$@" || return $?
}

# The commands run in a new bash, so what they need is exported.
export -f train start holds fail equal of_steps refused ranks nothing_left no_leftovers
export bin model data limit_s work unet program
export flags_text="${flags[*]}"

full_at_the_end() {
    # shellcheck disable=SC2016
    with_small_disk 60 bash -c '
        set -e
        read -ra flags <<<"$flags_text"
        train disk "$@"
        before=$(find disk -type f -exec sha256sum {} + | sort)
        quiet=1
        got=0
        fill=$(($(df --output=avail -B1 disk | tail -n 1) - 10000000))
        head -c "$fill" /dev/zero >disk/ballast
        train disk --seed 2 "$@" || got=$?
        cat disk.err
        equal "$got" 71 "exit code"
        grep -E "^error: disk/last.*(No space left on device|are free in)" disk.err
        equal "$(grep -c "^error: " disk.err)" 1 "error lines"
        rm disk/ballast
        equal "$(find disk -type f -exec sha256sum {} + | sort)" "$before" "the older model"
        no_leftovers
        # with room again, the same command succeeds
        train disk --seed 2 "$@"
        [ "$(find disk -type f -exec sha256sum {} + | sort)" != "$before" ]' full "$@"
}

full_cache() {
    # shellcheck disable=SC2016
    with_small_disk 1 bash -c '
        set -e
        read -ra flags <<<"$flags_text"
        cat /dev/zero >disk/ballast || true
        refused 71 disk 1 --cache_latents_to_disk --latent_cache_dir disk
        rm disk/ballast
        train out --cache_latents_to_disk --latent_cache_dir disk
        holds out.err "4 to encode"
        train out --cache_latents_to_disk --latent_cache_dir disk
        holds out.err "4 of 4 are cached"'
}

full_dump() {
    # shellcheck disable=SC2016
    with_small_disk 1 bash -c '
        set -e
        read -ra flags <<<"$flags_text"
        refused 71 disk/step-000001 1 --dump_dir disk
        equal "$(ls -A disk)" "" "files in the dump folder"'
}

# --- numbers -------------------------------------------------------------------------------------

diverges() {
    local options=(--learning_rate 1e30 --max_grad_norm 0 --max_train_steps 20)
    train out
    cp -r out before
    local got=0 quiet=1 n
    for n in 1 ${has_mpirun:+2}; do
        got=0
        if [ "$n" = 1 ]; then train out "${options[@]}" || got=$?; else ranks 2 out "${options[@]}" || got=$?; fi
        cat out.err
        equal "$got" 76 "exit code"
        equal "$(grep -c '^error: step [0-9]*: the loss is ' out.err)" 1 "error lines"
        holds out.err 'before the weights were touched. First not finite: '
        diff -r before out
        no_leftovers
    done
}

# --- signals -------------------------------------------------------------------------------------

# A run that was asked to stop: exit code 75, a whole state, nothing else; it can be gone on with.
left_a_state() {
    local step
    holds run.err 'go on with the same command and --resume'
    equal "$(find out -mindepth 1 -maxdepth 1 ! -name .dreamrun -printf '%f\n' | sed 's/[0-9]*-state$/N-state/')" at-stepN-state \
        'files in out'
    step=$(sed -n 's/.*"current_step": \([0-9]*\),/\1/p' out/*-state/train_state.json)
    equal "$step" "$(grep -c '"step"' steps.json)" 'the saved step'
}

# From that state to the end, by one rank: the same bits as without the stop.
goes_on() {
    local steps shards=()
    steps=$(($(grep -c '"step"' steps.json) + 2))
    grep -q '"virtual_shards": 2' out/*-state/train_state.json && shards=(--virtual_shards 2)
    train straight --max_train_steps $steps "${shards[@]}"
    train out --max_train_steps $steps --resume auto
    same_models straight/last out/last
    equal "$(sed 's/, "step_s.*//' out.json | tail -n 1)" "$(sed 's/, "step_s.*//' straight.json | tail -n 1)" \
        'the last step'
}

signalled() {
    run_long "$bin/train_db"
    kill -s "$1" "$pid"
    ended 75 20
    left_a_state
    goes_on
}

# Asked twice, it leaves at once: nothing is saved, and nothing half is left.
signalled_twice() {
    run_long "$bin/train_db" --inject 'delay:step=4,seconds=60'
    kill -s TERM "$pid"
    sleep 1 # signals of the first half second count as one
    kill -s TERM "$pid"
    ended 143 10
    nothing_left out
}

rank_killed() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    run_long "$bin/dreamrun" launch --cpu --num_processes 3 --oversubscribe train_db
    kill -s KILL "$(one_rank)"
    ended 137 20
    nothing_left_but_record
    holds run.err 'dreamrun: train_db with 3 ranks failed: rank '
    holds run.err 'was ended by signal 9'
    holds run.err ': exit code 137 (Killed)'
}

rank_killed_by_mpirun() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    run_long mpirun -n 2 --oversubscribe --bind-to none "$bin/train_db"
    kill -s KILL "$(one_rank)"
    ended 137 20
    nothing_left out
}

launcher_signalled() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    run_long "$bin/dreamrun" launch --cpu --num_processes 2 --oversubscribe train_db
    kill -s "$1" "$pid"
    ended 75 40
    holds run.err "was stopped by SIG$1; its state is saved"
    left_a_state
    goes_on
}

# What it was to save on leaving finds no room: that is the code, not the signal's.
told_but_full() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    run_long "$bin/dreamrun" launch --cpu --num_processes 2 --oversubscribe --inject 'enospc:rank=0,write=4' train_db
    kill -s TERM "$pid"
    ended 71 40
    holds run.err 'was stopped by SIGTERM and failed: rank '
    holds run.err 'No space left on device'
    nothing_left_but_record
}

launcher_killed() {
    [ -n "$has_mpirun" ] || skip 'no mpirun'
    run_long "$bin/dreamrun" launch --cpu --num_processes 2 --oversubscribe train_db
    kill -s KILL "$pid"
    ended 137 40
}

# killed_at N: a run that is killed before its N-th change of a file; fails when it survives. Whenever
# it ends, the model at its place is whole: the older or the new one.
killed_at() {
    local quiet=1 got=0
    train out --seed 2 --max_train_steps 1 --inject "kill:write=$1" 2>/dev/null || got=$?
    same_models before out/last >/dev/null || same_models new/last out/last || exit 1
    [ "$got" = 0 ] || equal "$got" 137 "exit code at write $1" || exit 1
    [ "$got" != 0 ]
}

# Killed at the first and the last points of a save and at some between; what the writer left under its
# temporary name does not disturb the next run.
killed_while_saving() {
    train out
    train new --seed 2 --max_train_steps 1
    cp -r out/last before
    local last=1 beyond write
    for ((write = 1; write <= 6; write++)); do
        killed_at "$write"
    done
    while killed_at $((2 * last)); do
        last=$((2 * last))
        [ "$last" -lt 100000 ] || fail 'the run survives no fault'
    done
    beyond=$((2 * last))
    while [ $((beyond - last)) -gt 1 ]; do
        write=$(((last + beyond) / 2))
        if killed_at "$write"; then last=$write; else beyond=$write; fi
    done
    for ((write = last - 12; write <= last; write++)); do
        killed_at "$write"
    done
    [ "$last" -gt 20 ]
    train out --seed 2 --max_train_steps 1
    same_models new/last out/last
}

check 'disk full at the final save: directory' full_at_the_end
check 'disk full at the final save: file' full_at_the_end --save_model_as safetensors
check 'disk full in the latent cache' full_cache
check 'disk full in a dump' full_dump
check 'divergence: exit code 76, nothing saved' diverges
check 'SIGTERM to a lone process' signalled TERM
check 'SIGINT to a lone process' signalled INT
check 'SIGUSR1 to a lone process' signalled USR1
check 'SIGTERM twice' signalled_twice
check 'SIGKILL to one of three ranks' rank_killed
check 'SIGKILL to a rank of mpirun' rank_killed_by_mpirun
check 'SIGTERM to the launcher' launcher_signalled TERM
check 'SIGINT to the launcher' launcher_signalled INT
check 'SIGTERM to the launcher, and no room to save' told_but_full
check 'SIGKILL to the launcher' launcher_killed
check 'SIGKILL while the model is written' killed_while_saving
finish
