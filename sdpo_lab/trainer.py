"""The loop: sample, judge, reprompt, score twice, one update. SDPO, GRPO, and mixtures of their losses."""

from __future__ import annotations

import math
import random
import threading
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
from sdpo_lab.scoring import check_scoring, completion_logits, completion_mask, pad_right
from sdpo_lab.tasks.base import Task, draw_problems
from sdpo_lab.teachers import Teacher

#: After this many steps in a row whose loss or gradient is not finite, training stops with a diagnosis.
MAX_BAD_STEPS = 3
#: What a step decides of an attempt; given attempts start without.
UNDECIDED = dict(teacher_messages=[], shown_solution="", shown_feedback="", demonstration=None, active=False, why="")


class SDPOTrainer:
    """Trains `model`, in place, on `task`. An endless iterator of `StepRecord`s; stop any time, go on any time.

    model      a causal language model with float32 weights
    tokenizer  its tokenizer, with a chat template
    task       anything with `problems(n, split, seed)` and `judge(problem, completion)`
    config     SDPOConfig; the preset "laptop" when None. `distillation_weight=0` is GRPO

    Dropout is off in both passes, where the official code and TRL leave it on in the student's.
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
        if not parameters:
            raise ValueError("no weight of the model is trainable; call model.requires_grad_(True), or add an adapter")
        check_scoring(model)
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.history = History()
        self.skipped_steps = self.bad_steps = 0
        self.lock = threading.RLock()  # a step, an evaluation and a change never overlap, whatever thread they come from

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

        A change that does nothing in this combination is a warning. Where `distillation_weight` falls to 0 the teacher is
        given up; where it rises from 0, a teacher starts from the weights of that moment.
        """
        if not fields:
            return
        unknown_names("a running trainer's live fields", fields, list(self.LIVE_FIELDS))
        with self.lock:
            self.config = c = self.config.replace(live=True, **fields)
            if c.distillation_weight == 0:
                self.teacher = None
            else:
                self.teacher = self.teacher or Teacher(self.model, c.teacher_model_kind, c.teacher_update_rate)
                self.teacher.rate = c.teacher_update_rate
            self.history.changes.setdefault(len(self.history) + 1, {}).update(fields)

    def step(self, rollouts: list[Rollout] | None = None) -> StepRecord:
        """One step, on fresh attempts or on given ones: whole groups, attempts at the same problem side by side.

        Given attempts are copied; those without a reward are judged. A step in which no attempt is active changes
        nothing and is counted in `skipped_steps`. Raises FloatingPointError after `MAX_BAD_STEPS` steps in a row with a
        loss or gradient that is not finite; such a step is not applied. Whatever else is raised on the way, the weights
        and the history are those of the last whole step.
        """
        with self.lock:
            began, number = time.perf_counter(), len(self.history) + 1
            rollouts = self.sample(number) if rollouts is None else [replace(r, **UNDECIDED) for r in rollouts]
            groups = group_rollouts(judge_rollouts(self.task, rollouts))
            advantages = self.prepare(groups, number)
            loss, metrics = self.update(rollouts, advantages, number)
            reward = sum(r.reward for r in rollouts) / len(rollouts)
            record = StepRecord(number, reward, loss, summary(rollouts, groups, self.config) | metrics, rollouts, time.perf_counter() - began)
            self.history.records.append(record)
        if self.bad_steps >= MAX_BAD_STEPS:
            raise FloatingPointError(f"the loss or its gradient was not finite in {self.bad_steps} steps in a row, up to step {number}; none was applied. "
                                     f"Usually the learning rate ({self.config.learning_rate:g}) is too high: start again from the last good "
                                     "weights with a third of it")
        return record

    def sample(self, number: int) -> list[Rollout]:
        """Fresh attempts of step `number`, not judged yet."""
        c = self.config
        problems = draw_problems(self.task, c.generation_batch_size // c.num_generations, "train", c.seed * 1_000_003 + number)
        return rollout(self.model, self.tokenizer, problems, c.num_generations, c.temperature, c.seed, step=number,
                       max_completion_length=c.max_completion_length, top_p=c.top_p)

    def prepare(self, groups: list[list[Rollout]], number: int) -> torch.Tensor:
        """Decide who takes part: contexts for the teacher (SDPO), advantages (GRPO), (B,)."""
        c = self.config
        advantages = torch.cat([losses.group_advantages(torch.tensor([[r.reward for r in g]]), c.scale_rewards)[0] for g in groups])
        for g in groups:
            if c.distillation_weight > 0:
                reprompt(g, c, random.Random(f"{c.seed}/{number}/{g[0].problem.id}"))
        for r, a in zip((r for g in groups for r in g), advantages.tolist()):
            if c.distillation_weight < 1 and a != 0 and r.completion_ids:
                r.active, r.why = True, ""
            elif c.distillation_weight == 0:
                r.why = "all attempts of its group have the same reward"
        return advantages

    def update(self, rollouts: list[Rollout], advantages: torch.Tensor, number: int) -> tuple[float, dict[str, float]]:
        """Loss, gradient and one optimiser step over the active attempts, in micro-batches that change nothing."""
        c, device = self.config, self.model.device
        chosen = [i for i, r in enumerate(rollouts) if r.active]
        if not chosen:
            self.skipped_steps += 1
            return float("nan"), {"self_distillation/empty_target_batch": 1.0, "skipped": 1.0}
        chosen.sort(key=lambda i: len(rollouts[i].completion_ids))  # rows of like length together: less padding
        weights = losses.token_weights(completion_mask([r.completion_ids for r in rollouts]), torch.tensor([r.active for r in rollouts]), c.normalize)
        prompts = {r.problem.id: encode_chat(self.tokenizer, r.problem.messages) for r in rollouts}
        self.optimizer.zero_grad(set_to_none=True)  # an interrupted step may have left some
        self.model.eval()  # no dropout: the attempts were sampled without, and both roles must be the same function
        total, shortened = 0.0, 0
        for start in range(0, len(chosen), c.per_device_train_batch_size):
            part = chosen[start : start + c.per_device_train_batch_size]
            rows, completions = [rollouts[i] for i in part], [rollouts[i].completion_ids for i in part]
            ids = pad_right(completions, 0, device)
            weight = weights[part, : ids.shape[1]].to(device)
            student = completion_logits(self.model, [prompts[r.problem.id] for r in rows], completions, c.temperature, c.bf16)
            loss = torch.zeros((), device=device)
            if c.distillation_weight > 0:
                teacher_prompts, short = zip(*(encode_teacher(self.tokenizer, r, c) for r in rows))
                with torch.no_grad():
                    teacher = completion_logits(self.teacher.model, teacher_prompts, completions, c.temperature, c.bf16)
                per_token = losses.distillation_loss(student, teacher, ids, mode=c.distillation_mode, alpha=c.distillation_alpha, top_k=c.distillation_topk,
                                                     add_tail=c.distillation_add_tail)
                shown = torch.tensor([float(is_shown(r)) for r in rows], device=device)[:, None]
                loss = loss + c.distillation_weight * (per_token * shown * weight).sum()
                shortened += sum(short)
            if c.distillation_weight < 1:
                loss = loss + (1 - c.distillation_weight) * (losses.policy_loss(student, ids, advantages[part].to(device)) * weight).sum()
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm).item()
        good = math.isfinite(total) and math.isfinite(norm)
        if good:
            for g in self.optimizer.param_groups:
                g["lr"], g["weight_decay"] = c.learning_rate * min(1.0, number / (c.warmup_steps + 1)), c.weight_decay
            self.optimizer.step()
            if self.teacher:
                self.teacher.update(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.bad_steps = 0 if good else self.bad_steps + 1
        return total, {"grad_norm": norm, "reprompt_shortened_fraction": shortened / len(rollouts), "not_finite": float(not good)}

    def evaluate(self, n: int = 1024, split: str = "test", seed: int = 0, role: str = "student") -> Evaluation:
        """Accuracy on `n` problems of `split`; see `Evaluation`. The weights stay as they are.

        role="teacher": how often the self-teacher itself is right. Groups are sampled from the student and reprompted
        as in training; then the teacher writes a fresh answer in the place of each attempt, also of those it is shown
        nothing for, `n` answers in all.
        """
        check_range("n", n, int, 1, 10**6)
        check_choice("split", split, ("train", "test"))
        check_choice("role", role, ("student", "teacher"))
        c = self.config
        settings = dict(threshold=c.success_reward_threshold, max_completion_length=c.max_completion_length, seed=seed, split=split, role=role)
        if role == "teacher" and not self.teacher:
            raise ValueError("role='teacher': this run has no teacher, since distillation_weight=0 is GRPO")
        with self.lock:
            if role == "student":
                return evaluate_problems(self.model, self.tokenizer, self.task, draw_problems(self.task, n, split, seed), **settings)
            problems = draw_problems(self.task, -(-n // c.num_generations), split, seed)
            rollouts = rollout(self.model, self.tokenizer, problems, c.num_generations, c.temperature, seed, step=-2, top_p=c.top_p,
                               max_completion_length=c.max_completion_length)
            for g in group_rollouts(judge_rollouts(self.task, rollouts)):
                reprompt(g, c, random.Random(f"evaluate/{seed}/{g[0].problem.id}"))
            for r in rollouts[:n]:
                encode_teacher(self.tokenizer, r, c)  # shortens what is shown where it is too long
            shown = [replace(r.problem, id=f"{r.problem.id}#{r.index}", messages=r.teacher_messages) for r in rollouts[:n]]
            return evaluate_problems(self.teacher.model, self.tokenizer, self.task, shown, judged_as=[r.problem for r in rollouts[:n]], **settings)


def is_shown(rollout: Rollout) -> bool:
    """Does its teacher see more than the question?"""
    return bool(rollout.shown_solution or rollout.shown_feedback)


def group_rollouts(rollouts: list[Rollout]) -> list[list[Rollout]]:
    """Attempts at the same problem, in order. Raises ValueError when groups are torn apart or an attempt is there twice."""
    groups: dict[str, list[Rollout]] = {}
    for r in rollouts:
        groups.setdefault(r.problem.id, []).append(r)
    if not groups or [id(r) for g in groups.values() for r in g] != [id(r) for r in rollouts]:
        raise ValueError("rollouts must be one or more whole groups, attempts at the same problem side by side")
    for problem_id, g in groups.items():
        if len({r.index for r in g}) < len(g):
            raise ValueError(f"two rollouts of problem {problem_id!r} have the same index; number the attempts at a problem from 0, and give every "
                             "problem an id of its own")
    return list(groups.values())


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
        "self_distillation/feedback_used_fraction": fraction(r.shown_feedback for r in rollouts),
        "self_distillation/reprompt_sample_fraction": fraction(is_shown(r) for r in rollouts),
        "self_distillation/empty_target_batch": 0.0,
        "active_fraction": fraction(r.active for r in rollouts),
        "success_fraction": fraction(r.reward >= threshold for r in rollouts),
        "entropy": sum(r.entropy for r in rollouts) / len(rollouts),
        "completion_length": sum(len(r.completion_ids) for r in rollouts) / len(rollouts),
        "truncated_fraction": fraction(r.truncated for r in rollouts),
        "skipped": 0.0, "not_finite": 0.0, "grad_norm": math.nan, "reprompt_shortened_fraction": 0.0,  # as of a skipped step
    }
