"""Numbers that a change of the code's form must not change: `python -m tests.goldens.make` writes
them.

Made on the code of ff4735b, on one thread. The model is a random one whose weights are drawn here,
with a tokenizer that lies beside this file, so that nothing hangs on what the shipped models happen
to be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import random
import shutil
import sys
import warnings
from pathlib import Path

import torch
import transformers

import sdpo_lab as lab

HERE = Path(__file__).parent
FILE = HERE / "goldens.json"
RUN = HERE / "run_ff4735b"
SEEDS = range(20)
CONVENTION_TASKS = {
    "toolcall": {},
    "toolcall calls=3": {"calls": 3},
    "toolcall combination": {"novelty": "combination"},
    "toolcall pair": {"novelty": "pair"},
    "toolcall tool": {"novelty": "tool"},
    "toolcall nonsense": {"novelty": "nonsense"},
    "tinycode": {},
    "followup": {},
}
READING_TASKS = {
    "reasoning_gym:spell_backward": {"min_word_len": 3, "max_word_len": 5},
    "reasoning_gym:chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
}
SMALL = {
    "generation_batch_size": 16,
    "num_generations": 4,
    "max_completion_length": 12,
    "per_device_train_batch_size": 6,
    "learning_rate": 3e-3,
}
TEST_TIME = SMALL | {"generation_batch_size": 8, "num_generations": 8}
RICH = SMALL | {"steps_per_generation": 2}
PLAIN = {"distillation_alpha": 1.0, "max_reprompt_len": 1024}
#: name: (preset, what is set besides)
RUNS = {
    "laptop": ("laptop", SMALL),
    "paper": ("paper", SMALL | {"warmup_steps": 1}),
    "paper-rich-feedback": ("paper-rich-feedback", RICH),
    "paper-test-time": ("paper-test-time", TEST_TIME),
    "trl": ("trl", SMALL | {"num_iterations": 2}),
    "grpo": ("laptop", SMALL | {"distillation_weight": 0.0}),
    "grpo, two steps a batch": (
        "laptop",
        SMALL | {"distillation_weight": 0.0, "steps_per_generation": 2, "scale_rewards": True},
    ),
    "both losses": ("laptop", SMALL | {"distillation_weight": 0.5, "steps_per_generation": 2}),
    "both advantages": (
        "laptop",
        SMALL | PLAIN | {"distillation_mode": "sampled_token", "advantage_lambda": 0.9},
    ),
    "sequence": (
        "laptop",
        SMALL | PLAIN | {"distillation_mode": "sequence", "advantage_clip": 2.0},
    ),
    "full, frozen": (
        "laptop",
        SMALL | {"distillation_mode": "full_logits", "teacher_model_kind": "frozen"},
    ),
    "trust region, shortened": (
        "laptop",
        SMALL
        | {"teacher_model_kind": "trust_region", "teacher_update_rate": 0.3}
        | {"max_reprompt_len": 60, "include_own_attempt": True},
    ),
    "live, own success": (
        "laptop",
        SMALL | {"teacher_model_kind": "live", "self_success": "own", "top_p": 0.9},
    ),
}


def tiny_model():
    """(model of 33 thousand random weights, tokenizer). The weights are drawn name by name."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(HERE / "tokenizer")
    shape = dict(hidden_size=16, intermediate_size=48, num_hidden_layers=2, head_dim=16)
    heads = dict(num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048)
    special = dict(
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        **shape,
        **heads,
        **special,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.dim() > 1:
                seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
                noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
                p.copy_(0.3 * noise)
    return model, tokenizer


def spelling_task():
    """Half of what a random model writes is right here, and the judge has something to say of each
    failure."""

    def problems(n, split, seed):
        rng = random.Random(f"{seed}/{split}")
        words = ["".join(rng.choice("abcdefgh") for _ in range(4)) for _ in range(n)]
        return [
            {"prompt": f"Write the word {w}.", "word": w, "id": f"{i}-{w}"}
            for i, w in enumerate(words)
        ]

    def judge(problem, completion):
        letters = sum(map(ord, completion))
        return float(
            letters % 2
        ), "" if letters % 2 else f"{len(completion)} characters, sum {letters}"

    return lab.task_from_function(problems, judge, name="spelling")


def digest(value) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def exact(value):
    """Floats as their hexadecimal digits, in lists and dictionaries too."""
    if isinstance(value, dict):
        return {k: exact(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(v) for v in value]
    return value.hex() if isinstance(value, float) else value


def machine() -> dict[str, str]:
    """What decides the last digit."""
    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


# what is drawn


def worlds() -> dict[str, list[str]]:
    """Of every task and twenty seeds: digests of the convention and of the problems of both
    splits."""
    found = {}
    for name, dials in CONVENTION_TASKS.items():
        rows = []
        for seed in SEEDS:
            task = lab.load_task(name.split()[0], seed=seed, **dials)
            drawn = [
                [p.id, p.messages, p.data]
                for split in ("train", "test")
                for p in task.problems(6, split, seed)
            ]
            solved = [task.solution(p) for p in task.problems(3, "train", seed)]
            rows.append(f"{digest(task.convention)} {digest(drawn)} {digest(solved)}")
        found[name] = rows
    return found


def gym() -> dict[str, list[str]]:
    """The same of reasoning-gym's, which have no convention."""
    found = {}
    for name, dials in READING_TASKS.items():
        rows = []
        for seed in SEEDS:
            task = lab.load_task(name, seed=seed, **dials)
            rows.append(
                digest(
                    [
                        [p.id, p.messages]
                        for split in ("train", "test")
                        for p in task.problems(6, split, seed)
                    ]
                )
            )
        found[name] = rows
    return found


def ids() -> dict[str, list[str]]:
    """A few problem ids in the open, for whoever has to find out what moved."""
    return {
        name: [p.id for p in lab.load_task(name, seed=0).problems(5, "train", 0)]
        for name in lab.list_tasks()
        if ":" not in name
    }


def draws() -> dict[str, str]:
    """The draws that tasks and the documents of pre-training are made of."""
    from sdpo_lab.tasks import conventions as readings
    from sdpo_lab.tasks import followup, tinycode
    from sdpo_lab.tasks.tinycode import world as code_world
    from sdpo_lab.tasks.toolcall import requests, world

    rng = random.Random("goldens")
    tools = world.TOOLS + world.HELD_OUT_TOOLS
    kinds = {
        name: kind.questions if isinstance(kind.questions, dict) else kind.questions()
        for name, kind in followup.KINDS.items()
    }
    found = {
        "toolcall draw_from_prior": [
            world.draw_from_prior(t, rng) for t in tools for _ in range(20)
        ],
        "toolcall nonsense_name": [
            world.nonsense_name(rng, held) for held in (True, False) for _ in range(50)
        ],
        "toolcall draw_convention": [
            world.draw_convention(s, b, n)
            for s in SEEDS
            for b in (0.02, 0.2)
            for n in world.NOVELTY
        ],
        "toolcall draw_problem": [
            vars(requests.draw_problem(tools, calls, split, rng))
            for calls in (1, 3)
            for split in ("train", "test")
            for _ in range(10)
        ],
        "readings draw_from_prior": [
            readings.draw_from_prior(q, rng) for q in kinds.values() for _ in range(20)
        ],
        "readings draw_convention": [
            readings.draw_convention(kinds, "followup", s, b) for s in SEEDS for b in (0.05, 0.2)
        ],
        "followup draw_problem": [
            vars(followup.draw_problem(split, rng))
            for split in ("train", "test")
            for _ in range(10)
        ],
        "tinycode draw_problem": [
            vars(tinycode.draw_problem(split, rng))
            for split in ("train", "test")
            for _ in range(10)
        ],
        "tinycode draw_inputs": [
            code_world.draw_inputs(kind, rng) for kind in code_world.KINDS.values()
        ],
    }
    return {name: digest(value) for name, value in found.items()} | {
        "state of the generator": digest(rng.getstate())
    }


def verdicts() -> dict[str, list]:
    """What the judges say, at every dial of feedback."""
    found = {}
    for name, level in itertools.product(("toolcall", "followup"), range(4)):
        try:
            task = lab.load_task(name, seed=1, feedback=level)
        except ValueError:  # it has no such level
            continue
        problems = task.problems(4, "train", 0)
        wrong = ["", "hello", "weather(city='Oslo')", "f(", *map(task.solution, problems)]
        said = [task.judge(p, text) for p in problems for text in wrong]
        found[f"{name} feedback={level}"] = [[v.reward.hex(), v.feedback] for v in said]
    return {name: digest(rows) for name, rows in found.items()}


# what is trained


def tensors(named) -> dict[str, list[str]]:
    """Sum and sum of absolute values of each, in float64."""
    return {
        name: [t.double().sum().item().hex(), t.double().abs().sum().item().hex()]
        for name, t in sorted(named)
    }


def step_of(record) -> dict:
    fields = ("index", "text", "completion_ids", "entropy", "truncated", "reward", "feedback")
    shown = ("shown_solution", "shown_feedback", "shown_attempt", "demonstration", "active", "why")
    rollouts = [
        {"problem": r.problem.id, **{f: getattr(r, f) for f in (*fields, *shown)}}
        for r in record.rollouts
    ]
    return exact(
        {
            "step": record.step,
            "reward": record.reward,
            "loss": record.loss,
            "metrics": record.metrics,
            "completion_ids": [r.completion_ids for r in record.rollouts],
            "rewards": [r.reward for r in record.rollouts],
            "entropies": digest(exact([r.entropy for r in record.rollouts])),
            "rollouts": digest(exact(rollouts)),
            "teacher_messages": digest([r.teacher_messages for r in record.rollouts]),
        }
    )


def weights_of(trainer) -> dict:
    found = {"student": tensors(trainer.model.named_parameters())}
    if trainer.teacher:
        found["teacher"] = tensors(trainer.teacher.copies().items())
    return found


def train(name: str) -> dict:
    """Three steps of one run of `RUNS`, with a live change before the last."""
    preset, fields = RUNS[name]
    model, tokenizer = tiny_model()
    trainer = lab.SDPOTrainer(
        model, tokenizer, spelling_task(), lab.SDPOConfig.preset(preset, **fields)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that texts were shortened
        steps = [trainer.step() for _ in range(2)]
        trainer.apply(learning_rate=1e-3, temperature=0.8)
        steps.append(trainer.step())
    counters = {c: getattr(trainer, c) for c in ("skipped_steps", "bad_steps", "optimizer_steps")}
    return {"steps": [step_of(r) for r in steps], **weights_of(trainer), **counters}


def measures() -> dict:
    """Evaluation, credit and rollouts of the random model."""
    model, tokenizer = tiny_model()
    task = spelling_task()
    trainer = lab.SDPOTrainer(model, tokenizer, task, lab.SDPOConfig.preset("laptop", **SMALL))
    problem = task.problems(1, "test", 3)[0]
    greedy = lab.rollout(model, tokenizer, [problem], 2, 0.0, 5, max_completion_length=10)
    nucleus = lab.rollout(
        model, tokenizer, [problem], 3, 1.2, 5, max_completion_length=10, top_p=0.7
    )
    credit = lab.credit(model, tokenizer, problem, nucleus[0], feedback="too long", solution="abcd")
    return exact(
        {
            "student": trainer.evaluate(n=32).to_dict(),
            "teacher": trainer.evaluate(n=16, role="teacher").to_dict(),
            "greedy": [r.completion_ids for r in greedy],
            "nucleus": [r.completion_ids for r in nucleus],
            "credit": {
                "tokens": credit.tokens,
                "spans": credit.spans,
                "student": credit.student_log_probs.tolist(),
                "teacher": credit.teacher_log_probs.tolist(),
                "divergence": credit.divergence.tolist(),
                "shift_bits": credit.shift_bits,
                "prompts": digest([credit.student_prompt, credit.teacher_prompt]),
            },
        }
    )


# a run that was saved


def resumed(folder: Path = RUN) -> dict:
    """The step after those of the saved run, and what its history says."""
    trainer = lab.SDPOTrainer.resume(folder)
    before = [step_of(r) for r in trainer.history]
    return {"before": before, "next": step_of(trainer.step()), **weights_of(trainer)}


def save_run(folder: Path) -> None:
    model, tokenizer = tiny_model()
    config = lab.SDPOConfig.preset("laptop", **SMALL)
    trainer = lab.SDPOTrainer(model, tokenizer, lab.load_task("toolcall", seed=3), config)
    trainer.train(2, changes={2: {"learning_rate": 2e-3}}, progress=False)
    trainer.save(folder)


#: Each is one entry of the file, and one test.
PARTS = {
    "worlds": worlds,
    "ids": ids,
    "draws": draws,
    "verdicts": verdicts,
    "measures": measures,
    **{f"run: {name}": lambda name=name: train(name) for name in RUNS},
    "resumed": resumed,
}


def main() -> None:
    if FILE.exists() and "--anew" not in sys.argv:
        sys.exit(
            f"{FILE.name} is there: it was made on older code, and is what later code is "
            f"held to. --anew makes it again"
        )
    torch.set_num_threads(1)
    shutil.rmtree(RUN, ignore_errors=True)
    save_run(RUN)
    found = {"machine": machine()} | {name: make() for name, make in PARTS.items()} | {"gym": gym()}
    FILE.write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
