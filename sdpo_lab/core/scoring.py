"""Student and teacher passes over the same completion tokens."""

from __future__ import annotations

import copy
import math
import os
from contextlib import nullcontext
from typing import Any

import torch

from sdpo_lab.core.checks import check_weights
from sdpo_lab.core.rollouts import pad_left, positions


def pad_right(rows: list[list[int]], value: int, device: Any = "cpu") -> torch.Tensor:
    """Rows of different length as one (B, L) tensor."""
    longest = max(map(len, rows))
    return torch.tensor(
        [r + [value] * (longest - len(r)) for r in rows], dtype=torch.long, device=device
    )


def completion_hidden(
    model: Any, prompts: list[list[int]], completions: list[list[int]], bf16: bool = False
) -> torch.Tensor:
    """Last hidden states at the places that predict each completion token after its prompt, all rows' one after another, (N, H).

    What prompts have in common at their beginning is read once (`share`), and every row goes on from there: the attempts at one problem
    have the student's whole prompt in common, and most of the teacher's. The rests are padded on the right, where causal attention never
    looks, beside others of like length; positions are explicit and count from 0 in every row. The value of a row does not depend on its company.
    """
    device, network, (prefixes, of) = model.device, decoder(model), share(prompts)
    rests = [
        p[len(prefixes[k]) :] + c[:-1] for p, c, k in zip(prompts, completions, of)
    ]  # a completion's last token predicts nothing here
    found: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    with autocast(device, bf16):
        cache, mask = None, torch.zeros(len(prefixes), 0, dtype=torch.long, device=device)
        if any(prefixes):
            ids, mask = pad_left(prefixes, device)  # (P, L')
            cache = network(
                input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True
            ).past_key_values
        for part in alike(rests):
            which, ids = (
                torch.tensor([of[i] for i in part], device=device),
                pad_right([rests[i] for i in part], 0, device),
            )  # (b,), (b, L)
            mine = selected(cache, which)
            at = mask.sum(1)[which][:, None] + torch.arange(ids.shape[1], device=device)
            seen = None if mine is None else torch.cat([mask[which], torch.ones_like(ids)], 1)
            hidden = network(
                input_ids=ids,
                attention_mask=seen,
                position_ids=at,
                past_key_values=mine,
                use_cache=mine is not None,
            )[0]  # (b, L, H)
            ends = [
                len(rests[i]) + row * ids.shape[1] for row, i in enumerate(part)
            ]  # the last prompt token predicts the first of the completion
            lengths = [len(completions[i]) for i in part]
            places = torch.cat([torch.arange(end - n, end) for end, n in zip(ends, lengths)]).to(
                device
            )
            for i, tokens in zip(part, hidden.flatten(0, 1)[places].split(lengths)):
                found[i] = tokens
    return torch.cat(found)


def alike(rows: list[list[int]]) -> list[list[int]]:
    """The rows' numbers in parts of like length, none more than a quarter and 8 tokens longer than another of its part."""
    parts: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if not parts or len(rows[i]) > 1.25 * len(rows[parts[-1][0]]) + 8:
            parts.append([])
        parts[-1].append(i)
    return parts


def selected(cache: Any, which: torch.Tensor) -> Any:
    """A cache of some of its rows, or of one several times; the cache itself stays."""
    if cache is not None:
        cache = copy.copy(cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        for layer in cache.layers:  # not by keys[which]: the gradients of that are added up in any order, where there are several threads
            layer.keys, layer.values = (
                layer.keys.index_select(0, which),
                layer.values.index_select(0, which),
            )
    return cache


def share(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """(prefixes, which of them each prompt begins with): the rows, sorted, are cut into runs so that the fewest tokens are read when each run
    reads what all its prompts begin with once. A prompt's last token is never part of it. ([[]], ...) where nothing is in common."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    common = [
        len(os.path.commonprefix([prompts[i][:-1], prompts[j][:-1]]))
        for i, j in zip(order, order[1:])
    ]  # of neighbours
    best, cut = (
        [0],
        [],
    )  # best[n]: tokens saved at most among the first n rows; cut[n - 1]: where their last run begins
    for n in range(1, len(order) + 1):
        shared, found = math.inf, [(best[n - 1], n - 1)]
        for first in range(n - 2, -1, -1):
            shared = min(shared, common[first])
            found.append((best[first] + shared * (n - first - 1), first))
        saved, first = max(found)
        best.append(saved)
        cut.append(first)
    prefixes, of, n = [], [0] * len(prompts), len(order)
    while n:
        run = order[cut[n - 1] : n]
        prefixes.append(
            os.path.commonprefix([prompts[i][:-1] for i in run])
        )  # of one: all but its last, so that the rests are of like length
        for i in run:
            of[i] = len(prefixes) - 1
        n = cut[n - 1]
    return (prefixes, of) if best[-1] else ([[]], [0] * len(prompts))


def token_logits(
    model: Any, hidden: torch.Tensor, temperature: float = 1.0, bf16: bool = False
) -> torch.Tensor:
    """Hidden states to logits divided by `temperature`, float32 or better, (..., H) -> (..., V)."""
    with autocast(hidden.device, bf16):
        logits = head(model, hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if temperature == 1 else logits / temperature


def completion_logits(
    model: Any,
    prompts: list[list[int]],
    completions: list[list[int]],
    temperature: float = 1.0,
    bf16: bool = False,
) -> torch.Tensor:
    """Logits that predict each completion token after its prompt, (B, T, V): the plain way, all of them at once, 0 after a row's end."""
    logits = token_logits(
        model, completion_hidden(model, prompts, completions, bf16), temperature, bf16
    )
    return torch.nn.utils.rnn.pad_sequence(
        list(logits.split([len(c) for c in completions])), batch_first=True
    )


def autocast(device: Any, bf16: bool) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def decoder(model: Any) -> Any:
    """The network below the head, for plain and for adapted (peft) models."""
    return unwrapped(model).get_decoder()


def unwrapped(model: Any) -> Any:
    """The transformers model inside a peft one, or the model itself."""
    return getattr(model, "get_base_model", lambda: model)()


def head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states to logits, with the final soft cap (Gemma) or scale (Cohere, Granite) where the model has one."""
    base = unwrapped(model)
    linear, config = base.get_output_embeddings(), base.config
    plain = (
        type(linear) is torch.nn.Linear
        and linear.bias is None
        and linear.weight.dtype == hidden.dtype
        and not torch.is_autocast_enabled(hidden.device.type)
    )
    logits = Project.apply(hidden, linear.weight) if plain else linear(hidden)
    if getattr(config, "final_logit_softcapping", None):
        logits = config.final_logit_softcapping * torch.tanh(
            logits / config.final_logit_softcapping
        )
    if getattr(config, "logit_scale", None):
        logits = logits * config.logit_scale
    return logits / config.logits_scaling if getattr(config, "logits_scaling", None) else logits


class Project(torch.autograd.Function):
    """hidden @ weight.T, (..., H), (V, H) -> (..., V), whose backward adds to `weight.grad` in place: for a chunk of tokens a gradient of the
    head's size beside the sum of them is most of the memory, and adding it a good part of the time."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight)
        return hidden @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        hidden, weight = ctx.saved_tensors
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad.addmm_(gradient.flatten(0, -2).T, hidden.flatten(0, -2))
        return gradient @ weight, None


def check_scoring(model: Any) -> None:
    """Raise ValueError when `head` does not reproduce the model's own logits, as for a model that scales them in a way not known here, or one whose weights
    are not finite."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    with torch.no_grad():
        own, ours = (
            model(input_ids=ids).logits[0, :3],
            completion_logits(model, [[int(ids[0, 0])]], [ids[0, 1:].tolist()])[0],
        )
    model.train(was_training)
    if not torch.allclose(own.to(ours.dtype), ours, atol=1e-3, rtol=1e-3):
        check_weights(model)
        if own.isnan().any():
            raise ValueError(
                f"the logits of this {type(model).__name__} must be numbers, some are nan, though its weights are finite: they are too large. Load it again"
            )
        raise ValueError(
            f"the logits of a {type(model).__name__} are not its head's output of the last hidden state; scoring.head must learn how it scales them"
        )


def completion_mask(completions: list[list[int]], device: Any = "cpu") -> torch.Tensor:
    """1 where there is a token, the end token included, (B, T) float64."""
    return pad_right([[1] * len(c) for c in completions], 0, device).double()
