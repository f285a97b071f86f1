"""How well an average over LoRA adapters follows the average of the weights: `python
benchmarks/lora_ema.py`.

Trains the shipped model with an adapter, and beside the trainer's own teacher keeps the exact
average of the products BA (what an average of the full weights would hold) and the average of the
factors A and B one by one. Errors are of the product, relative, all layers together. "no average":
the error of the student's own product in the teacher's place.
"""

from __future__ import annotations

import torch
from common import table, write

import sdpo_lab as lab

STEPS, REPORT = 60, (5, 20, 60)


@torch.no_grad()
def error(found: list[tuple[torch.Tensor, torch.Tensor]], exact: list[torch.Tensor]) -> float:
    """Relative distance of the products of the factors (A, B) from the exact average."""
    return float(
        (
            sum((b @ a - e).square().sum() for (a, b), e in zip(found, exact))
            / sum(e.square().sum() for e in exact)
        ).sqrt()
    )


def main() -> None:
    rows = []
    for rank, learning_rate, rate in (
        (8, 1e-3, 0.01),
        (8, 1e-3, 0.05),
        (8, 5e-3, 0.01),
        (2, 5e-3, 0.01),
    ):
        model, tokenizer = lab.load_model(lora=rank)
        config = lab.SDPOConfig.preset(
            "laptop",
            generation_batch_size=32,
            learning_rate=learning_rate,
            teacher_update_rate=rate,
        )
        trainer = lab.SDPOTrainer(model, tokenizer, lab.load_task("toolcall", seed=100), config)
        names = [n for n, _ in model.named_parameters() if "lora_A" in n]
        student = dict(model.named_parameters())
        pairs = [(student[n], student[n.replace("lora_A", "lora_B")]) for n in names]
        mine = trainer.teacher.lora_pairs()
        factors = [(a.detach().clone(), b.detach().clone()) for a, b in pairs]
        exact = [b.detach() @ a.detach() for a, b in pairs]
        for step in range(1, STEPS + 1):
            trainer.step()
            with torch.no_grad():
                for (a, b), (mean_a, mean_b), e in zip(pairs, factors, exact):
                    mean_a.lerp_(a, rate)
                    mean_b.lerp_(b, rate)
                    e.lerp_(b @ a, rate)

            if step in REPORT:
                row = dict(
                    rank=rank,
                    learning_rate=learning_rate,
                    rate=rate,
                    step=step,
                    ours=error(mine, exact),
                    factors=error(factors, exact),
                    none=error(pairs, exact),
                )
                rows.append(row)
                print(row, flush=True)
    write(
        "lora_ema",
        rows,
        table(
            {
                "rank": "{rank}",
                "learning rate": "{learning_rate:g}",
                "teacher rate": "{rate:g}",
                "step": "{step}",
                "our teacher": "{ours:.2%}",
                "factors one by one": "{factors:.1%}",
                "no average": "{none:.0%}",
            },
            rows,
        ),
    )


if __name__ == "__main__":
    main()
