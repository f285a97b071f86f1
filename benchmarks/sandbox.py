"""How many verdicts a second the sandbox gives: `python benchmarks/sandbox.py`, on a machine that
does nothing else.

A verdict is a whole one of `tinycode`: the attempt's program in a process of its own with all its
public tests, and what is said of it. Attempts are the accepted solutions and the shipped model's
own (mostly wrong) ones, 64 a call as in a step of training. The median of five rounds; the budget
is 150 a second on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time

from common import table, write

import sdpo_lab as lab
from sdpo_lab.core.task import draw_problems, judge_all


def measure(rounds: int, n: int = 64) -> list[dict]:
    task = lab.load_task("tinycode", seed=100)
    problems = draw_problems(task, n, "train", 0)
    attempts = {"accepted solutions": [(p, task.solution(p)) for p in problems]}
    model, tokenizer = lab.load_model()
    attempts["the model's attempts"] = [
        (r.problem, r.text) for r in lab.rollout(model, tokenizer, problems[: n // 8], 8, seed=0)
    ]
    rows = []
    for kind, pairs in attempts.items():
        ps, texts = zip(*pairs)
        judge_all(task, list(ps), list(texts))  # servers started
        rates, right = [], 0.0
        for _ in range(rounds):
            began = time.perf_counter()
            verdicts = judge_all(task, list(ps), list(texts))
            rates.append(len(verdicts) / (time.perf_counter() - began))
            right = sum(v.reward >= 1 for v in verdicts) / len(verdicts)
        rows.append(
            {
                "kind": kind,
                "verdicts": len(pairs),
                "right": right,
                "rate": statistics.median(rates),
                "slowest": min(rates),
                "rates": rates,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    write(
        "sandbox",
        rows,
        table(
            {
                "attempts": "{kind}",
                "of them right": "{right:.0%}",
                "a call": "{verdicts}",
                "verdicts a second, median": "{rate:.0f}",
                "slowest round": "{slowest:.0f}",
            },
            rows,
        ),
    )


if __name__ == "__main__":
    main()
