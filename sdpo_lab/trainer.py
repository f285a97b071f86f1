"""The trainer: the loop of `core.loop`, and what is done between its steps.

Take many, evaluate, save, go on another day, export.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sdpo_lab._old_names import OldNames
from sdpo_lab.analysis.evaluation import Evaluation, evaluate_problems, evaluate_teacher
from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_range,
    short_repr,
    unknown_names,
    warn_caller,
)
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.loop import Loop
from sdpo_lab.core.records import History
from sdpo_lab.core.task import SPLITS, Task, draw_problems
from sdpo_lab.runs import checkpoints
from sdpo_lab.runs.folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: What is changed at a step: {field: value}; and at which: {step: changes}.
Changes = dict[str, Any]
Plan = dict[int, Changes]


@dataclass
class Autosave:
    """Where and how often a trainer saves itself."""

    folder: Path
    seconds: float  #: from the end of a save to the first step boundary at which one is due
    keep: int | None
    last: float  #: time.monotonic() of the last save or try
    trouble: str = ""  #: why the last try failed; "" when it did not


class SDPOTrainer(OldNames, Loop):
    """Trains `model`, in place, on `task`. `for record in trainer` steps for ever.

    Stop any time, go on any time.

    model      a causal language model with float32 weights
    tokenizer  its tokenizer, with a chat template
    task       anything with `problems(n, split, seed)` and `judge(problem, completion)`
    config     SDPOConfig; the preset "laptop" when None. `distillation_weight=0` is GRPO

    Dropout is off in both passes, where the official code leaves it on in the student's.

    A variant of the method overrides one of `sample` (an own rollout phase),
    `build_teacher_contexts` (what each teacher is shown, and which attempts take part),
    `compute_advantages` (a number for each attempt from the rewards; which of them take part for it
    is then decided by `activate_rewarded`) and `token_weights` (how much a row or token counts),
    replaces `optimizer`, or brings its own attempts to `step(rollouts)`. No other stage is meant to
    be overridden.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        config: SDPOConfig | None = None,
    ) -> None:
        self.folders: dict[Path, RunFolder] = {}  # those it saved to, or was resumed from
        self.autosaves: Autosave | None = None
        super().__init__(model, tokenizer, task, config)

    # -- many steps -------------------------------------------------------------------------------

    def train(
        self,
        steps: int,
        changes: Plan | None = None,
        progress: bool = True,
        folder: str | Path | None = None,
    ) -> History:
        """`steps` more steps with a progress bar.

        `changes={step: {field: value}}` replays what a hand did on the dashboard. They are checked
        before the first step, values and all: ValueError or TypeError for a step that is not a
        whole number from 1 upwards, one that was taken already without them, and a field that is
        not live. Those of steps after the last one are not made, with a warning.

        `folder` turns `autosave` on, with its defaults. Where it is on, the last step too is saved
        before this returns.
        """
        from tqdm.auto import tqdm

        check_range("steps", steps, int, 0, 10**9)
        check_choice("progress", progress, (False, True))
        plan = self.planned(changes, steps)
        if folder is not None:
            self.autosave(folder)
        bar = tqdm(range(steps), disable=not progress, unit="step")
        for _ in bar:
            self.apply(**plan.get(len(self.history) + 1, {}))
            record = self.step()
            bar.set_postfix_str(f"reward {record.reward:.2f}")
        if self.autosaves:
            self.save(self.autosaves.folder, keep=self.autosaves.keep)
        return self.history

    def planned(self, changes: Plan | None, steps: int) -> Plan:
        """The changes of the next `steps` steps, checked; see `train`."""
        plan = checked_plan(changes, self.LIVE_FIELDS)
        taken = len(self.history)
        config = self.config
        for step, fields in sorted(plan.items()):
            if step > taken:
                # a rehearsal: it raises what `apply` would raise hours later
                config = config.replace(live=True, quiet=True, **fields)
                continue
            made = self.history.changes.get(step, {})
            if any(name not in made or made[name] != value for name, value in fields.items()):
                raise ValueError(
                    f"changes[{step}] must be of a step to come, from {taken + 1} upwards: this "
                    f"trainer has taken {taken} steps, without {short_repr(fields)}"
                )
        last = taken + steps
        late = sorted(step for step, fields in plan.items() if step > last and fields)
        if late:
            named = ", ".join(map(str, late[:10])) + (" ..." if len(late) > 10 else "")
            warn_caller(f"changes of step {named} are not made: this call ends with step {last}")
        return plan

    # -- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self, n: int = 1024, split: str = "test", seed: int = 0, role: str = "student"
    ) -> Evaluation:
        """Accuracy on `n` problems of `split`; see `Evaluation`. The weights stay as they are.

        role="teacher": how often the self-teacher itself is right. Groups are sampled from the
        student and reprompted as in training; then the teacher writes a fresh answer in the place
        of each attempt, also of those it is shown nothing for, `n` answers in all.
        """
        check_range("n", n, int, 1, 10**6)
        check_choice("split", split, SPLITS)
        check_choice("role", role, ("student", "teacher"))
        if role == "teacher" and not self.teacher:
            raise ValueError(
                "role='teacher': this run has no teacher, since distillation_weight=0 is GRPO"
            )
        c = self.config
        settings = dict(
            threshold=c.success_reward_threshold,
            max_completion_length=c.max_completion_length,
            seed=seed,
            split=split,
            role=role,
        )
        with self.lock:
            if role == "teacher":
                return evaluate_teacher(self.teacher, self.tokenizer, self.task, n, c, settings)
            problems = draw_problems(self.task, n, split, seed)
            return evaluate_problems(self.model, self.tokenizer, self.task, problems, **settings)

    # -- on the disk ------------------------------------------------------------------------------

    def save(self, folder: str | Path, overwrite: bool = False, keep: int | None = 1) -> Path:
        """Save the whole run as it is after its last step; returns the new checkpoint's folder.

        The newest `keep` checkpoints stay (None: all). `SDPOTrainer.resume(folder)` goes on exactly
        where it was. A save that fails or is killed leaves the last checkpoint whole, and takes
        nothing from this trainer; saving to several folders is fine. Raises ValueError for a folder
        that holds something else, another run, or a later part of this one (unless `overwrite`),
        and OSError with the cause when the disk does not take it; see `checkpoints.save`.
        """
        with self.lock:
            return checkpoints.save(self, folder, overwrite, keep)

    def autosave(
        self, folder: str | Path | None, seconds: float = 30.0, keep: int | None = 2
    ) -> None:
        """From now on end each step with a save to `folder` when `seconds` have passed since the
        last one (0: always); None turns it off.

        So a killed process loses the steps since then, at most: each save is of a whole step, on
        the thread that steps. It is also due when attempts that were never saved would fall out of
        `History.keep_attempts`. A disk that does not take it (full, read-only, gone) is a warning
        with the cause, also in `autosaves.trouble`; the run goes on, and the next try is `seconds`
        later. Raises ValueError at once for a folder that cannot be this run's, as `save` does, and
        TypeError or ValueError for seconds and keep out of range.
        """
        if folder is None:
            self.autosaves = None
            return
        check_range("seconds", seconds, float, 0, 10**9)
        checkpoints.check_keep(keep)
        with self.lock:
            checkpoints.check_saveable(self)
            checkpoints.run_of(self, folder).claim(overwrite=False)
            self.autosaves = Autosave(checkpoints.as_path(folder), seconds, keep, time.monotonic())

    def step_done(self) -> None:
        self.autosave_if_due()

    def autosave_if_due(self) -> None:
        if self.autosaves and self.save_is_due(self.autosaves):
            self.try_to_save(self.autosaves)

    def save_is_due(self, autosave: Autosave) -> bool:
        if time.monotonic() - autosave.last >= autosave.seconds:
            return True
        most = self.history.keep_attempts
        if most is None:
            return False
        saved = checkpoints.run_of(self, autosave.folder).steps
        return len(self.history) - saved >= most

    def try_to_save(self, autosave: Autosave) -> None:
        try:
            self.save(autosave.folder, keep=autosave.keep)
            autosave.trouble = ""
        except (OSError, ValueError) as error:
            autosave.trouble = str(error)
            step = len(self.history)
            warn_caller(f"step {step} could not be saved, the run goes on: {error}", RuntimeWarning)
        autosave.last = time.monotonic()

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        task: Task | None = None,
        device: str | None = None,
        step: int | None = None,
    ) -> Self:
        """The trainer as it was saved last, or at `step`.

        Its next step is the one that would have come next, bit for bit on the same machine.
        Student, teacher, optimiser, history and counters, config and task are as they were; the
        times in `StepRecord.seconds` alone are not repeated. `task` for a task of your own,
        `device` to go on elsewhere. Nothing is used before its checksum was compared, and only
        safetensors and JSON are read. Raises ValueError for what is damaged, missing, of another
        format or model, and says what can be had of the run; see `checkpoints.resume`.
        """
        return checkpoints.resume(cls, folder, task, device, step)

    def save_pretrained(self, folder: str | Path, merge: bool = False) -> None:
        """Export the student alone, for `AutoModelForCausalLM` or peft.

        With `merge` a LoRA adapter is added into the weights.
        """
        with self.lock:
            checkpoints.save_pretrained(self, folder, merge)


def checked_plan(changes: Any, live_fields: tuple[str, ...]) -> Plan:
    """{step: {field: value}} with steps from 1 and live fields. Raises TypeError or ValueError."""
    what = "a dictionary {step: {field: value}}, as history.changes is"
    check_kind("changes", changes, (dict, type(None)), what)
    plan: Plan = {}
    for step, fields in (changes or {}).items():
        if isinstance(step, str):
            raise TypeError(
                "changes must have whole numbers as keys, the steps, got "
                f"{short_repr(step)}; of what was JSON, give "
                "{int(step): fields for step, fields in ...items()}"
            )
        step = check_range("a step of changes", step, int, 1)
        name = f"changes[{step}]"
        check_kind(name, fields, dict, "a dictionary {field: value}, as history.changes has them")
        unknown_names(f"{name}: a running trainer's live fields", fields, list(live_fields))
        plan[step] = dict(fields)
    return plan
