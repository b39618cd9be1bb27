#!/usr/bin/env bash
# tests/fault/test_terminal.sh BIN_DIR - a user at a terminal: ^C once and twice, ^Z and fg, a window that is closed.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" terminal "$1"
# shellcheck source=../support/background_runs.sh
. "$here/../support/background_runs.sh"
make_material
unset DREAMRUN_CONFIG
export HOME=$work XDG_CONFIG_HOME=$work

# typed CODE KEYS command... -- flags...: the run in a terminal, in which KEYS are typed (in_terminal.py), and its
# exit code; nothing is left of it.
typed() {
    local want=$1 keys=$2 got=0 command=()
    shift 2
    while [ "$1" != -- ]; do
        command+=("$1")
        shift
    done
    shift
    python3 "$here/../support/in_terminal.py" "$keys" "${command[@]}" --pretrained_model_name_or_path "$model" \
        --train_data_dir "$data/train" "${flags[@]}" "$@" --output_dir "$PWD/out" >shown || got=$?
    cat shown
    equal "$got" "$want" 'exit code'
    wait_for 'the end of all processes' 10 none_left
}

two_ranks=("$bin/dreamrun" launch --num_processes 2 --oversubscribe --hang_timeout 20)

has_state() {
    equal "$(find out -name manifest.json | wc -l)" 1 'states'
}

interrupted() {
    typed 75 3:c "$@" -- --max_train_steps 1000000
    has_state
}

# The second ^C is typed while a rank is in a step that does not end.
interrupted_twice() {
    typed 130 2:c,0:c "$@" --inject delay:step=3,seconds=60 train_db -- --max_train_steps 1000000
    equal "$(find out -name manifest.json | wc -l)" 0 'states'
}

suspended() {
    typed 0 3:z "$@" -- --max_train_steps 12 --virtual_shards 2
    equal "$(grep -c "^<$ranks trainers stand still>" shown)" 1 'times that all its ranks stood still'
    train straight --max_train_steps 12 --virtual_shards 2
    same_models straight/last out/last
}

window_closed() {
    typed 0 3:h "$@" -- --max_train_steps 1000000
    has_state
}

check '^C to one rank saves' interrupted "$bin/dreamrun" launch train_db
ranks=1
check '^Z and fg, one rank: the same bits' suspended "$bin/dreamrun" launch train_db
if command -v mpirun >/dev/null; then
    ranks=2
    check '^C to two ranks saves' interrupted "${two_ranks[@]}" train_db
    check '^C twice leaves at once' interrupted_twice "${two_ranks[@]}"
    check '^Z and fg, two ranks: the same bits' suspended "${two_ranks[@]}" train_db
    check 'a closed window saves' window_closed "${two_ranks[@]}" train_db
fi
finish
