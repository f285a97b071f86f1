"""Rows of the public functions and classes."""

from __future__ import annotations

from pathlib import Path

import torch

import sdpo_lab as lab
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.tasks.adapters import Guard, task_from_function
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.rows import (
    ANY_TEACHER,
    CHAT,
    QUESTION,
    SHOWN,
    From,
    M,
    Row,
    Sums,
    T,
    given,
    small,
)
from tests.bad_input.values import (
    CHOICE,
    CONFIG,
    FLAG,
    HUGE,
    INF,
    MESSAGES,
    NAN,
    PROBLEM,
    TASK,
    TEXT,
    UNTRIED,
    floats,
    ints,
    optional,
)

FUNCTIONS: dict[str, Row] = {
    "Problem": Row(
        given(Problem, id="p", messages=CHAT),
        dict(id=[None, 3, "", "\ud800", b"p"], messages=MESSAGES, data=[None, 3, "data", [1]]),
    ),
    "Verdict": Row(
        given(Verdict, reward=1.0),
        dict(
            reward=[
                "1",
                None,
                True,
                NAN,
                INF,
                -INF,
                HUGE,
                -HUGE,
                1e308,
                -1_000_001,
                [],
                torch.tensor(1.0),
            ],
            feedback=[None, 3, b"no", ["no"]],
        ),
    ),
    "Guard": Row(
        given(Guard, task=Sums()),
        dict(task=TASK, on_error=CHOICE, seconds=optional(floats(0.01, 86400))),
    ),
    "SDPOConfig.preset": Row(
        given(SDPOConfig.preset, name="laptop"),
        dict(name=["labtop", "", None, 3, []]),
        {"fields": "test_fields"},
        {"name": "preset"},
    ),
    "SDPOConfig.from_dict": Row(
        given(SDPOConfig.from_dict, fields={}), dict(fields=[None, "laptop", 3, [1]])
    ),
    "SDPOTrainer": Row(
        given(SDPOTrainer, **M, task=Sums(), config=From(lambda x: small())),
        dict(**T, task=TASK, config=CONFIG),
    ),
    "contexts": Row(
        given(lab.contexts, task=Sums(), problem=QUESTION, completion="a"),
        dict(
            task=TASK,
            problem=PROBLEM,
            completion=[None, 3, b"a", [1]],
            rollouts=[None, 3, ["a"]],
            seed=ints(0),
            config=CONFIG,
        ),
    ),
    "credit": Row(
        given(lab.credit, **M, problem=QUESTION, completion="ab"),
        dict(
            **T,
            problem=PROBLEM,
            completion=[None, 3, "", [], ["a"], [1.5], [True], [-1], [4000], b"a", NAN],
            **SHOWN,
            config=CONFIG,
        ),
        {"teacher": ANY_TEACHER, "task": "only its oracle is used, where it has one"},
    ),
    "familiarity": Row(
        given(lab.familiarity, text="no", model=From(lambda x: x.model)),
        dict(text=TEXT, kind=CHOICE),
        {"model": "None is the answer for a model nobody knows"},
    ),
    "list_models": Row(given(lab.list_models), {}),
    "list_tasks": Row(given(lab.list_tasks), {}),
    "load_model": Row(
        given(lab.load_model),
        dict(
            name=[
                "labtop",
                "",
                None,
                3,
                "no/such/model",
                "~/model",
                Path("/nowhere"),
                "a\x1b[31mb",
            ],
            device=["gpu", "cuda", "cuda:99", *UNTRIED, "a\x1b[31mb", None, 3.5, "", []],
            lora=[0, -1, 4097, True, 1.5, "16", NAN],
            dtype=["float16", "bfloat16", None, torch.float16, "", 3],
            attn_implementation=CHOICE,
            chat_template=[3, b"x", ["x"], ""],
            chat_template_kwargs=[3, "x", ["x"]],
        ),
        names={"name": "model"},
    ),
    "load_task": Row(
        given(lab.load_task, name="toolcall"),
        dict(name=["toolcal", "", None, 3, []], seed=ints(0, 2**31 - 1)),
        {"dials": "those of each task have rows below"},
        {"name": "task"},
    ),
    "memory_table": Row(
        given(lab.memory_table),
        dict(
            gpu=floats(0.01, 1e6),
            rank=ints(1, 4096),
            **{n: ints(1) for n in ("attempts", "prompt_tokens", "completion_tokens")},
        ),
    ),
    "training_memory": Row(
        given(lab.training_memory, model="lab-1m"),
        dict(
            model=[None, 3, "labtop", {}],
            lora=[0, True, 1.5, "16"],
            dtype=CHOICE,
            teacher=CHOICE,
            bf16=FLAG,
            **{
                n: ints(1) for n in ("attempts", "per_device", "prompt_tokens", "completion_tokens")
            },
        ),
    ),
    "preflight": Row(
        given(lab.preflight, **M, task=Sums(), config=From(lambda x: small()), n=4),
        dict(**T, task=TASK, config=CONFIG, n=ints(1, 10_000), seed=ints(0, 2**31 - 1)),
    ),
    "rollout": Row(
        given(lab.rollout, **M, problems=[QUESTION], num_generations=2, max_completion_length=2),
        dict(
            **T,
            problems=[None, 3, ["q"], [CHAT], QUESTION],
            num_generations=ints(1, 4096),
            temperature=floats(0, 100),
            seed=ints(0, 2**63 - 1),
            step=ints(-(2**31), 2**31),
            max_completion_length=ints(1, 131072),
            top_p=floats(0.01, 1),
            batch_size=ints(1),
            bf16=FLAG,
        ),
    ),
    "task_from_function": Row(
        given(task_from_function, problems=[{"prompt": "a"}], judge=len),
        dict(
            problems=[None, "abc", 3, {}, [], [3], [None]],
            judge=["exact", 3, {}],
            on_error=CHOICE,
            seconds=optional(floats(0.01, 86400)),
            name=[None, "", 3, b"x"],
        ),
        {
            n: "test_what_goes_with_reward_functions"
            for n in ("reward_funcs", "reward_weights", "feedback", "tokenizer")
        },
    ),
    "teacher_attempts": Row(
        given(lab.teacher_attempts, **M, problem=QUESTION, config=From(lambda x: small())),
        dict(
            **T,
            problem=PROBLEM,
            n=ints(1, 4096),
            **SHOWN,
            config=CONFIG,
            temperature=floats(0, 100),
            seed=ints(0, 2**63 - 1),
        ),
        {"teacher": ANY_TEACHER, "task": "it judges, when there is one"},
        {"n": "n", "temperature": "temperature"},
    ),
    "Timeline": Row(
        lambda x: (lab.Timeline, dict(trainer=x.trainer)),
        dict(
            trainer=[None, "run", 3, {}],
            probe=[3, "x", [1], {}],
            folder=[3, b"x", Path(__file__)],
            every=ints(1, 10**6),
            max_megabytes=floats(0.1, 10**7),
        ),
    ),
}
