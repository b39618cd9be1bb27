#!/usr/bin/env bash
# tests/fault/test_memory_limit.sh BIN_DIR - a rank that the system kills for its memory: the verdict says so, and
# the run is not started again unchanged. Where no memory cgroup can be made it counts as skipped (77).
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" memory_limit "$1"
make_material
unset DREAMRUN_CONFIG
export HOME=$work XDG_CONFIG_HOME=$work

# make_group MIB: a cgroup with that limit, without swap; its path in $group.
make_group() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        group=/sys/fs/cgroup/dreamrun_test.$$
        mkdir "$group" && echo $(($1 << 20)) >"$group/memory.max" && echo 0 >"$group/memory.swap.max"
    else
        group=/sys/fs/cgroup/memory/dreamrun_test.$$
        mkdir "$group" && echo $(($1 << 20)) >"$group/memory.limit_in_bytes"
    fi
}

if ! make_group 90 2>/dev/null; then
    [ ! -d "$group" ] || rmdir "$group"
    echo "0 passed, 0 failed, 1 skipped: no memory cgroup can be made here"
    exit 77
fi
trap 'rmdir "$group"; rm -rf "$work"' EXIT

# The tiny model needs 111 MiB.
out_of_memory() {
    local quiet=1
    # shellcheck disable=SC2016
    start out bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" "$bin/dreamrun" launch --max_restarts 3 \
        --restart_policy always --restart_delay 0 train_db -- || equal $? 137 'exit code'
    cat out.err
    holds out.err "was killed by the system: out of memory on $(hostname) (limit of the cgroup 90.0 MiB, peak "
    lacks out.err 'starting again'
    wait_for_empty
}

wait_for_empty() {
    local i
    for ((i = 0; i < 50; i++)); do
        [ -n "$(cat "$group/cgroup.procs")" ] || return 0
        sleep 0.1
    done
    fail 'processes are left in the cgroup'
}

check 'a limit of memory: named, not started again' out_of_memory
finish
