"""How time and memory grow: `python benchmarks/scaling.py`.

Memory of the loss over the vocabulary (extra peak beyond weights and gradients, hidden size 64, 512 active tokens), and seconds of a whole training step over group size
and over completion length, the shipped model. "over linear" is the time divided by what the row before it would give if time
grew in proportion.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from common import in_a_process, peak_memory, table, write

VOCABULARIES, GROUPS, LENGTHS = (8_192, 32_768, 131_072, 262_144), (4, 8, 16, 32), (64, 128, 256, 512, 1024)


def loss(vocabulary: int, hidden_size: int = 64, tokens: int = 512) -> dict:
    import torch

    from sdpo_lab.config import SDPOConfig
    from sdpo_lab.objective import LOGITS_AT_ONCE, Tokens, backward

    torch.manual_seed(0)
    heads = [torch.nn.Linear(hidden_size, vocabulary, bias=False) for _ in range(2)]
    heads[0].weight.grad = torch.full_like(heads[0].weight, 1e-30).zero_()
    read = torch.randn(tokens, hidden_size)
    hidden, config = torch.randn(tokens, hidden_size, requires_grad=True), SDPOConfig(distillation_mode="full_logits", distillation_alpha=0.5)
    ones = torch.ones(tokens)
    t = Tokens(ids=torch.randint(0, vocabulary, (tokens,)), rows=torch.zeros(tokens, dtype=torch.long), weights=ones / tokens, shown=ones, rewards=0 * ones)

    def teacher(part: slice) -> torch.Tensor:
        with torch.no_grad():
            return heads[1](read[part])

    before = peak_memory(reset=True)
    began = time.perf_counter()
    backward(config, hidden * 1, heads[0], teacher, t, vocabulary)
    extra = peak_memory() - before
    weight = vocabulary * hidden_size * 4  # a chunk's gradient of the head stands beside the sum of them
    return dict(vocabulary=vocabulary, extra=extra / 2**20, all_logits=tokens * vocabulary * 4 / 2**20, chunk=LOGITS_AT_ONCE * 4 / 2**20, head=weight / 2**20,
                chunks=(extra - weight) / (LOGITS_AT_ONCE * 4), seconds=time.perf_counter() - began)


def step(group: int, length: int, steps: int = 3) -> dict:
    import sdpo_lab as lab
    from sdpo_lab import rollouts

    rollouts.end_ids = lambda model, tokenizer: {-1}

    class Told:
        def __init__(self, task):
            self.problems = task.problems

        def judge(self, problem, completion):
            return 0.0, "TypeError: call() got an unexpected keyword argument 'name'. Accepted arguments: city, day, unit"

    model, tokenizer = lab.load_model()
    config = lab.SDPOConfig.preset("laptop", learning_rate=0.0, num_generations=group, generation_batch_size=2 * group, max_completion_length=length,
                                   per_device_train_batch_size=16)
    trainer = lab.SDPOTrainer(model, tokenizer, Told(lab.load_task("toolcall", seed=100)), config)
    trainer.step()
    before = peak_memory(reset=True)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - began)
    return dict(group=group, length=length, seconds=statistics.median(seconds), extra=(peak_memory() - before) / 2**20)


def over_linear(rows: list[dict], by: str) -> list[dict]:
    for last, row in zip([None, *rows], rows):
        row["over"] = f"{row['seconds'] / last['seconds'] / (row[by] / last[by]):.2f}" if last else ""
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, *numbers = options.one
        print(json.dumps({"loss": loss, "step": step}[kind](*map(int, numbers))))
        return
    memory = [in_a_process(__file__, "loss", v) for v in VOCABULARIES]
    groups = over_linear([in_a_process(__file__, "step", g, 64) for g in GROUPS], "group")
    lengths = over_linear([in_a_process(__file__, "step", 8, n) for n in LENGTHS], "length")
    shown = [table({"vocabulary": "{vocabulary:,}", "extra MiB": "{extra:,.0f}", "of that one gradient of the head": "{head:,.0f}", "rest, in chunks of logits": "{chunks:.1f}",
                    "all logits once MiB": "{all_logits:,.0f}"}, memory)]
    for heading, by, rows in (("group size", "group", groups), ("new tokens", "length", lengths)):
        shown.append(table({heading: f"{{{by}:,}}", "s a step": "{seconds:.2f}", "over linear": "{over}", "extra MiB": "{extra:,.0f}"}, rows))
    write("scaling", [*memory, *groups, *lengths], "\n\n".join(shown))


if __name__ == "__main__":
    main()
