# shellcheck shell=bash disable=SC2154
# tests/support/background_runs.sh - runs that go on while a case does something to them; sourced after
# train_cases.sh.

# The processes of this run: those whose command line names its folder, and all that in_background's has
# started, whatever group or session they are in: its mark is in their environment.
mine() {
    {
        pgrep -f -- "--output_dir $PWD/" || true
        grep -lsaF "DR_RUN_OF=$PWD" /proc/[0-9]*/environ | cut -d / -f 3 || true
    } | sort -un
}

# wait_for 'what' seconds command...: until the command succeeds.
wait_for() {
    local what=$1 tries=$(($2 * 10)) i
    shift 2
    for ((i = 0; i < tries; i++)); do
        if "$@"; then
            return 0
        fi
        sleep 0.1
    done
    fail "timed out: $what"
}

has_steps() {
    [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -ge 3 ]
}

none_left() {
    [ -z "$(mine)" ]
}

# in_background command... -- flags...: starts the trainer through the command; $pid.
in_background() {
    local command=()
    while [ "$1" != -- ]; do
        command+=("$1")
        shift
    done
    shift
    set -m # without it bash lets background jobs ignore SIGINT
    env "DR_RUN_OF=$PWD" "${command[@]}" --pretrained_model_name_or_path "$model" --train_data_dir "$data/train" \
        "${flags[@]}" "$@" >steps.json 2>run.err </dev/null &
    pid=$!
    set +m
}

# run_long command...: the same with no end in sight; waits for its third step.
run_long() {
    in_background "$@" -- --output_dir "$PWD/out" --max_train_steps 1000000
    # a case that fails must not leave its run behind
    trap 'kill -9 $pid $(mine) 2>/dev/null || true' EXIT
    wait_for 'three steps' 60 has_steps steps.json
}

gone() {
    ! kill -0 "$pid" 2>/dev/null
}

# ended CODE seconds: the run ends with the code within that time; no process is left.
ended() {
    local got=0
    wait_for 'the end of the run' "$2" gone
    wait "$pid" || got=$?
    cat run.err
    equal "$got" "$1" "exit code"
    wait_for 'the end of all processes' 10 none_left
    trap - EXIT
}

# one_rank: the process id of one trainer of this run.
one_rank() {
    pgrep -f -- "^$bin/train_db .*--output_dir $PWD/" | tail -n 1
}

# What dreamrun launch notes of a run is all that is left in its output folder.
nothing_left_but_record() {
    equal "$(find out -mindepth 1 ! -path 'out/.dreamrun*')" "" "files in out"
    no_leftovers
}
