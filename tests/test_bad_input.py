"""Every public function and every field of the configuration, given what they cannot use: each refuses it in a sentence with the name, the value and what is allowed.

The tables are complete by introspection: a new field, a new public name or a new parameter without a row fails here.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sdpo_lab as lab
from sdpo_lab import tasks
from sdpo_lab.core.checks import MOST, printable, shown
from sdpo_lab.core.config import CHOICES, OPTIONAL, RANGES, TEMPLATES, SDPOConfig
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem, Verdict, draw_problems, judge_all
from sdpo_lab.tasks import adapters
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from sdpo_lab.tasks.sandbox import Program, Sandbox
from sdpo_lab.trainer import SDPOTrainer
from tests.shared.fake_trainer import FakeTrainer

NAN, INF, HUGE = math.nan, math.inf, 10**400
#: What says what would be right: "must be one of", "from 1 to 9", "give", "it has", "there are".
ALLOWED = re.compile(
    r"must|may contain|from -?[\d.e+-]+ (to|upwards)|\bgive\b|\bhas\b|there (is|are)|holds|needs|goes with|shipped|use "
)


def refused(call, name: str, value: object) -> str:
    """Call it, and hold the message to its promise; returns the message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
    said = str(caught.value)
    assert re.search(rf"\b{name.replace('_', '[_ ]')}", said), (
        f"the message does not name {name}: {said}"
    )
    forms = {shown(value), type(value).__name__} | (
        {repr(value), str(value)} if isinstance(value, (str, float, Path)) else set()
    )
    if isinstance(value, list):  # what is wrong is in it, or how many there are
        forms |= {str(len(value))} | {
            form for v in value for form in (shown(v), str(v), type(v).__name__)
        }
    assert any(form[:MOST] in said for form in forms), (
        f"the message does not show {shown(value)}: {said}"
    )
    assert ALLOWED.search(said), f"the message does not say what is allowed: {said}"
    assert len(said) < 1500 and printable(said.replace("\n", " ")) == said.replace("\n", " "), (
        "a message is short and safe on a terminal"
    )
    return said


# -- what is bad for each kind of argument


def ints(low: int, high: float = INF) -> list:
    return [
        "3",
        None,
        True,
        1.5,
        NAN,
        [],
        np.array([1, 2]),
        low - 1,
        HUGE,
        *([2**63] if high == INF else [int(high) + 1]),
    ]


def floats(low: float, high: float = INF) -> list:
    return [
        "3",
        None,
        True,
        NAN,
        INF,
        -INF,
        [],
        torch.ones(2),
        low - 1,
        HUGE,
        *([] if high == INF else [high * 2 + 1]),
    ]


def optional(bad: list) -> list:
    return [b for b in bad if b is not None]


CHOICE = ["no such choice", "", 3.5, None, [], NAN, b"all_rows", np.array([1, 2]), "x" * 100_000]
FLAG = ["yes", 1, 0, 2, None, [], NAN]
TEXT = [None, 3, b"text", ["text"]]
MODEL = [None, "lab-1m", 3, {}]
TOKENIZER = [None, "lab-1m", 3, str]
TASK = [None, "toolcall", 3, {}]
PROBLEM = [None, "question", 3, {"prompt": "question"}]
CONFIG = ["laptop", {}, 3]
TENSOR = [
    None,
    3.0,
    [0.1, 0.2],
    np.ones((1, 2, 4)),
    torch.ones(1, 2, 4, dtype=torch.long),
    torch.ones(1, 2, 5),
    torch.tensor(1.0),
]
IDS = [None, 3, [[1, 2]], torch.ones(1, 2), torch.ones(1, 3, dtype=torch.long)]
SPLIT = ["val", "", None, 3, []]
UNTRIED = [
    "meta",
    "xpu",
    "hpu",
    "xla",
    "vulkan",
    "ipu",
]  # torch knows them, and a model cannot be used there
MESSAGES = [None, "hi", 3, {"role": "user", "content": "hi"}]


# -- fields of the configuration

FIELDS = {
    name: (ints(low, high) if kind is int else floats(low, high))
    for name, (kind, low, high) in RANGES.items()
}
FIELDS = {name: optional(bad) if name in OPTIONAL else bad for name, bad in FIELDS.items()}
FIELDS |= {name: FLAG if allowed == (False, True) else CHOICE for name, allowed in CHOICES.items()}
FIELDS |= {
    name: [
        *TEXT,
        "",
        "no slot",
        "{",
        "{0}",
        "{{}}",
        *("".join("{" + s + "}" for s in slots) + more for more in ("{more}", "}", "{0}")),
    ]
    for name, slots in TEMPLATES.items()
}


def test_every_field_has_a_row():
    assert set(FIELDS) == {f.name for f in dataclasses.fields(SDPOConfig)}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name):
    base = SDPOConfig()
    for bad in FIELDS[name]:
        refused(lambda: SDPOConfig(**{name: bad}), name, bad)  # noqa: B023
        refused(lambda: base.replace(**{name: bad}), name, bad)  # noqa: B023
        refused(lambda: SDPOConfig.from_dict({**base.to_dict(), name: bad}), name, bad)  # noqa: B023


def test_numpy_s_numbers_become_python_s():
    """Else a run could be trained for hours and not be saved: JSON has no float32."""
    config = SDPOConfig(
        learning_rate=np.float32(0.5), generation_batch_size=np.int64(8), temperature=1
    )
    assert [
        type(v) for v in (config.learning_rate, config.generation_batch_size, config.temperature)
    ] == [float, int, float]
    assert type(lab.load_task("toolcall", seed=np.int64(3)).dials["seed"]) is int


# -- public functions

CHAT = [{"role": "user", "content": "Will it rain?"}]
QUESTION = Problem("p", CHAT)
DISTRIBUTION = torch.zeros(1, 2, 4).log_softmax(-1)
LOGITS = dict(
    student_logits=DISTRIBUTION,
    teacher_logits=DISTRIBUTION,
    completion_ids=torch.ones(1, 2, dtype=torch.long),
)
BOTH = dict(student=DISTRIBUTION, teacher=DISTRIBUTION)


class Sums:
    """A task of one's own."""

    name = "sums"

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"{i} + {seed} ="}])
            for i in range(n)
        ]

    def judge(self, problem, completion):
        return float(len(completion) % 2), f"{len(completion)} letters"


def small(**fields) -> SDPOConfig:
    return SDPOConfig.preset(
        "laptop",
        **{**dict(generation_batch_size=4, num_generations=2, max_completion_length=4), **fields},
    )


@dataclasses.dataclass
class Row:
    """A call that works, what is bad for each of its parameters, and the parameters that take anything, with the reason."""

    good: object  #: function of the fixtures `x` -> (callable, its arguments)
    bad: dict[str, list]
    free: dict[str, str] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(
        default_factory=dict
    )  #: parameter -> how the message names it


def given(function, **arguments):
    return lambda x: (
        function(x) if function.__name__ == "<lambda>" else function,
        {k: v(x) if getattr(v, "__name__", "") == "<lambda>" else v for k, v in arguments.items()},
    )


M, T = (
    dict(model=lambda x: x.model, tokenizer=lambda x: x.tokenizer),
    dict(model=MODEL, tokenizer=TOKENIZER),
)
SHOWN = dict(feedback=TEXT, solution=TEXT, attempt=TEXT)
ANY_TEACHER = "a model or a Teacher; what is neither fails in its first call"

PUBLIC: dict[str, Row] = {
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
        given(SDPOTrainer, **M, task=Sums(), config=lambda x: small()),
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
        given(lab.familiarity, text="no", model=lambda x: x.model),
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
        given(lab.preflight, **M, task=Sums(), config=lambda x: small(), n=4),
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
        given(lab.teacher_attempts, **M, problem=QUESTION, config=lambda x: small()),
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
    # losses
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
    # shipped tasks
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
        given(lambda x: Sandbox(workers=1).run), dict(programs=[None, 3, "x", [3], ["x"], [None]])
    ),  # what is in them: test_programs
    # a trainer's methods
    "SDPOTrainer.train": Row(
        given(lambda x: x.trainer.train, steps=1, progress=False),
        dict(steps=ints(0, 10**9), changes=[3, "x", [1], {1: 3}], progress=FLAG),
        {"folder": "as of save"},
    ),  # what is in changes: test_changes
    "SDPOTrainer.autosave": Row(
        given(lambda x: x.trainer.autosave, folder=None),
        dict(folder=[3, b"x", ""]),
        {"seconds": "test_autosave", "keep": "test_autosave"},
    ),
    "SDPOTrainer.apply": Row(given(lambda x: x.trainer.apply), {}, {"fields": "test_live_fields"}),
    "SDPOTrainer.step": Row(
        given(lambda x: x.trainer.step), dict(rollouts=[3, "x", [], ["x"], [None]])
    ),  # what is in them: test_attempts
    "SDPOTrainer.evaluate": Row(
        given(lambda x: x.trainer.evaluate, n=1),
        dict(n=ints(1, 10**6), split=SPLIT, seed=ints(0, 2**63 - 1), role=CHOICE),
    ),
    "SDPOTrainer.save": Row(
        given(lambda x: x.trainer.save, folder=lambda x: x.folder / "run"),
        dict(folder=[None, 3, b"x"], keep=optional(ints(1)), overwrite=FLAG),
    ),
    "SDPOTrainer.save_pretrained": Row(
        given(lambda x: x.trainer.save_pretrained, folder=lambda x: x.folder / "model"),
        dict(folder=[None, 3, b"x"], merge=FLAG),
    ),
    "SDPOTrainer.resume": Row(
        given(SDPOTrainer.resume, folder=lambda x: x.saved, task=Sums()),
        dict(
            folder=[None, 3, "", "no/such/folder", b"x"],
            task=[None, "toolcall", 3],
            device=["gpu", "cuda", *UNTRIED, 3.5, []],
            step=[-1, 99, "1", True, 1.5],
        ),
    ),
    # of what is made with a trainer
    "Timeline.watch": Row(given(lambda x: x.timeline.watch), dict(record=[3, "x", [], {}])),
    "Timeline.picture": Row(given(lambda x: x.timeline.picture), dict(step=ints(0, 0))),
    "Timeline.at": Row(given(lambda x: x.timeline.at), dict(step=ints(0, 0))),
    "Timeline.kept": Row(
        given(lambda x: x.timeline.kept),
        {},
        {"step": "None is the answer for a step without a picture"},
    ),
    "LiveRun.set": Row(given(lambda x: x.run.set), {}, {"fields": "test_a_live_run"}),
    "LiveRun.save": Row(given(lambda x: x.run.save), dict(folder=[3, b"x", ""])),
    "LiveRun.credit_of": Row(
        given(lambda x: x.run.credit_of, step=1, index=0),
        dict(step=ints(1, 10**9), index=ints(0, 10**9)),
    ),
    "LiveRun.value": Row(
        given(lambda x: x.run.value, field="learning_rate"),
        dict(field=["learnin_rate", "", None, 3, [], NAN]),
    ),
    "LiveRun.records_since": Row(
        given(lambda x: x.run.records_since, index=0), dict(index=ints(0))
    ),
    "LiveRun.result": Row(
        given(lambda x: x.run.result, progress=False),
        dict(every=floats(0.001, 3600), progress=FLAG, meanwhile=[3, "x", []]),
    ),
    "LiveRun.errand": Row(given(lambda x: x.run.errand, work=list), dict(work=[None, 3, "x", []])),
    "LiveRun.wait": Row(given(lambda x: x.run.wait), dict(timeout=optional(floats(0, 10**9)))),
}
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
    "Task": "a protocol",
    "SDPOConfig": "FIELDS",
    "SHIPPED": "a dictionary",
}


def methods(kind: type) -> set[str]:
    """The public methods of a class that take an argument, inherited ones too."""
    found = {
        name: getattr(kind, name)
        for base in kind.__mro__[:-1]
        for name, value in vars(base).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, classmethod))
    }
    return {
        f"{kind.__name__}.{name}"
        for name, f in found.items()
        if set(inspect.signature(f).parameters) - {"self"}
    }


#: For those who write a variant, and read its source (`SDPOTrainer`'s docstring).
INSIDE = {
    f"SDPOTrainer.{name}"
    for name in (
        "sample",
        "prepare",
        "token_weights",
        "update",
        "score",
        "micro_batches",
        "optimizer_step",
        "afford",
        "gradient",
        "planned",
    )
}


def test_every_public_name_has_a_row():
    losses = {
        f"losses.{name}"
        for name, f in vars(lab.losses).items()
        if callable(f) and getattr(f, "__module__", "") == lab.losses.__name__
    }
    names = (
        set(lab.__all__)
        | set(tasks.__all__)
        | {kind.__name__ for kind in tasks.TASKS.values()}
        | losses
    )
    for kind in (SDPOTrainer, lab.Timeline, lab.views.LiveRun, Sandbox):
        names |= methods(kind) - INSIDE
    missing = sorted(names - set(PUBLIC) - RESULTS - set(ELSEWHERE))
    assert not missing, f"PUBLIC in {Path(__file__).name} has no row for {', '.join(missing)}"


@pytest.fixture(scope="module")
def one(tiny_original, tmp_path_factory):
    """What calls are made with; nothing here trains."""
    import copy

    model, tokenizer = tiny_original
    folder = tmp_path_factory.mktemp("bad")
    trainer = SDPOTrainer(copy.deepcopy(model), tokenizer, Sums(), small())
    trainer.save(folder / "saved")
    timeline = lab.Timeline(trainer, probe=(QUESTION, "ab", "no"))
    timeline.watch(None)
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        trainer=trainer,
        folder=folder,
        saved=folder / "saved",
        timeline=timeline,
        run=lab.views.LiveRun(FakeTrainer(), 2),
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_has_a_row(name, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    parameters = set(inspect.signature(function).parameters)
    rows = set(row.bad) | set(row.free)
    assert parameters - rows == set(), (
        f"the row of {name} lacks {', '.join(sorted(parameters - rows))}"
    )
    assert set(arguments) <= parameters


ROWS = [
    pytest.param(name, parameter, id=f"{name}-{parameter}")
    for name, row in PUBLIC.items()
    for parameter in row.bad
]


@pytest.mark.parametrize("name, parameter", ROWS)
def test_public_functions(name, parameter, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    if parameter not in inspect.signature(function).parameters:
        pytest.skip(f"{name} has no {parameter} yet")
    wrong = []
    for bad in row.bad[parameter]:
        try:
            refused(
                lambda: function(**{**arguments, parameter: bad}),
                row.names.get(parameter, parameter),
                bad,
            )  # noqa: B023
        except (
            BaseException
        ) as error:  # all of them at once: what is wrong with a parameter is seen in one go
            wrong.append(f"{parameter}={shown(bad)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


LIVE = {**FIELDS, "reprompt_template": FIELDS["reprompt_template"]}


@pytest.mark.parametrize("name", SDPOTrainer.LIVE_FIELDS)
def test_live_fields(name, one):
    """A change that is refused changes nothing, neither the configuration nor the history."""
    before = one.trainer.config
    for bad in LIVE[name]:
        refused(lambda: one.trainer.apply(**{name: bad}), name, bad)  # noqa: B023
    assert one.trainer.config is before and not one.trainer.history.changes


def test_fields_that_are_not_live_and_contradictions_are_refused_before_anything_changes(one):
    refused(lambda: one.trainer.apply(num_generations=3), "num_generations", "num_generations")
    refused(lambda: one.trainer.apply(learnin_rate=3), "learnin_rate", "learnin_rate")
    assert not one.trainer.history.changes and one.trainer.config == small()


def test_a_live_run(one):
    """What the trainer would refuse is refused where it is asked for."""
    for name in SDPOTrainer.LIVE_FIELDS:
        for bad in LIVE[name]:
            refused(lambda: one.run.set(**{name: bad}), name, bad)  # noqa: B023
    refused(lambda: one.run.set(num_generations=3), "num_generations", "num_generations")
    assert not one.run.pending


def test_autosave(one):
    for name, values in (("seconds", floats(0, 10**9)), ("keep", optional(ints(1)))):
        for bad in values:
            refused(
                lambda: one.trainer.autosave(one.folder / "autosaved", **{name: bad}), name, bad
            )  # noqa: B023
    assert one.trainer.autosaves is None


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"2": {"learning_rate": 1e-3}},
            "changes must have whole numbers as keys, the steps, got '2'; of what was JSON, give {int",
        ),
        ({0: {"learning_rate": 1e-3}}, "step of changes must be from 1 upwards; got 0"),
        ({1.5: {}}, "step of changes must be a whole number"),
        ({True: {}}, "step of changes must be a whole number"),
        ({HUGE: {}}, "step of changes must be from 1 to 9223372036854775807"),
        ({None: {}}, "step of changes must be a whole number from 1 upwards; got None"),
        (
            {3: {"learnin_rate": 1e-3}},
            r"changes\[3\].*no 'learnin_rate'; it has .*Did you mean 'learning_rate'",
        ),
        ({3: {"num_generations": 2}}, r"changes\[3\].*has no 'num_generations'"),
        (
            {3: {"learning_rate": "1e-3"}},
            "learning_rate must be a number from 0.0 to 10.0; got '1e-3'",
        ),
        ({3: {"advantage_clip": 5.0}}, r"changes\[3\].*has no 'advantage_clip'"),
        ({2: {"reprompt_template": "no slots"}}, "reprompt_template must contain"),
        ({3: [("learning_rate", 1)]}, r"changes\[3\] must be a dictionary"),
    ],
)
def test_changes(changes, words, tiny):
    """Before the first step, not when their own comes."""
    trainer = SDPOTrainer(*tiny, Sums(), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.train(3, changes=changes, progress=False)
    assert len(trainer.history) == 0 and not trainer.history.changes and trainer.config == small()


def test_changes_that_come_too_late_and_those_of_a_whole_history(tiny):
    import copy

    model, tokenizer = tiny
    one, two = (SDPOTrainer(copy.deepcopy(model), tokenizer, Sums(), small()) for _ in range(2))
    one.train(2, changes={2: {"learning_rate": 1e-3}}, progress=False)
    one.apply(temperature=0.5)  # after its last step
    assert one.history.changes == {2: {"learning_rate": 1e-3}, 3: {"temperature": 0.5}}
    with pytest.raises(
        ValueError,
        match=r"changes\[1\] must be of a step to come, from 3 upwards: this trainer has taken 2 steps, without \{'temperature': 0.9",
    ):
        one.train(1, changes={1: {"temperature": 0.9}}, progress=False)
    with pytest.raises(ValueError, match=r"changes\[2\] must be of a step to come"):
        one.train(1, changes={2: {"learning_rate": 2e-3}}, progress=False)
    assert len(one.history) == 2
    for late in ("2, 3", "3"):  # in parts, and what was made already is no news
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            two.train(1, changes=one.history.changes, progress=False)
        assert [str(w.message) for w in said if "changes" in str(w.message)] == [
            f"changes of step {late} are not made: this call ends with step {len(two.history)}"
        ]
    assert [r.rollouts for r in one.history] == [
        r.rollouts for r in two.history
    ] and two.history.changes == {2: {"learning_rate": 1e-3}}


@pytest.mark.parametrize(
    "arguments, name, bad",
    [
        (dict(reward_funcs=[]), "reward_funcs", "at least one"),
        (dict(reward_funcs=[3]), "reward function", 3),
        (dict(reward_funcs="a/model"), "reward function", "a/model"),
        (dict(reward_funcs=[len], reward_weights=[1, 2]), "reward_weights", 2),
        (dict(reward_funcs=[len], reward_weights=[NAN]), "reward weight", NAN),
        (dict(reward_funcs=[len], reward_weights=["1"]), "reward weight", "1"),
        (dict(reward_funcs=[len], feedback="no"), "feedback", "no"),
        (dict(reward_funcs=[len], tokenizer="lab-1m"), "tokenizer", "lab-1m"),
        (dict(judge=len, reward_funcs=[len]), "judge", "judge"),
        (dict(judge=len, feedback=len), "feedback", "feedback"),
    ],
)
def test_what_goes_with_reward_functions(arguments, name, bad):
    with pytest.raises((TypeError, ValueError)) as caught:
        task_from_function([{"prompt": "a"}], **arguments)
    assert (
        name in str(caught.value)
        and str(bad) in str(caught.value)
        and ALLOWED.search(str(caught.value))
    )


# -- views, made without a page


def views(x) -> dict[str, Row]:
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 6], reward=float(i), feedback="" if i else "no")
        for i in range(2)
    ]
    scored = lab.credit(x.model, x.tokenizer, QUESTION, "ab", feedback="no")
    fake = FakeTrainer()
    number_or_history = [None, 3, "x", [], {}]
    return {
        "token_view": Row(
            given(lab.views.token_view, credits=scored),
            dict(
                credits=[None, 3, "x", [], [3], {}],
                titles=[["a", "b"], []],
                color_by=CHOICE,
                scale=optional(floats(0.01, 100)),
                k=ints(1, 64),
            ),
            names={"credits": "credits|attempt", "titles": "titles"},
        ),
        "group_view": Row(
            given(lab.views.group_view, model=x.model, tokenizer=x.tokenizer, rollouts=attempts),
            dict(
                model=MODEL,
                tokenizer=TOKENIZER,
                rollouts=[None, 3, [], ["a"]],
                config=CONFIG,
                k=ints(1, 64),
            ),
            {"task": "only asked for attempts without a reward", "teacher": ANY_TEACHER},
        ),
        "compare": Row(
            given(lab.views.compare, runs={"a": fake.history}), dict(runs=number_or_history)
        ),
        "Dashboard": Row(
            given(lab.views.Dashboard, trainer=fake),
            dict(
                trainer=[None, "run", 3, {}],
                steps=ints(1, 10**9),
                seconds_between_news=floats(0.1, 60),
                evaluate_every=ints(0, 10**9),
                evaluate_n=ints(1, 10_000),
            ),
        ),
        "LiveRun": Row(
            given(lab.views.LiveRun, trainer=fake, steps=2),
            dict(
                trainer=[None, "run", 3, {}],
                steps=ints(1, 10**9),
                evaluate_every=ints(0, 10**9),
                evaluate_n=ints(1, 10_000),
                watchers=[3, [3], "x"],
            ),
        ),
        "Playground": Row(
            given(
                lab.views.Playground,
                model=x.model,
                tokenizer=x.tokenizer,
                task=Sums(),
                config=small(),
            ),
            dict(
                model=MODEL,
                tokenizer=TOKENIZER,
                task=TASK,
                problem=optional(PROBLEM),
                config=CONFIG,
                seed=ints(0),
                problems=["6", None, True, 0, 51, [], ["q"], 1.5],
            ),
        ),
        "Blame": Row(
            given(lab.views.Blame, tokens=["a", "b"]),
            dict(
                tokens=[None, 3, "ab", [], [3], ["a"] * 10_001],
                blamed=[[2], [-1], [1.0], ["0"], [True], 3],
            ),
        ),
        "Rewind": Row(given(lab.views.Rewind, timeline=None), dict(timeline=[None, 3, "run", {}])),
        "smooth": Row(given(lab.views.smooth, values=[1.0, 2.0], window=2), dict(window=ints(1))),
        "curve": Row(given(lab.views.curve, history=fake.history), dict(history=number_or_history)),
    }


#: Plain data for a picture, or what a function of `views` returns.
DRAWN = {"Bars", "Chart", "Line", "TokenView", "GroupView"}
VIEWS = {
    "token_view": ["credits", "titles", "color_by", "scale", "k"],
    "group_view": ["model", "tokenizer", "rollouts", "config", "k"],
    "compare": ["runs"],
    "Dashboard": ["trainer", "steps", "seconds_between_news", "evaluate_every", "evaluate_n"],
    "LiveRun": ["trainer", "steps", "evaluate_every", "evaluate_n", "watchers"],
    "Playground": ["model", "tokenizer", "task", "problem", "config", "seed", "problems"],
    "Blame": ["tokens", "blamed"],
    "Rewind": ["timeline"],
    "smooth": ["window"],
    "curve": ["history"],
}


@pytest.fixture(scope="module")
def drawn(one):
    return views(one)


def test_every_view_has_a_row(drawn):
    missing = set(lab.views.__all__) - DRAWN - set(drawn)
    assert not missing, (
        f"views() in {Path(__file__).name} has no row for {', '.join(sorted(missing))}"
    )
    assert {name: list(row.bad) for name, row in drawn.items()} == VIEWS


@pytest.mark.parametrize(
    "name, parameter",
    [(name, parameter) for name, parameters in VIEWS.items() for parameter in parameters],
)
def test_views(name, parameter, drawn, one):
    function, arguments = drawn[name].good(one)
    parameters = inspect.signature(function).parameters
    assert parameter in parameters
    wrong = []
    for bad in drawn[name].bad[parameter]:
        try:
            refused(lambda: function(**{**arguments, parameter: bad}), parameter, bad)  # noqa: B023
        except BaseException as error:
            wrong.append(f"{parameter}={shown(bad)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


# -- tasks that give what no run can use


class Gives(Sums):
    """A task with problems of one's own making, and a judge that returns what it is told to."""

    def __init__(self, problems=None, verdict=(1.0, "")) -> None:
        self.made, self.verdict = problems, verdict

    def problems(self, n, split="train", seed=0):
        return super().problems(n, split, seed) if self.made is None else self.made(n)

    def judge(self, problem, completion):
        return self.verdict


@pytest.mark.parametrize(
    "made, words",
    [
        (lambda n: [], "gave 0 problems; it must give 2"),
        (lambda n: None, "must be a list of Problem objects, got None"),
        (lambda n: [QUESTION] * n, "two problems with the id 'p'; ids must be unique"),
        (lambda n: [{"prompt": "a"}] * n, "must be a Problem .* got {'prompt': 'a'}"),
        (lambda n: [Problem(str(i), []) for i in range(n)], "'0' must end with what the user says"),
        (
            lambda n: [Problem(str(i), [{"role": "user", "content": " \n"}]) for i in range(n)],
            "'0' must end with what the user says, and that must not be empty",
        ),
        (
            lambda n: [
                Problem(str(i), [*CHAT, {"role": "assistant", "content": "4"}]) for i in range(n)
            ],
            "must end with what the user says",
        ),
        (
            lambda n: [Problem(str(i), [{"role": "user"}]) for i in range(n)],
            "a role and a content, both strings; got {'role': 'user'}",
        ),
        (
            lambda n: [Problem(str(i), ["hi"]) for i in range(n)],
            "a role and a content, both strings; got 'hi'",
        ),
    ],
)
def test_problems(made, words, one):
    """Refused before anything is sampled, and the trainer is as it was."""
    with pytest.raises((TypeError, ValueError), match=words):
        draw_problems(Gives(made), 2, "train", 0)
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(made), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.step()
    assert len(trainer.history) == 0 and trainer.optimizer_steps == 0


def test_a_list_without_problems_or_with_an_empty_prompt():
    for bad, words in (
        ([], r"at least one problem.*got \[\]"),
        ([{"prompt": ""}], "prompt of problem 0 is empty"),
        ([{"prompt": "a"}, {"prompt": "\t "}], r"problem 1 is empty.*got '\\t '"),
        ([{"prompt": [{"role": "user", "content": ""}]}], "problem 0 is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            task_from_function(bad, len)


BAD_VERDICTS = [
    (None, "NoneType"),
    ("1.0", "got str: '1.0'"),
    ((NAN, ""), "reward must be finite, got nan"),
    ((INF, ""), "reward must be finite, got inf"),
    ((None, ""), "reward must be a number, got None"),
    (("1", ""), "reward must be a number, got '1'"),
    ((True, ""), "reward must be a number, got True"),
    ((1.0, None), "feedback must be a string, got None"),
    ((1.0, 3), "feedback must be a string, got 3"),
    ((1.0, "", ""), "got tuple"),
    ([1.0, ""], "got list"),
    ({"reward": 1.0}, "got dict"),
    ((torch.tensor(1.0), ""), "reward must be a number, got"),
]


@pytest.mark.parametrize("verdict, words", BAD_VERDICTS)
def test_verdicts(verdict, words, one):
    """What a judge returns: refused with the problem's name, guarded or not; nothing of the run is lost."""
    with pytest.raises((TypeError, ValueError), match=f"problem 'train-0-0': .*{words}"):
        judge_all(Gives(verdict=verdict), Sums().problems(1), ["a"])
    with pytest.raises(JudgeError, match=f"problem 'train-0-0'.*{words}"):
        Guard(Gives(verdict=verdict)).judge(Sums().problems(1)[0], "a")
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(verdict=verdict), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.step()
    assert len(trainer.history) == 0 and trainer.optimizer_steps == 0


@pytest.mark.parametrize(
    "returned, words",
    [
        (None, "returned NoneType verdicts for 2"),
        (3, "returned int"),
        ([], "returned 0 verdicts for 2"),
        ([(1.0, "")] * 3, "returned 3 verdicts for 2"),
        ([(1.0, ""), (NAN, "")], "problem 'train-0-1': reward must be finite"),
    ],
)
def test_verdicts_of_a_batch(returned, words):
    task = Gives()
    task.judge_many = lambda problems, completions: returned
    with pytest.raises((TypeError, ValueError), match=words):
        judge_all(task, Sums().problems(2), ["a", "b"])


@pytest.mark.parametrize(
    "returned, words",
    [
        (
            ["1"],
            r"a reward of the reward function mine must be a number, or None where it does not count, got '1' \(str\)",
        ),
        ([[1.0]], r"function mine must be a number.*got \[1.0\]"),
        (
            3.0,
            r"the reward function mine must return a list with one reward for each completion, got 3.0 \(float\)",
        ),
        (None, "function mine must return a list.*got None"),
        ("1", "function mine must return a list.*got '1'"),
        (torch.tensor(1.0), "function mine must return a list"),
        ([INF], "function mine must be finite, got inf"),
        ([HUGE], "function mine must be from -1000000 to 1000000, got 1000"),
        ([1e308], "function mine must be from -1000000 to 1000000, got 1e"),
        ([1j], r"function mine must be a number.*got 1j"),
        ([1.0, 2.0], "function mine returned 2 rewards for 1 completions"),
        ([torch.ones(2)], "function mine must be a number.*Tensor of shape"),
    ],
)
def test_rewards_of_trl_s_functions(returned, words):
    def mine(**columns):
        return returned

    task = task_from_function([{"prompt": "a", "split": "train"}], reward_funcs=mine)
    with pytest.raises(JudgeError, match=words) as caught:
        task.judge(task.problems(1)[0], "x")
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def test_rewards_that_are_numbers_of_others():
    for returned, reward in (
        (torch.tensor([0.5]), 0.5),
        (np.array([2]), 2.0),
        ([np.float32(0.5)], 0.5),
        ((True,), 1.0),
        ([torch.tensor(0.25)], 0.25),
        (iter([3]), 3.0),
    ):
        task = task_from_function(
            [{"prompt": "a", "split": "train"}],
            reward_funcs=lambda returned=returned, **columns: returned,
        )
        found = task.judge(task.problems(1)[0], "x").reward
        assert found == reward and type(found) is float
    with pytest.raises(JudgeError, match="reward must be from -1000000 to 1000000, got 1000"):
        task_from_function(
            [{"prompt": "a", "split": "train"}], lambda problem, completion: HUGE
        ).judge(QUESTION, "x")


# -- attempts of one's own


@pytest.mark.parametrize(
    "field, bad, words",
    [
        ("completion_ids", [10**6], "must be from 0 to 399, the model's vocabulary; got 1000000"),
        ("completion_ids", [5, -5], "must be from 0 to 399, .* got -5"),
        ("completion_ids", [400], "must be from 0 to 399"),
        ("completion_ids", [HUGE], "must be from 0 to 399"),
        ("completion_ids", [1.5], "must be Python's whole numbers, one has the type float: 1.5"),
        ("completion_ids", [True], "one has the type bool"),
        ("completion_ids", [np.int64(5)], r"one has the type int64.*\.tolist\(\)"),
        ("completion_ids", ["5"], "one has the type str: '5'"),
        (
            "completion_ids",
            torch.tensor([5]),
            r"must be a list of token ids; \.tolist\(\).*got Tensor",
        ),
        ("completion_ids", None, "must be a list of token ids"),
        ("completion_ids", (5, 6), "must be a list of token ids"),
        ("reward", NAN, "must be finite, got nan"),
        ("reward", INF, "must be finite, got inf"),
        ("reward", HUGE, "must be from -1000000 to 1000000"),
        ("reward", -1e308, "must be from -1000000 to 1000000"),
        ("reward", "1", "must be a number, got '1'"),
        ("reward", True, "must be a number, got True"),
        ("reward", torch.tensor(1.0), "must be a number, got"),
        ("feedback", 3, "must be a string, got 3"),
        ("feedback", None, "must be a string, got None"),
        ("text", None, "must be a string, got None"),
        ("text", b"a", "must be a string, got b'a'"),
        ("index", -1, "must be from 0 upwards; got -1"),
        ("index", "0", "must be a whole number from 0 upwards; got '0'"),
        ("entropy", None, "must be a number.*got None"),
        ("truncated", 1, "must be one of False, True"),
        ("problem", None, "a problem must be a Problem"),
        ("problem", Problem("p", []), "problem 'p' must end with what the user says"),
    ],
    ids=lambda v: shown(v)[:40],
)
def test_attempts(field, bad, words, one):
    """Given to a step, or by a sampler of one's own: refused with the name of the field, and nothing has changed."""
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 6], reward=float(i), feedback="" if i else "no")
        for i in range(4)
    ]
    attempts[2] = dataclasses.replace(attempts[2], **{field: bad})
    named = "" if field == "problem" else f"{field} of (rollout 2|a rollout) of problem 'p' "

    class Own(SDPOTrainer):
        def sample(self, number):
            return attempts

    before = [p.clone() for p in one.model.parameters()]
    trainer = Own(one.model, one.tokenizer, Sums(), small())
    for call in (lambda: trainer.step(attempts), trainer.step):
        with pytest.raises((TypeError, ValueError), match=named + ".*" * bool(named) + words):
            call()
    assert len(trainer.history) == 0 and all(
        torch.equal(a, b) for a, b in zip(before, one.model.parameters())
    )


def test_a_step_on_attempts_that_are_right(tiny):
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 399], reward=1_000_000 * i, feedback="" if i else "no")
        for i in range(2)
    ] + [Rollout(Problem("q", CHAT), 0, "", [])]
    trainer = SDPOTrainer(*tiny, Sums(), small(distillation_weight=0))
    record = trainer.step(attempts)
    assert math.isfinite(record.loss) and record.metrics["not_finite"] == 0, (
        "the largest rewards there are still train"
    )
    assert attempts[2].reward is None, "they are copied"


# -- attempts and models at their limits


@pytest.mark.parametrize(
    "bad, value",
    [
        (dict(code=3), "3"),
        (dict(function=None), "None"),
        (dict(inputs=3), "3"),
        (dict(inputs=(1,)), "1"),
        (dict(inputs=((object,),)), "type"),
        (dict(inputs=((1,),) * 257), "257"),
    ],
)
def test_programs(bad, value):
    with (
        Sandbox(workers=1) as box,
        pytest.raises((TypeError, ValueError), match=rf"(?s){next(iter(bad))}.*{value}"),
    ):
        box.run([Program(**{"code": "", "function": "f", "inputs": ((1,),), **bad})])


def test_the_tokenizer_of_another_model_is_refused(tiny):
    """Found before anything is computed, where it was an IndexError of torch."""
    import copy

    (model, tokenizer), other = tiny, lab.load_model("lab-100k")[1]
    words = r"tokenizer must be the model's own: its tokens go up to number 1535, and the model's input embedding has 400 rows, for 0 to 399\. Load both from the same place"
    for call in (
        lambda: lab.rollout(model, other, [QUESTION], 1),
        lambda: SDPOTrainer(model, other, Sums(), small()),
        lambda: lab.credit(model, other, QUESTION, "ab"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(["perhaps"])
    with pytest.raises(
        ValueError,
        match=r"up to number 400, .*use model\.resize_token_embeddings\(len\(tokenizer\)\)",
    ):
        lab.rollout(model, longer, [QUESTION], 1)
    longer = copy.deepcopy(tokenizer)
    longer.add_special_tokens(
        {"additional_special_tokens": ["<image>"]}
    )  # a special token that no text holds, as the image's in Gemma 3 1B
    assert lab.rollout(model, longer, [QUESTION], 1, max_completion_length=2)
    longer.chat_template = "<image>" + longer.chat_template
    with pytest.raises(
        ValueError,
        match="the tokens of a prompt, as its chat template writes it, go up to number 400, and the model's input embedding has 400 rows",
    ):
        lab.rollout(model, longer, [QUESTION], 1)
    model.resize_token_embeddings(512)  # more rows than tokens, as most models have
    assert lab.rollout(model, longer, [QUESTION], 1, max_completion_length=2)


def test_a_model_without_weights_or_with_damaged_ones_is_named(tiny):
    import copy

    model, tokenizer = tiny
    with pytest.raises(ValueError, match="model must have weights, got a .* on the device 'meta'"):
        SDPOTrainer(copy.deepcopy(model).to("meta"), tokenizer, Sums(), small())
    name, weight = [*model.named_parameters()][3]
    whole = weight.data.clone()
    for bad in (NAN, INF):
        weight.data[0] = bad
        with pytest.raises(
            ValueError,
            match=f"weights of the model must be finite numbers; nan or infinite ones are in {re.escape(name)}\\. Load it again",
        ):
            SDPOTrainer(model, tokenizer, Sums(), small())
    weight.data = whole * 1e38 * 1e3  # infinite ones
    with pytest.raises(ValueError, match=re.escape(name)):
        SDPOTrainer(model, tokenizer, Sums(), small())
    weight.data = whole
    assert SDPOTrainer(model, tokenizer, Sums(), small())


def test_attempts_that_never_end_groups_of_one_and_equal_rewards(tiny):
    """All of them train or are counted as skipped; none is an error."""
    model, tokenizer = tiny
    model.generation_config.eos_token_id = tokenizer.eos_token_id = (
        0  # which the model can write as any other; nothing else ends an attempt
    )
    trainer = SDPOTrainer(model, tokenizer, Sums(), small(num_generations=1))
    record = trainer.step()
    assert all(
        r.truncated == (r.completion_ids[-1] != 0) for r in record.rollouts
    ) and math.isfinite(record.loss) == bool(record.metrics["active_fraction"])
    equal = SDPOTrainer(model, tokenizer, Gives(verdict=(0.5, "")), small(distillation_weight=0))
    record = equal.step()
    assert (
        equal.skipped_steps == 1
        and equal.optimizer_steps == 0
        and {r.why for r in record.rollouts} == {"all attempts of its group have the same reward"}
    )
    silent = SDPOTrainer(model, tokenizer, Gives(verdict=(0.0, "")), small())
    assert silent.step().metrics["active_fraction"] == 0 and silent.skipped_steps == 1
    refused(lambda: small(num_generations=1, distillation_weight=0), "num_generations", 1)


def test_prompts_longer_than_the_context(one):
    long = Problem("long", [{"role": "user", "content": "word " * 3000}])
    with pytest.raises(ValueError, match="a prompt has .* tokens, the model's context is 2048"):
        lab.rollout(one.model, one.tokenizer, [long], 1)
    with pytest.raises(
        ValueError, match="tokens together, the model's context is 2048; shorten the texts"
    ):
        lab.credit(one.model, one.tokenizer, QUESTION, "ab", feedback="word " * 3000)
    with pytest.raises(ValueError, match="tokens together, the model's context is 2048"):
        lab.credit(one.model, one.tokenizer, long, "ab")
    trainer = SDPOTrainer(
        one.model,
        one.tokenizer,
        Gives(lambda n: [dataclasses.replace(long, id=str(i)) for i in range(n)]),
        small(),
    )
    with pytest.raises(ValueError, match="context is 2048"):
        trainer.step()


def test_a_teacher_s_prompt_gives_way_to_the_context(one):
    from sdpo_lab.core.reprompt import encode_teacher, reprompt

    config = small(max_reprompt_len=10_000)
    r = Rollout(QUESTION, 0, "ab", [5] * 100, reward=0.0, feedback="word " * 3000)
    reprompt([r], config, None)
    ids, shortened = encode_teacher(one.tokenizer, r, config, context=512)
    assert shortened and len(ids) + 100 <= 512 and r.shown_feedback
    reprompt([r], config, None)
    assert not encode_teacher(one.tokenizer, r, config)[1]
    with pytest.raises(
        ValueError,
        match="problem 'p' has .* tokens without any demonstration or feedback; 20 have room",
    ):
        encode_teacher(one.tokenizer, r, config, context=120)


def changed(tokenizer, **attributes):
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_tokenizers_without_template_end_or_padding(tiny):
    model, tokenizer = tiny
    bare = changed(tokenizer, chat_template=None)
    for call in (
        lambda: lab.rollout(model, bare, [QUESTION], 1),
        lambda: lab.credit(model, bare, QUESTION, "ab"),
        SDPOTrainer(model, bare, Sums(), small()).step,
    ):
        with pytest.raises(ValueError, match="no chat template; set tokenizer.chat_template"):
            call()
    padless = changed(tokenizer, pad_token=None)
    assert (
        lab.rollout(model, padless, [QUESTION], 2, max_completion_length=3)[1].text
        == lab.rollout(model, tokenizer, [QUESTION], 2, max_completion_length=3)[1].text
    )
    model.generation_config.eos_token_id = None
    endless = changed(tokenizer, eos_token=None)
    with pytest.raises(ValueError, match="end-of-sequence token; set tokenizer.eos_token"):
        lab.rollout(model, endless, [QUESTION], 1)


# -- a judge that hangs


def hanging(release, words=("hang",)):
    return lambda row, completion: (
        release.wait(30) if completion in words else None,
        (1.0, "fine"),
    )[1]


@pytest.fixture
def release():
    """Set in the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_judge_that_hangs_is_left_behind_in_time(release):
    task = task_from_function([{"prompt": "a", "split": "train"}], hanging(release), seconds=0.2)
    p, began = task.problems(1)[0], time.monotonic()
    assert task.judge(p, "quick") == Verdict(1.0, "fine")
    with pytest.raises(
        JudgeError,
        match=f"problem '{p.id}', completion 'hang': TimeoutError: the judge was not done after seconds=0.2",
    ) as caught:
        task.judge(p, "hang")
    assert isinstance(caught.value.__cause__, TimeoutError) and time.monotonic() - began < 5
    assert "seconds=0.2" in repr(task) and task.judge(p, "quick") == Verdict(1.0, "fine"), (
        "the run can go on"
    )


def test_with_zero_a_run_goes_on_until_too_many_hang(release):
    task = task_from_function(
        [{"prompt": "a", "split": "train"}], hanging(release), on_error="zero", seconds=0.05
    )
    p = task.problems(1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(adapters.MOST_HANGING - 1):
            assert task.judge(p, "hang") == Verdict(0.0)
        assert task.failures == adapters.MOST_HANGING - 1 and task.judge(p, "quick").reward == 1
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(
                JudgeError,
                match=f"{adapters.MOST_HANGING} calls of the judge hang at once.*Give the judge a time limit of its own",
            ):
                task.judge(p, "hang")
        assert threading.active_count() == threads + 1, "no more are started"
        release.set()
        while any(t.is_alive() for t in task.hanging):
            time.sleep(0.01)
        assert task.judge(p, "quick").reward == 1, "those that end make room again"


def test_of_a_batch_that_hangs_the_one_at_fault_is_found(release):
    class Batch(Sums):
        def judge_many(self, problems, completions):
            return [(release.wait(30) if c == "hang" else None, (1.0, c))[1] for c in completions]

        def judge(self, problem, completion):
            return self.judge_many([problem], [completion])[0]

    problems = Sums().problems(3)
    with pytest.warns(UserWarning, match="1 attempt could not be judged"):
        found = judge_all(Guard(Batch(), "zero", seconds=0.2), problems, ["a", "hang", "b"])
    assert [v.reward for v in found] == [1, 0, 1]


def test_what_a_judge_raises_in_its_thread_reaches_the_run():
    def judge(row, completion):
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}.get(
            completion
        ) or ZeroDivisionError("by zero")

    task = task_from_function(
        [{"prompt": "a", "split": "train"}], judge, on_error="zero", seconds=5
    )
    for words, error in (("exit", SystemExit), ("interrupt", KeyboardInterrupt)):
        with pytest.raises(error):
            task.judge(task.problems(1)[0], words)
    with pytest.warns(UserWarning, match="ZeroDivisionError: by zero"):
        assert task.judge(task.problems(1)[0], "x") == Verdict(0.0)


# -- the messages themselves


def test_what_a_message_shows():
    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    assert (
        shown("a\x1b[31m\n\u202e\ud800") == repr("a\x1b[31m\n\u202e\ud800")
        and "\x1b" not in shown("\x1b")
        and printable("a\x1b[31m\u202e") == "a\\x1b[31m\\u202e"
    )
    assert shown("x" * 1000).endswith("... (1002 characters)") and len(shown(["x" * 10_000])) < 200
    assert (
        shown(torch.zeros(2, 3)) == "Tensor of shape (2, 3), torch.float32"
        and shown(Rude()) == "Rude without a repr (RuntimeError)"
    )
    assert (
        shown(10**5000) == "int without a repr (ValueError)"
        and shown(None) == "None"
        and shown(3.5) == "3.5"
    )
