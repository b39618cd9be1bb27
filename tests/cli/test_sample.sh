#!/bin/sh
# tests/cli/test_sample.sh DREAMRUN_TOOLS - what sample and make_pictures write and refuse.
set -eu
# shellcheck source=tests/cli/cases.sh
. "$(dirname "$0")/cases.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_sample.XXXXXX")
trap 'rm -rf "$work"' EXIT
tools=$1
model="$work/tiny model"
expect 0 '' "$tools" init_model tiny "$model" --seed 3
expect 0 '' "$tools" init_model tiny2v "$work/v" --seed 3

# sample words...: the usual model and size, few steps
sample() {
    "$tools" sample --model "$model" --width 64 --height 64 --steps 2 --seed 7 "$@"
}
count() {
    find "$work/$1" -name "${2:-*.png}" | wc -l | tr -d ' '
}

# --- usage ---
expect 0 '--cfg_scale X' "$tools" sample --help
expect 64 '--model is missing' "$tools" sample --prompt a --output_dir "$work/o"
expect 64 '--prompt is missing' sample --output_dir "$work/o"
expect 64 '--output_dir is missing' sample --prompt a
expect 64 "found 'word'" sample --prompt a word --output_dir "$work/o"
expect 64 'did you mean --prompt?' sample --promtp a --output_dir "$work/o"
expect 64 "--sampler: found 'dpm', expected one of ddim, pndm, lms, euler, euler_a" \
    sample --prompt a --output_dir "$work/o" --sampler dpm
expect 64 'width: found 100, expected a multiple of 64 for this model, such as 64' \
    sample --prompt a --output_dir "$work/o" --width 100
expect 64 'height: found 8, expected a multiple of 64 for this model, such as 64' \
    sample --prompt a --output_dir "$work/o" --height 8
expect 64 '--steps: found 0' sample --prompt a --output_dir "$work/o" --steps 0
expect 64 'sampling steps: 1000, expected 1 to 999' \
    sample --prompt a --output_dir "$work/o" --steps 1000
expect 64 'Karras sigmas with the sampler euler_a' \
    sample --prompt a --output_dir "$work/o" --sampler euler_a --karras
expect 64 'sampling steps: 3, expected 4 to 1000 with pndm' \
    sample --prompt a --output_dir "$work/o" --sampler pndm --steps 3 --compat sd-scripts
expect 64 '--max_token_length: found' \
    sample --prompt a --output_dir "$work/o" --max_token_length 100
expect 64 '--clip_skip 9' sample --prompt a --output_dir "$work/o" --clip_skip 9
expect 64 'expected a file name that ends in .png' \
    sample --prompt a --output_dir "$work/o" --grid "$work/grid.jpg"
expect 64 'at most 100000 pictures' \
    sample --prompt a --prompt b --n 100000 --output_dir "$work/o"

# --- bad input and output ---
expect 64 'no_such_model' "$tools" sample --model "$work/no_such_model" --prompt a \
    --output_dir "$work/o"
expect 64 '--v2' sample --v2 --prompt a --output_dir "$work/o"
touch "$work/file"
expect 73 "$work/file" sample --prompt a --output_dir "$work/file/o"
expect 73 'make it first' sample --prompt a --output_dir "$work/o" --grid "$work/none/grid.png"
expect 65 'UTF-8' sample --prompt "$(printf 'a\377b')" --output_dir "$work/o"
expect 65 'the file is empty' sample --prompt a --output_dir "$work/o" --latents_in "$work/file"
same 0 "$(count o)" 'number of pictures after errors'

# --- files of prompts ---
printf 'a dog --w 64 --h 64 --d -5\n' >"$work/seed.txt"
printf 'a dog --ss dpm3\n' >"$work/sampler.txt"
printf '# nothing\n\n' >"$work/empty.txt"
printf '[prompt]\nwidth = "64"\n[[prompt.subset]]\nprompt = "a"\n' >"$work/kind.toml"
printf '{"prompt": "a"}' >"$work/object.json"
from_file() {
    sample --sample_prompts "$work/$1" --output_dir "$work/o"
}
expect 65 "seed.txt:1: seed: found -5, expected 0 to" from_file seed.txt
expect 65 'sampler.txt:1: sampler "dpm3": expected one of ddim|' from_file sampler.txt
expect 65 'empty.txt: the file has no prompt' from_file empty.txt
expect 65 'kind.toml: prompt 1: width: found text, expected a whole number' from_file kind.toml
expect 65 'object.json: the document: found a table, expected a list of prompts' from_file object.json
expect 64 'ends in .txt, .toml or .json' from_file kind.yaml
expect 71 'none.txt: cannot open' from_file none.txt
expect 64 '--prompt and --sample_prompts: give one of them' \
    sample --prompt a --sample_prompts "$work/seed.txt" --output_dir "$work/o"
printf 'a dog --w 70 --h 64 --s 1\na cat --w 64 --h 128 --s 1 --xx 3\n' >"$work/two.txt"
expect 0 '--xx is not known here' sample --sample_prompts "$work/two.txt" --output_dir "$work/two"
same 2 "$(count two)" 'pictures of two prompts of a file'
expect 64 'picture 1 differs in its size' sample --sample_prompts "$work/two.txt" \
    --output_dir "$work/o" --latents_out "$work/l.safetensors"

# --- pictures ---
expect 0 'needs ' sample --prompt 'ein Schloß, 日本語' --output_dir "$work/one" --steps 1 \
    --num_cpu_threads_per_process 1
same 1 "$(count one)" 'pictures of one prompt'
expect 0 '00003_10.png' sample --prompt a --prompt b --n 2 --output_dir "$work/four" \
    --sampler euler --grid "$work/grid.png" --num_cpu_threads_per_process 1
same 4 "$(count four)" 'pictures of two prompts, two each'
expect 0 '' test -s "$work/grid.png"
expect 0 '' sample --prompt '' --cfg_scale 1 --output_dir "$work/plain"
expect 0 'only the first 75 are used' sample --max_token_length 75 --prompt "$(printf 'dog %.0s' $(seq 100))" \
    --output_dir "$work/long" --steps 1
expect 0 '' sample --prompt "$(printf 'dog %.0s' $(seq 100))" --output_dir "$work/long" --steps 1 \
    --max_token_length 150
expect 0 '' "$tools" sample --model "$work/v" --width 64 --height 64 --steps 2 --prompt a --seed 1 \
    --output_dir "$work/v2"

# --- the same bytes for any number of threads, in any batch ---
expect 0 '' sample --prompt a --prompt b --n 2 --output_dir "$work/again" --sampler euler \
    --num_cpu_threads_per_process 2
for name in 00000_7 00001_8 00002_9 00003_10; do
    expect 0 '' cmp "$work/four/$name.png" "$work/again/$name.png"
done
expect 0 '' sample --prompt b --seed 9 --output_dir "$work/single" --sampler euler
expect 0 '' cmp "$work/four/00002_9.png" "$work/single/00000_9.png"
expect 1 'differ' cmp "$work/four/00000_7.png" "$work/four/00001_8.png"

# --- latents ---
expect 0 '' sample --prompt a --output_dir "$work/l" --latents_out "$work/l.safetensors"
expect 0 '' sample --prompt a --output_dir "$work/m" --latents_in "$work/l.safetensors"
expect 0 '' cmp "$work/l/00000_7.png" "$work/m/00000_7.png"
expect 65 "tensor 'initial' is [1,4,8,8] F32, expected [2,4,8,8]" \
    sample --prompt a --n 2 --output_dir "$work/m" --latents_in "$work/l.safetensors"

# --- LoRAs ---
expect 0 '' "$tools" init_model tiny "$work/tuned" --seed 4
expect 0 'modules' "$tools" extract_lora --model_org "$model" --model_tuned "$work/tuned" --dim 8 \
    --save_to "$work/a: dog.safetensors"
lora="$work/a: dog.safetensors"
expect 0 '' sample --prompt a --output_dir "$work/lora" --lora "$lora"
expect 0 '' sample --prompt a --output_dir "$work/half" --lora "$lora:0.25" --lora "$lora:0.75"
expect 0 '' sample --prompt a --output_dir "$work/none" --lora "$lora:0" --latents_out "$work/none.safetensors"
expect 0 '' cmp "$work/l.safetensors" "$work/none.safetensors"
expect 1 'differ' cmp "$work/l/00000_7.png" "$work/lora/00000_7.png"
expect 0 '<lora:a: dog:0.25> <lora:a: dog:0.75>' strings "$work/half/00000_7.png"
expect 64 "found 'much' behind the file" sample --prompt a --output_dir "$work/o" --lora "$lora:much"
expect 71 'no.safetensors: cannot open' sample --prompt a --output_dir "$work/o" --lora "$work/no.safetensors:2"
python3 "$(dirname "$0")/make_weights.py" "$work"
expect 65 'the LoRA was made for' sample --prompt a --output_dir "$work/o" --lora "$work/kohya.safetensors"
expect 65 'no tensor has a name that a LoRA' sample --prompt a --output_dir "$work/o" --lora "$model/unet/diffusion_pytorch_model.safetensors"

# --- make_pictures ---
data="$work/data"
expect 0 '8 pictures' "$tools" make_pictures "$data"
same 16 "$(count data)" 'pictures'
same 8 "$(count data '*.caption')" 'captions'
cp -r "$data" "$work/first"
expect 0 '' "$tools" make_pictures --n 8 "$data" --seed 1
expect 0 '' diff -r "$data" "$work/first"
expect 0 '' "$tools" make_pictures "$work/other" --n 3 --size 64 --seed 2
same 6 "$(count other)" 'pictures with --n 3'
expect 73 'did not make' "$tools" make_pictures "$work"
expect 0 '' test ! -e "$work/train"
expect 73 "$work/file" "$tools" make_pictures "$work/file"
expect 64 'expected: DIR' "$tools" make_pictures
expect 64 "found 'more'" "$tools" make_pictures "$work/new" more
expect 64 '--size: found 4' "$tools" make_pictures "$work/new" --size 4
expect 0 '' test ! -e "$work/new"
finish
