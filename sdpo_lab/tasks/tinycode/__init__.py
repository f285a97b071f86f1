"""`tinycode`: write a small Python function from an ambiguous description; hidden tests decide what was meant. See `world` for the idea."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Mapping
from typing import Any

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.task import Problem, Verdict, check_problems_asked
from sdpo_lab.tasks.conventions import draw_convention, draw_different, is_test
from sdpo_lab.tasks.sandbox import Program, Sandbox
from sdpo_lab.tasks.tinycode import judge as judging
from sdpo_lab.tasks.tinycode.world import KINDS, QUESTIONS, write_code

FEEDBACK = {
    0: "nothing",
    1: "what happened in the first failing test",
    2: "that, and what was expected",
}
#: How a prompt asks; {signature} is the function with its arguments, {text} the description.
ASK = (
    "{text}\nWrite {signature}.",
    "Write the function {signature}.\n{text}",
    "{text} Function: {signature}",
    "Python function {signature}: {text}",
    "{signature}\n{text}\nWrite it in Python.",
)


class TinyCode:
    """Write a small Python function from an ambiguous description; attempts run in a sandbox, feedback is the first failing test.

    seed           which readings are meant
    base_accuracy  0.01 to 0.5: how often a learner who knows only the prior means what is meant; sets how unusual the readings are, as far as the
                   readings of a kind of function allow (of some the most unusual one has 0.08)
    feedback       0 to 2, the dial `FEEDBACK`
    seconds        time limit of one attempt, wall clock
    allow_weak     run attempts also where the sandbox cannot keep all of its promises (see `sandbox.isolation`); the default refuses

    Public tests give reward and feedback. On problems of the test split the reward is 1 only when private tests pass too, as in the paper.
    """

    name = "tinycode"

    def __init__(
        self,
        seed: int = 0,
        *,
        base_accuracy: float = 0.05,
        feedback: int = 2,
        seconds: float = 1.0,
        allow_weak: bool = False,
    ) -> None:
        self.dials = dict(
            seed=check_range("seed", seed, int, 0, 2**31 - 1),
            base_accuracy=check_range("base_accuracy", base_accuracy, float, 0.01, 0.5),
            feedback=check_choice("feedback", feedback, FEEDBACK),
            seconds=check_range("seconds", seconds, float, 0.05, 60),
            allow_weak=check_choice("allow_weak", allow_weak, (False, True)),
        )
        self.convention = draw_convention(
            QUESTIONS, self.name, self.dials["seed"], self.dials["base_accuracy"]
        )

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments always give the same ones, and no prompt is in both splits.

        Raises ValueError when there are not so many.
        """
        check_problems_asked(n, split, seed)
        rng = random.Random(f"tinycode/{seed}/{split}")
        return draw_different(lambda: draw_problem(split, rng), n, split)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """Never raises on a completion: what does not run is a verdict too."""
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        """Verdicts in order; equal attempts at a problem run once."""
        work: dict[tuple[str, str], tuple[dict[str, Any], Program]] = {}
        keys = [(p.id, judging.extract_code(c)) for p, c in zip(problems, completions)]
        for p, key in zip(problems, keys):
            if key not in work:
                public, private = self.tests(p)
                work[key] = (
                    p.data,
                    Program(
                        key[1],
                        p.data["function"],
                        (*public, *(private if p.data["split"] == "test" else ())),
                    ),
                )
        outcomes = sandbox(self.dials["seconds"], self.dials["allow_weak"]).run(
            [program for _, program in work.values()]
        )
        verdicts = {
            key: self.verdict(data, program, found)
            for (key, (data, program)), found in zip(work.items(), outcomes)
        }
        return [verdicts[key] for key in keys]

    def verdict(
        self, data: Mapping[str, Any], program: Program, outcomes: list[judging.Outcome]
    ) -> Verdict:
        expected = judging.results_of(data, self.convention[data["kind"]], program.inputs)
        public = len(judging.tests(canonical(data))[0])
        right = all(map(judging.passes, outcomes, expected))
        return Verdict(
            float(right),
            judging.say(
                program.function,
                program.inputs[:public],
                outcomes[:public],
                expected[:public],
                self.dials["feedback"],
            ),
        )

    def tests(self, problem: Problem) -> tuple[tuple[tuple, ...], tuple[tuple, ...]]:
        """(inputs of the public tests, of the private ones)."""
        return judging.tests(canonical(problem.data))

    def solution(self, problem: Problem) -> str:
        """The right function in the form the models write it."""
        return write_code(problem.data, self.convention[problem.data["kind"]])

    def __repr__(self) -> str:
        return f"TinyCode({', '.join(f'{k}={v!r}' for k, v in self.dials.items())})"


def draw_problem(split: str, rng: random.Random) -> Problem:
    """One problem of `split`."""
    while True:
        name = rng.choice(list(KINDS))
        kind = KINDS[name]
        data = dict(
            kind=name,
            function=rng.choice(kind.functions),
            arguments=[rng.choice(a) for a in kind.arguments],
            k=rng.choice(kind.ks),
            split=split,
        )
        described = rng.choice(kind.texts).format(
            **dict(zip("abc", data["arguments"])), k=data["k"]
        )
        text = rng.choice(ASK).format(
            text=described, signature=f"{data['function']}({', '.join(data['arguments'])})"
        )
        if is_test(text) == (split == "test") and len(set(data["arguments"])) == len(
            data["arguments"]
        ):
            return Problem(
                "tinycode-" + hashlib.sha256(text.encode()).hexdigest()[:12],
                [{"role": "user", "content": text}],
                data,
            )


def canonical(data: Mapping[str, Any]) -> str:
    """What decides a problem's tests, as text: not its split, nor how it is worded."""
    return json.dumps({k: data[k] for k in ("kind", "function", "arguments", "k")})


_sandboxes: dict[tuple[float, bool], Sandbox] = {}
_lock = threading.Lock()


def sandbox(seconds: float, allow_weak: bool) -> Sandbox:
    """One sandbox a setting for the whole process; its servers start with the first attempt and end with the process."""
    with _lock:
        if (seconds, allow_weak) not in _sandboxes:
            _sandboxes[seconds, allow_weak] = Sandbox(seconds=seconds, allow_weak=allow_weak)
        return _sandboxes[seconds, allow_weak]
