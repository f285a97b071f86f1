"""`tinycode`: write a small Python function from an ambiguous description; hidden tests decide what
was meant. See `world` for the idea."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from typing import Any

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.tasks.conventions import DrawnTask, draw_convention, is_test, problem_of
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


class TinyCode(DrawnTask):
    """Write a small Python function from an ambiguous description; feedback is a failing test.

    Attempts run in a sandbox. Public tests give reward and feedback. On problems of the test split
    the reward is 1 only when private tests pass too, as in the paper.

    seed           which readings are meant
    base_accuracy  0.01 to 0.5: how often a learner who knows only the prior means what is meant;
                   sets how unusual the readings are, as far as the readings of a kind of function
                   allow (of some the most unusual one has 0.08)
    feedback       0 to 2, the dial `FEEDBACK`
    seconds        time limit of one attempt, wall clock
    allow_weak     run attempts also where the sandbox cannot keep all of its promises (see
                   `sandbox.isolation`); the default refuses
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

    def draw(self, split: str, rng: random.Random) -> Problem:
        return draw_problem(split, rng)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """Never raises on a completion: what does not run is a verdict too."""
        return self.judge_many([problem], [completion])[0]

    def judge_many(self, problems: list[Problem], completions: list[str]) -> list[Verdict]:
        """Verdicts in order; equal attempts at a problem run once."""
        keys = [(p.id, judging.extract_code(c)) for p, c in zip(problems, completions)]
        # one program for each different attempt at a problem
        programs: dict[tuple[str, str], tuple[Problem, Program]] = {}
        for problem, key in zip(problems, keys):
            if key not in programs:
                public, private = self.tests(problem)
                inputs = public + private if problem.data["split"] == "test" else public
                programs[key] = problem, Program(key[1], problem.data["function"], inputs)
        box = sandbox(self.dials["seconds"], self.dials["allow_weak"])
        outcomes = box.run([program for _, program in programs.values()])
        verdicts = {
            key: self.verdict(problem, program, outcome)
            for (key, (problem, program)), outcome in zip(programs.items(), outcomes)
        }
        return [verdicts[key] for key in keys]

    def verdict(
        self, problem: Problem, program: Program, outcomes: list[judging.Outcome]
    ) -> Verdict:
        """Of an attempt that ran: the reward by all of its tests, feedback by the public ones."""
        readings = self.convention[problem.data["kind"]]
        expected = judging.results_of(problem.data, readings, program.inputs)
        public = len(self.tests(problem)[0])
        feedback = judging.say(
            program.function,
            program.inputs[:public],
            outcomes[:public],
            expected[:public],
            self.dials["feedback"],
        )
        return Verdict(float(all(map(judging.passes, outcomes, expected))), feedback)

    def tests(self, problem: Problem) -> tuple[tuple[tuple, ...], tuple[tuple, ...]]:
        """(inputs of the public tests, of the private ones)."""
        return judging.tests(canonical(problem.data))

    def solution(self, problem: Problem) -> str:
        """The right function in the form the models write it."""
        return write_code(problem.data, self.convention[problem.data["kind"]])


def draw_problem(split: str, rng: random.Random) -> Problem:
    """One problem of `split`."""
    while True:
        name = rng.choice(list(KINDS))
        kind = KINDS[name]
        function = rng.choice(kind.functions)
        arguments = [rng.choice(names) for names in kind.arguments]
        k = rng.choice(kind.ks)
        description = rng.choice(kind.texts).format(**dict(zip("abc", arguments)), k=k)
        signature = f"{function}({', '.join(arguments)})"
        text = rng.choice(ASK).format(text=description, signature=signature)
        if is_test(text) == (split == "test") and len(set(arguments)) == len(arguments):
            data = dict(kind=name, function=function, arguments=arguments, k=k, split=split)
            return problem_of("tinycode", text, data)


def canonical(data: Mapping[str, Any]) -> str:
    """What decides a problem's tests, as text: not its split, nor how it is worded."""
    return json.dumps({k: data[k] for k in ("kind", "function", "arguments", "k")})


_sandboxes: dict[tuple[float, bool], Sandbox] = {}
_lock = threading.Lock()


def sandbox(seconds: float, allow_weak: bool) -> Sandbox:
    """One sandbox a setting for the whole process.

    Its servers start with the first attempt and end with the process.
    """
    with _lock:
        if (seconds, allow_weak) not in _sandboxes:
            _sandboxes[seconds, allow_weak] = Sandbox(seconds=seconds, allow_weak=allow_weak)
        return _sandboxes[seconds, allow_weak]
