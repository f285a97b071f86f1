"""How time and memory grow: `python benchmarks/scaling.py`.

Memory of the loss over the vocabulary (extra peak beyond weights and gradients, hidden size 64,
4,096 active tokens); seconds of a whole training step over group size and over completion length,
the shipped model; and over the size of the model, random weights. "over linear" is the time divided
by what the first row would give if time grew in proportion; its floor is the same of the
multiply-adds, those of attention counted. Every row is measured in three rounds, the rows in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from common import in_a_process, peak_memory, table, write

VOCABULARIES, GROUPS, LENGTHS, WIDTHS = (
    (8_192, 32_768, 131_072, 262_144),
    (4, 8, 16, 32),
    (64, 128, 256, 512, 1024),
    (128, 256, 512),
)
ROUNDS, PROMPT, SHOWN = 3, 45, 95  # tokens of the student's and the teacher's prompt, about


def loss(vocabulary: int, hidden_size: int = 64, tokens: int = 4096) -> dict:
    import torch

    from sdpo_lab.core.config import SDPOConfig
    from sdpo_lab.core.objective import LOGITS_AT_ONCE, Tokens, loss_and_backward
    from sdpo_lab.core.scoring import LinearInPlaceGrad

    torch.manual_seed(0)
    heads = [torch.nn.Linear(hidden_size, vocabulary, bias=False) for _ in range(2)]
    heads[0].weight.grad = torch.full_like(heads[0].weight, 1e-30).zero_()
    read = torch.randn(tokens, hidden_size)
    hidden, config = (
        torch.randn(tokens, hidden_size, requires_grad=True),
        SDPOConfig(distillation_mode="full_logits", distillation_alpha=0.5),
    )
    ones = torch.ones(tokens)
    t = Tokens(
        ids=torch.randint(0, vocabulary, (tokens,)),
        rows=torch.zeros(tokens, dtype=torch.long),
        weights=ones / tokens,
        distill_mask=ones,
        group_advantages=0 * ones,
    )

    def teacher(part: slice) -> torch.Tensor:
        with torch.no_grad():
            return heads[1](read[part])

    before = peak_memory(reset=True)
    began = time.perf_counter()
    loss_and_backward(
        config,
        hidden * 1,
        lambda part: LinearInPlaceGrad.apply(part, heads[0].weight),
        teacher,
        t,
        vocabulary,
    )
    extra = peak_memory() - before
    return dict(
        vocabulary=vocabulary,
        extra=extra / 2**20,
        all_logits=tokens * vocabulary * 4 / 2**20,
        chunk=LOGITS_AT_ONCE * 4 / 2**20,
        chunks=extra / (LOGITS_AT_ONCE * 4),
        seconds=time.perf_counter() - began,
    )


def step(group: int, length: int, width: int = 128, steps: int = 3) -> dict:
    import torch

    import sdpo_lab as lab
    from sdpo_lab.core import sampling

    sampling.end_ids = lambda model, tokenizer: {-1}

    class Told:
        def __init__(self, task):
            self.problems = task.problems

        def judge(self, problem, completion):
            return (
                0.0,
                "TypeError: call() got an unexpected keyword argument 'name'. "
                "Accepted arguments: city, day, unit",
            )

    model, tokenizer = lab.load_model()
    if width != model.config.hidden_size:
        config = model.config
        config.update(
            dict(
                hidden_size=width,
                intermediate_size=3 * width,
                num_attention_heads=width // 32,
                num_key_value_heads=width // 32,
            )
        )
        torch.manual_seed(0)
        model = type(model)(config)
    config = lab.SDPOConfig.preset(
        "laptop",
        learning_rate=0.0,
        num_generations=group,
        generation_batch_size=2 * group,
        max_completion_length=length,
        per_device_train_batch_size=16,
    )
    trainer = lab.SDPOTrainer(model, tokenizer, Told(lab.load_task("toolcall", seed=100)), config)
    trainer.step()
    before = peak_memory(reset=True)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - began)
    weights, layers = sum(p.numel() for p in model.parameters()), model.config.num_hidden_layers
    return dict(
        group=group,
        length=length,
        width=width,
        weights=weights,
        seconds=statistics.median(seconds),
        extra=(peak_memory() - before) / 2**20,
        work=work(group, length, weights, layers, width),
    )


def work(group: int, length: int, weights: int, layers: int, width: int) -> float:
    """Multiply-adds of a step: sampling 1, student 3, teacher 1, a token and weight; and as often 2
    a token, layer, unit and token looked at.
    """

    def read(prompt: int) -> float:
        tokens = prompt + group * length  # the prompt is read once for its group
        looks = prompt**2 / 2 + group * (length * prompt + length**2 / 2)
        return 2 * (tokens * weights + 2 * looks * layers * width)

    return (1 + 3) * read(PROMPT) + read(SHOWN)


def over_linear(rows: list[dict], by: str) -> list[dict]:
    for row in rows:
        row["over"], row["floor"] = (
            row[x] / rows[0][x] / (row[by] / rows[0][by]) for x in ("seconds", "work")
        )
    return rows


def in_turns(settings: list[tuple[int, ...]]) -> list[dict]:
    """One row a setting: the median of each number over the rounds."""
    rounds = [
        [in_a_process(__file__, "step", *numbers) for numbers in settings] for _ in range(ROUNDS)
    ]
    return [{k: statistics.median(r[k] for r in runs) for k in runs[0]} for runs in zip(*rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, *numbers = options.one
        print(json.dumps({"loss": loss, "step": step}[kind](*map(int, numbers))))
        return
    memory = [in_a_process(__file__, "loss", v) for v in VOCABULARIES]
    groups = over_linear(in_turns([(g, 64) for g in GROUPS]), "group")
    lengths = over_linear(in_turns([(8, n) for n in LENGTHS]), "length")
    widths = over_linear(in_turns([(8, 64, w) for w in WIDTHS]), "weights")
    shown = [
        table(
            {
                "vocabulary": "{vocabulary:,}",
                "extra MiB": "{extra:,.0f}",
                "in chunks of logits": "{chunks:.1f}",
                "all logits once MiB": "{all_logits:,.0f}",
            },
            memory,
        )
    ]
    for heading, by, rows in (
        ("group size", "group", groups),
        ("new tokens", "length", lengths),
        ("weights", "weights", widths),
    ):
        shown.append(
            table(
                {
                    heading: f"{{{by}:,}}",
                    "s a step": "{seconds:.2f}",
                    "over linear": "{over:.2f}",
                    "its floor": "{floor:.2f}",
                    "extra MiB": "{extra:,.0f}",
                },
                rows,
            )
        )
    write("scaling", [*memory, *groups, *lengths, *widths], "\n\n".join(shown))


if __name__ == "__main__":
    main()
