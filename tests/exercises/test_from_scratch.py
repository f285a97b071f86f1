"""04_from_scratch builds sdpo_min.py word for word, its exercises know the classic mistakes, and
its last assertion finds a broken line."""

from __future__ import annotations

import ast
import re
import runpy
import sys

import jupytext
import pytest
import torch

from sdpo_lab import exercises as checks
from sdpo_lab import sdpo_min
from sdpo_lab.exercises import check_kl, check_reprompt, check_score
from tests.conftest import ROOT
from tests.exercises.mistakes import assert_named, each_mistake

FILE = ROOT / "sdpo_lab" / "sdpo_min.py"
TREE = ast.parse(FILE.read_text())
CELLS = jupytext.read(ROOT / "notebooks" / "04_from_scratch.py", fmt="py:percent").cells
EXERCISES = ("reprompt", "score", "kl")


def definitions() -> dict[str, str]:
    """The source of everything that sdpo_min.py defines, decorators included, by name and in
    order."""
    lines, found = FILE.read_text().splitlines(), {}
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            found[getattr(node, "name", None) or node.targets[0].id] = "\n".join(
                lines[first - 1 : node.end_lineno]
            )
    return found


def home(source: str) -> int:
    """The number of the code cell that holds `source` as whole lines."""
    places = [
        i
        for i, c in enumerate(CELLS)
        if c.cell_type == "code" and f"\n{source}\n" in f"\n{c.source}\n"
    ]
    assert len(places) == 1, f"stands in {len(places)} cells:\n{source}"
    return places[0]


# -- the file and the notebook


def test_the_notebook_builds_the_file_word_for_word_and_in_order():
    names = definitions()
    assert {"sample", "judge", "reprompt", "score", "kl", "step", "follow", "sdpo"} < set(names)
    places = [home(source) for source in names.values()]
    assert places == sorted(places)
    for node in TREE.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert any(
                ast.unparse(node) in c.source.splitlines() for c in CELLS if c.cell_type == "code"
            ), ast.unparse(node)


def test_the_file_needs_torch_and_transformers_alone_and_is_short():
    imported = {
        name.split(".")[0]
        for node in ast.walk(TREE)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported - set(sys.stdlib_module_names) <= {"torch", "transformers"}
    assert runpy.run_path(str(ROOT / "tools" / "lines.py"))["logical_lines"](FILE) <= 80


def test_solutions_are_folded_and_follow_their_exercise():
    for name in EXERCISES:
        solution = CELLS[home(definitions()[name])]
        assert (
            solution.metadata["jupyter"] == {"source_hidden": True}
            and solution.metadata["cellView"] == "form"
        )
        stub = next(
            i
            for i, c in enumerate(CELLS)
            if c.cell_type == "code" and f"def my_{name}(" in c.source
        )
        assert stub < home(definitions()[name])
        assert (
            f"check_{name}(my_{name})" in CELLS[stub].source
            and f"check_{name}({name})" in solution.source
        )


# -- the checks of the exercises: (a wrong answer, how it is named)


def logits_of(model, tokens):
    return model(torch.tensor([tokens])).logits[0]


WRONG_SCORES = {
    "shifted by one": [
        lambda m, p, x: logits_of(m, p + x)[len(p) :].log_softmax(-1),
        lambda m, p, x: logits_of(m, p + x)[len(p) : -1].log_softmax(-1),
    ],
    "the prompt's tokens are among": [
        lambda m, p, x: logits_of(m, p + x).log_softmax(-1),
        lambda m, p, x: logits_of(m, p + x)[:-1].log_softmax(-1),
    ],
    "without its prompt": [
        lambda m, p, x: logits_of(m, x).log_softmax(-1),
        lambda m, p, x: logits_of(m, x)[:-1].log_softmax(-1),
    ],
    "these are logits": [lambda m, p, x: logits_of(m, p + x)[len(p) - 1 : -1]],
    "these are probabilities": [lambda m, p, x: logits_of(m, p + x)[len(p) - 1 : -1].softmax(-1)],
    "the sampled token alone": [
        lambda m, p, x: sdpo_min.score(m, p, x).gather(1, torch.tensor(x)[:, None])[:, 0]
    ],
    "over the places": [lambda m, p, x: logits_of(m, p + x)[len(p) - 1 : -1].log_softmax(0)],
    "no gradient flows": [
        lambda m, p, x: sdpo_min.score(m, p, x).detach(),
        torch.no_grad()(sdpo_min.score),
    ],
    "the shape is (4, 4)": [lambda m, p, x: sdpo_min.score(m, p, x)[:, 1:]],
    "do not know this mistake": [lambda m, p, x: sdpo_min.score(m, p, x) + 1],
    "returns a list": [lambda m, p, x: [0.0]],
}
WRONG_KLS = {
    "the other direction": [
        lambda p, q: (q.exp() * (q - p)).sum(-1),
        lambda p, q: torch.nn.functional.kl_div(p, q, log_target=True, reduction="none").sum(-1),
    ],
    "the teacher gets a gradient": [lambda p, q: (p.exp() * (p - q)).sum(-1)],
    "the student's gradient is not": [
        lambda p, q: (p.exp().detach() * (p - q.detach())).sum(-1),
        lambda p, q: sdpo_min.kl(p, q).detach(),
    ],
    "the sign is turned round": [lambda p, q: (p.exp() * (q - p)).sum(-1)],
    "one number for all tokens": [
        lambda p, q: (p.exp() * (p - q)).sum(),
        lambda p, q: (p.exp() * (p - q)).sum(-1).mean(),
    ],
    "the sum ran over the tokens": [lambda p, q: (p.exp() * (p - q)).sum(0)],
    "the mean over the vocabulary": [lambda p, q: (p.exp() * (p - q)).mean(-1)],
    "the sum over the vocabulary is missing": [lambda p, q: p.exp() * (p - q)],
    "the weights are log-probabilities": [lambda p, q: (p * (p - q)).sum(-1)],
    "nothing weighs": [lambda p, q: (p - q).sum(-1)],
    "cross-entropy": [lambda p, q: -(p.exp() * q).sum(-1)],
    "logarithms already": [lambda p, q: (p * (p.log() - q.log())).sum(-1)],
    "do not know this mistake": [lambda p, q: sdpo_min.kl(p, q) * 2],
}


def change(old: str, new: str):
    """reprompt with one piece of its text replaced."""
    source = definitions()["reprompt"]
    assert source.count(old) == 1, old
    names: dict = {}
    exec(source.replace(old, new), names)
    return names["reprompt"]


def in_place(group, i):
    group[i].problem.messages[-1]["content"] += "\n" + group[i].feedback
    return group[i].problem.messages


WRONG_REPROMPTS = {
    "shown its own answer": [change(" and j != i", "")],
    "a success is shown feedback": [
        change("elif me.reward < 1 and me.feedback:", "elif me.feedback:")
    ],
    "is not shown its feedback": [change("elif me.reward < 1 and me.feedback:", "elif False:")],
    "with empty feedback": [change("elif me.reward < 1 and me.feedback:", "elif me.reward < 1:")],
    "not shown the success of its sibling": [change("    if successes:", "    if False:")],
    "A success is not shown": [change("    if successes:", "    if successes and me.reward < 1:")],
    "the last success": [change("successes[0]", "successes[-1]")],
    "every success is shown": [change("{successes[0]}", "{successes}")],
    "although a sibling succeeded": [change("{successes[0]}", "{successes[0]}{me.feedback}")],
    "the feedback on another": [change("{me.feedback}", "{me.feedback}{group[0].feedback}")],
    "a failed attempt is shown itself": [change("{me.feedback}", "{me.feedback}{me.text}")],
    "nothing to be shown: return None": [
        change("        return None", "        return me.problem.messages")
    ],
    "or a message before it, is gone": [
        change("[*earlier, {", "[{"),
        change('question["content"] + shown', "shown"),
    ],
    "own messages were changed": [in_place],
}


@each_mistake(
    (
        (check_score, WRONG_SCORES),
        (check_kl, WRONG_KLS),
        (check_reprompt, WRONG_REPROMPTS),
    )
)
def test_a_classic_mistake_is_named(check, function, words):
    assert_named(check, function, words)


def test_the_right_answer_passes_however_it_is_written():
    for check, function in (
        (check_score, sdpo_min.score),
        (check_kl, sdpo_min.kl),
        (check_reprompt, sdpo_min.reprompt),
    ):
        assert check(function).startswith("✓ ")
        assert check(lambda *_: None) == checks.UNWRITTEN
    assert check_kl(
        lambda p, q: torch.nn.functional.kl_div(
            q.detach(), p, log_target=True, reduction="none"
        ).sum(-1)
    ).startswith("✓ ")
    assert check_kl(lambda p, q: (p.exp() * (p - q).detach()).sum(-1)).startswith("✓ "), (
        "the same gradient: p's own sums to nothing"
    )
    slow = lambda m, p, x: torch.stack(
        [logits_of(m, p + x[:t])[-1] for t in range(len(x))]
    ).log_softmax(-1)
    assert check_score(slow).startswith("✓ ")
    assert check_reprompt(change("\\n\\nCorrectly solve the original question.", "")).startswith(
        "✓ "
    ), "the words are free"


# -- the last assertion of the notebook

BREAKS = {
    "the other direction of the KL": ("(p.exp() * (p - q.detach()))", "(q.exp() * (q - p))"),
    "logits shifted by one": ("logits[len(prompt) - 1 : -1]", "logits[len(prompt) : -1]"),
    "sum over the tokens": ("torch.cat(losses).mean()", "torch.cat(losses).sum()"),
    "mean of the attempts' means": (
        "torch.cat(losses).mean()",
        "torch.stack([x.mean() for x in losses]).mean()",
    ),
    "rate of the average turned round": ("(1 - rate) * t + rate * s", "rate * t + (1 - rate) * s"),
    "no feedback": ("elif me.reward < 1 and me.feedback:", "elif False:"),
    "own answer as the demonstration": (" and j != i", ""),
    "noise without the attempt's index": (
        "(seed, number, problem.id, i)",
        "(seed, number, problem.id)",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_last_assertion_of_the_notebook_finds_a_broken_line():
    """The notebook up to section 8 once; then for every broken line its cell anew, and section
    10."""
    sections, code = 0, {}
    for c in CELLS:
        if c.cell_type == "markdown" and (heading := re.search(r"^## (\d+)\.", c.source, re.M)):
            sections = int(heading[1])
        elif c.cell_type == "code":
            code.setdefault(sections, []).append(c.source)
    names = {"get_ipython": None, "display": print}

    def run(*sources: str) -> None:
        for source in sources:
            exec(compile(source, "cell", "exec"), names)

    run(*(source for section in range(9) for source in code[section]))
    run(*code[10])
    mine = [
        source for source in code[10] if "lab.SDPOTrainer(" not in source
    ]  # the trainer's run is there already
    for name, (old, new) in BREAKS.items():
        (cell,) = [source for section in range(9) for source in code[section] if old in source]
        run(cell.replace(old, new))
        with pytest.raises(AssertionError, match="are not the same"):
            run(*mine)
            pytest.fail(f"{name}: not found")
        run(cell)
