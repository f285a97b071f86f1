"""Seconds a training step against TRL's trainers, for the same work: `python
benchmarks/step_time.py`.

The shipped model, 8 conversational prompts x 8 attempts a step, new tokens up to 64, top-k loss
with tail, AdamW, EMA teacher, and the learning rate 0, so that the model and with it the length of
what it writes stay what they are. Every attempt is shown the same text to its teacher (TRL takes
one text a prompt), so all are active on both sides. Processes of their own, in turns, the medians
of the pairs. "floor" is the arithmetic: multiply-adds of the passes that must be made, at the speed
of one large matrix product measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from common import in_a_process, matrix_speed, table, write

PROBLEMS, GROUP, NEW_TOKENS, WARM_UP = 8, 8, 64, 2
LENGTH = 15  # tokens an attempt of this model has, about
HINT = (
    "TypeError: call() got an unexpected keyword argument 'name'. "
    "Accepted arguments: city, day, unit"
)
METHODS = ("sdpo", "grpo")


def material():
    import sdpo_lab as lab

    model, tokenizer = lab.load_model()
    return model, tokenizer, lab.load_task("toolcall", seed=100)


def our_trainer(method: str):
    import sdpo_lab as lab

    class Hinted:  # the same text to everybody
        def __init__(self, task):
            self.task = task

        def problems(self, n, split="train", seed=0):
            return self.task.problems(n, split, seed)

        def judge(self, problem, completion):
            self.task.judge(problem, completion)
            return 0.0, HINT

    model, tokenizer, task = material()
    extra = {"distillation_weight": 0.0} if method == "grpo" else {}
    task = task if method == "grpo" else Hinted(task)
    return lab.SDPOTrainer(
        model,
        tokenizer,
        task,
        lab.SDPOConfig.preset("laptop", learning_rate=0.0, normalize="all_rows", **extra),
    )


def ours(method: str, steps: int) -> dict:
    trainer = our_trainer(method)
    trainer.train(WARM_UP, progress=False)
    began = time.perf_counter()
    history = trainer.train(steps, progress=False)
    seconds = time.perf_counter() - began
    records = history.records[WARM_UP:]
    return {
        "seconds": seconds / steps,
        "tokens": statistics.fmean(r.metrics["completion_length"] for r in records),
        "active": statistics.fmean(r.metrics["active_fraction"] for r in records),
    }


def trl(method: str, steps: int) -> dict:
    import tempfile

    from datasets import Dataset
    from transformers import TrainerCallback

    model, tokenizer, task = material()
    problems = task.problems(PROBLEMS * (steps + WARM_UP), split="train", seed=1)
    by_text = {p.messages[-1]["content"]: p for p in problems}

    def reward(prompts, completions, **_):
        verdicts = [
            task.judge(by_text[p[-1]["content"]], c[0]["content"])
            for p, c in zip(prompts, completions)
        ]
        return [v.reward if method == "grpo" else 0.0 for v in verdicts]

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            self.times.append(time.perf_counter())

    common = dict(
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        learning_rate=0.0,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        weight_decay=0.01,
        per_device_train_batch_size=PROBLEMS * GROUP,
        num_generations=GROUP,
        max_steps=steps + WARM_UP,
        max_completion_length=NEW_TOKENS,
        temperature=1.0,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        seed=0,
    )
    data = Dataset.from_list([{"prompt": p.messages, "privileged_context": HINT} for p in problems])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model.config._name_or_path = folder  # TRL loads the teacher from there
        if method == "sdpo":
            from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

            config = SDPOConfig(
                output_dir=folder,
                **common,
                distillation_mode="topk_logits",
                distillation_topk=100,
                distillation_add_tail=True,
                distillation_alpha=0.5,
                include_environment_feedback=True,
                teacher_update_rate=0.01,
            )
            trainer = SDPOTrainer(
                model=model,
                reward_funcs=reward,
                args=config,
                train_dataset=data,
                processing_class=tokenizer,
            )
        else:
            from trl import GRPOConfig, GRPOTrainer

            config = GRPOConfig(
                output_dir=folder, **common, beta=0.0, scale_rewards="none", loss_type="grpo"
            )
            trainer = GRPOTrainer(
                model=model,
                reward_funcs=reward,
                args=config,
                train_dataset=data.remove_columns("privileged_context"),
                processing_class=tokenizer,
            )
        clock = Clock()
        clock.times = []
        trainer.add_callback(clock)
        trainer.train()
    lengths = [
        x
        for log in trainer.state.log_history
        for k, x in log.items()
        if k == "completions/mean_length"
    ] or trainer._metrics["train"]["completions/mean_length"]
    return {
        "seconds": (clock.times[-1] - clock.times[WARM_UP - 1]) / steps,
        "tokens": statistics.fmean(lengths) if lengths else float("nan"),
        "active": 1.0,
    }


def parts(steps: int) -> dict:
    """Where a step of SDPO spends its time, in seconds, and how many tokens the model samples one
    after another.
    """
    from sdpo_lab.core import loop as room
    from sdpo_lab.core import sampling, teachers

    spent, calls = dict.fromkeys(FLOORS["sdpo"], 0.0), {"sampling": 0}

    def timed(module, name, part):
        function = getattr(module, name)

        def call(*arguments, **settings):
            began = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                spent[part] += time.perf_counter() - began

        setattr(module, name, call)

    trainer = our_trainer("sdpo")
    draw = sampling.draw

    def counted(*arguments):
        calls["sampling"] += 1
        return draw(*arguments)

    trainer.train(WARM_UP, progress=False)
    sampling.draw = counted
    for module, name, part in (
        (room, "sample_rollouts", "sampling"),
        (room, "completion_hidden", "student"),
        (room, "loss_and_backward", "student"),
        (teachers, "completion_hidden", "teacher"),
    ):
        timed(module, name, part)
    began = time.perf_counter()
    trainer.train(steps, progress=False)
    spent["the rest"] = time.perf_counter() - began - sum(spent.values())
    return {part: seconds / steps for part, seconds in spent.items()} | {
        "passes": calls["sampling"] / steps,
        "products": products(trainer),
    }


def products(trainer) -> float:
    """Share of matrix products in the time of all operations of a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        trainer.train(3, progress=False)
    times = {row.key: row.self_cpu_time_total for row in found.key_averages()}
    return sum(
        times.get(name, 0) for name in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
    ) / sum(times.values())


#: Multiply-adds a token and weight of the passes that must be made.
FLOORS = {
    "sdpo": {"sampling": 1, "student": 3, "teacher": 1},
    "grpo": {"sampling": 1, "student": 3},
}


def floor(method: str) -> dict[str, float]:
    """Seconds the multiply-adds of one step take at the speed of a large matrix product: sampling
    1, student 3, teacher 1, a token and weight; what attempts have in common is read once.
    Attention, norms, softmaxes and the overhead of small products are not in it.
    """
    from sdpo_lab.core.chat import encode_chat
    from sdpo_lab.core.config import SDPOConfig
    from sdpo_lab.core.reprompt import teacher_messages

    model, tokenizer, task = material()
    weights = sum(
        p.numel() for p in model.parameters()
    )  # the tied head multiplies once a token, the embedding never
    tokens, speed = dict.fromkeys(FLOORS[method], 0.0), matrix_speed()
    for p in task.problems(PROBLEMS, split="train", seed=1):
        plain, shown = (
            len(encode_chat(tokenizer, m))
            for m in (p.messages, teacher_messages(p.messages, "", HINT, SDPOConfig()))
        )
        for part, passes in FLOORS[method].items():
            tokens[part] += passes * ((shown if part == "teacher" else plain) + GROUP * LENGTH)
    return {part: n * weights / speed for part, n in tokens.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # library, method, steps
    options = parser.parse_args()
    if options.one:
        library, method, steps = options.one
        print(
            json.dumps(
                parts(int(steps))
                if library == "parts"
                else {"ours": ours, "trl": trl}[library](method, int(steps))
            )
        )
        return
    rows = []
    for method in options.methods:
        pairs = []
        for _ in range(options.pairs):
            pairs.append(
                {
                    library: in_a_process(__file__, library, method, options.steps)
                    for library in ("ours", "trl")
                }
            )
            print(method, {k: round(v["seconds"], 3) for k, v in pairs[-1].items()}, flush=True)
        ratios = [p["ours"]["seconds"] / p["trl"]["seconds"] for p in pairs]
        rows.append(
            {
                "method": method,
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "floor": sum(floor(method).values()),
            }
            | {
                library: statistics.median(p[library]["seconds"] for p in pairs)
                for library in ("ours", "trl")
            }
            | {
                f"{library}_tokens": statistics.median(p[library]["tokens"] for p in pairs)
                for library in ("ours", "trl")
            }
        )
    profiles = [
        in_a_process(__file__, "parts", "sdpo", options.steps) for _ in range(options.pairs)
    ]
    floors = floor("sdpo")
    where = [
        {
            "part": part,
            "seconds": statistics.median(p[part] for p in profiles),
            "floor": floors.get(part, 0.0),
        }
        for part in (*floors, "the rest")
    ]
    for row in where:
        row["gap"] = row["seconds"] - row["floor"]
    passes, share = (
        statistics.median(p[name] for p in profiles) for name in ("passes", "products")
    )
    shown = table(
        {
            "method": "{method}",
            "s a step": "{ours:.2f}",
            "TRL s": "{trl:.2f}",
            "ratio, median of pairs": "{ratio:.2f}",
            "from": "{lowest:.2f}",
            "to": "{highest:.2f}",
            "tokens an attempt": "{ours_tokens:.1f}",
            "TRL": "{trl_tokens:.1f}",
            "floor s": "{floor:.2f}",
        },
        rows,
    )
    profile = table(
        {
            "part of an SDPO step": "{part}",
            "s": "{seconds:.3f}",
            "floor s": "{floor:.3f}",
            "above it": "{gap:.3f}",
        },
        where,
    )
    told = (
        f"Sampling makes {passes:.0f} passes a step one after another. "
        f"Matrix products are {share:.0%} of the time of all operations."
    )
    write(
        "step_time",
        rows,
        f"{shown}\n\n{profile}\n\n{told}",
        pairs=options.pairs,
        steps=options.steps,
        parts=where,
        passes=passes,
        products=share,
    )


if __name__ == "__main__":
    main()
