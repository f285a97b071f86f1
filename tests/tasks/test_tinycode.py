"""tinycode: problems, what tests can tell apart, verdicts and what they say."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.core.task import Problem, judge_all
from sdpo_lab.tasks import load_task
from sdpo_lab.tasks.conventions import combinations
from sdpo_lab.tasks.sandbox import Program, Raised, Returned, isolation
from sdpo_lab.tasks.tinycode import TinyCode, canonical, judge
from sdpo_lab.tasks.tinycode.world import KINDS, QUESTIONS, write_code

strong = pytest.mark.skipif(
    isolation().level != "strong", reason=f"no strong sandbox here: {isolation()}"
)


def problem_of(kind: str, task: TinyCode, split: str = "train") -> Problem:
    return next(p for p in task.problems(300, split) if p.data["kind"] == kind)


def test_problems_are_different_repeatable_and_of_one_split():
    task = TinyCode(3)
    train, test = (task.problems(400, split, seed=5) for split in ("train", "test"))
    assert train == TinyCode(4).problems(400, "train", 5) and train[:30] == task.problems(
        30, "train", 5
    )  # a question does not know the convention
    assert len({p.id for p in train + test}) == 800 and not {
        p.messages[0]["content"] for p in train
    } & {p.messages[0]["content"] for p in test}
    assert {p.data["kind"] for p in train} == set(KINDS) and all(
        json.loads(json.dumps(p.data)) == p.data for p in train
    )
    assert load_task("tinycode", seed=3, feedback=1).dials["feedback"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_public_tests_tell_every_two_readings_apart(kind):
    """So that the right code alone passes, whatever is meant; and no slip passes for a reading."""
    for seed in range(4):
        problem = next(p for p in TinyCode().problems(400, seed=seed) if p.data["kind"] == kind)
        public, private = judge.tests(canonical(problem.data))
        every = [
            judge.results_of(problem.data, readings, public)
            for _, readings in combinations(QUESTIONS[kind])
        ]
        assert len({judge.show(e) for e in every}) == len(every)
        assert len(public) >= judge.PUBLIC and len(private) == judge.PRIVATE
        for slip in KINDS[kind].slips:
            outcomes = judge.run_trusted(
                Program(
                    write_code(problem.data, expression=slip),
                    problem.data["function"],
                    (*public, *private),
                )
            )
            for _, readings in combinations(QUESTIONS[kind]):
                meant = judge.results_of(problem.data, readings, (*public, *private))
                passed = all(map(judge.passes, outcomes, meant))
                assert not passed, (slip, readings)


def test_the_prior_is_right_about_as_often_as_the_dial_says():
    for target, low, high in ((0.01, 0.005, 0.05), (0.05, 0.04, 0.08), (0.3, 0.15, 0.6)):
        found = []
        for seed in range(60):
            convention = TinyCode(seed, base_accuracy=target).convention
            found += [
                next(p for p, r in combinations(QUESTIONS[kind]) if r == readings)
                for kind, readings in convention.items()
            ]
        assert low < sum(found) / len(found) < high


@strong
def test_right_wrong_and_broken_attempts():
    task = TinyCode(1)
    problems = task.problems(60, "train", seed=2)
    assert [v.reward for v in judge_all(task, problems, [task.solution(p) for p in problems])] == [
        1.0
    ] * 60
    fenced = [f"Here it is:\n```python\n{task.solution(p)}\n```" for p in problems[:5]]
    assert all(v.reward == 1.0 and v.feedback == "" for v in judge_all(task, problems[:5], fenced))
    p = problems[0]
    for text, says in (
        ("def", "Runtime Error\nSyntaxError"),
        ("", "Runtime Error\nNameError"),
        ("x = 1", f"NameError: name '{p.data['function']}' is not defined"),
        (
            f"def {p.data['function']}(*a):\n    return 1 / 0",
            "ZeroDivisionError: division by zero\nLine 2: return 1 / 0\nInput: ",
        ),
        (f"def {p.data['function']}(*a):\n    while True: pass", "Time Limit Exceeded\nInput: "),
    ):
        verdict = task.judge(p, text)
        assert verdict.reward == 0 and says in verdict.feedback, verdict


@strong
def test_another_reading_fails_and_the_message_shows_it():
    """Every other reading of every kind: reward 0, and the input, the output and what was
    expected."""
    task = TinyCode(2)
    for kind in KINDS:
        p = problem_of(kind, task)
        others = [r for _, r in combinations(QUESTIONS[kind]) if r != task.convention[kind]]
        for readings, verdict in zip(
            others, task.judge_many([p] * len(others), [write_code(p.data, r) for r in others])
        ):
            assert verdict.reward == 0, readings
            head, call, output, expected = verdict.feedback.split("\n")
            assert (
                head.endswith("Wrong Answer")
                and call.startswith(f"Input: {p.data['function']}(")
                and output[8:] != expected[10:]
            )


@strong
def test_the_sandbox_and_the_trusted_runner_agree():
    """Documents are made with `run_trusted`, verdicts with the sandbox: the same outcomes, errors
    and lines included."""
    from sdpo_lab.tasks.tinycode import sandbox

    rng, task, programs = random.Random(0), TinyCode(0), []
    for p in task.problems(80):
        kind = KINDS[p.data["kind"]]
        code = (
            write_code(p.data, expression=rng.choice(kind.slips))
            if rng.random() < 0.5
            else task.solution(p)
        )
        code = code[: rng.randint(5, len(code))] if rng.random() < 0.3 else code
        programs.append(Program(code, p.data["function"], judge.tests(canonical(p.data))[0]))
    for program, found in zip(programs, sandbox(1.0, False).run(programs)):
        for mine, theirs in zip(judge.run_trusted(program), found, strict=True):
            if isinstance(mine, Returned) and type(mine.value).__name__ in (
                "list",
                "int",
                "float",
                "str",
                "bool",
                "NoneType",
                "set",
            ):
                assert mine == theirs, (program, mine, theirs)
            elif isinstance(mine, Raised):
                assert (mine.kind, mine.line, mine.source) == (
                    theirs.kind,
                    theirs.line,
                    theirs.source,
                ), (program.code, mine, theirs)


@strong
def test_the_private_tests_count_on_test_problems_alone():
    """Code that knows the public tests by heart is right in training and wrong in evaluation."""
    task = TinyCode(5)
    for split, reward in (("train", 1.0), ("test", 0.0)):
        p = problem_of("share", task, split)
        public, _ = task.tests(p)
        answers = dict(
            zip((x for (x,) in public), judge.results_of(p.data, task.convention["share"], public))
        )
        verdict = task.judge(
            p, f"def {p.data['function']}(x):\n    return {answers!r}.get(x, 12345)"
        )
        assert (verdict.reward, verdict.feedback) == (reward, "")


@strong
def test_the_feedback_dial():
    p = problem_of("sum", TinyCode(0))
    wrong = f"def {p.data['function']}(a, b):\n    return -1"
    silent, half, full = (
        TinyCode(0, feedback=level).judge(p, wrong).feedback for level in (0, 1, 2)
    )
    assert (
        silent == "" and full.startswith(half) and "Expected" not in half and "\nExpected: " in full
    )


@strong
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_no_text_breaks_the_judge(text):
    task = TinyCode(0)
    verdict = task.judge(task.problems(1)[0], text)
    assert verdict.reward == 0 and 0 < len(verdict.feedback) <= judge.MAX_FEEDBACK


@pytest.mark.parametrize(
    "value, expected, equal",
    [
        (1, 1, True),
        (1, 1.0, False),
        (True, 1, False),
        (0.1 + 0.2, 0.3, True),
        ([1, 2], (1, 2), False),
        ([1, [2.0]], [1, [2.0]], True),
        ("a", "a", True),
        (None, 0, False),
        (float("nan"), 1.0, False),
    ],
)
def test_equality_is_of_type_and_value(value, expected, equal):
    assert judge.same(value, expected) is equal


@pytest.mark.parametrize(
    "dials, says",
    [
        ({"base_accuracy": 0.9}, "0.01 to 0.5"),
        ({"feedback": 3}, "0, 1, 2"),
        ({"seconds": 0}, "0.05 to 60"),
        ({"tests": 3}, "has no 'tests'"),
    ],
)
def test_bad_dials_are_refused(dials, says):
    with pytest.raises(ValueError, match=says):
        load_task("tinycode", **dials)
