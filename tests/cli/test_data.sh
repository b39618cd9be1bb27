#!/usr/bin/env bash
# tests/cli/test_data.sh BIN_DIR - datasets and captions as their user describes them: option files,
# dataset files, every caption option; tiny models, pictures of 64 x 64.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../support/train_cases.sh
. "$here/../support/train_cases.sh" data "$1"
make_material

# --- option files ------------------------------------------------------------------------------------

option_files() {
    few_pictures few
    cat >mine.toml <<'END'
max_train_epochs = 1
[anything]
train_batch_size = 2
optimizer_args = ["weight_decay=0.1"]
shuffle_caption = false
END
    train plain --train_data_dir few --max_train_epochs 1 --train_batch_size 2 \
        --optimizer_args weight_decay=0.1
    train filed --train_data_dir few --config_file mine
    same_models plain/last filed/last
    train over --train_data_dir few --config_file mine.toml --train_batch_size 1
    equal "$(of_steps samples over.json)" "1 1" "the command line wins"
    echo 'learnig_rate = 1' >>mine.toml
    refused 64 'mine.toml:6:1: unknown option --learnig_rate; did you mean --learning_rate?' 1 \
        --config_file mine.toml
    echo 'a = [' >broken.toml
    refused 65 'broken.toml:2:1:' 2 --config_file broken
    refused 64 'none.toml does not exist' 1 --config_file none
}

written_option_files() {
    few_pictures few
    local options=(--train_data_dir few --caption_prefix 'a "b"' --max_grad_norm 0.5 --lr_warmup_steps 1
        --lr_scheduler constant_with_warmup)
    train plain "${options[@]}"
    train out "${options[@]}" --output_config --config_file saved
    [ ! -e out ]
    holds saved.toml 'caption_prefix = "a \"b\""'
    lacks saved.toml output_config
    refused 73 'saved.toml exists already' 2 --output_config --config_file saved.toml
    timeout 120 "$bin/train_db" --config_file saved --output_dir again >again.json 2>again.err ||
        { cat again.err; return 1; }
    same_models plain/last again/last
    refused 64 '--output_config needs --config_file' 1 --output_config
}

# --- dataset files ---------------------------------------------------------------------------------------

two_datasets() {
    few_pictures few
    mkdir wide
    picture wide/a.png 256 128
    echo "a wide picture" >wide/a.txt
    cat >data.toml <<'END'
[general]
caption_extension = ".caption"
[[datasets]]
resolution = 64
batch_size = 2
  [[datasets.subsets]]
  image_dir = "few/1_sks"
  num_repeats = 2
[[datasets]]
resolution = [128, 64]
  [[datasets.subsets]]
  image_dir = "wide"
  caption_extension = ".txt"
  caption_prefix = "photo,"
END
    local options=(--dataset_config data.toml --max_train_epochs 1 --dump_dir dump --dump_steps 9)
    train out "${options[@]}"
    equal "$(of_steps samples out.json | tr ' ' '\n' | sort | xargs)" "1 2 2" "samples of the steps"
    holds out.err 'is ignored: --dataset_config names the folders'
    holds out.err 'dataset 2, batches of 1'
    "$bin/dreamrun" tokenize <<<"photo, a wide picture" >want
    python3 "$here/../support/dumped_ids.py" dump | cut -d' ' -f3- >ids
    equal "$(wc -l <ids)" 5 samples
    mv dump dump1
    ranks 2 out2 "${options[@]}" --virtual_shards 2 --cache_latents
    train out1 "${options[@]}" --virtual_shards 2 --cache_latents
    same_models out1/last out2/last
}

dataset_mistakes() {
    cat >data.toml <<'END'
[[datasets]]
[[datasets.subsets]]
image_dir = "nowhere"
num_repeat = 3
END
    refused 64 'data.toml:4:1: datasets[0].subsets[0].num_repeat: unknown key; did you mean num_repeats?' \
        2 --dataset_config data.toml
    sed -i 's/num_repeat /num_repeats /' data.toml
    refused 64 'nowhere: no such directory' 2 --dataset_config data.toml
    sed -i 's/nowhere/./; 4a metadata_file = "x.json"' data.toml
    refused 71 'x.json: cannot open' 2 --dataset_config data.toml
    echo '{"datasets": 3}' >data.json
    refused 64 "'datasets' is a list of tables" 1 --dataset_config data.json
    refused 64 'ends in .toml or .json' 1 --dataset_config data.yaml
}

# --- captions ---------------------------------------------------------------------------------------------

# ids NAME: the ids of the captions that a run with --dump_dir NAME.d saw, in order, without padding.
ids() {
    python3 "$here/../support/dumped_ids.py" "$1.d" | cut -d' ' -f3-
}

# captions_are NAME 'caption'... : each is the whole caption of at least one use, and no other is.
captions_are() {
    local name=$1
    shift
    printf '%s\n' "$@" | "$bin/dreamrun" tokenize | sort -u >want
    ids "$name" | sort -u >got
    diff want got
}

caption_options() {
    few_pictures few
    echo "red, round, big ||| soft; old" >few/1_sks/00.caption
    cp few/1_sks/00.caption few/1_sks/01.caption
    local options=(--train_data_dir few --max_train_epochs 4 --dump_steps 99)
    train a "${options[@]}" --dump_dir a.d --caption_prefix my --caption_suffix end
    captions_are a "my red, round, big ||| soft; old end"
    train b "${options[@]}" --dump_dir b.d --keep_tokens_separator '|||' --secondary_separator ';' \
        --caption_tag_dropout_rate 1
    captions_are b "red, round, big"
    train c "${options[@]}" --dump_dir c.d --keep_tokens_separator '|||' --secondary_separator ';' \
        --shuffle_caption
    captions_are c "red, round, big, soft, old"
    # 8 steps, warm-up over 4 of them: 1, 1, 2, 2 of 3 tags, then all
    echo "red, round, big" | tee few/1_sks/00.caption >few/1_sks/01.caption
    train d "${options[@]}" --dump_dir d.d --token_warmup_step 0.5
    captions_are d "red" "red, round" "red, round, big"
    equal "$(ids d | awk '{print NF}' | xargs)" "3 3 5 5 7 7 7 7" "tags by step"
    # wildcards: one line, one alternative; literal braces
    printf 'a {red|blue} dog\n\n  {{x}} cat \n' | tee few/1_sks/00.caption >few/1_sks/01.caption
    train e "${options[@]}" --dump_dir e.d --enable_wildcard --max_train_epochs 12
    captions_are e "a red dog" "a blue dog" "{x} cat"
    train f "${options[@]}" --dump_dir f.d
    captions_are f "a {red|blue} dog"
    holds f.err 'caption files with more than one line, of which only the first is used: 2'
}

caption_files() {
    few_pictures few
    printf '\xef\xbb\xbfcaf\xc3\xa9\n' >few/1_sks/00.caption
    rm few/1_sks/01.caption
    train a --train_data_dir few --dump_dir a.d --dump_steps 9
    captions_are a "café" "sks"
    : >few/1_sks/01.caption
    refused 65 'the caption file is empty' 1 --train_data_dir few
    printf 'un caf\xe9 noir' >few/1_sks/01.caption
    refused 65 'it looks like WINDOWS-1252: iconv -f WINDOWS-1252' 1 --train_data_dir few
    printf '\x8c\xa2\x82\xcc\x8e\xca\x90\x5e' >few/1_sks/01.caption
    refused 65 'it looks like SHIFT_JIS' 2 --train_data_dir few
    printf '\xd2\xbb\xd6\xbb\xb9\xb7' >few/1_sks/01.caption
    refused 65 'it looks like GBK' 1 --train_data_dir few
    printf 'dog' | iconv -t UTF-16LE >few/1_sks/01.caption
    refused 65 'it looks like UTF-16LE' 1 --train_data_dir few
}

# --- augmentation ---------------------------------------------------------------------------------------------

augmentation() {
    few_pictures few
    cp few/1_sks/00.png few/1_sks/face_64_60_40_50.png
    local options=(--train_data_dir few --max_train_epochs 1) how
    train plain "${options[@]}"
    for how in --random_crop --color_aug '--face_crop_aug_range=1,2' '--random_crop --enable_bucket --min_bucket_reso 64'; do
        # shellcheck disable=SC2086
        train a "${options[@]}" $how
        # shellcheck disable=SC2086
        refused 64 'exclude each other' 1 "${options[@]}" --cache_latents ${how/--face*/--random_crop}
        rm -rf a b
    done
    train a "${options[@]}" --random_crop
    train b "${options[@]}" --random_crop --max_data_loader_n_workers 3
    same_models a/last b/last
    differ a/last/$unet plain/last/$unet
    refused 64 '--face_crop_aug_range: found' 1 "${options[@]}" --face_crop_aug_range 2
    refused 64 'its latent cannot be kept' 1 "${options[@]}" --cache_latents --face_crop_aug_range 1,2
}

masked_loss() {
    few_pictures few
    local options=(--train_data_dir few --max_train_epochs 1 --train_batch_size 2)
    train plain "${options[@]}"
    mkdir masks
    cp few/1_sks/00.png few/1_sks/01.png masks
    train a "${options[@]}" --masked_loss --conditioning_data_dir masks
    train b "${options[@]}" --masked_loss --conditioning_data_dir masks --cache_latents
    differ a/last/$unet plain/last/$unet
    picture masks/01.png 64 32
    refused 65 'the mask is 64x32 pixels, its picture few/1_sks/01.png is 128x96' 1 "${options[@]}" \
        --masked_loss --conditioning_data_dir masks
    rm masks/01.png
    refused 65 '01.png: no mask picture 01.png' 1 "${options[@]}" --masked_loss --conditioning_data_dir masks
    train c "${options[@]}" --alpha_mask # pictures without alpha count whole
    same_models plain/last c/last
    refused 64 'no masks' 1 "${options[@]}" --masked_loss
    refused 64 '--conditioning_data_dir needs --masked_loss too' 1 "${options[@]}" --conditioning_data_dir masks
}

# Counts of "check --json" of these options: pictures for validation, samples of an epoch.
kept() {
    "$bin/dreamrun" check --json "$@" >kept.json
    python3 -c 'import json; t = json.load(open("kept.json"))["totals"]
print(t["validation_images"], t["samples_per_epoch"])'
}

validation() {
    few_pictures few
    mkdir more
    for i in 0 1 2 3; do
        picture "more/$i.png" 64 64
    done
    cat >data.toml <<'END'
[general]
validation_split = 0.5
validation_seed = 7
resolution = 64
[[datasets]]
  [[datasets.subsets]]
  image_dir = "few/1_sks"
[[datasets]]
validation_split = 1.0
resolution = 128
  [[datasets.subsets]]
  image_dir = "more"
  class_tokens = "more"
END
    equal "$(kept --dataset_config data.toml)" "5 1" "one of two, and all of four"
    equal "$(kept --dataset_config data.toml --validation_split 0.1)" "5 1" "the file goes before the command line"
    train out --dataset_config data.toml --max_train_epochs 2
    holds out.err 'validation more: 4 pictures'
    holds out.err 'validation: 5 of 5 pictures kept for it'
    equal "$(of_steps validation_loss out.json | wc -w)" 2 "after each of two epochs"
    train plain --dataset_config data.toml --max_train_epochs 2 --progress plain
    equal "$(grep -c '^validation after step' plain.err)" 2 "lines for a person"
    sed -i '/validation_split = 0.5/d' data.toml
    equal "$(kept --dataset_config data.toml)" "4 2" "none of the first dataset"
    rm -r out
    sed -i '4a validation_split = 1.0' data.toml
    refused 65 'all pictures are kept for validation' 1 --dataset_config data.toml
    sed -i 's/validation_split = 1.0/validation_split = 1.5/' data.toml
    refused 64 'validation_split: expected 0 to 1' 1 --dataset_config data.toml
    refused 65 'no folder has enough pictures to keep one for validation' 1 --train_data_dir few \
        --validation_split 0.1
    refused 64 '--validation_split' 1 --train_data_dir few --validation_split 2
}

metadata_files() {
    few_pictures few
    echo '{"00": {"caption": "photo of sks shape", "tags": "red, round"}, "01.png": {"caption": "sks shape"}}' >meta.json
    train plain --train_data_dir few --max_train_epochs 1
    train listed --train_data_dir few/1_sks --in_json meta.json --max_train_epochs 1 --dump_dir dump --dump_steps 9
    "$bin/dreamrun" tokenize <<<$'photo of sks shape,red, round\nsks shape' | sort >want
    python3 "$here/../support/dumped_ids.py" dump | cut -d' ' -f3- | sort >ids
    cmp want ids
    same_models plain/last listed/last # the captions are the same words
    printf '{"image_path": "%s/few/1_sks/%s", "caption": "x"}\n' "$PWD" 00 "$PWD" 01.png >meta.jsonl
    train whole --train_data_dir '' --in_json meta.jsonl --dataset_repeats 2 --max_train_epochs 1
    holds whole.err 'samples per epoch: 4 training'
    train repeats --train_data_dir few --dataset_repeats 3 --max_train_epochs 1
    holds repeats.err '--dataset_repeats is ignored: the names of the folders say their repeats'
    same_models plain/last repeats/last
    echo '{"image_path": "00"}' >meta.jsonl
    refused 64 'image_dir (with --in_json: --train_data_dir) says which' 1 --in_json meta.jsonl --train_data_dir ''
    refused 64 'none.json: no such file' 1 --train_data_dir few --in_json none.json
    echo '{"00": {}, "07": {}}' >meta.json
    refused 65 "meta.json: '07': no such picture in few/1_sks" 2 --train_data_dir few/1_sks --in_json meta.json
    train skipping --train_data_dir few/1_sks --in_json meta.json --skip_bad_images --max_train_epochs 1
}

# settled FILE...: waits until nothing is younger than what --cache_info notes.
settled() {
    local file
    for file; do
        while [ $(($(date +%s) - $(stat -c %Z "$file"))) -le 4 ]; do
            sleep 0.2
        done
    done
}

known_pictures() {
    few_pictures few
    local options=(--train_data_dir few --max_train_epochs 1 --cache_info) note=few/1_sks/.dreamrun_pictures
    train plain --train_data_dir few --max_train_epochs 1
    train young "${options[@]}"
    holds young.err '0 of 2 pictures are unchanged'
    lacks "$note" .png # too young to be noted
    settled few/1_sks/*.png
    "$bin/dreamrun" check --cache_info --train_data_dir few --resolution 64 >check.out 2>check.err
    holds check.err '0 of 2 pictures are unchanged'
    train first "${options[@]}"
    holds first.err '0 of 2 pictures are unchanged' # nobody decoded them yet
    cp "$note" noted
    train second "${options[@]}"
    holds second.err '2 of 2 pictures are unchanged'
    ranks 2 third "${options[@]}" --virtual_shards 2
    same_models plain/last second/last
    cmp "$note" noted
    cp -p few/1_sks/00.png whole.png
    head -c 300 whole.png >few/1_sks/00.png
    truncate -r whole.png few/1_sks/00.png # as long, and as old
    touch -r whole.png few/1_sks/00.png
    refused 65 'few/1_sks/00.png' 1 "${options[@]}"
    cp -p whole.png few/1_sks/00.png
    settled few/1_sks/*.png
    train fourth "${options[@]}"
    holds fourth.err '1 of 2 pictures are unchanged'
    train fifth "${options[@]}"
    holds fifth.err '2 of 2 pictures are unchanged'
    sed -i '2s/ 128 / 129 /' "$note"
    train sixth "${options[@]}"
    holds sixth.err '0 of 2 pictures are unchanged' # damaged: nothing of it is believed
    same_models plain/last sixth/last
}

check 'files of options' option_files
check 'options written to a file' written_option_files
check 'two datasets of different sizes and batches' two_datasets
check 'mistakes in dataset files' dataset_mistakes
check 'prefix, separators, warm-up, wildcards' caption_options
check 'caption files and their encodings' caption_files
check 'random crops, faces, colours' augmentation
check 'metadata files' metadata_files
check 'what is known of pictures' known_pictures
check 'masked loss' masked_loss
check 'pictures kept for validation' validation
finish
