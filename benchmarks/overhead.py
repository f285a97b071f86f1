"""What the teacher costs: `python benchmarks/overhead.py`.

The teacher's pass against the student's forward and backward over the same active attempts, and a
whole step of SDPO against one of GRPO, the shipped model, 8 problems x 8 attempts that write
exactly as many tokens as the column says (the end token is taken from them). The floor counts
multiply-adds of the weights: sampling 1, student 3 (forward, two products backward), teacher 1,
each times the tokens it must read when what attempts have in common is read once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from common import in_a_process, table, write

PROBLEMS, GROUP = 8, 8
COLUMNS = {
    "new tokens": "{length}",
    "teacher / student": "{teacher_over_student:.2f}",
    "its floor": "{teacher_floor:.2f}",
    "GRPO s": "{grpo:.2f}",
    "SDPO s": "{sdpo:.2f}",
    "SDPO / GRPO": "{ratio:.2f}",
    "floor of that": "{floor:.2f}",
}


def one(length: int, steps: int) -> dict:
    import sdpo_lab as lab
    from sdpo_lab.core import loop as room
    from sdpo_lab.core import sampling, scoring, teachers

    sampling.end_ids = lambda model, tokenizer: {-1}  # nothing ends an attempt
    spent, tokens = {"student": 0.0, "teacher": 0.0}, {"student": 0, "teacher": 0}

    def timed(function, name):
        def call(*arguments, **settings):
            began = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    def counted(function, name):
        def call(model, prompts, completions, bf16=False):
            prefixes, of = scoring.shared_prefixes(prompts)
            tokens[name] += sum(map(len, prefixes)) + sum(
                len(p) + len(c) - len(prefixes[k]) for p, c, k in zip(prompts, completions, of)
            )
            return function(model, prompts, completions, bf16)

        return call

    class Told:
        def __init__(self, task):
            self.problems, self.calls = task.problems, 0

        def judge(self, problem, completion):
            self.calls += 1
            return (
                float(self.calls % 2),
                "TypeError: call() got an unexpected keyword argument 'name'. "
                "Accepted arguments: city, day, unit",
            )

    def make(**fields):
        model, tokenizer = lab.load_model()
        config = lab.SDPOConfig.preset(
            "laptop", learning_rate=0.0, max_completion_length=length, **fields
        )
        return lab.SDPOTrainer(model, tokenizer, Told(lab.load_task("toolcall", seed=100)), config)

    # every other attempt succeeds, so all are active in both methods: each has a sibling that
    # succeeded, and the rewards of a group differ
    runs = {"sdpo": make(), "grpo": make(distillation_weight=0.0)}
    seconds = {name: [] for name in runs}
    hidden, backward = room.completion_hidden, room.backward
    for step in range(steps + 1):
        for name, run in runs.items():
            if (
                name == "sdpo"
            ):  # the head and the loss read both roles' logits; they count as the student's
                room.completion_hidden, room.backward = (
                    counted(timed(hidden, "student"), "student"),
                    timed(backward, "student"),
                )
                teachers.completion_hidden = counted(timed(hidden, "teacher"), "teacher")
            began = time.perf_counter()
            record = run.step()
            seconds[name].append(time.perf_counter() - began)
            room.completion_hidden, room.backward, teachers.completion_hidden = (
                hidden,
                backward,
                hidden,
            )
            if name == "sdpo" and step == 0:
                spent.update(student=0.0, teacher=0.0)
                tokens.update(student=0, teacher=0)
            assert (
                record.metrics["active_fraction"] == 1.0
                and record.metrics["completion_length"] == length
            ), record.metrics
    written = steps * PROBLEMS * GROUP * length
    sampled = written + tokens["student"] - steps * PROBLEMS * GROUP * length
    floor = (sampled + 3 * tokens["student"] + tokens["teacher"]) / (
        sampled + 3 * tokens["student"]
    )
    sdpo, grpo = (statistics.median(x[1:]) for x in (seconds["sdpo"], seconds["grpo"]))
    return dict(
        length=length,
        teacher_over_student=spent["teacher"] / spent["student"],
        teacher_floor=tokens["teacher"] / 3 / tokens["student"],
        sdpo=sdpo,
        grpo=grpo,
        ratio=statistics.median(a / b for a, b in zip(seconds["sdpo"][1:], seconds["grpo"][1:])),
        floor=floor,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    rows = [in_a_process(__file__, length, options.steps) for length in options.lengths]
    write("overhead", rows, table(COLUMNS, rows), steps=options.steps)


if __name__ == "__main__":
    main()
