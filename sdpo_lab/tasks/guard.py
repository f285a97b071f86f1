"""A guard around any task's judge, which may raise or hang."""

from __future__ import annotations

import threading
import warnings
from typing import Any

from sdpo_lab.core.checks import check_choice, check_range, check_task, printable
from sdpo_lab.core.task import Problem, Task, Verdict, judge_all

#: Calls of a judge that may hang at once before `Guard` gives up, whatever `on_error` says: each
#: keeps a thread and what it holds.
MAX_HANGING_CALLS = 8


class JudgeError(RuntimeError):
    """A judge raised, or took too long. The message names the problem and the completion; the
    exception itself is `__cause__`."""


class Guard:
    """Any task, with a judge that fails in a way that helps: `Guard(task)` or
    `Guard(task, on_error="zero", seconds=10)`.

    on_error  "raise"  JudgeError, which names the problem and the completion and keeps the judge's
                       exception attached
              "zero"   the attempt has reward 0 and no feedback, and the run goes on. `failures`
                       counts such attempts; a warning comes with the first and whenever there are
                       ten times as many
    seconds   wall-clock time, 0.01 to 86400, that one call of `judge`, or of `judge_many` for a
              whole batch, may take; a call that takes longer has failed with a TimeoutError. None:
              no limit, and a judge that hangs hangs the run

    A `judge_many` that fails is asked again for each attempt alone, to find the one at fault.
    Everything else is the task's.

    What the time limit cannot do: Python has no way to stop a thread, so a call that hangs is left
    behind. It goes on in the background, with whatever it holds, and ends with the process at the
    latest; after `MAX_HANGING_CALLS` such calls the guard raises, on_error="zero" or not. Each call
    is in a thread of its own, where a judge may not use signals. A judge that waits in C code
    without letting other threads run is not noticed. Code that a model wrote belongs in a process
    that can be killed: `sdpo_lab.tasks.sandbox`.
    """

    def __init__(self, task: Task, on_error: str = "raise", seconds: float | None = None) -> None:
        check_choice("on_error", on_error, ("raise", "zero"))
        check_task(task)
        if seconds is not None:
            seconds = check_range("seconds", seconds, float, 0.01, 86400)
        self.task, self.on_error, self.seconds = task, on_error, seconds
        self.failures, self.lock = 0, threading.Lock()
        self.hanging: list[threading.Thread] = []  # calls that took too long and have not ended

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        return self.task.problems(n, split=split, seed=seed)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        """Verdicts in order. Raises JudgeError where `on_error` says so."""
        batch_error = None
        if hasattr(self.task, "judge_many") and len(problems) > 1:
            try:
                return self.call_judge(problems, completions)
            except Exception as error:  # whatever a judge may raise; an interrupt is none
                batch_error = error
        verdicts = [self.judge_one(p, c) for p, c in zip(problems, completions)]
        if batch_error and self.on_error == "raise":
            raise JudgeError(
                f"judge_many() failed on {len(problems)} attempts together, "
                f"though on none of them alone: {message_of(batch_error)}"
            ) from batch_error
        return verdicts

    def judge_one(self, problem: Problem, completion: str) -> Verdict:
        try:
            return self.call_judge([problem], [completion])[0]
        except Exception as error:
            return self.handle_failure(problem, completion, error)

    def call_judge(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        """`judge_all`, in a thread of its own where there is a time limit."""
        if self.seconds is None:
            return judge_all(self.task, problems, completions)
        with self.lock:
            self.hanging = [t for t in self.hanging if t.is_alive()]
            if len(self.hanging) >= MAX_HANGING_CALLS:
                raise TimeoutError(
                    f"{len(self.hanging)} calls of the judge hang already, "
                    "so no other one was started"
                )
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append(judge_all(self.task, problems, completions))
            except BaseException as error:  # an interrupt or an exit too: raised where the run is
                outcome.append(error)

        thread = threading.Thread(target=call, name="sdpo_lab judge", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if not outcome:
            with self.lock:
                self.hanging.append(thread)
            raise TimeoutError(
                f"the judge was not done after seconds={self.seconds:g}; "
                "it goes on in the background"
            )
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def handle_failure(self, problem: Problem, completion: str, error: Exception) -> Verdict:
        """JudgeError, or a counted reward of 0, as `on_error` says."""
        text = repr(cut(completion, 200))
        what = f"the judge failed on problem {problem.id!r}, completion {text}: {message_of(error)}"
        if self.on_error == "raise":
            raise JudgeError(
                what + '. Make the judge return a reward for every text, or give on_error="zero"'
            ) from error
        if sum(t.is_alive() for t in self.hanging) >= MAX_HANGING_CALLS:
            raise JudgeError(
                f"{MAX_HANGING_CALLS} calls of the judge hang at once, so no more are started; "
                f"{what}. Give the judge a time limit of its own"
            ) from error
        with self.lock:
            self.failures += 1
            count = self.failures
        if str(count).strip("0") == "1":  # 1, 10, 100, ...
            warnings.warn(
                f"{count} attempt{'s' * (count > 1)} could not be judged and had reward 0; "
                f"the last: {what}",
                stacklevel=2,
            )
        return Verdict(0.0)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)

    def __repr__(self) -> str:
        settings = "" if self.on_error == "raise" else ", on_error='zero'"
        settings += "" if self.seconds is None else f", seconds={self.seconds:g}"
        return f"Guard({self.task!r}{settings})" if settings else repr(self.task)


def message_of(error: BaseException) -> str:
    """An exception on one line that a terminal may show: it may quote what a model wrote."""
    return f"{type(error).__name__}: {cut(printable(str(error)), 500)}"


def cut(text: str, characters: int) -> str:
    """At most so many characters of a text, and how many it has where that is more."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]}... ({len(text)} characters)"
