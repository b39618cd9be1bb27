#!/bin/sh
# tests/cli/test_inspect.sh DREAMRUN_TOOLS - dreamrun inspect on every kind of file.
set -eu
# shellcheck source-path=SCRIPTDIR source=cases.sh
. "$(dirname "$0")/cases.sh"

tools=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/dreamrun_inspect.XXXXXX")
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1
python3 "$here/make_weights.py" "$work"
cd "$work"

# --- LoRAs ---
expect 0 'LoRA with names of kohya, made for SD 1.x' "$tools" inspect kohya.safetensors
expect 0 'modules: U-Net 1, text encoder 1' "$tools" inspect kohya.safetensors
expect 0 'rank 8 to 16, alpha 4 to 16' "$tools" inspect kohya.safetensors
expect 0 'metadata "ss_network_dim": "8"' "$tools" inspect kohya.safetensors
expect 0 '"a \u001b[31m name"' "$tools" inspect kohya.safetensors
expect 0 '2 of the modules are all zero in a factor and change nothing; the first is lora_te_text' "$tools" \
    inspect kohya.safetensors
expect 0 '"zero_modules": 2' "$tools" inspect --json kohya.safetensors
expect 0 'made for SD 2.x' "$tools" inspect sd2.safetensors
expect 0 'made for SDXL' "$tools" inspect xl.safetensors
expect 0 'broken: names begin with the network' "$tools" inspect doubled.safetensors
expect 0 'LoHa with names of kohya, made for SD 1.x' "$tools" inspect loha.safetensors
expect 0 'rank 8, alpha 1' "$tools" inspect loha.safetensors
expect 0 'LoKr' "$tools" inspect lokr.safetensors
expect 0 'modules: U-Net 1' "$tools" inspect lokr.safetensors
expect 0 'DoRA' "$tools" inspect dora.safetensors
expect 0 'LoRA with names of PEFT, made for SD 1.x' "$tools" inspect peft.safetensors
expect 0 'rank 4, alpha not given (counts as the rank)' "$tools" inspect peft.safetensors
expect 0 'LoRA with names of Diffusers, made' "$tools" inspect diffusers.safetensors
expect 0 '1 of them convolutions over 1x1' "$tools" inspect conv.safetensors

# --- other families ---
expect 0 'inpainting checkpoint' "$tools" inspect inpainting.safetensors
expect 0 'Stable Diffusion XL checkpoint' "$tools" inspect xl_model.safetensors
expect 0 'Stable Diffusion 3 checkpoint' "$tools" inspect sd3.safetensors
expect 0 'Flux checkpoint' "$tools" inspect flux.safetensors
expect 0 'ControlNet' "$tools" inspect controlnet.safetensors
expect 0 'textual inversion embedding' "$tools" inspect embedding.safetensors
expect 0 'textual inversion embedding' "$tools" inspect token.safetensors
expect 0 'belongs to no part: 1 tensors: my.tensor' "$tools" inspect strange.safetensors
expect 0 'ema                        1 parameters in 1 tensors' "$tools" inspect strange.safetensors
same 1 "$("$tools" inspect strange.safetensors | grep -c 'checkpoint')" 'summary lines'

# --- official files, hashes ---
expect 0 'has the size of: Stable Diffusion 1.4, vae/diffusion_pytorch_model.safetensors; Stable' \
    "$tools" inspect vae.safetensors
refuse 'known file' "$tools" inspect --hash kohya.safetensors
want=$(sha256sum kohya.safetensors | cut -c 1-64)
expect 0 "sha256 $want" "$tools" inspect --hash kohya.safetensors
expect 0 "AutoV2 (model hash) $(echo "$want" | cut -c 1-10), AutoV1 e3b0c442" "$tools" inspect --hash kohya.safetensors
data=$(python3 -c "
import hashlib
b = open('kohya.safetensors', 'rb').read()
print(hashlib.sha256(b[8 + int.from_bytes(b[:8], 'little'):]).hexdigest())")
expect 0 "AutoV3 (LoRA hash) $(echo "$data" | cut -c 1-12)" "$tools" inspect --hash kohya.safetensors
old=$(dd if=vae.safetensors bs=65536 skip=16 count=1 2>/dev/null | sha256sum | cut -c 1-8)
expect 0 "AutoV1 $old" "$tools" inspect --hash vae.safetensors

# --- headers only: 4 GiB of which nothing is read ---
expect 0 '4.0 GiB' "$tools" inspect large.safetensors
peak=$(python3 -c "
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)" "$tools" inspect large.safetensors)
same 1 "$((peak < 1024))" "peak memory of 4 GiB inspected below 1 GiB ($peak MiB)"

# --- damaged files ---
expect 65 'this is a web page, not a model' "$tools" inspect page.safetensors
expect 65 'Git LFS pointer' "$tools" inspect lfs.safetensors
expect 65 'truncated' "$tools" inspect cut.safetensors
expect 65 'posix.system' "$tools" inspect pickle.safetensors
expect 1 '' test -e ran
mkdir folder
cp cut.safetensors kohya.safetensors folder
expect 65 'cut.safetensors: folder/cut.safetensors: the file is truncated' "$tools" inspect folder
expect 65 'kohya.safetensors: LoRA' "$tools" inspect folder

# --- JSON: every report is valid ---
for file in *.safetensors; do
    case $file in page.* | lfs.* | cut.* | pickle.* | vae.* | large.*) continue ;; esac
    # shellcheck disable=SC2016 # the inner shell expands its own arguments
    expect 0 '"problem": null' sh -c '"$1" inspect --json --tensors --hash "$2" | python3 -m json.tool' sh "$tools" "$file"
done
expect 0 '"lora": {"method": "LoRA", "names": "kohya", "family": "SD 1.x", "unet_modules": 1' \
    "$tools" inspect --json kohya.safetensors
expect 0 '"unknown_tensors": ["my.tensor"]' "$tools" inspect --json strange.safetensors
expect 0 '{"model": "Stable Diffusion 1.4", "file": "vae/diffusion_pytorch_model.safetensors", "by": "size"}' \
    "$tools" inspect --json vae.safetensors
expect 0 '"family": "flux"' "$tools" inspect --json flux.safetensors

# --- real files ---
if [ -d "${DR_SHARED:-/nowhere}/lora" ]; then
    expect 0 'LoRA with names of Diffusers (before 0.17), made for SD 1.x' \
        "$tools" inspect "$DR_SHARED/lora/catundchat_pytorch_lora_weights.bin"
    expect 0 'LoRA with names of cloneofsimo, made for SD 1.x' "$tools" inspect "$DR_SHARED/lora/lora_disney.safetensors"
    expect 0 'and 2 token embeddings' "$tools" inspect "$DR_SHARED/lora/lora_disney.safetensors"
    expect 0 'modules: U-Net 144, text encoder 48' "$tools" inspect "$DR_SHARED/lora/analog_svd_rank4.safetensors"
    expect 65 '2 of at least 10 bytes; download it again' "$tools" inspect "$DR_SHARED/lora/Hirvita6_2byte.safetensors"
    expect 0 'TAESD' "$tools" inspect "$DR_SHARED/taesd/taesd_encoder.safetensors"
fi
finish
