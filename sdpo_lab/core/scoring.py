"""One reading of prompts and completions: hidden states and logits at every completion token.

Letters of shapes: see `loop`.
"""

from __future__ import annotations

import copy
import math
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdpo_lab.core.checks import check_weights
from sdpo_lab.core.sampling import pad_left, positions

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

# -- hidden states --------------------------------------------------------------------------------


def completion_hidden(
    model: PreTrainedModel,
    prompts: list[list[int]],
    completions: list[list[int]],
    bf16: bool = False,
) -> Tensor:
    """Last hidden states that predict each completion token, one row's after another, (N, H).

    What prompts have in common at their beginning is read once (`shared_prefixes`), and every row
    goes on from there: the attempts at one problem have the student's whole prompt in common, and
    most of the teacher's. Unlike in generation, autograd runs through the cache: the prompt's
    tokens get their gradient, and the result is that of one ordinary forward pass per row (up to
    rounding). The rests are read beside others of like length. The value of a row does not depend
    on its company.
    """
    device, network = model.device, decoder(model)
    prefixes, prefix_of = shared_prefixes(prompts)
    # a completion's last token predicts nothing here
    rests = [
        prompt[len(prefixes[k]) :] + completion[:-1]
        for prompt, completion, k in zip(prompts, completions, prefix_of)
    ]
    found = [torch.empty(0)] * len(prompts)
    with autocast(device, bf16):
        cache, mask = read_prefixes(network, prefixes, device)
        for part in of_like_length(rests):
            prefix = torch.tensor([prefix_of[i] for i in part], device=device)  # (b,)
            hidden = read_rests(network, cache, mask, prefix, [rests[i] for i in part])  # (b, L, H)
            lengths = [len(completions[i]) for i in part]
            places = completion_places([len(rests[i]) for i in part], lengths, hidden.shape[1])
            states = hidden.flatten(0, 1)[places.to(device)].split(lengths)
            for i, state in zip(part, states):
                found[i] = state
    return torch.cat(found)


def read_prefixes(
    network: Any, prefixes: list[list[int]], device: torch.device
) -> tuple[Cache | None, Tensor]:
    """(keys and values of the prefixes, None where all are empty; their mask (P, L'))."""
    if not any(prefixes):
        return None, torch.zeros(len(prefixes), 0, dtype=torch.long, device=device)
    ids, mask = pad_left(prefixes, device)
    out = network(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True)
    return out.past_key_values, mask


def read_rests(
    network: Any, cache: Cache | None, prefix_mask: Tensor, prefix: Tensor, rests: list[list[int]]
) -> Tensor:
    """Hidden states of rows that go on from their prefixes, (b, L, H).

    `prefix` (b,) says which. The rows are padded on the right, where causal attention never looks;
    positions are explicit and count from 0 in every row.
    """
    ids = pad_right(rests, 0, prefix.device)  # (b, L)
    first = prefix_mask.sum(1)[prefix][:, None]
    mask = None
    if cache is not None:
        cache = cache_of_rows(cache, prefix)
        mask = torch.cat([prefix_mask[prefix], torch.ones_like(ids)], 1)
    out = network(
        input_ids=ids,
        attention_mask=mask,
        position_ids=first + torch.arange(ids.shape[1], device=ids.device),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return out[0]


def completion_places(rests: list[int], completions: list[int], width: int) -> Tensor:
    """Where the states that predict completion tokens are among those of (b, width) rows, (n,).

    `rests` and `completions` are lengths. The last prompt token predicts the first of the
    completion, so the places are the last ones of each rest.
    """
    ends = [row * width + length for row, length in enumerate(rests)]
    return torch.cat([torch.arange(end - n, end) for end, n in zip(ends, completions)])


def of_like_length(rows: list[list[int]]) -> list[list[int]]:
    """The rows' numbers in parts of like length.

    No row is longer than 1.25 x the shortest of its part + 8.
    """
    parts: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        shortest = len(rows[parts[-1][0]]) if parts else 0
        if not parts or len(rows[i]) > 1.25 * shortest + 8:
            parts.append([])
        parts[-1].append(i)
    return parts


def cache_of_rows(cache: Cache, rows: Tensor) -> Cache:
    """A cache of some rows of another, or of one several times; the other stays as it is."""
    cache = copy.copy(cache)
    # Any: not every kind of layer is declared to have keys, and they may be None before a reading
    layers: list[Any] = [copy.copy(layer) for layer in cache.layers]
    for layer in layers:
        # not keys[rows]: its gradients are added up in any order where there are several threads
        layer.keys = layer.keys.index_select(0, rows)
        layer.values = layer.values.index_select(0, rows)
    cache.layers = layers
    return cache


# -- what prompts have in common ------------------------------------------------------------------


def shared_prefixes(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """(prefixes, which of them each prompt begins with), so that the fewest tokens are read.

    The prompts, sorted, are cut into runs, and what all of a run begin with is a prefix. A prompt's
    last token is never part of it: its hidden state predicts the first completion token, so it is
    read with the rest. ([[]], [0, 0, ...]) where nothing is in common.
    """
    # [1 2 3 4], [1 2 3 5], [9 9] -> prefixes [1 2 3], [9]
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    ordered = [prompts[i][:-1] for i in order]
    neighbours = zip(ordered, ordered[1:])
    in_common = [len(os.path.commonprefix([one, other])) for one, other in neighbours]
    runs = best_runs(in_common)
    if runs is None:
        return [[]], [0] * len(prompts)
    prefixes: list[list[int]] = []
    prefix_of = [0] * len(prompts)
    for first, end in runs:
        # a run of a single prompt has all of it but the last token as its prefix, so that the
        # rests are of like length
        prefixes.append(list(os.path.commonprefix(ordered[first:end])))
        for i in order[first:end]:
            prefix_of[i] = len(prefixes) - 1
    return prefixes, prefix_of


def best_runs(in_common: list[int]) -> list[tuple[int, int]] | None:
    """(first, end) of the runs of sorted rows, the last run first; None where nothing is saved.

    `in_common` are the lengths that neighbours share. A run of n rows that share m tokens saves
    (n - 1) m of them; dynamic programming over where the last run begins.
    """
    rows = len(in_common) + 1
    saved = [0]  # saved[n]: at most, among the first n rows
    last_run = [0]  # last_run[n]: where the last run of these begins
    for n in range(1, rows + 1):
        shared = math.inf
        candidates = [(saved[n - 1], n - 1)]
        for first in range(n - 2, -1, -1):
            shared = min(shared, in_common[first])
            candidates.append((saved[first] + int(shared) * (n - first - 1), first))
        most, first = max(candidates)
        saved.append(most)
        last_run.append(first)
    if not saved[rows]:
        return None
    runs, end = [], rows
    while end:
        runs.append((last_run[end], end))
        end = last_run[end]
    return runs


# -- logits ---------------------------------------------------------------------------------------


def token_logits(
    model: PreTrainedModel, hidden: Tensor, temperature: float = 1.0, bf16: bool = False
) -> Tensor:
    """Hidden states to logits divided by `temperature`, float32 or better, (..., H) -> (..., V)."""
    with autocast(hidden.device, bf16):
        logits = head(model, hidden)
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits if temperature == 1 else logits / temperature


def completion_logits(
    model: PreTrainedModel,
    prompts: list[list[int]],
    completions: list[list[int]],
    temperature: float = 1.0,
    bf16: bool = False,
) -> Tensor:
    """Logits that predict each completion token, all of them at once, (B, T, V).

    0 after a row's end.
    """
    hidden = completion_hidden(model, prompts, completions, bf16)
    logits = token_logits(model, hidden, temperature, bf16)
    rows = logits.split([len(c) for c in completions])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def head(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Hidden states to logits, with the model's final soft cap (Gemma) or scale (Cohere, Granite).

    (..., H) -> (..., V).
    """
    base = unwrapped(model)
    linear, config = base.get_output_embeddings(), base.config
    if is_plain(linear, hidden):
        logits = LinearInPlaceGrad.apply(hidden, linear.weight)
    else:
        logits = linear(hidden)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    return logits


def is_plain(linear: Any, hidden: Tensor) -> bool:
    """Is it hidden @ weight.T and nothing else?"""
    return (
        type(linear) is torch.nn.Linear
        and linear.bias is None
        and linear.weight.dtype == hidden.dtype
        and not torch.is_autocast_enabled(hidden.device.type)
    )


class LinearInPlaceGrad(torch.autograd.Function):
    """hidden @ weight.T, (..., H), (V, H) -> (..., V); the backward adds to `weight.grad` in place.

    Autograd would make a new (V, H) gradient for every chunk and then add it: most of the memory
    and much of the time. This adds straight into weight.grad, so hooks on the weight do not see it.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return hidden @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        hidden, weight = ctx.saved_tensors
        if weight.requires_grad:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            weight.grad.addmm_(gradient.flatten(0, -2).T, hidden.flatten(0, -2))
        return gradient @ weight, None


# -- of models and rows ---------------------------------------------------------------------------


def unwrapped(model: Any) -> Any:
    """The transformers model inside a peft one, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: PreTrainedModel) -> Any:
    """The network below the head, for plain and for adapted (peft) models."""
    return unwrapped(model).get_decoder()


def autocast(device: torch.device | str, bf16: bool) -> AbstractContextManager:
    if not bf16:
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def pad_right(rows: list[list[int]], value: int, device: Any = "cpu") -> Tensor:
    """Rows of different length as one, (B, L)."""
    longest = max(map(len, rows))
    padded = [row + [value] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long, device=device)


def completion_mask(completions: list[list[int]], device: Any = "cpu") -> Tensor:
    """1 where there is a token, the end token included, (B, T) float64."""
    return pad_right([[1] * len(c) for c in completions], 0, device).double()


def check_scoring(model: PreTrainedModel) -> None:
    """Raise ValueError when `head` does not reproduce the model's own logits.

    As for a model that scales them in a way not known here, or one whose weights are not finite.
    """
    vocabulary = model.config.get_text_config().vocab_size
    ids = [i % vocabulary for i in range(4)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        own = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, :3]
        ours = completion_logits(model, [ids[:1]], [ids[1:]])[0]
    model.train(was_training)
    if torch.allclose(own.to(ours.dtype), ours, atol=1e-3, rtol=1e-3):
        return
    check_weights(model)
    kind = type(model).__name__
    if own.isnan().any():
        raise ValueError(
            f"the logits of this {kind} must be numbers, some are nan, though its weights are "
            "finite: they are too large. Load it again"
        )
    raise ValueError(
        f"the logits of a {kind} are not its head's output of the last hidden state; scoring.head "
        "must learn how it scales them"
    )
