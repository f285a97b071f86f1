"""Measure a shipped model and write its card: `python -m small_models.card small_models/lab-1m`.

All accuracies are of one attempt a problem at T = 1, on test problems, over conventions that serve
for nothing else (seeds 200 and up).
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdpo_lab.analysis.evaluation import wilson
from sdpo_lab.analysis.preflight import preflight
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import rollout
from sdpo_lab.models import load_model
from sdpo_lab.runs.recorded import model_checksum, software
from sdpo_lab.tasks import SHIPPED, Problem, load_task
from sdpo_lab.tasks.toolcall.judge import find_errors, say
from sdpo_lab.tasks.toolcall.world import NOVELTY
from small_models import held_out, reading, wordings
from small_models.card_text import card_text, checkpoint_text

SEEDS = range(200, 206)


class Bench:
    """Test problems of several conventions, each with a failed attempt of the model, and the ways
    to show something of it.
    """

    def __init__(
        self, model: Any, tokenizer: Any, novelty: str = "seen", n: int = 60, seeds: range = SEEDS
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.cases, self.right, self.total = (
            [],
            0,
            0,
        )  # cases: (task, problem, error of the failed attempt)
        for seed in seeds:
            task = load_task("toolcall", seed=seed, novelty=novelty)
            for r in rollout(
                model,
                tokenizer,
                task.problems(n, split="test", seed=1),
                1,
                1.0,
                seed=7,
                max_completion_length=64,
            ):
                errors, _ = find_errors(r.problem.data["calls"], task.convention, r.text)
                self.total, self.right = self.total + 1, self.right + (not errors)
                if errors:
                    self.cases.append((task, r.problem, errors[0]))

    def bare(self) -> dict[str, Any]:
        return proportion(self.right, self.total)

    def shown(self, parts: tuple[str, ...], words: str = "paper", level: int = 2) -> dict[str, Any]:
        """Accuracy when the prompt shows `parts` ("solution", "feedback") in the words "paper",
        "seen" or "held out".

        In other words than the judge's there are only messages about an unexpected argument, nearly
        all that occur.
        """
        rng, problems = random.Random(3), []
        cases = [c for c in self.cases if words == "paper" or c[2].kind == "unexpected"]
        for i, (task, problem, error) in enumerate(cases):
            text = {"solution": task.solution(problem)} if "solution" in parts else {}
            if "feedback" in parts:
                text["feedback"] = {
                    "paper": lambda: say(error, level),
                    "seen": lambda: wordings.message(error, level, rng),
                    "held out": lambda: held_out.message(error, rng),
                }[words]()
            question = problem.messages[-1]["content"]
            if words == "paper":
                messages = teacher_messages(
                    problem.messages,
                    text.get("solution", ""),
                    text.get("feedback", ""),
                    SDPOConfig(),
                )
            else:
                messages = [
                    {
                        "role": "user",
                        "content": {"seen": wordings, "held out": held_out}[words].frame(
                            question, text, rng
                        ),
                    }
                ]
            problems.append(Problem(f"{problem.id}#{i}", messages))
        attempts = rollout(
            self.model,
            self.tokenizer,
            problems,
            1,
            1.0,
            seed=8,
            max_completion_length=64,
            batch_size=256,
        )
        return proportion(
            sum(t.judge(p, r.text).reward == 1 for (t, p, _), r in zip(cases, attempts)),
            len(attempts),
        )


def proportion(k: int, n: int) -> dict[str, Any]:
    return {"accuracy": k / n, "interval": wilson(k, n), "n": n}


def measure(model: Any, tokenizer: Any, n: int = 60) -> dict[str, dict[str, Any]]:
    """Every number of the card, by name."""
    b = Bench(model, tokenizer, n=n)
    found = {"bare question": b.bare(), "after a failure: solution": b.shown(("solution",))}
    for level in (1, 2, 3):
        found[f"after a failure: feedback, dial {level}"] = b.shown(("feedback",), level=level)
    found["after a failure: solution and feedback, dial 2"] = b.shown(("solution", "feedback"))
    for words in ("seen", "held out"):
        found[f"{words} wordings: feedback, dial 2"] = b.shown(("feedback",), words)
        found[f"{words} wordings: solution"] = b.shown(("solution",), words)
    for novelty in NOVELTY[1:]:
        b = Bench(model, tokenizer, novelty, n=n)
        found[f"novelty {novelty}: bare question"] = b.bare()
        found[f"novelty {novelty}: solution"] = b.shown(("solution",))
        for level in (2, 3):
            found[f"novelty {novelty}: feedback, dial {level}"] = b.shown(
                ("feedback",), level=level
            )
    return found | beside_readers(model, tokenizer, n)


def beside_readers(model: Any, tokenizer: Any, n: int = 60) -> dict[str, dict[str, Any]]:
    """One message of the judge, beside what an exact reader of the documents gets."""
    rows = [("toolcall", 1), ("toolcall", 2), ("toolcall", 3), ("tinycode", 2), ("followup", 2)]
    found = {}
    for name, level in rows:
        seen = reading.beside_the_reader(model, tokenizer, name, SEEDS, n, level)
        row = proportion(seen["successes"], seen["n"]) | {"bayes": seen["bayes"]}
        found[f"{name}: one message, dial {level}"] = row
    return found


def measure_words(model: Any, tokenizer: Any, n: int = 60) -> dict[str, Any]:
    """How far messages and sentences move names, and the distance to the exact reader."""
    failed = reading.failures(model, tokenizer, "toolcall", SEEDS, n)
    cases = reading.wrong_names(tokenizer, [(task, r) for task, r, _ in failed])
    distances = {
        f"dial {level}": reading.distance(model, tokenizer, cases[:120], level) for level in (1, 3)
    }
    return {"n": len(cases), "nats": reading.moved(model, tokenizer, cases), "distance": distances}


def try_tasks(model: Any, tokenizer: Any, n: int = 96) -> dict[str, dict[str, Any]]:
    """{task: {what: proportion}}: the preflight of every shipped task, seed 200."""
    found = {}
    for name, dials in SHIPPED.items():
        report = preflight(
            model, tokenizer, load_task(name, seed=SEEDS.start, **dials), n=n, seed=1
        )
        shares = {
            "pass@1": report.pass_at_1,
            f"pass@{report.k}": report.pass_at_k,
            "teacher, feedback": report.teacher_feedback,
            "teacher, solution": report.teacher_solution,
        }
        found[name] = {
            what: proportion(share.successes, share.n) for what, share in shares.items() if share.n
        }
    return found


def kept_effect(found: dict[str, dict[str, Any]]) -> float:
    """Share of the teacher's gain over the bare question that is left in words no document used
    (feedback, dial 2).
    """
    bare = found["bare question"]["accuracy"]
    return (found["held out wordings: feedback, dial 2"]["accuracy"] - bare) / (
        found["seen wordings: feedback, dial 2"]["accuracy"] - bare
    )


def write_card(folder: Path, recipe: Any = None, log: Path | None = None, step: int = 0) -> None:
    """Measure the model in `folder`; write card.json and README.md beside it. Of an intermediate
    checkpoint (after `step`) the tasks alone are measured.
    """
    old = json.loads((folder / "card.json").read_text()) if (folder / "card.json").exists() else {}
    recipe, step = asdict(recipe) if recipe else old["recipe"], step or old.get("step", 0)
    model, tokenizer = load_model(str(folder))
    tasks = try_tasks(model, tokenizer)
    card = {
        "name": folder.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": model_checksum(folder),
        "recipe": recipe,
        "made_with": software(),
        "tasks": tasks,
        "summary": {
            name: tasks["toolcall"][name]["accuracy"]
            for name in ("pass@1", "teacher, feedback", "teacher, solution")
        },
    }
    if step:
        card["step"] = step
    else:
        found = measure(model, tokenizer)
        card |= {
            "loss_curve": [json.loads(line) for line in log.read_text().splitlines()]
            if log
            else old["loss_curve"],
            "measured": found,
            "words": measure_words(model, tokenizer),
        }
        card["summary"] = {
            "pass@1": found["bare question"]["accuracy"],
            "teacher, feedback": found["after a failure: feedback, dial 2"]["accuracy"],
            "teacher, solution": found["after a failure: solution"]["accuracy"],
            "kept in new words": kept_effect(found),
        }
    text = checkpoint_text(card) if step else card_text(card)
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", type=Path, default=None)
    arguments = parser.parse_args()
    write_card(arguments.folder, log=arguments.log)
