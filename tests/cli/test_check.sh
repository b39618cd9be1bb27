#!/usr/bin/env bash
# tests/cli/test_check.sh BIN_DIR - dreamrun check and dreamrun cache_latents, as their user runs them.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" check "$1"
make_material

# checks CODE 'text of the output' flags...
checks() {
    local want=$1 text=$2 got=0
    shift 2
    "$bin/dreamrun" check --train_data_dir set --resolution 64 "$@" >out 2>&1 </dev/null || got=$?
    equal "$got" "$want" "exit code"
    holds out "$text"
}

# json 'python expression of d': the value of it in the JSON of the last set
json() {
    { "$bin/dreamrun" check --json --train_data_dir set --resolution 64 "${@:2}" 2>/dev/null || true; } |
        python3 -c 'import json, sys; d = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}

clean() {
    few_pictures set
    checks 0 'check: 0 errors, ' --max_train_epochs 2 --num_processes 2
    holds out 'run: 2 steps = 2.00 epochs of 1 steps, on 2 ranks'
    equal "$(json 'len(d["images"]), d["totals"]["steps_per_epoch"]' --num_processes=2)" '(2, 1)' json
    equal "$(json 'sorted(d["images"][0])')" "$(python3 -c 'print(sorted("path width height bucket resized crop repeats is_reg caption n_tokens".split()))')" names
    equal "$(json 'd["images"][0]["caption"]')" 'photo of sks shape, red, round' caption
}

captions() {
    few_pictures set
    rename_captions .txt
    checks 65 'no picture has a caption file with the ending .caption, but pictures have others: 2'
    holds out 'fix: --caption_extension=.txt'
    equal "$(json 'd["findings"][0]["cause"]')" captions-elsewhere json
    train run --train_data_dir set && return 1
    holds run.err 'fix: --caption_extension=.txt'
    train run --train_data_dir set --caption_extension .txt
    rename_captions .caption
    local long
    long=$(printf 'word%.0s ' $(seq 80))
    echo "${long}the end" >set/1_sks/00.caption
    checks 0 'captions of more than 75 tokens (the longest'
    holds out 'the end'
    equal "$(json 'd["truncated"][0]["tail"].endswith("the end")')" True tail
    printf '\n' >set/1_sks/00.caption
    checks 0 'pictures without a caption, and without a class name'
    echo 'the left side' >set/1_sks/00.caption
    checks 0 'captions that say left or right' --flip_aug
}

rename_captions() {
    local file
    for file in set/1_sks/0?.*; do
        case $file in
            *.png) ;;
            *) mv "$file" "${file%.*}$1" ;;
        esac
    done
}

pictures() {
    few_pictures set
    picture set/1_sks/wide.png 400 64
    picture set/1_sks/plain.png 16 16
    cp set/1_sks/00.png set/1_sks/again.png
    cp set/1_sks/01.png set/1_sks/01.PNG
    : >set/1_sks/x.heic
    mkdir set/1_sks/more
    cp set/1_sks/00.png set/1_sks/more
    checks 0 'pictures that are there twice: 2'
    holds out 'wide.png: 400x64 in 64x64, 84% is cut off'
    holds out 'plain.png: 16x16, enlarged 4.0 times'
    holds out 'pictures of a format that is not read: 1'
    holds out 'more: 1 pictures'
    holds out 'share one caption file: 1'
    lacks out 'one colour'
    checks 0 'pictures of one colour: 2' --deep
    # damage inside the pixels: only --deep sees it
    python3 - set/1_sks/plain.png <<'END'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[data.index(b"IDAT") + 8] ^= 255
open(sys.argv[1], "wb").write(data)
END
    checks 0 'check: 0 errors'
    checks 65 'pictures that cannot be decoded: 1' --deep
    head -c 100 set/1_sks/00.png >set/1_sks/cut.png
    checks 65 'cut.png'
    equal "$(json 'len(d["images"]), d["findings"][0]["cause"], d["totals"]["errors"]')" "(0, 'dataset', 1)" json
}

numbers() {
    few_pictures set
    few_pictures reg
    cp "$data"/reg/*/0[0-3].png reg/1_sks
    checks 0 'regularisation pictures are never used' --reg_data_dir reg
    rm -r reg
    few_pictures reg
    checks 0 'regularisation pictures that are training pictures too: 2' --reg_data_dir reg
    checks 0 'a step wants 32 pictures (4 a batch x 8 ranks x 1 accumulated), an epoch has 2' \
        --num_processes 8 --train_batch_size 4
    mv set/1_sks 'set/90_sks shape'
    checks 0 'the run ends after 100 steps, one epoch has 180' --max_train_steps 100
}

wrong_words() {
    few_pictures set
    checks 64 "--num_processes: found 'x', expected a number in 1..4096" --num_processes x
    checks 64 'did you mean' --trian_batch_size 3
    "$bin/dreamrun" check --help | grep -q -- --deep
    checks 64 'no such directory' --reg_data_dir nowhere
}

fills_the_cache() {
    few_pictures set
    local command=("$bin/dreamrun" launch --cpu --oversubscribe --num_processes 2 cache_latents
        --pretrained_model_name_or_path "$model" --train_data_dir set --resolution 64
        --latent_cache_dir cache --num_cpu_threads_per_process 1)
    "${mpi[@]}" "${command[@]}" >fill.err 2>&1 || cat fill.err
    holds fill.err '0 of 2 are cached, 2 to encode'
    holds fill.err 'the cache in cache is complete'
    "${mpi[@]}" "${command[@]}" >fill.err 2>&1
    holds fill.err '2 of 2 are cached, 0 to encode'
    train out --train_data_dir set --cache_latents_to_disk --latent_cache_dir cache
    holds out.err '2 of 2 are cached, 0 to encode'
    local got=0
    "$bin/dreamrun" cache_latents --train_data_dir set --resolution 64 >none 2>&1 || got=$?
    equal "$got" 64 'exit code'
    holds none '--pretrained_model_name_or_path is missing'
}

# Two jobs fill one folder at the same time: both end well, and together they are one cache.
two_jobs() {
    few_pictures set
    local command=("$bin/dreamrun" cache_latents --pretrained_model_name_or_path "$model"
        --train_data_dir set --resolution 64 --latent_cache_dir cache --flip_aug)
    "${command[@]}" >a.err 2>&1 &
    local other=$!
    "${command[@]}" >b.err 2>&1
    wait "$other"
    train out --train_data_dir set --flip_aug --cache_latents_to_disk --latent_cache_dir cache
    holds out.err '4 of 4 are cached, 0 to encode'
    no_leftovers
}

# Killed at its n-th write, for every n: what is there is whole, and the next run completes it.
killed() {
    few_pictures set
    local n got command=("$bin/cache_latents" --pretrained_model_name_or_path "$model"
        --train_data_dir set --resolution 64 --latent_cache_dir cache)
    for n in $(seq 20); do
        rm -rf cache
        got=0
        "${command[@]}" --inject "kill:write=$n" >kill.err 2>&1 || got=$?
        [ "$got" = 0 ] && break
        equal "$got" 137 "exit code at write $n"
        "${command[@]}" >again.err 2>&1
        lacks again.err 'warning: cache'
        "${command[@]}" >third.err 2>&1
        holds third.err '2 of 2 are cached, 0 to encode'
    done
    [ "$n" -gt 1 ] || fail 'no write was killed'
}

check 'a clean set' clean
check 'captions' captions
check 'pictures' pictures
check 'numbers' numbers
check 'wrong words' wrong_words
check 'cache_latents on two ranks' fills_the_cache
check 'two jobs, one cache' two_jobs
check 'killed at every write' killed
finish
