"""The feedback playground: what the teacher makes of an attempt while its feedback is edited.

The page asks ("this attempt, these texts") and is answered; nothing is sent unasked. Everything it
shows comes from `sdpo_lab.what_if` and `lab.credit`, and can be had from there without a page.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import anywidget
import traitlets

from sdpo_lab.analysis.contexts import PRESETS, contexts
from sdpo_lab.analysis.credit import Credit, Rescorer
from sdpo_lab.analysis.familiarity import familiarity
from sdpo_lab.analysis.rescoring import in_words, teacher_attempts
from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_model,
    check_range,
    check_task,
    short_repr,
)
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout, judge_rollouts, rollout
from sdpo_lab.core.task import Problem, draw_problems
from sdpo_lab.views.html import storable
from sdpo_lab.views.page import style, widget
from sdpo_lab.views.token_data import finite, page_data, view_data

ATTEMPTS = 4  # sampled at each problem
KEPT = 4  # attempts whose reading by the student is kept; each is two arrays of tokens x vocabulary
MOST_CHARACTERS = 8000  # of a text from the page
SCALE = 4.0  # nats of full colour: the same for every text, so that two edits can be compared

# by model: messages may be handled on several threads
_locks: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Playground(anywidget.AnyWidget):
    """Edit what the teacher is shown, and see what it then makes of an attempt.

    problem     the problem to begin with; others stand behind it, for their feedback
    completion  an attempt to begin with: text, or a `Rollout`; needs `problem`. Some of the model's
                own are sampled at every problem, failed ones first
    teacher     another model in the teacher's role, or a run's `trainer.teacher`; the model itself
                when None
    config      its templates, temperature and divergence; the preset "laptop" when None
    seed        of the problems and the attempts
    problems    1 to 50, how many to choose from, drawn from the task's train split; or a list

    The cell that shows it returns at once. `credit` is what is shown now, a `Credit`. Weights and
    mode of the model stay as they are. Pause a run before: it would change the weights under it.
    Raises ValueError where the task has fewer problems, and for a completion without a problem.
    """

    _esm = widget("playground")
    _css = style("token_view", "playground")
    setup = traitlets.Dict().tag(sync=True)  # what the page must know before the first answer
    # What the reader chose and wrote: the page keeps it here, to have it when shown again
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Any,
        *,
        problem: Problem | None = None,
        completion: str | Rollout | None = None,
        teacher: Any = None,
        config: SDPOConfig | None = None,
        seed: int = 0,
        problems: int | list[Problem] = 6,
    ) -> None:
        check_model(model, tokenizer)
        check_task(task)
        none = type(None)
        check_kind("problem", problem, (Problem, none), "a Problem, as task.problems() gives them")
        preset = "an SDPOConfig, or None for the preset 'laptop'"
        check_kind("config", config, (SDPOConfig, none), preset)
        given = "an attempt as text, a Rollout, or None"
        check_kind("completion", completion, (str, Rollout, none), given)
        if completion is not None and problem is None:
            raise ValueError("completion is an attempt at a problem: pass problem= with it")
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.teacher, self.seed = teacher, seed
        self.config = config or SDPOConfig.preset("laptop")
        self._lock = _locks.setdefault(model, threading.RLock())
        self.problems = choose_problems(task, problems, problem, seed)
        with self._lock:
            self.rollouts = self._sample(completion)
        # (number of the problem, the attempt) -> what `_attempt` makes of it
        self._kept: OrderedDict[tuple, tuple[Rescorer, Rollout, dict]] = OrderedDict()
        self._newest: dict[tuple[str, str], int] = {}  # (page, kind of question) -> its number
        self.credit: Credit | None = None
        first = self.score({"problem": 0, "attempt": 0, "preset": PRESETS[0]})
        super().__init__(
            setup={
                "problems": [self._choices(n) for n in range(len(self.problems))],
                "presets": PRESETS,
                "first": first,
                "most": MOST_CHARACTERS,
            }
        )
        self.on_msg(self._on_message)

    def _sample(self, completion: str | Rollout | None) -> list[list[Rollout]]:
        """For each problem different attempts, failed ones first; the given one before all."""
        found = rollout(
            self.model,
            self.tokenizer,
            self.problems,
            ATTEMPTS,
            self.config.temperature,
            self.seed,
            max_completion_length=self.config.max_completion_length,
        )
        if isinstance(completion, str):
            completion = Rollout(self.problems[0], -1, completion, [])
        if completion is not None:
            found.insert(0, replace(completion, problem=self.problems[0], index=-1))
        judge_rollouts(self.task, found)

        def order(r: Rollout) -> tuple:
            return r.index >= 0, r.reward >= self.config.success_reward_threshold, r.index

        groups: list[list[Rollout]] = []
        for p in self.problems:
            different = {r.text: r for r in reversed([r for r in found if r.problem.id == p.id])}
            groups.append(sorted(different.values(), key=order))
        return groups

    def _choices(self, n: int) -> dict[str, Any]:
        return {
            "question": storable(self.problems[n].messages[-1]["content"]),
            "attempts": [
                {"text": storable(r.text), **self._mark(r.reward)} for r in self.rollouts[n]
            ],
        }

    def _mark(self, reward: float) -> dict[str, Any]:
        return {"reward": reward, "right": reward >= self.config.success_reward_threshold}

    def __repr__(self) -> str:
        return (
            f"Playground({len(self.problems)} problems of {self.task!r}): in a live notebook, an "
            "attempt and the texts its teacher is shown, to be edited. "
            "The same without one: lab.credit(model, tokenizer, problem, completion, feedback=...) "
            "and sdpo_lab.what_if (contexts, teacher_attempts, familiarity)"
        )

    # -- what the page asks for

    def score(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The attempt under the texts that are asked for, as plain data.

        {"problem": number, "attempt": number, or "text", and "preset" or "feedback" and
        "solution"}. Raises TypeError for what is no dictionary, ValueError for a number, a preset
        or a text there is not.
        """
        n, rescorer, judged, found = self._attempt(asked)
        if preset := asked.get("preset"):
            # the page does not know yet what the judge says of an attempt that is being typed
            check_choice("preset", preset, PRESETS)
            texts = {k: storable(v) for k, v in found.get(preset, found["nothing"]).items()}
        else:
            texts = texts_of(asked)
        self.credit = scored = rescorer.score(**texts, attempt=self._own(judged, texts))
        moves = scored.advantages
        return {
            "shown": texts,
            "contexts": {k: {f: storable(t) for f, t in c.items()} for k, c in found.items()},
            "verdict": {**self._mark(judged.reward), "feedback": storable(judged.feedback)},
            "view": page_data([view_data(scored)], scale=SCALE),
            "bits": finite(scored.shift_bits),
            "sum": finite(float(moves.sum())),
            "mean": finite(float(moves.mean())),
            "words": storable(in_words(scored)),
            "familiar": {kind: self._familiar(text, kind) for kind, text in texts.items()},
        }

    def write(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the teacher would write itself under these texts.

        Greedily, or one sample when "sample" is a number.
        """
        n, _, judged, _ = self._attempt(asked)
        texts = texts_of(asked)
        sample = None if asked.get("sample") is None else number(asked, "sample", 10**6)
        r = teacher_attempts(
            self.model,
            self.tokenizer,
            self.problems[n],
            1,
            **texts,
            attempt=self._own(judged, texts),
            teacher=self.teacher,
            task=self.task,
            config=self.config,
            temperature=0.0 if sample is None else self.config.temperature,
            seed=self.seed + (sample or 0),
        )[0]
        return {
            "text": storable(r.text),
            "feedback": storable(r.feedback),
            "sample": sample,
            **self._mark(r.reward),
        }

    def _attempt(self, asked: dict[str, Any]) -> tuple[int, Rescorer, Rollout, dict]:
        """(number of the problem, the attempt ready to be scored, the same judged, contexts).

        Kept from last time; the contexts are what its teacher could be shown.
        """
        example = (
            'a dictionary such as {"problem": 0, "attempt": 0, "feedback": "no", "solution": ""}'
        )
        check_kind("asked", asked, dict, example)
        n = number(asked, "problem", len(self.problems) - 1)
        if "text" in asked:
            chosen: str | Rollout = text_of(asked, "text")
        else:
            chosen = self.rollouts[n][number(asked, "attempt", len(self.rollouts[n]) - 1)]
            chosen = chosen if chosen.completion_ids else chosen.text
        key = n, chosen if isinstance(chosen, str) else tuple(chosen.completion_ids)
        if key not in self._kept:
            self._kept[key] = self._prepare(self.problems[n], chosen)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return n, *self._kept[key]

    def _prepare(
        self, problem: Problem, chosen: str | Rollout
    ) -> tuple[Rescorer, Rollout, dict[str, dict[str, str]]]:
        """(the attempt ready to be scored, the same judged, what its teacher could be shown)."""
        roles = {"teacher": self.teacher, "task": self.task, "config": self.config}
        rescorer = Rescorer(self.model, self.tokenizer, problem, chosen, **roles)
        judged = chosen
        if isinstance(chosen, str):
            judged = judge_rollouts(self.task, [Rollout(problem, -1, chosen, [])])[0]
        others = [r for group in self.rollouts for r in group]
        shown = {"rollouts": others, "seed": self.seed, "config": self.config}
        return rescorer, judged, contexts(self.task, problem, judged, **shown)

    def _own(self, judged: Rollout, texts: dict[str, str]) -> str:
        """The attempt itself, where the configuration shows it besides."""
        return judged.text if self.config.include_own_attempt and any(texts.values()) else ""

    def _familiar(self, text: str, kind: str) -> dict[str, Any] | None:
        teacher = self.model if self.teacher is None else self.teacher
        found = familiarity(text, getattr(teacher, "model", teacher), kind)
        if found is None:
            return None
        return {"unfamiliar": found.unfamiliar, "least": storable(found.least)}

    def _on_message(self, _widget: Any, message: Any, _buffers: Any) -> None:
        # may be called on any thread, and on two at once
        if not isinstance(message, dict) or message.get("kind") not in ("score", "write"):
            return
        kind, page, turn = message["kind"], str(message.get("page")), message.get("turn")
        turn = turn if isinstance(turn, int) else 0
        self._newest[page, kind] = max(turn, self._newest.get((page, kind), turn))
        with self._lock:
            if turn < self._newest[page, kind]:
                return  # while this one waited for its turn, the same page asked again
            try:
                answer = {"score": self.score, "write": self.write}[kind](message)
            except Exception as error:  # of a judge, a model: the reader is told, in the widget
                answer = {"error": storable(f"{type(error).__name__}: {error}")[:2000]}
        self.send({"kind": kind, "page": page, "turn": turn, **answer})


def choose_problems(
    task: Any, problems: int | list[Problem], first: Problem | None, seed: int
) -> list[Problem]:
    begin = [] if first is None else [first]
    if isinstance(problems, list):
        if not begin + problems or not all(isinstance(p, Problem) for p in problems):
            raise ValueError(
                "problems must be a number from 1 to 50, or a list of one or more problems; got "
                f"{short_repr(problems)}"
            )
        return begin + [p for p in problems if p.id not in {b.id for b in begin}]
    check_range("problems", problems, int, 1, 50)
    if problems == len(begin):
        return begin
    drawn = draw_problems(task, problems, "train", seed)
    return (begin + [p for p in drawn if p.id not in {b.id for b in begin}])[:problems]


def number(asked: dict[str, Any], name: str, most: int) -> int:
    value = asked.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most}; got {short_repr(value)}")
    return value


def text_of(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        got = len(value) if isinstance(value, str) else type(value).__name__
        raise ValueError(
            f"{name} must be a text of at most {MOST_CHARACTERS} characters; got {got}"
        )
    # half of a surrogate pair, which a page can send, is nothing a tokenizer can read
    return storable(value)


def texts_of(asked: dict[str, Any]) -> dict[str, str]:
    return {name: text_of(asked, name) for name in ("feedback", "solution")}
