"""Student and teacher passes over the same completion tokens."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch


def pad_right(rows: list[list[int]], value: int, device: Any = "cpu") -> torch.Tensor:
    """Rows of different length as one (B, L) tensor."""
    longest = max(map(len, rows))
    return torch.tensor([r + [value] * (longest - len(r)) for r in rows], dtype=torch.long, device=device)


def completion_hidden(model: Any, prompts: list[list[int]], completions: list[list[int]], bf16: bool = False) -> torch.Tensor:
    """Last hidden states at the places that predict each completion token after its prompt, (B, T, H).

    Rows are padded on the right, where causal attention never looks: positions count from 0 in every row without being
    passed, also for models with absolute positions, and the value does not depend on the padding.
    """
    device, width = model.device, max(map(len, completions))
    ids = pad_right([p + c for p, c in zip(prompts, completions)], 0, device)  # (B, L)
    starts = torch.tensor([len(p) - 1 for p in prompts], device=device)  # the last prompt token predicts the first of the completion
    with autocast(device, bf16):
        hidden = decoder(model)(input_ids=ids, use_cache=False)[0]  # (B, L, H)
    at = (starts[:, None] + torch.arange(width, device=device)).clamp(max=ids.shape[1] - 1)  # (B, T)
    return hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1]))


def pack(rows: torch.Tensor, completions: list[list[int]]) -> torch.Tensor:
    """The rows' tokens one after another without padding, (B, T, ...) -> (N, ...)."""
    return torch.cat([row[: len(c)] for row, c in zip(rows, completions)])


def token_logits(model: Any, hidden: torch.Tensor, temperature: float = 1.0, bf16: bool = False) -> torch.Tensor:
    """Hidden states to logits divided by `temperature`, float32 or better, (..., H) -> (..., V)."""
    with autocast(hidden.device, bf16):
        logits = head(model, hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if temperature == 1 else logits / temperature


def completion_logits(model: Any, prompts: list[list[int]], completions: list[list[int]], temperature: float = 1.0, bf16: bool = False) -> torch.Tensor:
    """Logits that predict each completion token after its prompt, (B, T, V): the plain way, all of them at once."""
    return token_logits(model, completion_hidden(model, prompts, completions, bf16), temperature, bf16)


def autocast(device: Any, bf16: bool) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()


def decoder(model: Any) -> Any:
    """The network below the head, for plain and for adapted (peft) models."""
    return getattr(model, "get_base_model", lambda: model)().get_decoder()


def head(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states to logits, with the final soft cap (Gemma) or scale (Cohere, Granite) where the model has one."""
    base = getattr(model, "get_base_model", lambda: model)()
    logits, config = base.get_output_embeddings()(hidden), base.config
    if getattr(config, "final_logit_softcapping", None):
        logits = config.final_logit_softcapping * torch.tanh(logits / config.final_logit_softcapping)
    if getattr(config, "logit_scale", None):
        logits = logits * config.logit_scale
    return logits / config.logits_scaling if getattr(config, "logits_scaling", None) else logits


def check_scoring(model: Any) -> None:
    """Raise ValueError when `head` does not reproduce the model's own logits, as for a model that scales them in a way not known here."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    with torch.no_grad():
        own, ours = model(input_ids=ids).logits[0, :3], completion_logits(model, [[int(ids[0, 0])]], [ids[0, 1:].tolist()])[0]
    model.train(was_training)
    if not torch.allclose(own.to(ours.dtype), ours, atol=1e-3, rtol=1e-3):
        raise ValueError(f"the logits of a {type(model).__name__} are not its head's output of the last hidden state; scoring.head must learn how it scales them")


def completion_mask(completions: list[list[int]], device: Any = "cpu") -> torch.Tensor:
    """1 where there is a token, the end token included, (B, T) float."""
    return pad_right([[1] * len(c) for c in completions], 0, device).float()
