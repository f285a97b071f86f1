"""The loop of SDPO and GRPO. `Loop.step` is one step, in eight stages:

1. problems           of the task
2. attempts           a group at each problem, sampled from the student
3. verdicts           a reward, and feedback in words
4. two prompts        the student's question; the same with what the teacher is shown
5. two scorings       of the same tokens, by the student and by the slow teacher
6. loss               from the two, token by token (SDPO); from the reward (GRPO); or both
7. update             one or several optimiser steps
8. slow teacher       follows the student

Compared with a GRPO trainer: no reference model and no KL penalty; new are the teacher's prompt
(4), the teacher's scoring (5), the distillation loss (6) and the slow teacher (8).

Letters of shapes, here and in the other modules of the core:

P  problems                     B  attempts of an optimiser step
G  attempts at one problem      b  attempts of a micro-batch
R  P * G, attempts sampled      T  tokens of the longest attempt
L  columns with padding         N  completion tokens of a micro-batch, end to end
H  width of a hidden state      C  those of a chunk
V  vocabulary
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdpo_lab.core import losses
from sdpo_lab.core.batch import Batch, Update
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.checks import (
    check_model,
    check_task,
    check_trainable,
    unknown_names,
    warn_caller,
)
from sdpo_lab.core.config import LIVE_FIELDS, SDPOConfig, no_policy_term, on_policy
from sdpo_lab.core.objective import Tokens, chunks, loss_and_backward
from sdpo_lab.core.records import History, StepRecord, mean_reward, summary, update_metrics
from sdpo_lab.core.reprompt import encode_teacher, reprompt
from sdpo_lab.core.resilience import (
    interrupts_wait,
    retry_with_fewer_groups,
    retry_with_smaller_micro_batch,
)
from sdpo_lab.core.rollouts import (
    Rollout,
    check_rollouts,
    group_rollouts,
    judge_rollouts,
    sample_rollouts,
)
from sdpo_lab.core.sampling import SamplingParams, context_length
from sdpo_lab.core.scoring import check_scoring, completion_hidden, completion_mask, token_logits
from sdpo_lab.core.task import Problem, Task, draw_problems
from sdpo_lab.core.teachers import Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: After this many steps none of whose optimiser steps was finite, training stops; skipped steps
#: between them do not count.
MAX_BAD_STEPS = 3


class Loop:
    """The loop without anything around it. `SDPOTrainer`, which builds on it, is what users take;
    its docstring has the arguments.

    Dropout is off in both passes, where the official code leaves it on in the student's.
    """

    #: Fields that may be changed while a run is under way, through `apply`.
    LIVE_FIELDS = LIVE_FIELDS

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        config: SDPOConfig | None = None,
    ) -> None:
        c = SDPOConfig.preset("laptop") if config is None else config
        if not isinstance(c, SDPOConfig):
            raise TypeError(
                f"config must be an SDPOConfig, got {type(c).__name__}; "
                "SDPOConfig.preset('laptop') is a start"
            )
        check_task(task)
        check_model(model, tokenizer)
        check_trainable(model)
        check_scoring(model)
        self.model, self.tokenizer, self.task, self.config = model, tokenizer, task, c
        self.teacher: Teacher | None = None
        if c.distillation_weight > 0:
            self.teacher = Teacher(model, c.teacher_model_kind, c.teacher_update_rate)
        # fused, one kernel for all weights, on a GPU; None keeps torch's default on a CPU, so that
        # recorded runs there stay the same to the last bit
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=c.learning_rate,
            weight_decay=c.weight_decay,
            fused=model.device.type == "cuda" or None,
        )
        self.history = History()
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.skipped_steps = self.bad_steps = self.optimizer_steps = 0
        # 1 once memory ran out and micro-batches were halved: that is done once a run, and saved
        self.halved = 0
        # lowered when sampling runs out of memory; attempts do not depend on it, so it is not saved
        self.groups_at_once = c.generation_batch_size // c.num_generations
        # a step, an evaluation and a change never overlap, whatever thread they come from
        self.lock = threading.RLock()

    def apply(self, **fields: Any) -> None:
        """Change live fields from the next step on; checked at once, logged in `history.changes`.

        A change that does nothing in this combination is a warning. Where `distillation_weight`
        falls to 0 the teacher is given up. Where it rises from 0, and where `teacher_model_kind`
        becomes another, a teacher starts from the student's weights of that moment.
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

    # -- one step ---------------------------------------------------------------------------------

    def step(self, rollouts: list[Rollout] | None = None) -> StepRecord:
        """One step, on fresh attempts or on given ones.

        Given attempts are whole groups, those at the same problem side by side. They are copied,
        and those without a reward are judged. Raises TypeError or ValueError, and has changed
        nothing, for one that no step can use: token ids that the model does not have, a reward that
        is not finite, a text that is not a string (`rollouts.check_rollouts`).

        A step in which no attempt is active changes no weight and is counted in `skipped_steps`.
        Raises FloatingPointError after `MAX_BAD_STEPS` steps with a loss or gradient that is not
        finite, skipped ones between them left aside; such a step is not applied. Whatever else is
        raised on the way, the history is that of the last whole step, and the weights are those of
        the last whole optimiser step. An interrupt from the keyboard during the update is raised at
        its end, when the step is whole (a second one at once); any earlier, the step has changed
        nothing.
        """
        with self.lock:
            began, number = time.perf_counter(), len(self.history) + 1
            # 1. problems, 2. attempts: a group at each problem, or those that were given
            rollouts = self.attempts(number, rollouts)
            # 3. verdicts (rollouts.judge_rollouts): a reward each, and in words what was wrong
            # `groups` hold the same Rollout objects; stages 3 and 4 write into them
            groups = group_rollouts(judge_rollouts(self.task, rollouts))
            # 4. two prompts: the teacher is shown a sibling's success or the feedback (SDPO)
            self.build_teacher_contexts(groups, number)
            advantages = self.compute_advantages(groups)  # from the rewards (GRPO)
            self.activate_rewarded(groups, advantages)
            with interrupts_wait():
                # 5. two scorings, 6. loss, 7. update, 8. slow teacher
                loss, changed = self.update(rollouts, advantages)
                # the record, of attempts that were sampled before the update
                metrics = summary(rollouts, groups, self.config) | changed
                reward = mean_reward(rollouts)
                seconds = time.perf_counter() - began
                record = StepRecord(number, reward, loss, metrics, rollouts, seconds)
                self.history.append(record)
            self.step_done()
        self.stop_when_diverged(record)
        return record

    def step_done(self) -> None:
        """Called at the end of every whole step, on its thread. `SDPOTrainer` saves itself here."""

    def stop_when_diverged(self, record: StepRecord) -> None:
        if self.bad_steps < MAX_BAD_STEPS or record.metrics["skipped"]:
            return
        rate = self.config.learning_rate
        raise FloatingPointError(
            f"the loss or its gradient was not finite in {self.bad_steps} steps in a row, up to "
            f"step {len(self.history)}; none was applied. Usually the learning rate ({rate:g}) is "
            "too high: start again from the last good weights (resume() an earlier checkpoint) "
            f"with a third of it, apply(learning_rate={rate / 3:.2g})"
        )

    # -- 1. problems, 2. attempts -----------------------------------------------------------------

    def sample(self, number: int) -> list[Rollout]:
        """Fresh attempts of step `number`, not judged yet."""
        c = self.config
        count = c.generation_batch_size // c.num_generations
        problems = draw_problems(self.task, count, "train", seed=c.seed * 1_000_003 + number)
        return self.sample_groups(problems, number)

    @retry_with_fewer_groups
    def sample_groups(self, problems: list[Problem], number: int) -> list[Rollout]:
        c = self.config
        return sample_rollouts(
            self.model,
            self.tokenizer,
            problems,
            SamplingParams(c.temperature, c.top_p, c.max_completion_length, c.bf16),
            num_generations=c.num_generations,
            batch_size=self.groups_at_once * c.num_generations,
            seed=c.seed,
            step=number,
        )

    def attempts(self, number: int, given: list[Rollout] | None) -> list[Rollout]:
        """Fresh attempts, or copies of given ones; those `Loop` has not sampled are checked."""
        if given is not None:
            return [r.undecided() for r in check_rollouts(given, self.vocabulary)]
        sampled = self.sample(number)
        ours = type(self).sample is Loop.sample
        return sampled if ours else check_rollouts(sampled, self.vocabulary)

    # -- 4. two prompts; GRPO's advantages --------------------------------------------------------

    def build_teacher_contexts(self, groups: list[list[Rollout]], number: int) -> None:
        """Decide what the teacher of each attempt is shown. With something to show it is active."""
        c = self.config
        if c.distillation_weight == 0:
            return
        for group in groups:
            rng = random.Random(f"{c.seed}/{number}/{group[0].problem.id}")
            reprompt(group, c, rng)

    def compute_advantages(self, groups: list[list[Rollout]]) -> Tensor:
        """GRPO's advantage of each attempt, in the order of the groups, (B,)."""
        of_groups = []
        for group in groups:
            rewards = torch.tensor([[r.reward for r in group]], dtype=torch.float64)  # (1, G)
            of_groups.append(losses.group_advantages(rewards, self.config.scale_rewards)[0])
        return torch.cat(of_groups)

    def activate_rewarded(self, groups: list[list[Rollout]], advantages: Tensor) -> None:
        """Where GRPO's part counts, an attempt whose advantage is not 0 is active, shown or not."""
        c = self.config
        rollouts = [r for group in groups for r in group]
        for r, advantage in zip(rollouts, advantages.tolist()):
            if advantage != 0 and r.completion_ids and not no_policy_term(c):
                r.active, r.why = True, ""
            elif c.distillation_weight == 0:
                same = "all attempts of its group have the same reward"
                r.why = same if r.completion_ids else "it is empty"

    def encode(self, rollouts: list[Rollout], advantages: Tensor) -> tuple[Batch, int]:
        """(the attempts with their two prompts as token ids, how many teacher prompts were cut)."""
        prompt_of = {r.problem.id: r.problem.messages for r in rollouts}
        ids_of = {key: encode_chat(self.tokenizer, chat) for key, chat in prompt_of.items()}
        context = context_length(self.model)
        teacher_prompts, shortened = [], 0
        for r in rollouts:
            ids: list[int] = []
            if self.teacher and r.active and r.shown:
                ids, cut = encode_teacher(self.tokenizer, r, self.config, context)
                shortened += cut
            teacher_prompts.append(ids)
        if shortened:
            most = self.config.max_reprompt_len
            warn_caller(
                f"teacher prompts did not fit (max_reprompt_len={most}, the model's context="
                f"{context}); the solutions or feedback in them were shortened (how many: the "
                "metric reprompt_shortened_fraction)"
            )
        prompts = [ids_of[r.problem.id] for r in rollouts]
        return Batch(rollouts, prompts, teacher_prompts, advantages), shortened

    # -- 5. two scorings, 6. loss, 7. update, 8. slow teacher -------------------------------------

    def update(self, rollouts: list[Rollout], advantages: Tensor) -> tuple[float, dict[str, float]]:
        """(loss, the metrics that it changed) of the optimiser steps of one batch, each on an equal
        share of it.
        """
        c = self.config
        size, rest = divmod(len(rollouts), c.steps_per_generation)
        if rest:
            raise ValueError(
                f"{len(rollouts)} rollouts cannot be shared among steps_per_generation="
                f"{c.steps_per_generation} optimiser steps; give a multiple"
            )
        # no dropout: the attempts were sampled without, and both roles must be the same function
        self.model.eval()
        batch, shortened = self.encode(rollouts, advantages)
        # from the second optimiser step on, the student is no longer the one that sampled
        if not on_policy(c):
            batch = replace(batch, old_log_probs=self.old_log_probs(batch))
        updates: list[Update] = []
        for first in [*range(0, len(rollouts), size)] * c.num_iterations:
            part = batch.select(range(first, first + size))
            if any(r.active for r in part.rollouts):
                # 5. two scorings, 6. loss, 7. update: see micro_batch_gradient
                updates.append(self.optimizer_step(part))
                # 8. slow teacher: here, or once a batch
                if self.teacher and c.teacher_sync == "optimizer_step" and updates[-1].finite:
                    self.teacher.update()
        if not updates:
            self.skipped_steps += 1
            return math.nan, {}
        applied = any(update.finite for update in updates)
        if self.teacher and c.teacher_sync == "rollout_batch" and applied:
            self.teacher.update()
        self.bad_steps = 0 if applied else self.bad_steps + 1
        loss = fmean(update.loss for update in updates)
        return loss, update_metrics(updates, shortened, len(rollouts))

    def optimizer_step(self, batch: Batch) -> Update:
        """7. One step of the optimiser along the gradient, where it is finite."""
        c = self.config
        loss = self.gradient(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.max_grad_norm).item()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            self.optimizer_steps += 1
            # the first of them takes 1 / (warmup_steps + 1) of the rate
            warm_up = min(1.0, self.optimizer_steps / (c.warmup_steps + 1))
            for group in self.optimizer.param_groups:
                group["lr"] = c.learning_rate * warm_up
                group["weight_decay"] = c.weight_decay
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(loss, norm, finite)

    @retry_with_smaller_micro_batch
    def gradient(self, batch: Batch) -> float:
        """The loss, its gradient added up in micro-batches. How they are cut changes neither."""
        weights = self.token_weights(batch.rollouts)  # (B, T)
        self.optimizer.zero_grad(set_to_none=True)  # a try that was cut short may have left some
        loss = 0.0
        for places in batch.micro_batches(self.config.per_device_train_batch_size):
            loss += self.micro_batch_gradient(batch.select(places), weights[places])
        return loss

    def micro_batch_gradient(self, batch: Batch, weights: Tensor) -> float:
        """One forward and backward; `weights` (b, T) of the tokens are those of the whole batch."""
        c = self.config
        # 5. two scorings of the same tokens, each after its own prompt: hidden states now, logits a
        # chunk at a time, so (N, V) never exists
        hidden = completion_hidden(self.model, batch.prompts, batch.completions, c.bf16)  # (N, H)
        student_logits_of = partial(
            token_logits, self.model, temperature=c.temperature, bf16=c.bf16
        )
        teacher_logits_of = None
        if self.teacher and batch.rollouts[0].shown:  # and so is every other of a micro-batch
            teacher_logits_of = self.teacher.read(
                batch.teacher_prompts, batch.completions, c.temperature, c.bf16
            )
        # 6. the loss of every token, and its gradient
        tokens = Tokens.of(
            batch.rollouts,
            torch.cat([row[: len(ids)] for row, ids in zip(weights, batch.completions)]),
            batch.group_advantages,
            batch.old_log_probs,
            hidden,
        )
        loss = loss_and_backward(
            c, hidden, student_logits_of, teacher_logits_of, tokens, self.vocabulary
        )
        return loss.item()

    def token_weights(self, rollouts: list[Rollout]) -> Tensor:
        """How much every token counts in the loss of one optimiser step, (B, T)."""
        return losses.token_weights(
            completion_mask([r.completion_ids for r in rollouts]),
            torch.tensor([r.active for r in rollouts]),
            self.config.normalize,
        )

    @retry_with_smaller_micro_batch
    @torch.no_grad()
    def old_log_probs(self, batch: Batch) -> list[Tensor]:
        """log p of the tokens of each active attempt before the first optimiser step, (T,) each."""
        c = self.config
        found = [torch.empty(0)] * len(batch.rollouts)
        for places in batch.micro_batches(c.per_device_train_batch_size):
            rows = batch.select(places)
            hidden = completion_hidden(self.model, rows.prompts, rows.completions, c.bf16)
            ids = torch.tensor([i for row in rows.completions for i in row], device=hidden.device)
            log_probs = []
            for part in chunks(len(ids), self.vocabulary):
                logits = token_logits(self.model, hidden[part], c.temperature, c.bf16)
                log_probs.append(losses.token_log_probs(logits, ids[part]))
            lengths = [len(row) for row in rows.completions]
            for place, row in zip(places, torch.cat(log_probs).split(lengths)):
                found[place] = row
        return found
