#!/usr/bin/env bash
# tests/fault/test_launcher.sh BIN_DIR - dreamrun launch over faults: restarts that end with the same bits,
# hangs, crash loops, fewer ranks, one writer per run, nothing left behind. Times are promises.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" launcher "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
make_material
command -v mpirun >/dev/null || {
    echo "no mpirun"
    exit 77
}
unset DREAMRUN_CONFIG
export HOME=$work XDG_CONFIG_HOME=$work

# watched OUT launch-options... -- flags...: two ranks, two shards, through dreamrun launch.
watched() {
    local out=$1 options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    start "$out" "${mpi[@]}" "$bin/dreamrun" launch --num_processes 2 --oversubscribe --restart_delay 0 \
        "${options[@]}" train_db -- --virtual_shards 2 "$@"
}

# events 'field': that field of every line of the record, in one line.
events() {
    python3 -c '
import json, sys
print(*(json.loads(line).get(sys.argv[1], "-") for line in open("out/.dreamrun/events.jsonl")))' "$1"
}

# lines 'text': the number of lines of out.err that hold it.
lines() {
    grep -cF -- "$1" out.err || true
}

seconds_since() {
    python3 -c 'import sys, time; print(f"{time.time() - float(sys.argv[1]):.2f}")' "$1"
}

# at_most SECONDS LIMIT 'what'
at_most() {
    echo "$3: $1 s, promised: $2 s"
    python3 -c 'import sys; sys.exit(float(sys.argv[1]) > float(sys.argv[2]))' "$1" "$2"
}

saving=(--max_train_steps 6 --save_state --save_every_n_steps 2)

# --- restarts --------------------------------------------------------------------------------------

same_as_straight() {
    train straight "${saving[@]}" --virtual_shards 2
    same_models straight/last out/last
    cmp straight/last-state/optimizer.safetensors out/last-state/optimizer.safetensors
}

killed_and_restarted() {
    watched out --max_restarts 1 --inject kill:rank=1,step=4 -- "${saving[@]}"
    holds out.err 'rank 1 (host'
    holds out.err 'was ended by signal 9 after step 3: exit code 137 (Killed)'
    holds out.err 'starting again (attempt 2) with 2 ranks in 0 s: a new state was saved'
    holds out.err 'resumed from out/at-step00000002-state: epoch 1, step 2 of 6'
    equal "$(events event)" 'start end restart start end' 'events'
    equal "$(events code)" '- 137 - - 0' 'codes'
    equal "$(events step)" '- 3 - - 6' 'steps'
    equal "$(of_steps step out.json)" '1 2 3 3 4 5 6' 'steps done'
    same_as_straight
}

# The same from every step on, alternating ranks; those after a new state do not count as restarts.
killed_again_and_again() {
    local spec='kill:rank=0,step=3,attempt=1;kill:rank=1,step=5,attempt=2;exit:rank=1,step=6,code=9,attempt=3'
    watched out --max_restarts 1 --inject "$spec" -- "${saving[@]}"
    equal "$(events code)" '- 137 - - 137 - - 9 - - 0' 'codes'
    same_as_straight
}

crash_loop() {
    local quiet=1
    watched out --max_restarts 9 --inject kill:rank=1,step=1,attempt=0 -- "${saving[@]}" || equal $? 70 'exit code'
    holds out.err 'restart refused: it came no further than before (--restart_policy progress)'
    equal "$(lines 'starting again')" 0 'restarts'
    watched out --max_restarts 9 --inject kill:rank=1,step=2,attempt=0 -- "${saving[@]}" || equal $? 70 'exit code'
    equal "$(lines 'starting again')" 1 'restarts'
    watched out --max_restarts 2 --restart_policy always --inject kill:rank=1,step=1,attempt=0 -- "${saving[@]}" ||
        equal $? 70 'exit code'
    holds out.err 'restart refused: --max_restarts are used up'
    watched out --max_restarts 2 --restart_policy never --inject kill:rank=1,step=1 -- "${saving[@]}" ||
        equal $? 137 'exit code'
}

wrong_use_is_final() {
    local quiet=1
    watched out --max_restarts 9 -- --resolution 100 || equal $? 64 'exit code'
    equal "$(lines 'starting again')" 0 'restarts'
    holds out.err 'dreamrun: train_db with 2 ranks failed: rank '
    holds out.err ': exit code 64 (wrong usage or configuration): --resolution: found 100'
    equal "$(tail -n 1 out.err | cut -c 1-9)" 'dreamrun:' 'the last line'
}

# A rank without its device leaves; the others go on with the same bits.
fewer_ranks() {
    start out "${mpi[@]}" "$bin/dreamrun" launch --num_processes 3 --min_processes 2 --max_restarts 1 \
        --oversubscribe --restart_delay 0 --inject exit:rank=2,step=4,code=69 train_db -- "${saving[@]}"
    holds out.err 'with 2 ranks in 0 s'
    equal "$(events ranks)" '3 - 2 2 -' 'ranks'
    train straight "${saving[@]}" --virtual_shards 3
    same_models straight/last out/last
    rm -rf out
    local quiet=1
    start out "${mpi[@]}" "$bin/dreamrun" launch --num_processes 3 --min_processes 3 --max_restarts 1 \
        --oversubscribe --inject exit:rank=2,step=2,code=69 train_db -- "${saving[@]}" || equal $? 75 'exit code'
    holds out.err 'fewer than --min_processes ranks are left'
}

one_rank_restarted() {
    start out "$bin/dreamrun" launch --max_restarts 1 --restart_delay 0 --inject kill:step=4 train_db -- \
        "${saving[@]}" --virtual_shards 2
    same_as_straight
}

# --- times -----------------------------------------------------------------------------------------

run_watched() {
    run_long "$bin/dreamrun" launch --num_processes 2 --oversubscribe train_db
}

rank_killed() {
    local began
    run_watched
    began=$(date +%s.%N)
    kill -s KILL "$(one_rank)"
    wait_for 'the end of all processes' 10 none_left
    at_most "$(seconds_since "$began")" 2 'all processes of a run whose rank was killed are gone'
    ended 137 5
}

launcher_killed() {
    local began
    run_watched
    began=$(date +%s.%N)
    kill -s KILL "$pid"
    wait_for 'the end of all processes' 10 none_left
    at_most "$(seconds_since "$began")" 2 'all processes of a killed launcher are gone'
    ended 137 5
    watched next -- --max_train_steps 1 # removes what was left in shared memory
    equal "$(find /dev/shm "${TMPDIR:-/tmp}" -maxdepth 1 -name "dreamrun.*.$pid.*" 2>/dev/null)" '' 'leftovers'
}

hang_found() {
    local quiet=1 silent
    watched out --hang_timeout 3 --inject stop:rank=1,step=3 -- --max_train_steps 6 || equal $? 74 'exit code'
    holds out.err 'silent: rank 1 (computes, after step 2); waiting for it: rank 0'
    silent=$(sed -n 's/^dreamrun: .*no progress for \([0-9.]*\) s.*/\1/p' out.err)
    at_most "$silent" 4 'a rank that stands still for 3 s is found'
    wait_for 'the end of all processes' 10 none_left
}

# A lone rank has no peers whose watchdog could find it.
lone_hang_found() {
    local quiet=1 silent
    start out "$bin/dreamrun" launch --max_restarts 1 --restart_delay 0 --hang_timeout 2 --inject stop:step=3 train_db -- \
        "${saving[@]}" --virtual_shards 2
    silent=$(sed -n 's/^dreamrun: .*no progress for \([0-9.]*\) s: rank 0 is stopped by a signal.*/\1/p' out.err)
    at_most "$silent" 4 'a lone rank that is stopped for 2 s is found'
    equal "$(events code)" '- 74 - - 0' 'codes'
    same_as_straight
}

# What takes long and is no step has a budget of its own.
slow_but_alive() {
    watched out --hang_timeout 3 --inject 'delay:rank=0,write=2,seconds=5' -- --max_train_steps 2 --cache_latents_to_disk \
        --latent_cache_dir cache
    quiet=1 start out "$bin/dreamrun" launch --hang_timeout 3 --inject 'delay:step=2,seconds=60' train_db -- \
        --max_train_steps 2 || equal $? 74 'exit code of one slow rank'
}

# Time that a run spends suspended as a whole is not held against it.
suspended() {
    in_background "$bin/dreamrun" launch --hang_timeout 3 train_db -- --output_dir "$PWD/out" --max_train_steps 40
    wait_for 'three steps' 60 has_steps steps.json
    kill -s STOP "$pid"
    sleep 6 # longer than the timeout
    kill -s CONT "$pid"
    ended 0 60
}

start_timed_out() {
    local quiet=1
    watched out --start_timeout 0.05 -- --max_train_steps 1 || equal $? 74 'exit code'
    holds out.err 'after --start_timeout only'
    wait_for 'the end of all processes' 5 none_left
}

# --- one writer ------------------------------------------------------------------------------------

second_writer() {
    local quiet=1
    run_watched
    start again "$bin/dreamrun" launch train_db -- --output_dir "$PWD/out" || equal $? 73 'exit code'
    holds again.err 'another run writes into this folder ({"epoch": 1, "pid": '
    kill -s TERM "$pid"
    ended 75 20
    start again "$bin/dreamrun" launch train_db -- --output_dir "$PWD/out"
}

# A run that was given up and lives on does not save over its successor.
fenced_off() {
    local quiet=1
    in_background "$bin/dreamrun" launch --inject delay:step=2,seconds=2 train_db -- --output_dir "$PWD/out" \
        --max_train_steps 4 --save_state --save_every_n_steps 2
    wait_for 'the first step' 20 grep -q '"step": 1' steps.json
    sed -i 's/"epoch": 1/"epoch": 2/' out/.dreamrun/lock
    ended 70 20
    holds run.err 'another start of this run has taken over (epoch 2, this one is 1): nothing is saved'
    nothing_left_but_record
}

# --- output ----------------------------------------------------------------------------------------

logs() {
    watched out --log_dir logs --tee 0:1,1:2 -- --max_train_steps 1
    equal "$(find logs -type f -printf '%P\n' | sort | tr '\n' ' ')" '0/rank_0.out 0/rank_1.err ' 'logs'
    cmp out.json logs/0/rank_0.out
    watched out --log_dir logs2 --quiet -- --max_train_steps 1
    equal "$(find logs2 -type f | wc -l)" 4 'logs of --log_dir alone'
    TMPDIR=$PWD watched out --tee 3 -- --max_train_steps 1
    holds out.err "also goes to $PWD/dreamrun_logs_"
}

# Ranks are counted: more or fewer than asked for are never trained on.
counted() {
    local quiet=1
    watched out -- --max_train_steps 1
    holds out.err '2 ranks x'
    DREAMRUN_WORLD=3 train out || equal $? 64 'exit code'
    holds out.err 'dreamrun launch started 3 ranks, but this process found 1'
}

# In a mount namespace with a /dev/shm of its own, so that no other run's files are counted.
shared_memory_stays_clean() {
    local i quiet=1
    unshare --mount true 2>/dev/null || skip 'this user may not mount'
    for i in 1 2; do
        # shellcheck disable=SC2016
        start out unshare --mount bash -c 'mount -t tmpfs -o size=256m none /dev/shm || exit 77
            got=0; "$@" || got=$?; find /dev/shm -mindepth 1 >left; exit $got' own_shm \
            "${mpi[@]}" "$bin/dreamrun" launch --num_processes 2 --oversubscribe \
            --inject "kill:rank=$((i % 2)),step=1" train_db -- --max_train_steps 2 || equal $? 137 'exit code'
        equal "$(cat left)" '' 'files in shared memory'
    done
}

commands() {
    local got=0
    "$bin/dreamrun" test --num_processes 2 --oversubscribe "$PWD/dir" >test.out 2>test.err
    holds test.out 'ok sums of 16 MiB: right and the same on all ranks'
    holds test.out 'ok '"$PWD/dir"': a file written'
    holds test.err 'starting again (attempt 2)'
    holds test.out 'ok a request to stop: all ranks leave after '
    equal "$(tail -n 1 test.out)" 'all tests passed' 'the last line'
    "$bin/dreamrun" test --num_processes 1 >test.out 2>test.err
    equal "$(tail -n 1 test.out)" 'all tests passed' 'the last line with one rank'
    start plan "$bin/dreamrun" estimate train_db -- --output_dir "$PWD/out" --save_state
    holds plan.err 'memory: needs '
    holds plan.err 'estimate: a training state (--save_state): 55.2 MiB on disk'
    [ ! -e out ] # 4823364 trained values: x 4 bytes, three times (weights, two of AdamW)
    watched out -- --max_train_steps 2 --save_state
    "$bin/dreamrun" verify out >verify.out
    holds verify.out 'out/last-state: step 2, every byte as it was saved'
    printf X | dd of=out/last-state/optimizer.safetensors bs=1 seek=5000 conv=notrunc status=none
    "$bin/dreamrun" verify out >verify.out 2>verify.err || got=$?
    equal "$got" 65 'exit code'
    holds verify.out 'out/last-state: DAMAGED: out/last-state: optimizer.safetensors does not have the content'
    "$bin/dreamrun" status out >status.out
    holds status.out 'attempt 1 ended: exit code 0 after step 2 (newest state: step 2)'
    holds status.out 'nobody writes; the last writer was: {"epoch": 1'
}

# What config writes, launch reads; env says where each value comes from.
sources() {
    export XDG_CONFIG_HOME=$PWD
    printf '1\n3\nfp16\n' | "$bin/dreamrun" config >/dev/null
    echo 'dreamrun: {max_restarts: 4}' >>dreamrun/default.yaml
    "$bin/dreamrun" config update >/dev/null
    DREAMRUN_GRACE=7 "$bin/dreamrun" env --json --quiet >env.json
    python3 -c '
import json, sys
env = json.load(open("env.json"))
for line in sys.stdin:
    name, value, source = line.split(None, 2)
    found = env[name]
    assert found["value"] == value and source.strip() in found["source"], (name, found)' <<END
ranks 3 file
--mixed_precision fp16 default.yaml
--max_restarts 4 default.yaml
--grace 7 \$DREAMRUN_GRACE
--quiet true command line
--restart_policy progress default
END
}

check 'a killed rank: restarted, the same bits' killed_and_restarted
check 'killed three times: the same bits' killed_again_and_again
check 'crash loops are refused' crash_loop
check 'wrong use is final' wrong_use_is_final
check 'fewer ranks, the same bits' fewer_ranks
check 'one rank below a watch' one_rank_restarted
check 'a killed rank: all down in 2 s' rank_killed
check 'a killed launcher: all down in 2 s, nothing left' launcher_killed
check 'a stopped rank is found and named' hang_found
check 'a stopped lone rank is found' lone_hang_found
check 'slow but alive' slow_but_alive
check 'a suspended run goes on' suspended
check 'a start that does not end' start_timed_out
check 'a second writer is refused' second_writer
check 'a writer that was given up is fenced off' fenced_off
check 'logs of the ranks' logs
check 'ranks are counted' counted
check 'shared memory after kills' shared_memory_stays_clean
check 'test, estimate, status, verify' commands
check 'config and env' sources
finish
