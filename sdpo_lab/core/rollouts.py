"""Sample groups of attempts. The noise of a token depends on who it is, never on the shape of the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer

from sdpo_lab.core.chat import encode_chat, end_ids
from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_model,
    check_prompts,
    check_range,
    check_reward,
    check_text,
    checked,
    shown,
)
from sdpo_lab.core.task import Problem, Task, check_problems, judge_all


@dataclass
class Rollout:
    """One attempt at one problem, and what came of it. `reward` and `feedback` are set when it has been judged."""

    problem: Problem
    index: int  #: its place in the group
    text: str  #: decoded, without special tokens: what the judge reads
    completion_ids: list[int]  #: as sampled, the end token included; both roles score exactly these
    entropy: float = float(
        "nan"
    )  #: mean over its tokens of the sampling distribution's entropy, nats
    truncated: bool = False  #: no end token within the allowed length
    reward: float | None = None
    feedback: str = ""
    teacher_messages: list[dict[str, str]] = field(
        default_factory=list
    )  #: the chat its teacher was shown
    shown_solution: str = ""  #: the sibling's answer in it, and
    shown_feedback: str = ""  #: the environment's text in it; "" = nothing of the kind
    shown_attempt: str = ""  #: its own text in it (`include_own_attempt`)
    demonstration: int | None = (
        None  #: index of the sibling whose attempt was shown as the solution
    )
    active: bool = False  #: did it take part in the update
    why: str = ""  #: the reason in words when it did not

    @property
    def shown(self) -> bool:
        """Does its teacher see more than the question?"""
        return bool(self.shown_solution or self.shown_feedback)


def check_rollouts(rollouts: Any, vocabulary: int) -> list:
    """The attempts, for a step. Raises TypeError unless they are a list of Rollout, and TypeError or ValueError for one whose problem is none, whose
    texts are no strings, whose ids are no list of Python's whole numbers from 0 to `vocabulary` - 1, whose index is none from 0 upwards, whose entropy is no
    number, or whose reward is neither None nor as of `check_reward`."""
    if not (isinstance(rollouts, list) and all(isinstance(r, Rollout) for r in rollouts)):
        raise TypeError(
            f"rollouts must be a list of Rollout, as lab.rollout gives it, got {shown(rollouts)}"
        )
    check_problems([r.problem for r in rollouts], "rollouts")
    for r in rollouts:
        whose = f"of a rollout of problem {shown(r.problem.id)}"
        check_range(f"index {whose}", r.index, int, 0)
        whose = f"of rollout {r.index} of problem {shown(r.problem.id)}"
        check_text(f"text {whose}", r.text, "it is the decoded completion, without special tokens")
        check_text(f"feedback {whose}", r.feedback, "'' when there is none")
        check_kind(
            f"entropy {whose}", r.entropy, (int, float), "a number, nan when it is not known"
        )
        check_choice(f"truncated {whose}", r.truncated, (False, True))
        check_kind(
            f"completion_ids {whose}",
            r.completion_ids,
            list,
            "a list of token ids; .tolist() makes one of a tensor or an array",
        )
        for i in r.completion_ids:
            if type(i) is not int:
                raise TypeError(
                    f"completion_ids {whose} must be Python's whole numbers, one has the type {type(i).__name__}: {shown(i)}; .tolist() makes them of a tensor or an array"
                )
            if not 0 <= i < vocabulary:
                raise ValueError(
                    f"completion_ids {whose} must be from 0 to {vocabulary - 1}, the model's vocabulary; got {shown(i)}. Sample them with this model and its tokenizer"
                )
        if r.reward is not None:
            check_reward(f"reward {whose}", r.reward)
    return rollouts


def judge_rollouts(task: Task, rollouts: list[Rollout]) -> list[Rollout]:
    """Fill in reward and feedback of every rollout that has none."""
    fresh = [r for r in rollouts if r.reward is None]
    for r, verdict in zip(
        fresh, judge_all(task, [r.problem for r in fresh], [r.text for r in fresh])
    ):
        r.reward, r.feedback = float(verdict.reward), verdict.feedback
    return rollouts


def group_rollouts(rollouts: list[Rollout]) -> list[list[Rollout]]:
    """Attempts at the same problem, in order. Raises ValueError when groups are torn apart or an attempt is there twice."""
    groups: dict[str, list[Rollout]] = {}
    for r in rollouts:
        groups.setdefault(r.problem.id, []).append(r)
    if not groups or [id(r) for g in groups.values() for r in g] != [id(r) for r in rollouts]:
        raise ValueError(
            f"rollouts must be one or more whole groups, attempts at the same problem side by side; got {len(rollouts)}"
        )
    for problem_id, g in groups.items():
        if len({r.index for r in g}) < len(g):
            raise ValueError(
                f"two rollouts of problem {problem_id!r} have the same index; number the attempts at a problem from 0, and give every "
                "problem an id of its own"
            )
    return list(groups.values())


@checked(
    num_generations=(int, 1, 4096),
    temperature=(float, 0, 100),
    top_p=(float, 0.01, 1),
    max_completion_length=(int, 1, 131072),
    batch_size=(int, 1),
    seed=(int, 0, 2**63 - 1),
    step=(int, -(2**31), 2**31),
    bf16=(False, True),
)
def rollout(
    model: Any,
    tokenizer: Any,
    problems: Iterable[Problem],
    num_generations: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    step: int = 0,
    max_completion_length: int = 256,
    top_p: float = 1.0,
    batch_size: int = 4096,
    bf16: bool = False,
) -> list[Rollout]:
    """`num_generations` attempts at each problem, in problem order; temperature 0 is greedy.

    At most `batch_size` attempts are sampled together, which changes memory and speed but no token. `bf16` computes under autocast, as a step
    with `SDPOConfig.bf16` scores them.
    """
    check_model(model, tokenizer)
    problems = check_problems(problems)
    prompts = check_prompts([encode_chat(tokenizer, p.messages) for p in problems], model)
    keys = [[noise_key(seed, step, p.id, i) for i in range(num_generations)] for p in problems]
    at_once, found = max(1, batch_size // num_generations), []
    for start in range(0, len(problems), at_once):
        part = slice(start, start + at_once)
        found += sample(
            model,
            tokenizer,
            prompts[part],
            keys[part],
            temperature,
            top_p,
            max_completion_length,
            bf16,
        )
    return [
        Rollout(problems[i // num_generations], i % num_generations, *attempt)
        for i, attempt in enumerate(found)
    ]


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    keys: list[list[int]],
    temperature: float,
    top_p: float,
    max_completion_length: int,
    bf16: bool = False,
) -> list[tuple[str, list[int], float, bool]]:
    """(text, ids, mean entropy, truncated) of every attempt; `keys[i]` holds the noise keys of the attempts at prompt i.

    Each prompt is read once for its whole group; attempts that end leave the batch.
    """
    device, ends, group = (
        model.device,
        torch.tensor(sorted(end_ids(model, tokenizer)), device=model.device),
        len(keys[0]),
    )
    limit = context_length(model)
    longest = max(map(len, prompts))
    if limit and longest >= limit:
        raise ValueError(
            f"a prompt has {longest} tokens, the model's context is {limit} and must hold more; shorten the problem or take another model"
        )
    # how long an attempt may become depends on its own prompt alone, never on its company
    room = torch.tensor(
        [
            min(max_completion_length, limit - len(p)) if limit else max_completion_length
            for p in prompts
        ],
        device=device,
    )
    room, steps = room.repeat_interleave(group), int(room.max())
    ids, mask = pad_left(prompts, device)  # (P, L)
    uniforms = torch.from_numpy(
        noise(np.array(keys, dtype=np.uint64).ravel(), steps)
    )  # (R, steps) float64, R = P x G
    uniforms = (
        uniforms if device.type == "mps" else uniforms.to(device)
    )  # MPS has no float64: there the drawing is done on the CPU
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            tokens, entropies = grow(
                model, ids, mask, uniforms, room, ends, temperature, top_p, group
            )
    finally:
        model.train(was_training)
    found = [[int(i) for i in row if i >= 0] for row in tokens.tolist()]
    texts = tokenizer.batch_decode(
        found, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    stopped = set(ends.tolist())
    return [
        (text, row, float(h) / len(row), row[-1] not in stopped)
        for text, row, h in zip(texts, found, entropies)
    ]


def grow(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    uniforms: torch.Tensor,
    room: torch.Tensor,
    ends: torch.Tensor,
    temperature: float,
    top_p: float,
    group: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The decode loop: (tokens (R, steps) with -1 where none was sampled, summed entropies (R,))."""
    device, steps = ids.device, uniforms.shape[1]
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=True,
        logits_to_keep=1,
    )
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(group, 0)
    cache.batch_repeat_interleave(group)
    cache.layers = [
        Growing(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    mask, rows = mask.repeat_interleave(group, 0), torch.arange(len(ids) * group, device=device)
    at = mask.sum(1)  # position of the next token, (R,)
    tokens = torch.full((len(rows), steps), -1, device=device)  # -1: not sampled
    entropies = torch.zeros(len(rows), device=device)
    for t in range(steps):
        drawn, entropy = (
            x.to(device)
            for x in draw(
                logits.to(uniforms.device),
                uniforms[rows.to(uniforms.device), t],
                temperature,
                top_p,
            )
        )
        tokens[rows, t], entropies[rows] = drawn, entropies[rows] + entropy
        stay = ~torch.isin(drawn, ends) & (t + 1 < room[rows])
        if not stay.any():
            break
        if not stay.all():
            drawn, rows, mask, at = drawn[stay], rows[stay], mask[stay], at[stay]
            cache.batch_select_indices(stay.nonzero()[:, 0])
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = model(
            input_ids=drawn[:, None],
            attention_mask=mask,
            position_ids=at[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        at = at + 1
    return tokens, entropies


class Growing(DynamicLayer):
    """Keys and values (R, heads, L, d) with room to grow: a token's are written behind those before it, where the usual layer copies all for each."""

    def __init__(self, full: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(full.keys, full.values)
        self.stores, self.length = (full.keys, full.values), full.keys.shape[-2]

    def update(self, *new: torch.Tensor, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        first, self.length = self.length, self.length + new[0].shape[-2]
        if (
            self.length > self.stores[0].shape[-2]
        ):  # room for another quarter: what is copied stays in proportion to what is written
            self.stores = tuple(
                torch.cat([x, x.new_empty(*x.shape[:2], max(64, self.length // 4), x.shape[3])], 2)
                for x in self.stores
            )
        for store, x in zip(self.stores, new):
            store[:, :, first : self.length] = x
        self.keys, self.values = (store[:, :, : self.length] for store in self.stores)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.stores = tuple(x[indices] for x in self.stores)


def context_length(model: Any) -> int | None:
    """The number of tokens a model can read at once; None where its config names none."""
    return getattr(model.config, "max_position_embeddings", None)


def pad_left(rows: list[list[int]], device: Any = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) of rows that all end at the same column, (B, L) each."""
    longest = max(map(len, rows))
    return (
        torch.tensor([[0] * (longest - len(r)) + r for r in rows], dtype=torch.long, device=device),
        torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=device),
    )


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows: the first real token is 0, (B, L)."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token (R,), entropy (R,)) from logits (R, V) by inverting the cumulative distribution at `uniform` (R,) in [0, 1)."""
    log_probs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    if not torch.isfinite(log_probs.amax(-1)).all():
        raise FloatingPointError(
            "the model's logits are not finite; its weights are damaged or the learning rate was too high"
        )
    probs = log_probs.exp()
    entropy = -(probs * log_probs.clamp(min=-1e9)).sum(-1)
    if temperature == 0:
        return logits.argmax(-1), entropy
    if top_p < 1:  # the smallest set of most likely tokens with at least this mass
        ordered, order = probs.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probs = probs.masked_fill(beyond.scatter(-1, order, beyond), 0)
    cumulative = probs.double().cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(
        max=logits.shape[-1] - 1
    ), entropy


def noise_key(*who: object) -> int:
    """64 bits from (seed, step, problem id, rollout index)."""
    return int.from_bytes(hashlib.blake2b(repr(who).encode(), digest_size=8).digest(), "big")


def noise(keys: np.ndarray, steps: int) -> np.ndarray:
    """Uniforms in [0, 1), (R, steps): splitmix64 of key and position, a function of these two and nothing else."""
    with np.errstate(over="ignore"):
        z = keys[:, None] + (np.arange(steps, dtype=np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)
