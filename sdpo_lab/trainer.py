"""The loop: sample, judge, reprompt, score twice, one update. SDPO, GRPO, and mixtures of their losses."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from sdpo_lab import losses
from sdpo_lab.chat import encode_chat
from sdpo_lab.config import SDPOConfig
from sdpo_lab.errors import check_choice, check_range, unknown_names
from sdpo_lab.evaluation import Evaluation, evaluate_problems, judge_rollouts
from sdpo_lab.records import History, StepRecord
from sdpo_lab.reprompt import encode_teacher, reprompt
from sdpo_lab.rollouts import Rollout, rollout
from sdpo_lab.scoring import completion_logits, completion_mask, pad_right
from sdpo_lab.tasks.base import Task
from sdpo_lab.teachers import Teacher

#: After this many steps in a row whose loss or gradient is not finite, training stops with a diagnosis.
MAX_BAD_STEPS = 3


class SDPOTrainer:
    """Trains `model`, in place, on `task`. An endless iterator of `StepRecord`s; stop any time, go on any time.

    model      a causal language model with float32 weights
    tokenizer  its tokenizer, with a chat template
    task       anything with `problems(n, split, seed)` and `judge(problem, completion)`
    config     SDPOConfig; the preset "laptop" when None. `distillation_weight=0` is GRPO

    Departs from the paper in one place: the teacher's sampled demonstration is drawn anew each step from the run's seed.
    """

    #: Fields that may be changed while a run is under way, through `apply`.
    LIVE_FIELDS = ("learning_rate", "teacher_update_rate", "temperature", "distillation_alpha", "distillation_weight", "include_environment_feedback",
                   "normalize", "max_grad_norm")

    def __init__(self, model: Any, tokenizer: Any, task: Task, config: SDPOConfig | None = None) -> None:
        config = SDPOConfig.preset("laptop") if config is None else config
        if not isinstance(config, SDPOConfig):
            raise TypeError(f"config must be an SDPOConfig, got {type(config).__name__}; SDPOConfig.preset('laptop') is a start")
        for method in ("problems", "judge"):
            if not callable(getattr(task, method, None)):
                raise TypeError(f"task must have a method {method}(); {type(task).__name__} has none")
        half = {str(p.dtype) for p in model.parameters() if p.requires_grad and p.dtype not in (torch.float32, torch.float64)}
        if half:
            raise ValueError(f"trainable weights must be float32, these are {', '.join(half)}: small updates vanish in half precision. "
                             "Use model.float() and, on a GPU, bf16=True")
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.teacher = Teacher(model, config.teacher_model_kind, config.teacher_update_rate) if config.distillation_weight > 0 else None
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.history = History()
        self.skipped_steps = self.bad_steps = 0

    def __iter__(self) -> Iterator[StepRecord]:
        while True:
            yield self.step()

    def train(self, steps: int, changes: dict[int, dict[str, Any]] | None = None, progress: bool = True) -> History:
        """`steps` more steps with a progress bar; `changes={step: {field: value}}` replays what a hand did on the dashboard."""
        from tqdm.auto import tqdm

        check_range("steps", steps, int, 0, 10**9)
        bar = tqdm(range(steps), disable=not progress, unit="step")
        for _ in bar:
            self.apply(**(changes or {}).get(len(self.history) + 1, {}))
            record = self.step()
            bar.set_postfix_str(f"reward {record.reward:.2f}")
        return self.history

    def apply(self, **fields: Any) -> None:
        """Change live fields from the next step on; checked at once, logged in `history.changes`.

        A change that does nothing in this combination is a warning. Where `distillation_weight` rises from 0, the
        teacher starts from the weights of that moment.
        """
        if not fields:
            return
        unknown_names("a running trainer's live fields", fields, list(self.LIVE_FIELDS))
        self.config = c = self.config.replace(live=True, **fields)
        if c.distillation_weight > 0:
            self.teacher = self.teacher or Teacher(self.model, c.teacher_model_kind, c.teacher_update_rate)
            self.teacher.rate = c.teacher_update_rate
        self.history.changes.setdefault(len(self.history) + 1, {}).update(fields)

    def step(self, rollouts: list[Rollout] | None = None) -> StepRecord:
        """One step, on fresh attempts or on given ones (whole groups, in problem order).

        A step in which no attempt is active changes nothing and is counted in `skipped_steps`. Raises
        FloatingPointError after `MAX_BAD_STEPS` steps in a row with a loss or gradient that is not finite; such a step
        is not applied.
        """
        began, number = time.perf_counter(), len(self.history) + 1
        rollouts = self.sample(number) if rollouts is None else copy.copy(rollouts)
        if any(r.reward is None for r in rollouts):
            rollouts = judge_rollouts(self.task, rollouts)
        groups = self.group(rollouts)
        advantages = self.prepare(groups, number)
        loss, metrics = self.update(rollouts, groups, advantages, number)
        metrics = summary(rollouts, groups, self.config) | metrics
        reward = sum(r.reward for r in rollouts) / len(rollouts)
        record = StepRecord(number, reward, loss, metrics, rollouts, time.perf_counter() - began)
        self.history.records.append(record)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise FloatingPointError(f"the loss or its gradient was not finite in {self.bad_steps} steps in a row, up to step {number}; none was applied. "
                                     f"Usually the learning rate ({self.config.learning_rate:g}) is too high: start again from the last good "
                                     "weights with a third of it")
        return record

    def sample(self, number: int) -> list[Rollout]:
        """Fresh attempts of step `number`, not judged yet."""
        c = self.config
        problems = self.task.problems(c.generation_batch_size // c.num_generations, split="train", seed=c.seed * 1_000_003 + number)
        return rollout(self.model, self.tokenizer, problems, c.num_generations, c.temperature, c.seed, step=number,
                       max_completion_length=c.max_completion_length, top_p=c.top_p)

    def group(self, rollouts: list[Rollout]) -> list[list[Rollout]]:
        """Attempts at the same problem, in order of appearance."""
        groups: dict[str, list[Rollout]] = {}
        for r in rollouts:
            groups.setdefault(r.problem.id, []).append(r)
        if not groups or [r for g in groups.values() for r in g] != rollouts:
            raise ValueError("rollouts must be one or more whole groups, attempts at the same problem side by side")
        return list(groups.values())

    def prepare(self, groups: list[list[Rollout]], number: int) -> torch.Tensor:
        """Decide who takes part: contexts for the teacher (SDPO), advantages (GRPO), (B,)."""
        advantages = torch.cat([losses.group_advantages(torch.tensor([[r.reward for r in g]]), self.config.scale_rewards)[0] for g in groups])
        if self.config.distillation_weight > 0:
            for g in groups:
                reprompt(g, self.config, random.Random(f"{self.config.seed}/{number}/{g[0].problem.id}"))
        if self.config.distillation_weight < 1:
            for r, a in zip((r for g in groups for r in g), advantages.tolist()):
                alone = self.config.distillation_weight == 0
                r.active, r.why = a != 0 or (r.active and not alone), "all attempts of its group have the same reward" if alone and a == 0 else r.why
        return advantages

    def update(self, rollouts: list[Rollout], groups: list[list[Rollout]], advantages: torch.Tensor, number: int) -> tuple[float, dict[str, float]]:
        """Loss, gradient and one optimiser step over the active attempts, in micro-batches that change nothing."""
        c, device = self.config, self.model.device
        chosen = [i for i, r in enumerate(rollouts) if r.active]
        if not chosen:
            self.skipped_steps += 1
            return float("nan"), {"self_distillation/empty_target_batch": 1.0, "skipped": 1.0}
        weights = losses.token_weights(completion_mask([r.completion_ids for r in rollouts]), torch.tensor([r.active for r in rollouts]), c.normalize)
        home = {id(r): g for g in groups for r in g}
        total, shortened = 0.0, 0
        self.model.train()
        # rows of like length together: less padding
        chosen.sort(key=lambda i: len(rollouts[i].completion_ids))
        for start in range(0, len(chosen), c.per_device_train_batch_size):
            part = chosen[start : start + c.per_device_train_batch_size]
            rows, completions = [rollouts[i] for i in part], [rollouts[i].completion_ids for i in part]
            ids = pad_right(completions, 0, device)
            student = completion_logits(self.model, [encode_chat(self.tokenizer, r.problem.messages) for r in rows], completions, c.temperature, c.bf16)
            loss = torch.zeros((), device=device)
            if c.distillation_weight > 0:
                prompts, short = zip(*(encode_teacher(self.tokenizer, r, home[id(r)], c) for r in rows))
                with torch.no_grad():
                    teacher = completion_logits(self.teacher.model, prompts, completions, c.temperature, c.bf16)
                per_token = losses.distillation_loss(student, teacher, ids, mode=c.distillation_mode, alpha=c.distillation_alpha, top_k=c.distillation_topk,
                                                     add_tail=c.distillation_add_tail)
                shown = torch.tensor([float(bool(r.teacher_messages != r.problem.messages)) for r in rows], device=device)
                loss = loss + c.distillation_weight * (per_token * shown[:, None] * weights[part, : ids.shape[1]].to(device)).sum()
                shortened += sum(short)
            if c.distillation_weight < 1:
                per_token = losses.policy_loss(student, ids, advantages[part].to(device))
                loss = loss + (1 - c.distillation_weight) * (per_token * weights[part, : ids.shape[1]].to(device)).sum()
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm).item()
        good = torch.isfinite(torch.tensor([total, norm])).all().item()
        if good:
            for g in self.optimizer.param_groups:
                g["lr"] = c.learning_rate * min(1.0, number / (c.warmup_steps + 1))
                g["weight_decay"] = c.weight_decay
            self.optimizer.step()
            if self.teacher:
                self.teacher.update(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.bad_steps = 0 if good else self.bad_steps + 1
        return total, {"grad_norm": norm, "reprompt_shortened_fraction": shortened / len(rollouts), "not_finite": float(not good)}

    def evaluate(self, n: int = 1024, split: str = "test", seed: int = 0, role: str = "student") -> Evaluation:
        """Accuracy on `n` problems of `split`; see `Evaluation`. The weights stay as they are.

        role="teacher": how often the self-teacher itself is right. Groups are sampled from the student and reprompted
        as in training; then the teacher writes a fresh answer in the place of each active attempt, `n` attempts in all.
        """
        check_range("n", n, int, 1, 10**6)
        check_choice("role", role, ("student", "teacher"))
        c = self.config
        settings = dict(threshold=c.success_reward_threshold, max_completion_length=c.max_completion_length, seed=seed, split=split, role=role)
        if role == "teacher" and not self.teacher:
            raise ValueError("role='teacher': this run has no teacher, since distillation_weight=0 is GRPO")
        if role == "student":
            return evaluate_problems(self.model, self.tokenizer, self.task, self.task.problems(n, split=split, seed=seed), **settings)
        problems = self.task.problems(max(1, n // c.num_generations), split=split, seed=seed)
        rollouts = rollout(self.model, self.tokenizer, problems, c.num_generations, c.temperature, seed, step=-2, top_p=c.top_p,
                           max_completion_length=c.max_completion_length)
        for g in self.group(judge_rollouts(self.task, rollouts)):
            reprompt(g, c, random.Random(f"evaluate/{seed}/{g[0].problem.id}"))
        shown = [replace(r.problem, id=f"{r.problem.id}#{r.index}", messages=r.teacher_messages) for r in rollouts]
        return evaluate_problems(self.teacher.model, self.tokenizer, self.task, shown, judged_as=[r.problem for r in rollouts], **settings)


def summary(rollouts: list[Rollout], groups: list[list[Rollout]], config: SDPOConfig) -> dict[str, float]:
    """Metrics of a batch, under the names of the official code where it has them."""

    def fraction(values) -> float:
        values = list(values)
        return sum(map(bool, values)) / len(values)

    threshold = config.success_reward_threshold
    return {
        "self_distillation/success_group_fraction": fraction(any(r.reward >= threshold for r in g) for g in groups),
        "self_distillation/success_sample_fraction": fraction(r.demonstration is not None for r in rollouts),
        "self_distillation/feedback_available_fraction": fraction(r.feedback for r in rollouts),
        "self_distillation/feedback_used_fraction": fraction(r.active and r.demonstration is None and r.feedback for r in rollouts),
        "self_distillation/reprompt_sample_fraction": fraction(r.teacher_messages and r.teacher_messages != r.problem.messages for r in rollouts),
        "self_distillation/empty_target_batch": 0.0,
        "active_fraction": fraction(r.active for r in rollouts),
        "success_fraction": fraction(r.reward >= threshold for r in rollouts),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "completion_length": sum(len(r.completion_ids) for r in rollouts) / len(rollouts),
        "truncated_fraction": fraction(r.truncated for r in rollouts),
        "skipped": 0.0,
    }
