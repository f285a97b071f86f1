"""The loop: sample, judge, reprompt, score twice, one update. SDPO, GRPO, and mixtures of their losses."""

from __future__ import annotations

import math
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import fmean as mean
from typing import Any, NamedTuple

import torch

from sdpo_lab.core import losses
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.checks import check_model, check_task, unknown_names
from sdpo_lab.core.config import LIVE_FIELDS, SDPOConfig, no_policy_term, on_policy
from sdpo_lab.core.objective import Tokens, backward, chunks
from sdpo_lab.core.records import History, StepRecord, summary
from sdpo_lab.core.reprompt import encode_teacher, reprompt
from sdpo_lab.core.resilience import halved_once, interrupts_wait
from sdpo_lab.core.rollouts import (
    Rollout,
    check_rollouts,
    context_length,
    group_rollouts,
    judge_rollouts,
    rollout,
)
from sdpo_lab.core.scoring import check_scoring, completion_hidden, completion_mask, token_logits
from sdpo_lab.core.task import Task, draw_problems
from sdpo_lab.core.teachers import Teacher

#: After this many steps in a row whose loss or gradient is not finite, training stops with a diagnosis.
MAX_BAD_STEPS = 3
#: What a step decides of an attempt; given attempts start without.
UNDECIDED = dict(
    teacher_messages=[],
    shown_solution="",
    shown_feedback="",
    shown_attempt="",
    demonstration=None,
    active=False,
    why="",
)


class Update(NamedTuple):
    """One optimiser step."""

    loss: float
    grad_norm: float  #: before clipping
    shortened: int  #: attempts whose teacher was shown a shortened text
    good: bool  #: finite, and so applied


class Loop:
    """The loop of SDPO and GRPO, without anything around it: `SDPOTrainer`, which builds on it, is what users take; see there for the arguments.

    Dropout is off in both passes, where the official code leaves it on in the student's.
    """

    #: Fields that may be changed while a run is under way, through `apply`.
    LIVE_FIELDS = LIVE_FIELDS

    def __init__(
        self, model: Any, tokenizer: Any, task: Task, config: SDPOConfig | None = None
    ) -> None:
        config = SDPOConfig.preset("laptop") if config is None else config
        if not isinstance(config, SDPOConfig):
            raise TypeError(
                f"config must be an SDPOConfig, got {type(config).__name__}; SDPOConfig.preset('laptop') is a start"
            )
        check_task(task)
        check_model(model, tokenizer)
        half = {
            str(p.dtype)
            for p in model.parameters()
            if p.requires_grad and p.dtype not in (torch.float32, torch.float64)
        }
        if half:
            raise ValueError(
                f"trainable weights must be float32, these are {', '.join(half)}: small updates vanish in half precision. "
                "Use model.float() and, on a GPU, bf16=True"
            )
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, config
        self.teacher = (
            Teacher(model, config.teacher_model_kind, config.teacher_update_rate)
            if config.distillation_weight > 0
            else None
        )
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(
                "no weight of the model is trainable; call model.requires_grad_(True), or add an adapter"
            )
        check_scoring(model)
        # one kernel for all weights on a GPU; on a CPU the plain loop, which rounds as it always did
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=model.device.type == "cuda" or None,
        )
        self.history = History()
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.skipped_steps = self.bad_steps = self.optimizer_steps = self.halved = 0
        self.together = (
            config.generation_batch_size // config.num_generations
        )  # groups sampled at once: fewer give the same attempts, so no checkpoint has it
        self.lock = (
            threading.RLock()
        )  # a step, an evaluation and a change never overlap, whatever thread they come from

    def apply(self, **fields: Any) -> None:
        """Change live fields from the next step on; checked at once, logged in `history.changes`.

        A change that does nothing in this combination is a warning. Where `distillation_weight` falls to 0 the teacher is
        given up; where it rises from 0, and where `teacher_model_kind` becomes another, a teacher starts from the student's weights of that moment.
        """
        if not fields:
            return
        unknown_names("a running trainer's live fields", fields, list(self.LIVE_FIELDS))
        with self.lock:
            self.config = c = self.config.replace(live=True, **fields)
            if c.distillation_weight == 0:
                self.teacher = None
            elif self.teacher and self.teacher.kind == c.teacher_model_kind:
                self.teacher.rate = c.teacher_update_rate
            else:
                self.teacher = Teacher(self.model, c.teacher_model_kind, c.teacher_update_rate)
            self.history.changes.setdefault(len(self.history) + 1, {}).update(fields)

    def __iter__(self) -> Iterator[StepRecord]:
        while True:
            yield self.step()

    def step(self, rollouts: list[Rollout] | None = None) -> StepRecord:
        """One step, on fresh attempts or on given ones: whole groups, attempts at the same problem side by side.

        Given attempts are copied; those without a reward are judged. Raises TypeError or ValueError, and has changed nothing, for one that no step can use:
        token ids that the model does not have, a reward that is not finite, a text that is none (`rollouts.check_rollouts`). A step in which no attempt is active changes
        nothing and is counted in `skipped_steps`. Raises FloatingPointError after `MAX_BAD_STEPS` steps in a row with a
        loss or gradient that is not finite; such a step is not applied. Whatever else is raised on the way, the history
        is that of the last whole step, and the weights are those of the last whole optimiser step. An interrupt from the keyboard
        during the update is raised at its end, when the step is whole (a second one at once); any earlier, the step has changed nothing.
        """
        with self.lock:
            began, number, given = time.perf_counter(), len(self.history) + 1, rollouts is not None
            rollouts = check_rollouts(rollouts if given else self.sample(number), self.vocabulary)
            rollouts = [replace(r, **UNDECIDED) for r in rollouts] if given else rollouts
            groups = group_rollouts(judge_rollouts(self.task, rollouts))
            advantages = self.prepare(groups, number)
            with interrupts_wait():
                loss, metrics = self.update(rollouts, advantages)
                reward = sum(r.reward for r in rollouts) / len(rollouts)
                record = StepRecord(
                    number,
                    reward,
                    loss,
                    summary(rollouts, groups, self.config) | metrics,
                    rollouts,
                    time.perf_counter() - began,
                )
                self.history.append(record)
            self.step_done()
        if self.bad_steps >= MAX_BAD_STEPS:
            raise FloatingPointError(
                f"the loss or its gradient was not finite in {self.bad_steps} steps in a row, up to step {number}; none was applied. "
                f"Usually the learning rate ({self.config.learning_rate:g}) is too high: start again from the last good "
                f"weights (resume() an earlier checkpoint) with a third of it, apply(learning_rate={self.config.learning_rate / 3:.2g})"
            )
        return record

    def step_done(self) -> None:
        """Called at the end of every whole step, on the thread that took it. Nothing is done here: `SDPOTrainer` saves itself."""

    def sample(self, number: int) -> list[Rollout]:
        """Fresh attempts of step `number`, not judged yet."""
        c = self.config
        problems = draw_problems(
            self.task,
            c.generation_batch_size // c.num_generations,
            "train",
            c.seed * 1_000_003 + number,
        )

        def draw() -> list[Rollout]:
            return rollout(
                self.model,
                self.tokenizer,
                problems,
                c.num_generations,
                c.temperature,
                c.seed,
                step=number,
                batch_size=self.together * c.num_generations,
                max_completion_length=c.max_completion_length,
                top_p=c.top_p,
                bf16=c.bf16,
            )

        def halve(groups: int) -> None:
            self.together = groups

        return halved_once(
            draw,
            min(self.together, len(problems)),
            halve,
            self.together < len(problems),
            "groups sampled together",
            "Lower num_generations or max_completion_length, or take a smaller model",
        )

    def prepare(self, groups: list[list[Rollout]], number: int) -> torch.Tensor:
        """Decide who takes part: contexts for the teacher (SDPO), advantages (GRPO), (B,)."""
        c = self.config
        advantages = torch.cat(
            [
                losses.group_advantages(
                    torch.tensor([[r.reward for r in g]], dtype=torch.float64), c.scale_rewards
                )[0]
                for g in groups
            ]
        )
        for g in groups:
            if c.distillation_weight > 0:
                reprompt(g, c, random.Random(f"{c.seed}/{number}/{g[0].problem.id}"))
        for r, a in zip((r for g in groups for r in g), advantages.tolist()):
            if not no_policy_term(c) and a != 0 and r.completion_ids:
                r.active, r.why = True, ""
            elif c.distillation_weight == 0:
                r.why = "all attempts of its group have the same reward"
        return advantages

    def token_weights(self, rollouts: list[Rollout]) -> torch.Tensor:
        """How much every token of the attempts of one optimiser step counts in the loss, (B, T)."""
        return losses.token_weights(
            completion_mask([r.completion_ids for r in rollouts]),
            torch.tensor([r.active for r in rollouts]),
            self.config.normalize,
        )

    def update(
        self, rollouts: list[Rollout], advantages: torch.Tensor
    ) -> tuple[float, dict[str, float]]:
        """The optimiser steps of one batch, each on an equal share of the attempts; then the teacher follows."""
        c, share = self.config, len(rollouts) // self.config.steps_per_generation
        if share * c.steps_per_generation != len(rollouts):
            raise ValueError(
                f"{len(rollouts)} rollouts cannot be shared among steps_per_generation={c.steps_per_generation} optimiser steps; give a multiple"
            )
        self.model.eval()  # no dropout: the attempts were sampled without, and both roles must be the same function
        prompts = {r.problem.id: encode_chat(self.tokenizer, r.problem.messages) for r in rollouts}
        old = {} if on_policy(c) else self.afford(self.score, rollouts, prompts)
        done: list[Update] = []
        for start in [*range(0, len(rollouts), share)] * c.num_iterations:
            part = slice(start, start + share)
            if any(r.active for r in rollouts[part]):
                done.append(self.optimizer_step(rollouts[part], advantages[part], prompts, old))
                if self.teacher and done[-1].good and c.teacher_sync == "optimizer_step":
                    self.teacher.update()
        if not done:
            self.skipped_steps += 1
            return math.nan, {"self_distillation/empty_target_batch": 1.0, "skipped": 1.0}
        good, shortened = sum(d.good for d in done), sum(d.shortened for d in done)
        if shortened:
            warnings.warn(
                f"teacher prompts were longer than max_reprompt_len={c.max_reprompt_len}; the solutions or feedback in them were shortened (how many: "
                "the metric reprompt_shortened_fraction)",
                stacklevel=3,
            )
        if self.teacher and good and c.teacher_sync == "rollout_batch":
            self.teacher.update()
        self.bad_steps = 0 if good else self.bad_steps + 1
        return mean(d.loss for d in done), {
            "grad_norm": mean(d.grad_norm for d in done),
            "not_finite": 1 - good / len(done),
            "optimizer_steps": float(good),
            "reprompt_shortened_fraction": shortened / len(rollouts) / c.num_iterations,
        }

    def afford(self, work: Callable, rollouts: list[Rollout], *arguments: Any) -> Any:
        """work(rollouts, ...), the part of a step that reads attempts and changes no weight. Where memory runs out it is done again with
        micro-batches of half the size, which stay for the rest of the run; that happens once, the second time raises."""

        def halve(size: int) -> None:
            self.halved = 1
            self.apply(per_device_train_batch_size=size)

        return halved_once(
            lambda: work(rollouts, *arguments),
            max(map(len, self.micro_batches(rollouts)), default=1),
            halve,
            bool(self.halved),
            "attempts in a micro-batch (per_device_train_batch_size)",
            "Lower per_device_train_batch_size (apply() can, and the run goes on), "
            "max_completion_length, max_reprompt_len or distillation_topk, or train an adapter (lora=)",
        )

    @torch.no_grad()
    def score(
        self, rollouts: list[Rollout], prompts: dict[str, list[int]]
    ) -> dict[int, torch.Tensor]:
        """log p of the tokens of every active attempt before the batch's first optimiser step, by the attempt's id()."""
        c, found = self.config, {}
        for rows in self.micro_batches(rollouts):
            completions = [r.completion_ids for r in rows]
            hidden = completion_hidden(
                self.model, [prompts[r.problem.id] for r in rows], completions, c.bf16
            )
            ids = torch.tensor([i for ids in completions for i in ids], device=hidden.device)
            scores = torch.cat(
                [
                    losses.token_log_probs(
                        token_logits(self.model, hidden[part], c.temperature, c.bf16), ids[part]
                    )
                    for part in chunks(len(ids), self.vocabulary)
                ]
            )
            found |= {id(r): s for r, s in zip(rows, scores.split([len(x) for x in completions]))}
        return found

    def micro_batches(self, rollouts: list[Rollout]) -> list[list[Rollout]]:
        """The active attempts in groups for one forward and backward, those of like length together: less padding. In a mixture with GRPO
        those whose teacher is shown nothing are by themselves, and it does not read them."""
        size, found = self.config.per_device_train_batch_size, []
        for informed in (True, False):
            chosen = sorted(
                (r for r in rollouts if r.active and r.shown == informed),
                key=lambda r: len(r.completion_ids),
            )
            found += [chosen[i : i + size] for i in range(0, len(chosen), size)]
        return found

    def gradient(
        self,
        rollouts: list[Rollout],
        advantages: torch.Tensor,
        prompts: dict[str, list[int]],
        old: dict[int, torch.Tensor],
    ) -> tuple[float, int]:
        """The gradient over the active attempts, in micro-batches that change nothing; (the loss, attempts whose teacher was shown a shortened text)."""
        c, student = (
            self.config,
            lambda hidden: token_logits(self.model, hidden, c.temperature, c.bf16),
        )
        weights = self.token_weights(rollouts)
        place = {id(r): i for i, r in enumerate(rollouts)}
        self.optimizer.zero_grad(set_to_none=True)  # a try that was cut short may have left some
        total, shortened = 0.0, 0
        for rows in self.micro_batches(rollouts):
            completions, at, teacher = (
                [r.completion_ids for r in rows],
                [place[id(r)] for r in rows],
                None,
            )
            hidden = completion_hidden(
                self.model, [prompts[r.problem.id] for r in rows], completions, c.bf16
            )
            if self.teacher and rows[0].shown:
                teacher_prompts, short = zip(
                    *(
                        encode_teacher(
                            self.tokenizer,
                            r,
                            c,
                            context_length(self.model),
                        )
                        for r in rows
                    )
                )
                teacher, shortened = (
                    self.teacher.read(teacher_prompts, completions, c.temperature, c.bf16),
                    shortened + sum(short),
                )
            tokens = Tokens.of(
                rows,
                torch.cat([weights[i, : len(x)] for i, x in zip(at, completions)]),
                advantages[at],
                old,
                hidden,
            )
            total += backward(c, hidden, student, teacher, tokens, self.vocabulary).item()
        return total, shortened

    def optimizer_step(
        self,
        rollouts: list[Rollout],
        advantages: torch.Tensor,
        prompts: dict[str, list[int]],
        old: dict[int, torch.Tensor],
    ) -> Update:
        """One step of the optimiser along the gradient, where it is finite."""
        total, shortened = self.afford(self.gradient, rollouts, advantages, prompts, old)
        c = self.config
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm).item()
        good = math.isfinite(total) and math.isfinite(norm)
        if good:
            self.optimizer_steps += 1
            for g in self.optimizer.param_groups:
                g["lr"], g["weight_decay"] = (
                    c.learning_rate * min(1.0, self.optimizer_steps / (c.warmup_steps + 1)),
                    c.weight_decay,
                )
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(total, norm, shortened, good)
