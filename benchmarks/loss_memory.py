"""Memory and time of one loss, forward and backward, against TRL's: `python
benchmarks/loss_memory.py`.

Same random model (Qwen3, one layer, vocabulary of 151,936), same attempts, half of them active,
every mode of the loss. Memory is the peak of resident memory above what stands before the loss:
parameters of student and teacher and allocated gradients. Each measurement is a process of its own;
`--repeat` of them, the two libraries in turns; medians. Both must give the same loss and the same
gradient. TRL has no "sequence" mode: it is held against TRL's sampled token, whose work is the
nearest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from common import CORES, in_a_process, peak_memory, table, write

VOCABULARY, HIDDEN, ROWS, PROMPT, SHOWN = 151_936, 256, 8, 16, 32
MODES = {
    "full_logits": dict(distillation_mode="full_logits", distillation_alpha=0.5),
    "topk_logits": dict(
        distillation_mode="topk_logits",
        distillation_alpha=0.5,
        distillation_topk=100,
        distillation_add_tail=True,
    ),
    "sampled_token": dict(distillation_mode="sampled_token", distillation_alpha=1.0),
    "sequence": dict(distillation_mode="sequence", distillation_alpha=1.0),
}
TIME = {
    "full_logits": 0.5,
    "topk_logits": 0.6,
    "sampled_token": 0.6,
    "sequence": 0.6,
}  # limits at 1,536 tokens, of TRL's; memory 1/4
COLUMNS = {
    "completion tokens": "{tokens:,}",
    "mode": "{mode}",
    "MiB": "{ours_memory:,.0f}",
    "TRL MiB": "{trl_memory:,.0f}",
    "ratio": "{memory:.2f}",
    "s": "{ours_seconds:.1f}",
    "TRL s": "{trl_seconds:.1f}",
    "of it": "{seconds:.2f}",
}


def models():
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    student, teacher = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval() for _ in range(2)
    )
    return student, teacher.requires_grad_(False)


def attempts(tokens: int):
    """Prompts, teacher prompts and completions of `ROWS` attempts with `tokens` completion tokens
    in all.
    """
    import torch

    g = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, VOCABULARY, (ROWS, n), generator=g)
        for n in (PROMPT, SHOWN, tokens // ROWS)
    ]


def ours(mode: str, tokens: int):
    import torch

    from sdpo_lab.core.config import SDPOConfig
    from sdpo_lab.core.losses import token_weights
    from sdpo_lab.core.objective import Tokens, loss_and_backward
    from sdpo_lab.core.rollouts import Rollout
    from sdpo_lab.core.scoring import completion_hidden, token_logits
    from sdpo_lab.core.teachers import Teacher
    from sdpo_lab.tasks import Problem

    student, teacher_model = models()
    prompts, shown, completions = (x.tolist() for x in attempts(tokens))
    config = SDPOConfig(**MODES[mode])
    teacher = Teacher(teacher_model, "live", 0.0)
    active = torch.arange(ROWS) % 2 == 0
    chosen = active.nonzero()[:, 0].tolist()

    def loss() -> float:
        some = [completions[i] for i in chosen]
        rollouts = [
            Rollout(Problem("p", []), i, "", completions[i], shown_feedback="x") for i in chosen
        ]
        weights = token_weights(torch.ones(ROWS, tokens // ROWS), active, "all_rows")[chosen]
        hidden = completion_hidden(student, [prompts[i] for i in chosen], some)
        read = teacher.read([shown[i] for i in chosen], some, 1.0, False)
        t = Tokens.of(rollouts, weights.flatten(), torch.zeros(len(chosen)), None, hidden)
        return loss_and_backward(
            config, hidden, lambda h: token_logits(student, h), read, t, VOCABULARY
        ).item()

    return student, loss


def trl(mode: str, tokens: int):
    """TRL's own methods on an SDPOTrainer that was never initialised: only what its loss reads is
    set.
    """
    from collections import defaultdict
    from types import SimpleNamespace

    import torch
    from trl.experimental.sdpo import SDPOTrainer

    student, teacher = models()
    prompts, shown, completions = attempts(tokens)
    settings = dict(
        distillation_topk=None,
        distillation_add_tail=False,
        distillation_is_clip=None,
        teacher_model_kind="ema",
    )
    trainer = object.__new__(SDPOTrainer)
    trainer.args = SimpleNamespace(
        **settings | MODES["sampled_token" if mode == "sequence" else mode]
    )
    trainer.model, trainer.temperature, trainer.model_kwarg_keys = student, 1.0, {"logits_to_keep"}
    trainer.accelerator = SimpleNamespace(gather=lambda x: x, unwrap_model=lambda x: x)
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    ones = torch.ones_like
    inputs = dict(
        prompt_ids=prompts,
        prompt_mask=ones(prompts),
        completion_ids=completions,
        completion_mask=ones(completions),
        teacher_input_ids=torch.cat([shown, completions], 1),
        teacher_attention_mask=torch.ones(ROWS, SHOWN + completions.shape[1], dtype=torch.long),
        self_distillation_mask=(torch.arange(ROWS) % 2 == 0).float(),
    )

    def loss() -> float:
        logits = trainer._compute_teacher_student_logits(student, teacher, inputs)
        value = trainer._compute_self_distillation_loss(student, inputs, logits)
        del logits  # as in its compute_loss, where nothing else holds them
        value.backward()
        return value.item()

    return student, loss


def measure(library: str, mode: str, tokens: int) -> dict:
    import torch

    torch.set_num_threads(CORES)
    student, loss = {"ours": ours, "trl": trl}[library](mode, tokens)
    for p in student.parameters():
        p.grad = torch.full_like(p, 1e-30).zero_()  # touched, so that it is resident
    before = peak_memory(reset=True)
    began = time.perf_counter()
    value = loss()
    seconds = time.perf_counter() - began
    extra = peak_memory() - before
    norm = torch.stack([p.grad.double().norm() for p in student.parameters()]).norm().item()
    return dict(seconds=seconds, memory=extra / 2**20, loss=value, gradient_norm=norm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1536])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument(
        "--one", nargs=3, help=argparse.SUPPRESS
    )  # library, mode, tokens: one measurement in this process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], options.one[1], int(options.one[2]))))
        return
    rows = []
    for tokens in options.tokens:
        for mode in options.modes:
            found: dict[str, list[dict]] = {"ours": [], "trl": []}
            for _ in range(options.repeat):
                for library, results in found.items():
                    results.append(in_a_process(__file__, library, mode, tokens))
            row = {"tokens": tokens, "mode": mode}
            for what in ("memory", "seconds"):
                row |= {
                    f"{library}_{what}": statistics.median(r[what] for r in results)
                    for library, results in found.items()
                }
                row[what] = row[f"ours_{what}"] / row[f"trl_{what}"]
            if (
                mode != "sequence"
            ):  # TRL has no such mode: held against its sampled token, whose work is the nearest
                for what, tolerance in (("loss", 1e-7), ("gradient_norm", 1e-5)):
                    a, b = found["ours"][0][what], found["trl"][0][what]
                    assert abs(a - b) <= tolerance + 1e-5 * abs(b), (
                        f"{mode}, {tokens} tokens: {what} {a} and TRL's {b}"
                    )
            rows.append(row)
            print(table(COLUMNS, rows).splitlines()[-1], flush=True)
    write(
        "loss_memory",
        rows,
        table(COLUMNS, rows),
        repeat=options.repeat,
        vocabulary=VOCABULARY,
        hidden=HIDDEN,
        attempts=ROWS,
    )
    missed = [
        f"{r['tokens']} {r['mode']}"
        for r in rows
        if r["tokens"] == 1536 and (r["memory"] > 0.25 or r["seconds"] > TIME[r["mode"]])
    ]
    print(
        "within the limits at 1,536 tokens"
        if not missed
        else f"over the limits: {', '.join(missed)}"
    )


if __name__ == "__main__":
    main()
