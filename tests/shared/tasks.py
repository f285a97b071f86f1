"""Two tasks by protocol alone, which a random model can learn, and settings of a short run."""

from __future__ import annotations

import sdpo_lab as lab

SMALL = dict(
    generation_batch_size=8,
    num_generations=4,
    max_completion_length=12,
    learning_rate=1e-2,
)


def written(split: str, seed: int, i: int, text: str) -> lab.Problem:
    return lab.Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": text}])


class Vowels:
    """Rewards an even number of vowels; the feedback counts them."""

    def problems(self, n, split="train", seed=0):
        return [written(split, seed, i, f"write {i}") for i in range(n)]

    def judge(self, problem, completion):
        count = sum(completion.count(v) for v in "aeiou")
        return (1.0, "") if count % 2 == 0 else (0.0, f"{count} vowels")


class Letters:
    """Right is what has an even number of letters e: a random model succeeds often."""

    def problems(self, n, split="train", seed=0):
        text = f"Write {split} {seed % 100}"
        return [
            lab.Problem(f"{split}/{seed}/{k}", [{"role": "user", "content": f"{text} {k}."}])
            for k in range(n)
        ]

    def judge(self, problem, completion):
        count = completion.count("e")
        return (1.0, "") if count % 2 == 0 and completion else (0.0, f"{count} letters e")
