"""Rows of the losses, the shipped tasks and the methods; and all rows together."""

from __future__ import annotations

import torch

import sdpo_lab as lab
from sdpo_lab import tasks
from sdpo_lab.tasks.adapters import task_from_function
from sdpo_lab.tasks.sandbox import Sandbox
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.functions import FUNCTIONS
from tests.bad_input.rows import BOTH, DISTRIBUTION, LOGITS, From, Row, Sums, given
from tests.bad_input.values import (
    CHOICE,
    FLAG,
    IDS,
    NAN,
    SPLIT,
    TENSOR,
    UNTRIED,
    floats,
    ints,
    optional,
)

LOSSES: dict[str, Row] = {
    "losses.divergence": Row(
        given(lab.losses.divergence, **BOTH, alpha=1.0),
        dict(student=TENSOR[:-2], teacher=TENSOR, alpha=floats(0, 1)),
    ),
    "losses.kl": Row(
        given(lab.losses.kl, a=DISTRIBUTION, b=DISTRIBUTION), dict(a=TENSOR[:-2], b=TENSOR)
    ),
    "losses.top_k_support": Row(
        given(
            lab.losses.top_k_support,
            student_logits=DISTRIBUTION,
            teacher_logits=DISTRIBUTION,
            top_k=2,
            add_tail=True,
        ),
        dict(student_logits=TENSOR[:-2], teacher_logits=TENSOR, top_k=ints(1)),
        {"add_tail": "its truth counts"},
    ),
    "losses.tail": Row(given(lab.losses.tail, log_probs=DISTRIBUTION), dict(log_probs=TENSOR[:5])),
    "losses.token_log_probs": Row(
        given(lab.losses.token_log_probs, logits=DISTRIBUTION, ids=LOGITS["completion_ids"]),
        dict(logits=TENSOR[:5], ids=IDS),
    ),
    "losses.distillation_loss": Row(
        given(lab.losses.distillation_loss, **LOGITS),
        dict(
            student_logits=TENSOR[:5],
            teacher_logits=TENSOR,
            completion_ids=IDS,
            mode=CHOICE,
            alpha=floats(0, 1),
            top_k=ints(1),
            clip=optional(floats(0.0)),
        ),
        {
            "add_tail": "its truth counts",
            "mask": "broadcasts as torch does, which says what does not",
        },
    ),
    "losses.log_ratio": Row(
        given(lab.losses.log_ratio, **BOTH),
        dict(student=TENSOR[:-2], teacher=TENSOR, clip=optional(floats(0.0))),
    ),
    "losses.importance_weights": Row(
        given(
            lab.losses.importance_weights,
            log_prob=DISTRIBUTION,
            old_log_prob=DISTRIBUTION,
            clip=2.0,
        ),
        dict(log_prob=TENSOR[:-2], old_log_prob=TENSOR, clip=floats(0.0)),
    ),
    "losses.group_advantages": Row(
        given(lab.losses.group_advantages, rewards=torch.ones(2, 4)),
        dict(rewards=[*TENSOR[:5], torch.tensor(1.0)]),
        {"scale": "its truth counts"},
    ),
    "losses.policy_loss": Row(
        given(
            lab.losses.policy_loss,
            student_logits=DISTRIBUTION,
            completion_ids=LOGITS["completion_ids"],
            advantages=torch.ones(1, 1),
        ),
        dict(
            student_logits=TENSOR[:5],
            completion_ids=IDS,
            epsilon=floats(0, 1),
            epsilon_high=floats(0),
        ),
        {
            n: "broadcasts as torch does, which says what does not"
            for n in ("advantages", "old_log_probs")
        },
    ),
    "losses.token_weights": Row(
        given(
            lab.losses.token_weights,
            mask=torch.ones(2, 3),
            active=torch.tensor([True, False]),
            normalize="all_rows",
        ),
        dict(mask=TENSOR[:5], normalize=CHOICE),
        {"active": "broadcasts as torch does"},
    ),
    "losses.at_least_float32": Row(
        given(lab.losses.at_least_float32, logits=DISTRIBUTION),
        {},
        {"logits": "a tensor; anything else has no dtype"},
    ),
}

SHIPPED_TASKS: dict[str, Row] = {
    "ToolCall": Row(
        given(tasks.ToolCall),
        dict(
            seed=ints(0, 2**31 - 1),
            base_accuracy=floats(0.01, 0.5),
            calls=ints(1, 8),
            feedback=["2", None, 4, -1, 1.5, True, [], NAN],
            reward=CHOICE,
            novelty=CHOICE,
        ),
    ),
    "TinyCode": Row(
        given(tasks.TinyCode),
        dict(
            seed=ints(0, 2**31 - 1),
            base_accuracy=floats(0.01, 0.5),
            feedback=["2", None, 3, -1, 1.5, True, [], NAN],
            seconds=floats(0.05, 60),
            allow_weak=FLAG,
        ),
    ),
    "FollowUp": Row(
        given(tasks.FollowUp),
        dict(
            seed=ints(0, 2**31 - 1),
            base_accuracy=floats(0.01, 0.5),
            feedback=["2", None, 3, -1, 1.5, True, [], NAN],
            unrelated=floats(0, 1),
        ),
    ),
    **{
        f"{kind.__name__}.problems": Row(
            given(kind().problems, n=2),
            dict(n=ints(1, 1_000_000), split=SPLIT, seed=ints(0, 2**63 - 1)),
        )
        for kind in tasks.TASKS.values()
    },
    "task_from_function.problems": Row(
        given(task_from_function([{"prompt": "a", "split": "train"}], len).task.problems, n=1),
        dict(n=ints(1, 1_000_000), split=SPLIT, seed=ints(0, 2**63 - 1)),
    ),
    "Sandbox": Row(
        given(Sandbox, workers=1),
        dict(seconds=floats(0.05, 600), memory_mb=ints(64, 65536), workers=optional(ints(1, 64))),
        {"allow_weak": "its truth counts"},
    ),
    "Sandbox.run": Row(
        given(From(lambda x: Sandbox(workers=1).run)),
        dict(programs=[None, 3, "x", [3], ["x"], [None]]),
    ),  # what is in them: test_programs
}

METHODS: dict[str, Row] = {
    "SDPOTrainer.train": Row(
        given(From(lambda x: x.trainer.train), steps=1, progress=False),
        dict(steps=ints(0, 10**9), changes=[3, "x", [1], {1: 3}], progress=FLAG),
        {"folder": "as of save"},
    ),  # what is in changes: test_changes
    "SDPOTrainer.autosave": Row(
        given(From(lambda x: x.trainer.autosave), folder=None),
        dict(folder=[3, b"x", ""]),
        {"seconds": "test_autosave", "keep": "test_autosave"},
    ),
    "SDPOTrainer.apply": Row(
        given(From(lambda x: x.trainer.apply)), {}, {"fields": "test_live_fields"}
    ),
    "SDPOTrainer.step": Row(
        given(From(lambda x: x.trainer.step)), dict(rollouts=[3, "x", [], ["x"], [None]])
    ),  # what is in them: test_attempts
    "SDPOTrainer.evaluate": Row(
        given(From(lambda x: x.trainer.evaluate), n=1),
        dict(n=ints(1, 10**6), split=SPLIT, seed=ints(0, 2**63 - 1), role=CHOICE),
    ),
    "SDPOTrainer.save": Row(
        given(From(lambda x: x.trainer.save), folder=From(lambda x: x.folder / "run")),
        dict(folder=[None, 3, b"x"], keep=optional(ints(1)), overwrite=FLAG),
    ),
    "SDPOTrainer.save_pretrained": Row(
        given(From(lambda x: x.trainer.save_pretrained), folder=From(lambda x: x.folder / "model")),
        dict(folder=[None, 3, b"x"], merge=FLAG),
    ),
    "SDPOTrainer.resume": Row(
        given(SDPOTrainer.resume, folder=From(lambda x: x.saved), task=Sums()),
        dict(
            folder=[None, 3, "", "no/such/folder", b"x"],
            task=[None, "toolcall", 3],
            device=["gpu", "cuda", *UNTRIED, 3.5, []],
            step=[-1, 99, "1", True, 1.5],
        ),
    ),
    # of what is made with a trainer
    "Timeline.watch": Row(given(From(lambda x: x.timeline.watch)), dict(record=[3, "x", [], {}])),
    "Timeline.picture": Row(given(From(lambda x: x.timeline.picture)), dict(step=ints(0, 0))),
    "Timeline.at": Row(given(From(lambda x: x.timeline.at)), dict(step=ints(0, 0))),
    "Timeline.kept": Row(
        given(From(lambda x: x.timeline.kept)),
        {},
        {"step": "None is the answer for a step without a picture"},
    ),
    "LiveRun.set": Row(given(From(lambda x: x.run.set)), {}, {"fields": "test_a_live_run"}),
    "LiveRun.save": Row(given(From(lambda x: x.run.save)), dict(folder=[3, b"x", ""])),
    "LiveRun.credit_of": Row(
        given(From(lambda x: x.run.credit_of), step=1, index=0),
        dict(step=ints(1, 10**9), index=ints(0, 10**9)),
    ),
    "LiveRun.value": Row(
        given(From(lambda x: x.run.value), field="learning_rate"),
        dict(field=["learnin_rate", "", None, 3, [], NAN]),
    ),
    "LiveRun.records_since": Row(
        given(From(lambda x: x.run.records_since), index=0), dict(index=ints(0))
    ),
    "LiveRun.result": Row(
        given(From(lambda x: x.run.result), progress=False),
        dict(every=floats(0.001, 3600), progress=FLAG, meanwhile=[3, "x", []]),
    ),
    "LiveRun.call_between_steps": Row(
        given(From(lambda x: x.run.call_between_steps), work=list), dict(work=[None, 3, "x", []])
    ),
    "LiveRun.wait": Row(
        given(From(lambda x: x.run.wait)), dict(timeout=optional(floats(0, 10**9)))
    ),
}

#: Every public name, and what is bad for each of its parameters.
PUBLIC = FUNCTIONS | LOSSES | SHIPPED_TASKS | METHODS

#: What the package makes and hands out; and what is no function.
RESULTS = {
    "Credit",
    "Evaluation",
    "Familiarity",
    "History",
    "Memory",
    "Preflight",
    "Rollout",
    "StepRecord",
    "JudgeError",
}
ELSEWHERE = {
    "__version__": "a string",
    "losses": "its functions have rows",
    "views": "VIEWS",
    "experiments": "a room, not a function",
    "tasks": "a room, not a function",
    "Task": "a protocol",
    "SDPOConfig": "FIELDS",
    "SHIPPED": "a dictionary",
}

#: For those who write a variant, and read its source (`SDPOTrainer`'s docstring).
INSIDE = {
    f"SDPOTrainer.{name}"
    for name in (
        "sample",
        "sample_groups",
        "attempts",
        "stop_when_diverged",
        "prepare",
        "build_teacher_contexts",
        "activate_rewarded",
        "compute_advantages",
        "encode",
        "token_weights",
        "update",
        "old_log_probs",
        "optimizer_step",
        "gradient",
        "micro_batch_gradient",
        "planned",
        "save_is_due",
        "try_to_save",
    )
}
