#!/usr/bin/env bash
# tests/fault/test_model_saves.sh BIN_DIR - a save killed, or out of disk, at its write points, in each form.
# The model that was there before stays whole until the new one is; nothing that is left looks like a model.
#
# DR_EVERY_WRITE=1 takes every write point (an hour), otherwise those at both ends and every 401st between.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" model_saves "$1"

new=$work/new.safetensors
old=$work/old.safetensors
if ! { "$bin/dreamrun" init_model tiny2v "$new" --seed 1 && "$bin/dreamrun" init_model tiny2v "$old" --seed 2; } \
    >"$work/log" 2>&1; then
    cat "$work/log"
    echo "not ok - init_model"
    exit 1
fi

# convert SPEC FORMAT: writes the new model over disk/model with a fault.
convert() {
    local rc=0
    DREAMRUN_INJECT=$1 "$bin/dreamrun" convert "$new" "$target" --to "$2" >out 2>err || rc=$?
    return $rc
}

sums() {
    find "$1" -type f -exec sha256sum {} + | sort
}

# What stands under the model's own names, without what a killed run left behind.
published() {
    sums disk | grep -v '\.tmp\.' || true
}

# Fails when what is left behind could be taken for a model: a file whose name ends like one, or a directory
# with an index that is not a whole model (the new one before its last step, the old one after it).
no_false_models() {
    local found index
    found=$(find disk -maxdepth 1 -name '*.tmp.*' \( -name '*.safetensors' -o -name '*.ckpt' \))
    equal "$found" "" "files that end like models"
    for index in disk/*.tmp.*/model_index.json; do
        [ ! -e "$index" ] || is_whole "$(dirname "$index")" || fail "a broken model: $index"
    done
}

# is_whole MODEL: it is the old or the new one, all of it.
is_whole() {
    "$bin/dreamrun" convert "$1" probe.safetensors --to safetensors >probe.out 2>&1 || {
        cat probe.out
        return 1
    }
    cmp -s probe.safetensors "$new" || cmp -s probe.safetensors "$old"
}

# points TOTAL: the write points to try.
points() {
    if [ -n "${DR_EVERY_WRITE:-}" ]; then
        seq 1 "$1"
    else
        {
            seq 1 3 && seq 4 401 "$1" && seq "$(($1 > 16 ? $1 - 16 : 1))" "$1"
        } | sort -nu
    fi
}

# count_points FORMAT: the number of write points of a save, by bisection: killed at N or not.
count_points() {
    local low=0 high=16384 mid
    while [ $((high - low)) -gt 1 ]; do
        mid=$(((low + high) / 2))
        rm -rf disk/*.tmp.*
        if convert "kill:write=$mid" "$1"; then high=$mid; else low=$mid; fi
    done
    echo "$low"
}

prepare() {
    mkdir -p disk
    case $1 in
        safetensors) target=disk/model.safetensors ;;
        ckpt) target=disk/model.ckpt ;;
        *) target=disk/model ;;
    esac
    "$bin/dreamrun" convert "$old" "$target" --to "$1"
    if [ -d "$target" ]; then echo mine >"$target/notes.txt"; fi
    before=$(published)
    cp -r disk kept
    "$bin/dreamrun" convert "$new" "$target" --to "$1"
    after=$(published)
    [ "$before" != "$after" ]
}

restore() {
    rm -rf disk
    cp -r kept disk
}

killed() {
    local n total now rc n_old=0 n_new=0
    prepare "$1"
    total=$(count_points "$1")
    [ "$total" -gt 20 ] || fail "only $total write points"
    for n in $(points "$total"); do
        restore
        rc=0
        convert "kill:write=$n" "$1" || rc=$?
        equal "$rc" 137 "exit code at write $n"
        now=$(published)
        if [ "$now" = "$before" ]; then
            n_old=$((n_old + 1))
        else
            # the new one; its .yaml may still be the old one, files of others not be moved yet
            is_whole "$target" || fail "neither the old nor the new model after a kill at write $n"
            n_new=$((n_new + 1))
        fi
        no_false_models
    done
    rm -f probe.safetensors
    convert "" "$1"
    equal "$(published | grep -v notes.txt)" "$(grep -v notes.txt <<<"$after")" "the next save"
    [ "$n_old" -gt 0 ] || fail "no kill left the old model"
    echo "$total write points, $n_old old, $n_new new"
}

full() {
    local n total now rc
    prepare "$1"
    total=$(count_points "$1")
    for n in $(points "$total"); do
        restore
        rc=0
        convert "enospc:write=$n" "$1" || rc=$?
        now=$(published)
        if [ "$rc" = 0 ]; then
            # a last point that can no longer fail the save
            [ "$now" != "$before" ] || fail "write $n: done, but nothing was saved"
        else
            [ "$rc" = 71 ] || [ "$rc" = 73 ] || fail "exit code $rc at write $n"
            grep -qE '^error: .*(No space left on device|are free in)' err || fail "$(cat err)"
            [ "$now" = "$before" ] || grep -q yaml err || fail "the old model was touched at write $n"
        fi
        equal "$(find disk -name '*.tmp.*')" "" "leftovers at write $n"
    done
}

small_disk() {
    mkdir disk
    unshare --mount true 2>/dev/null || skip 'this user may not mount'
    # shellcheck disable=SC2016
    unshare --mount bash -c '
        mount -t tmpfs -o size=60m none disk 2>/dev/null || exit 77
        set -e
        "$bin/dreamrun" convert "$old" "$1" --to "$2"
        before=$(find disk -type f -exec sha256sum {} + | sort)
        fill=$(($(df --output=avail -B1 disk | tail -n 1) - 10000000))
        head -c "$fill" /dev/zero >disk/ballast
        got=0
        "$bin/dreamrun" convert "$new" "$1" --to "$2" 2>err || got=$?
        cat err
        [ "$got" = 71 ]
        grep -E "needs .* but only .* are free" err
        rm disk/ballast
        [ "$(find disk -type f -exec sha256sum {} + | sort)" = "$before" ]' small_disk "disk/$2" "$1"
}
export bin old new

for format in safetensors ckpt diffusers_safetensors diffusers; do
    check "$format: killed" killed "$format"
    check "$format: full at every write" full "$format"
done
check "safetensors: a small disk" small_disk safetensors model.safetensors
check "ckpt: a small disk" small_disk ckpt model.ckpt
check "diffusers: a small disk" small_disk diffusers model
finish
