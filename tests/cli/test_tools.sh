#!/bin/sh
# tests/cli/test_tools.sh DREAMRUN_TOOLS - init_model, inspect and tokenize as a user types them.
set -eu
# shellcheck source-path=SCRIPTDIR source=cases.sh
. "$(dirname "$0")/cases.sh"

tools=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_tools.XXXXXX")
trap 'rm -rf "$work"' EXIT

# --- the program ---
expect 64 'Usage: dreamrun TOOL' "$tools"
expect 0 'tokenize' "$tools" --help
expect 64 "did you mean 'inspect'?" "$tools" inspct

# --- init_model ---
expect 0 'Usage: dreamrun init_model KIND PATH' "$tools" init_model --help
expect 64 'expected: KIND PATH' "$tools" init_model tiny
expect 64 "found 'c', expected nothing more" "$tools" init_model tiny b c
expect 64 'expected sd1, sd2, sd2v, tiny, tiny2 or tiny2v' "$tools" init_model huge "$work/x"
expect 64 'did you mean --seed?' "$tools" init_model tiny "$work/x" --sed 1
expect 0 'train it without --v2' "$tools" init_model tiny "$work/a model"
expect 0 'train it with --v2 --v_parameterization' "$tools" init_model --seed=1 tiny2v "$work/two"
expect 0 'tiny with random weights' "$tools" init_model tiny --format safetensors "$work/a.safetensors"
expect 0 'tiny with random weights' "$tools" init_model tiny --format safetensors "$work/b.safetensors"
expect 0 'tiny with random weights' "$tools" init_model tiny --format safetensors --seed 1 \
    "$work/c.safetensors"
expect 0 '' cmp "$work/a.safetensors" "$work/b.safetensors"
expect 1 'differ' cmp "$work/a.safetensors" "$work/c.safetensors"
mkdir "$work/photos"
touch "$work/photos/1.png"
expect 73 'is no model' "$tools" init_model tiny "$work/photos"
expect 0 '' test -e "$work/photos/1.png"

# --- inspect ---
expect 64 'expected: FILE|DIR|ID' "$tools" inspect
expect 64 'no such file or directory' "$tools" inspect "$work/none"
expect 65 'no .safetensors, .ckpt, .pt or .bin file' "$tools" inspect "$work/photos"
expect 65 'the file is empty' "$tools" inspect "$work/photos/1.png"
expect 0 'Stable Diffusion 1.x, Diffusers directory; train it without --v2' "$tools" inspect "$work/a model"
expect 0 'Stable Diffusion 2.x, Diffusers directory; train it with --v2 --v_parameterization' \
    "$tools" inspect "$work/two"
expect 0 'unet                 3222692 parameters in 684 tensors' "$tools" inspect "$work/a.safetensors"
expect 0 'model.diffusion_model.out.2.bias F32 [4]' "$tools" inspect --tensors "$work/a.safetensors"
expect 0 '"v2": true, "v_prediction": true' "$tools" inspect --json "$work/two"
expect 0 '"v2": false, "v_prediction": null' "$tools" inspect --json "$work/a.safetensors"

# --- tokenize ---
printf 'a photo of sks dog\n\nwow! no' >"$work/captions"
"$tools" tokenize <"$work/captions" >"$work/ids"
printf '49406 320 1125 539 48136 1929 49407\n49406 49407\n49406 2781 256 871 49407\n' >"$work/want"
expect 0 '' cmp "$work/ids" "$work/want"
"$tools" tokenize --v2 --max_token_length 150 <"$work/captions" >"$work/rows"
same 3 "$(wc -l <"$work/rows")" 'rows of ids'
same 154 "$(head -n 1 "$work/rows" | wc -w)" 'ids per caption'
printf 'good\nbad \377\n' >"$work/broken"
# shellcheck disable=SC2016 # the inner shell expands its own arguments
expect 65 'line 2: text is not UTF-8' sh -c '"$1" tokenize <"$2"' sh "$tools" "$work/broken"
expect 64 'max_token_length' "$tools" tokenize --max_token_length 80
# shellcheck disable=SC2016
expect 71 'cannot write' sh -c '"$1" inspect "$2" >/dev/full' sh "$tools" "$work/two"

finish
