"""Prompts as sd-scripts' samples read them (get_weighted_text_embeddings of its lpw_stable_diffusion.py), written anew
from the rules: as many windows of 75 tokens as the longer of prompt and negative prompt needs, at most 3; each with its
own start and end token; padding with end tokens; weights multiply states, whose mean is then restored."""
import torch

import weighted_captions

WINDOW, MOST = 75, 3


def tokens_of(tokenizer, text):
    ids, weights = [], []
    for part, weight in weighted_captions.parse(text):
        some = tokenizer(part).input_ids[1:-1]
        ids += some
        weights += [weight] * len(some)
    return ids[:MOST * WINDOW], weights[:MOST * WINDOW]


def rows_of(tokenizer, ids, n, pad_with_end):
    """n rows of 77 ids."""
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    line = [start] + ids + [end]
    line += [end if pad_with_end else pad] * (n * WINDOW + 2 - len(line))
    if n == 1:
        return [line]
    rows = []
    for at in range(0, n * WINDOW, WINDOW):
        row = [start] + line[at + 1:at + WINDOW + 2]
        if pad == end:
            row[-1] = end
        else:
            row[-1] = row[-1] if row[-1] in (end, pad) else end
            row[1] = end if row[1] == pad else row[1]
        rows.append(row)
    return rows


def encode(encoder, rows, clip_skip):
    hidden = encoder(torch.tensor(rows), output_hidden_states=True).hidden_states
    return encoder.text_model.final_layer_norm(hidden[-clip_skip])


def states(pipe, prompt, negative, clip_skip=1, pad_with_end=True):
    """(prompt, negative): (1, 77 n, width) each"""
    taken = [tokens_of(pipe.tokenizer, text) for text in (prompt, negative)]
    n = max(1, -(-max(len(ids) for ids, _ in taken) // WINDOW))
    result = []
    for ids, weights in taken:
        with torch.no_grad():
            x = encode(pipe.text_encoder, rows_of(pipe.tokenizer, ids, n, pad_with_end), clip_skip)
        width = x.shape[-1]
        factor = torch.ones(n, WINDOW + 2)
        for i, weight in enumerate(weights):
            factor[i // WINDOW, 1 + i % WINDOW] = weight
        x = x.reshape(1, -1, width)
        mean = x.double().mean()  # of nearly as many negative as positive numbers: f32 would lose digits
        x = x * factor.reshape(1, -1, 1)
        result.append(x * float(mean / x.double().mean()))
    return result
