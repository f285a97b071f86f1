"""The decode loop. The noise of a token depends on who it is, never on the shape of the batch.

Letters of shapes: see `loop`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from sdpo_lab.core.chat import end_ids

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

NOT_SAMPLED = -1


class SamplingParams(NamedTuple):
    temperature: float = 1.0  #: 0 is greedy
    top_p: float = 1.0  #: mass of the nucleus
    max_completion_length: int = 256
    bf16: bool = False  #: compute under autocast, as a step with `SDPOConfig.bf16` scores


class Completion(NamedTuple):
    text: str  #: without special tokens
    ids: list[int]  #: the end token included
    entropy: float  #: mean entropy of softmax(logits / T) over its tokens; see `draw`
    truncated: bool  #: no end token within the allowed length


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    keys: list[list[int]],
    params: SamplingParams,
) -> list[Completion]:
    """Attempts at every prompt, in order; `keys[i]` holds the noise keys of those at prompt i.

    Raises ValueError for a prompt that fills the model's context.
    """
    group = len(keys[0])
    ends = torch.tensor(sorted(end_ids(model, tokenizer)), device=model.device)
    room = room_for(model, prompts, params.max_completion_length).repeat_interleave(group)
    # (R, steps) float64, R = prompts x group
    uniforms = torch.from_numpy(noise(np.array(keys, dtype=np.uint64).ravel(), int(room.max())))
    if model.device.type != "mps":  # MPS has no float64: there tokens are drawn on the CPU
        uniforms = uniforms.to(model.device)

    was_training = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=params.bf16):
            tokens, entropies = decode(model, prompts, uniforms, room, ends, params)
    finally:
        model.train(was_training)

    completions = [[i for i in row if i != NOT_SAMPLED] for row in tokens.tolist()]
    texts = tokenizer.batch_decode(
        completions, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    stops = set(ends.tolist())
    return [
        Completion(text, ids, float(entropy) / len(ids), truncated=ids[-1] not in stops)
        for text, ids, entropy in zip(texts, completions, entropies)
    ]


def room_for(model: PreTrainedModel, prompts: list[list[int]], max_length: int) -> Tensor:
    """How long an attempt at each prompt may become, (P,): depends on that prompt alone."""
    context = context_length(model)
    if context is None:
        return torch.full((len(prompts),), max_length, device=model.device)
    longest = max(map(len, prompts))
    if longest >= context:
        raise ValueError(
            f"a prompt has {longest} tokens, the model's context is {context} and must hold more; "
            "shorten the problem or take another model"
        )
    room = [min(max_length, context - len(prompt)) for prompt in prompts]
    return torch.tensor(room, device=model.device)


def context_length(model: PreTrainedModel) -> int | None:
    """The number of tokens a model can read at once; None where its config names none."""
    return getattr(model.config, "max_position_embeddings", None) or None


def decode(
    model: PreTrainedModel,
    prompts: list[list[int]],
    uniforms: Tensor,
    room: Tensor,
    ends: Tensor,
    params: SamplingParams,
) -> tuple[Tensor, Tensor]:
    """(tokens (R, steps), NOT_SAMPLED behind an attempt's end; their summed entropies (R,))."""
    device, draw_device = model.device, uniforms.device
    attempts, steps = uniforms.shape
    logits, cache, mask = read_prompts(model, prompts, attempts // len(prompts))
    position = mask.sum(1)  # of the next token, (R,)
    rows = torch.arange(attempts, device=device)  # the attempts that go on
    tokens = torch.full((attempts, steps), NOT_SAMPLED, device=device)
    entropies = torch.zeros(attempts, device=device)
    for t in range(steps):
        # one token for every attempt that goes on
        uniform = uniforms[rows.to(draw_device), t]
        drawn, entropy = draw(logits.to(draw_device), uniform, params.temperature, params.top_p)
        drawn = drawn.to(device)
        tokens[rows, t] = drawn
        entropies[rows] += entropy.to(device)

        # attempts that end leave the batch
        stay = ~torch.isin(drawn, ends) & (t + 1 < room[rows])
        if not stay.any():
            break
        if not stay.all():
            drawn, rows, mask, position = drawn[stay], rows[stay], mask[stay], position[stay]
            cache.batch_select_indices(stay.nonzero()[:, 0])

        # read the new tokens
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        out = model(
            input_ids=drawn[:, None],
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits[:, -1]
        position = position + 1
    return tokens, entropies


def read_prompts(
    model: PreTrainedModel, prompts: list[list[int]], group: int
) -> tuple[Tensor, Cache, Tensor]:
    """Each prompt read once for its whole group: (logits (R, V), cache of R rows, mask (R, L))."""
    ids, mask = pad_left(prompts, model.device)  # (P, L)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = out.past_key_values
    cache.batch_repeat_interleave(group)
    cache.layers = [
        PreallocatedCache(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    logits = out.logits[:, -1].repeat_interleave(group, 0)
    return logits, cache, mask.repeat_interleave(group, 0)


class PreallocatedCache(DynamicLayer):
    """Keys and values (R, heads, L, d) of a layer, with room for more tokens.

    A token's are written behind those before it, where the usual layer copies all for each.
    """

    def __init__(self, full: DynamicLayer) -> None:
        super().__init__()
        assert full.keys is not None and full.values is not None
        self.lazy_initialization(full.keys, full.values)
        self.stores = [full.keys, full.values]
        self.length = full.keys.shape[-2]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        first = self.length
        self.length += key_states.shape[-2]
        if self.length > self.stores[0].shape[-2]:
            # another quarter: what is copied stays in proportion to what is written
            more = max(64, self.length // 4)
            self.stores = [with_room(store, more) for store in self.stores]
        for store, new in zip(self.stores, (key_states, value_states)):
            store[:, :, first : self.length] = new
        self.keys, self.values = (store[:, :, : self.length] for store in self.stores)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        self.stores = [store[indices] for store in self.stores]


def with_room(store: Tensor, more: int) -> Tensor:
    """(R, heads, L, d) -> (R, heads, L + more, d)."""
    rows, heads, _, size = store.shape
    return torch.cat([store, store.new_empty(rows, heads, more, size)], 2)


def pad_left(rows: list[list[int]], device: Any = "cpu") -> tuple[Tensor, Tensor]:
    """(ids, mask) of rows that all end at the same column, (B, L) each."""
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return (torch.tensor(ids, dtype=torch.long, device=device), torch.tensor(mask, device=device))


def positions(mask: Tensor) -> Tensor:
    """Position ids of left-padded rows: the first real token is 0, (B, L)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """(token (R,), entropy (R,)) from logits (R, V), by inverting the cumulative distribution.

    The token is the first at which it exceeds `uniform` (R,) in [0, 1). The entropy is that of
    softmax(logits / T) (T = 1 where greedy), before top_p, in nats. Raises FloatingPointError for
    logits that are not finite.
    """
    log_probs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    if not torch.isfinite(log_probs.amax(-1)).all():
        raise FloatingPointError(
            "the model's logits are not finite; its weights are damaged or the learning rate was "
            "too high"
        )
    probs = log_probs.exp()
    entropy = -(probs * log_probs.clamp(min=-1e9)).sum(-1)
    if temperature == 0:
        return logits.argmax(-1), entropy
    if top_p < 1:
        probs = nucleus(probs, top_p)
    cumulative = probs.double().cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1), entropy


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """The smallest set of most likely tokens with at least the mass `top_p`; 0 elsewhere."""
    ordered, order = probs.sort(descending=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return probs.masked_fill(beyond.scatter(-1, order, beyond), 0)


def noise_key(*who: object) -> int:
    """64 bits from (seed, step, problem id, rollout index)."""
    digest = hashlib.blake2b(repr(who).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def noise(keys: np.ndarray, steps: int) -> np.ndarray:
    """Uniforms in [0, 1), (R, steps): splitmix64 of key and position, and of nothing else."""
    position = np.arange(1, steps + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = keys[:, None] + position * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return (z >> np.uint64(11)) / float(1 << 53)
