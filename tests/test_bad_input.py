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
from sdpo_lab.config import CHOICES, OPTIONAL, RANGES, TEMPLATES, SDPOConfig
from sdpo_lab.errors import MOST, printable, shown
from sdpo_lab.rollouts import Rollout
from sdpo_lab.tasks import adapters
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from sdpo_lab.tasks.base import Problem, Verdict, draw_problems, judge_all
from sdpo_lab.tasks.sandbox import Sandbox
from sdpo_lab.trainer import SDPOTrainer
from tests.core.conftest import tiny, tiny_original  # noqa: F401  a random model
from tests.views.conftest import FakeTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

NAN, INF, HUGE = math.nan, math.inf, 10**400
#: What says what would be right: "must be one of", "from 1 to 9", "give", "it has", "there are".
ALLOWED = re.compile(r"must|may contain|from -?[\d.e+-]+ (to|upwards)|\bgive\b|\bhas\b|there (is|are)|holds|needs|goes with|shipped|use ")


def refused(call, name: str, value: object) -> str:
    """Call it, and hold the message to its promise; returns the message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
    said = str(caught.value)
    assert re.search(rf"\b{name.replace('_', '[_ ]')}", said), f"the message does not name {name}: {said}"
    forms = {shown(value), type(value).__name__} | ({repr(value), str(value)} if isinstance(value, (str, float, Path)) else set())
    if isinstance(value, list):  # what is wrong is in it, or how many there are
        forms |= {str(len(value))} | {form for v in value for form in (shown(v), str(v), type(v).__name__)}
    assert any(form[:MOST] in said for form in forms), f"the message does not show {shown(value)}: {said}"
    assert ALLOWED.search(said), f"the message does not say what is allowed: {said}"
    assert len(said) < 1500 and printable(said.replace("\n", " ")) == said.replace("\n", " "), "a message is short and safe on a terminal"
    return said


# -- what is bad for each kind of argument


def ints(low: int, high: float = INF) -> list:
    return ["3", None, True, 1.5, NAN, [], np.array([1, 2]), low - 1, *([] if high == INF else [int(high) + 1, HUGE])]


def floats(low: float, high: float = INF) -> list:
    return ["3", None, True, NAN, INF, -INF, [], torch.ones(2), low - 1, *([] if high == INF else [high * 2 + 1, HUGE])]


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
TENSOR = [None, 3.0, [0.1, 0.2], np.ones((1, 2, 4)), torch.ones(1, 2, 4, dtype=torch.long), torch.ones(1, 2, 5), torch.tensor(1.0)]
IDS = [None, 3, [[1, 2]], torch.ones(1, 2), torch.ones(1, 3, dtype=torch.long)]
SPLIT = ["val", "", None, 3, []]
MESSAGES = [None, "hi", 3, {"role": "user", "content": "hi"}]


# -- fields of the configuration

FIELDS = {name: (ints(low, high) if kind is int else floats(low, high)) for name, (kind, low, high) in RANGES.items()}
FIELDS = {name: optional(bad) if name in OPTIONAL else bad for name, bad in FIELDS.items()}
FIELDS |= {name: FLAG if allowed == (False, True) else CHOICE for name, allowed in CHOICES.items()}
FIELDS |= {name: [*TEXT, "", "no slot", "{", "{0}", "{{}}", *("".join("{" + s + "}" for s in slots) + more for more in ("{more}", "}", "{0}"))] for name, slots in TEMPLATES.items()}


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
    config = SDPOConfig(learning_rate=np.float32(0.5), generation_batch_size=np.int64(8), temperature=1)
    assert [type(v) for v in (config.learning_rate, config.generation_batch_size, config.temperature)] == [float, int, float]
    assert type(lab.load_task("toolcall", seed=np.int64(3)).dials["seed"]) is int


# -- public functions

CHAT = [{"role": "user", "content": "Will it rain?"}]
QUESTION = Problem("p", CHAT)
DISTRIBUTION = torch.zeros(1, 2, 4).log_softmax(-1)
LOGITS = dict(student_logits=DISTRIBUTION, teacher_logits=DISTRIBUTION, completion_ids=torch.ones(1, 2, dtype=torch.long))
BOTH = dict(student=DISTRIBUTION, teacher=DISTRIBUTION)


class Sums:
    """A task of one's own."""

    name = "sums"

    def problems(self, n, split="train", seed=0):
        return [Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"{i} + {seed} ="}]) for i in range(n)]

    def judge(self, problem, completion):
        return float(len(completion) % 2), f"{len(completion)} letters"


def small(**fields) -> SDPOConfig:
    return SDPOConfig.preset("laptop", **{**dict(generation_batch_size=4, num_generations=2, max_completion_length=4), **fields})


@dataclasses.dataclass
class Row:
    """A call that works, what is bad for each of its parameters, and the parameters that take anything, with the reason."""

    good: object  #: function of the fixtures `x` -> (callable, its arguments)
    bad: dict[str, list]
    free: dict[str, str] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)  #: parameter -> how the message names it


def given(function, **arguments):
    return lambda x: (function(x) if function.__name__ == "<lambda>" else function, {k: v(x) if getattr(v, "__name__", "") == "<lambda>" else v for k, v in arguments.items()})


M, T = dict(model=lambda x: x.model, tokenizer=lambda x: x.tokenizer), dict(model=MODEL, tokenizer=TOKENIZER)
SHOWN = dict(feedback=TEXT, solution=TEXT, attempt=TEXT)
ANY_TEACHER = "a model or a Teacher; what is neither fails in its first call"

PUBLIC: dict[str, Row] = {
    "Problem": Row(given(Problem, id="p", messages=CHAT), dict(id=[None, 3, "", "\ud800", b"p"], messages=MESSAGES, data=[None, 3, "data", [1]])),
    "Verdict": Row(given(Verdict, reward=1.0), dict(reward=["1", None, True, NAN, INF, [], torch.tensor(1.0)], feedback=[None, 3, b"no", ["no"]])),
    "Guard": Row(given(Guard, task=Sums()), dict(task=TASK, on_error=CHOICE, seconds=optional(floats(0.01, 86400)))),
    "SDPOConfig.preset": Row(given(SDPOConfig.preset, name="laptop"), dict(name=["labtop", "", None, 3, []]), {"fields": "test_fields"}, {"name": "preset"}),
    "SDPOConfig.from_dict": Row(given(SDPOConfig.from_dict, fields={}), dict(fields=[None, "laptop", 3, [1]])),
    "SDPOTrainer": Row(given(SDPOTrainer, **M, task=Sums(), config=lambda x: small()), dict(**T, task=TASK, config=CONFIG)),
    "contexts": Row(given(lab.contexts, task=Sums(), problem=QUESTION, completion="a"),
                    dict(task=TASK, problem=PROBLEM, completion=[None, 3, b"a", [1]], rollouts=[None, 3, ["a"]], seed=ints(0), config=CONFIG)),
    "credit": Row(given(lab.credit, **M, problem=QUESTION, completion="ab"),
                  dict(**T, problem=PROBLEM, completion=[None, 3, "", [], ["a"], [1.5], [True], [-1], [4000], b"a", NAN], **SHOWN, config=CONFIG),
                  {"teacher": ANY_TEACHER, "task": "only its oracle is used, where it has one"}),
    "familiarity": Row(given(lab.familiarity, text="no", model=lambda x: x.model), dict(text=TEXT, kind=CHOICE), {"model": "None is the answer for a model nobody knows"}),
    "list_models": Row(given(lab.list_models), {}),
    "list_tasks": Row(given(lab.list_tasks), {}),
    "load_model": Row(given(lab.load_model), dict(
        name=["labtop", "", None, 3, "no/such/model", "~/model", Path("/nowhere"), "a\x1b[31mb"], device=["gpu", "cuda", "cuda:99", None, 3.5, "", []], lora=[0, -1, 4097, True, 1.5, "16", NAN],
        dtype=["float16", "bfloat16", None, torch.float16, "", 3], attn_implementation=CHOICE, chat_template=[3, b"x", ["x"], ""], chat_template_kwargs=[3, "x", ["x"]]), names={"name": "model"}),
    "load_task": Row(given(lab.load_task, name="toolcall"), dict(name=["toolcal", "", None, 3, []], seed=ints(0, 2**31 - 1)), {"dials": "those of each task have rows below"},
                     {"name": "task"}),
    "memory_table": Row(given(lab.memory_table), dict(gpu=floats(0.01, 1e6), rank=ints(1, 4096), **{n: ints(1) for n in ("attempts", "prompt_tokens", "completion_tokens")})),
    "training_memory": Row(given(lab.training_memory, model="lab-1m"), dict(
        model=[None, 3, "labtop", {}], lora=[0, True, 1.5, "16"], dtype=CHOICE, teacher=CHOICE, bf16=FLAG,
        **{n: ints(1) for n in ("attempts", "per_device", "prompt_tokens", "completion_tokens")})),
    "preflight": Row(given(lab.preflight, **M, task=Sums(), config=lambda x: small(), n=4), dict(**T, task=TASK, config=CONFIG, n=ints(1, 10_000), seed=ints(0, 2**31 - 1))),
    "rollout": Row(given(lab.rollout, **M, problems=[QUESTION], num_generations=2, max_completion_length=2), dict(
        **T, problems=[None, 3, ["q"], [CHAT], QUESTION], num_generations=ints(1, 4096), temperature=floats(0, 100), seed=ints(0, 2**63 - 1), step=ints(-(2**31), 2**31),
        max_completion_length=ints(1, 131072), top_p=floats(0.01, 1), batch_size=ints(1), bf16=FLAG)),
    "task_from_function": Row(given(task_from_function, problems=[{"prompt": "a"}], judge=len), dict(
        problems=[None, "abc", 3, {}, [], [3], [None]], judge=["exact", 3, {}], on_error=CHOICE, seconds=optional(floats(0.01, 86400)), name=[None, "", 3, b"x"]),
        {n: "test_what_goes_with_reward_functions" for n in ("reward_funcs", "reward_weights", "feedback", "tokenizer")}),
    "teacher_attempts": Row(given(lab.teacher_attempts, **M, problem=QUESTION, config=lambda x: small()),
                            dict(**T, problem=PROBLEM, n=ints(1, 4096), **SHOWN, config=CONFIG, temperature=floats(0, 100), seed=ints(0, 2**63 - 1)),
                            {"teacher": ANY_TEACHER, "task": "it judges, when there is one"}, {"n": "n", "temperature": "temperature"}),
    "Timeline": Row(lambda x: (lab.Timeline, dict(trainer=x.trainer)), dict(trainer=[None, "run", 3, {}], probe=[3, "x", [1], {}], folder=[3, b"x", Path(__file__)], every=ints(1, 10**6),
                                                                          max_megabytes=floats(0.1, 10**7))),
    # losses
    "losses.divergence": Row(given(lab.losses.divergence, **BOTH, alpha=1.0), dict(student=TENSOR[:-2], teacher=TENSOR, alpha=floats(0, 1))),
    "losses.kl": Row(given(lab.losses.kl, a=DISTRIBUTION, b=DISTRIBUTION), dict(a=TENSOR[:-2], b=TENSOR)),
    "losses.top_k_support": Row(given(lab.losses.top_k_support, student_logits=DISTRIBUTION, teacher_logits=DISTRIBUTION, top_k=2, add_tail=True),
                                dict(student_logits=TENSOR[:-2], teacher_logits=TENSOR, top_k=ints(1)), {"add_tail": "its truth counts"}),
    "losses.tail": Row(given(lab.losses.tail, log_probs=DISTRIBUTION), dict(log_probs=TENSOR[:5])),
    "losses.token_log_probs": Row(given(lab.losses.token_log_probs, logits=DISTRIBUTION, ids=LOGITS["completion_ids"]), dict(logits=TENSOR[:5], ids=IDS)),
    "losses.distillation_loss": Row(given(lab.losses.distillation_loss, **LOGITS), dict(
        student_logits=TENSOR[:5], teacher_logits=TENSOR, completion_ids=IDS, mode=CHOICE, alpha=floats(0, 1), top_k=ints(1), clip=optional(floats(0.0))),
        {"add_tail": "its truth counts", "mask": "broadcasts as torch does, which says what does not"}),
    "losses.log_ratio": Row(given(lab.losses.log_ratio, **BOTH), dict(student=TENSOR[:-2], teacher=TENSOR, clip=optional(floats(0.0)))),
    "losses.importance_weights": Row(given(lab.losses.importance_weights, log_prob=DISTRIBUTION, old_log_prob=DISTRIBUTION, clip=2.0),
                                     dict(log_prob=TENSOR[:-2], old_log_prob=TENSOR, clip=floats(0.0))),
    "losses.group_advantages": Row(given(lab.losses.group_advantages, rewards=torch.ones(2, 4)), dict(rewards=[*TENSOR[:5], torch.tensor(1.0)]), {"scale": "its truth counts"}),
    "losses.policy_loss": Row(given(lab.losses.policy_loss, student_logits=DISTRIBUTION, completion_ids=LOGITS["completion_ids"], advantages=torch.ones(1, 1)),
                              dict(student_logits=TENSOR[:5], completion_ids=IDS, epsilon=floats(0, 1), epsilon_high=floats(0)),
                              {n: "broadcasts as torch does, which says what does not" for n in ("advantages", "old_log_probs")}),
    "losses.token_weights": Row(given(lab.losses.token_weights, mask=torch.ones(2, 3), active=torch.tensor([True, False]), normalize="all_rows"),
                                dict(mask=TENSOR[:5], normalize=CHOICE), {"active": "broadcasts as torch does"}),
    "losses.at_least_float32": Row(given(lab.losses.at_least_float32, logits=DISTRIBUTION), {}, {"logits": "a tensor; anything else has no dtype"}),
    # shipped tasks
    "ToolCall": Row(given(tasks.ToolCall), dict(seed=ints(0, 2**31 - 1), base_accuracy=floats(0.01, 0.5), calls=ints(1, 8), feedback=["2", None, 4, -1, 1.5, True, [], NAN],
                                                reward=CHOICE, novelty=CHOICE)),
    "TinyCode": Row(given(tasks.TinyCode), dict(seed=ints(0, 2**31 - 1), base_accuracy=floats(0.01, 0.5), feedback=["2", None, 3, -1, 1.5, True, [], NAN], seconds=floats(0.05, 60),
                                                allow_weak=FLAG)),
    "FollowUp": Row(given(tasks.FollowUp), dict(seed=ints(0, 2**31 - 1), base_accuracy=floats(0.01, 0.5), feedback=["2", None, 3, -1, 1.5, True, [], NAN], unrelated=floats(0, 1))),
    **{f"{kind.__name__}.problems": Row(given(kind().problems, n=2), dict(n=ints(1, 1_000_000), split=SPLIT, seed=ints(0, 2**63 - 1))) for kind in tasks.TASKS.values()},
    "task_from_function.problems": Row(given(task_from_function([{"prompt": "a", "split": "train"}], len).task.problems, n=1),
                                       dict(n=ints(1, 1_000_000), split=SPLIT, seed=ints(0, 2**63 - 1))),
    "Sandbox": Row(given(Sandbox, workers=1), dict(seconds=floats(0.05, 600), memory_mb=ints(64, 65536), workers=optional(ints(1, 64))), {"allow_weak": "its truth counts"}),
    # a trainer's methods
    "SDPOTrainer.train": Row(given(lambda x: x.trainer.train, steps=1, progress=False), dict(steps=ints(0, 10**9), changes=[3, "x", [1], {1: 3}], progress=FLAG),
                             {"folder": "as of save"}),
    "SDPOTrainer.apply": Row(given(lambda x: x.trainer.apply), {}, {"fields": "test_live_fields"}),
    "SDPOTrainer.step": Row(given(lambda x: x.trainer.step), dict(rollouts=[3, "x", [], ["x"], [None]])),
    "SDPOTrainer.evaluate": Row(given(lambda x: x.trainer.evaluate, n=1), dict(n=ints(1, 10**6), split=SPLIT, seed=ints(0, 2**63 - 1), role=CHOICE)),
    "SDPOTrainer.save": Row(given(lambda x: x.trainer.save, folder=lambda x: x.folder / "run"), dict(folder=[None, 3, b"x"], keep=optional(ints(1)), overwrite=FLAG)),
    "SDPOTrainer.save_pretrained": Row(given(lambda x: x.trainer.save_pretrained, folder=lambda x: x.folder / "model"), dict(folder=[None, 3, b"x"], merge=FLAG)),
    "SDPOTrainer.resume": Row(given(SDPOTrainer.resume, folder=lambda x: x.saved, task=Sums()), dict(
        folder=[None, 3, "", "no/such/folder", b"x"], task=[None, "toolcall", 3], device=["gpu", "cuda", 3.5, []], step=[-1, 99, "1", True, 1.5])),
}
#: What the package makes and hands out; and what is no function.
RESULTS = {"Credit", "Evaluation", "Familiarity", "History", "Memory", "Preflight", "Rollout", "StepRecord", "JudgeError"}
ELSEWHERE = {"__version__": "a string", "losses": "its functions have rows", "views": "VIEWS", "Task": "a protocol", "SDPOConfig": "FIELDS", "SHIPPED": "a dictionary"}


def trainer_methods() -> set[str]:
    return {f"SDPOTrainer.{name}" for name, value in vars(SDPOTrainer).items() if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod))}


#: For those who write a variant, and read its source (`SDPOTrainer`'s docstring).
INSIDE = {f"SDPOTrainer.{name}" for name in ("sample", "prepare", "token_weights", "update", "score", "micro_batches", "optimizer_step", "afford", "gradient")}


def test_every_public_name_has_a_row():
    losses = {f"losses.{name}" for name, f in vars(lab.losses).items() if callable(f) and getattr(f, "__module__", "") == lab.losses.__name__}
    names = set(lab.__all__) | set(tasks.__all__) | {kind.__name__ for kind in tasks.TASKS.values()} | losses | (trainer_methods() - INSIDE)
    missing = sorted(names - set(PUBLIC) - RESULTS - set(ELSEWHERE))
    assert not missing, f"PUBLIC in {Path(__file__).name} has no row for {', '.join(missing)}"


@pytest.fixture(scope="module")
def one(tiny_original, tmp_path_factory):  # noqa: F811
    """What calls are made with; nothing here trains."""
    import copy

    model, tokenizer = tiny_original
    folder = tmp_path_factory.mktemp("bad")
    trainer = SDPOTrainer(copy.deepcopy(model), tokenizer, Sums(), small())
    trainer.save(folder / "saved")
    return SimpleNamespace(model=model, tokenizer=tokenizer, trainer=trainer, folder=folder, saved=folder / "saved")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_has_a_row(name, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    parameters = set(inspect.signature(function).parameters)
    rows = set(row.bad) | set(row.free)
    assert parameters - rows == set(), f"the row of {name} lacks {', '.join(sorted(parameters - rows))}"
    assert set(arguments) <= parameters


ROWS = [pytest.param(name, parameter, id=f"{name}-{parameter}") for name, row in PUBLIC.items() for parameter in row.bad]


@pytest.mark.parametrize("name, parameter", ROWS)
def test_public_functions(name, parameter, one):
    row = PUBLIC[name]
    function, arguments = row.good(one)
    if parameter not in inspect.signature(function).parameters:
        pytest.skip(f"{name} has no {parameter} yet")
    wrong = []
    for bad in row.bad[parameter]:
        try:
            refused(lambda: function(**{**arguments, parameter: bad}), row.names.get(parameter, parameter), bad)  # noqa: B023
        except BaseException as error:  # all of them at once: what is wrong with a parameter is seen in one go
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


@pytest.mark.parametrize("arguments, name, bad", [
    (dict(reward_funcs=[]), "reward_funcs", "at least one"), (dict(reward_funcs=[3]), "reward function", 3), (dict(reward_funcs="a/model"), "reward function", "a/model"),
    (dict(reward_funcs=[len], reward_weights=[1, 2]), "reward_weights", 2), (dict(reward_funcs=[len], reward_weights=[NAN]), "reward weight", NAN),
    (dict(reward_funcs=[len], reward_weights=["1"]), "reward weight", "1"), (dict(reward_funcs=[len], feedback="no"), "feedback", "no"),
    (dict(reward_funcs=[len], tokenizer="lab-1m"), "tokenizer", "lab-1m"), (dict(judge=len, reward_funcs=[len]), "judge", "judge"), (dict(judge=len, feedback=len), "feedback", "feedback")])
def test_what_goes_with_reward_functions(arguments, name, bad):
    with pytest.raises((TypeError, ValueError)) as caught:
        task_from_function([{"prompt": "a"}], **arguments)
    assert name in str(caught.value) and str(bad) in str(caught.value) and ALLOWED.search(str(caught.value))


# -- views, made without a page

def views(x) -> dict[str, Row]:
    attempts = [Rollout(QUESTION, i, "ab", [5, 6], reward=float(i), feedback="" if i else "no") for i in range(2)]
    scored = lab.credit(x.model, x.tokenizer, QUESTION, "ab", feedback="no")
    fake = FakeTrainer()
    number_or_history = [None, 3, "x", [], {}]
    return {
        "token_view": Row(given(lab.views.token_view, credits=scored), dict(
            credits=[None, 3, "x", [], [3], {}], titles=[["a", "b"], []], color_by=CHOICE, scale=optional(floats(0.01, 100)), k=ints(1, 64)),
            names={"credits": "credits|attempt", "titles": "titles"}),
        "group_view": Row(given(lab.views.group_view, model=x.model, tokenizer=x.tokenizer, rollouts=attempts), dict(
            model=MODEL, tokenizer=TOKENIZER, rollouts=[None, 3, [], ["a"]], config=CONFIG, k=ints(1, 64)), {"task": "only asked for attempts without a reward", "teacher": ANY_TEACHER}),
        "compare": Row(given(lab.views.compare, runs={"a": fake.history}), dict(runs=number_or_history)),
        "Dashboard": Row(given(lab.views.Dashboard, trainer=fake), dict(
            trainer=[None, "run", 3, {}], steps=ints(1, 10**9), seconds_between_news=floats(0.1, 60), evaluate_every=ints(0, 10**9), evaluate_n=ints(1, 10_000))),
        "LiveRun": Row(given(lab.views.LiveRun, trainer=fake, steps=2), dict(
            trainer=[None, "run", 3, {}], steps=ints(1, 10**9), evaluate_every=ints(0, 10**9), evaluate_n=ints(1, 10_000), watchers=[3, [3], "x"])),
        "Playground": Row(given(lab.views.Playground, model=x.model, tokenizer=x.tokenizer, task=Sums(), config=small()), dict(
            model=MODEL, tokenizer=TOKENIZER, task=TASK, problem=optional(PROBLEM), config=CONFIG, seed=ints(0), problems=["6", None, True, 0, 51, [], ["q"], 1.5])),
        "Blame": Row(given(lab.views.Blame, tokens=["a", "b"]), dict(tokens=[None, 3, "ab", [], [3], ["a"] * 10_001], blamed=[[2], [-1], [1.0], ["0"], [True], 3])),
        "Rewind": Row(given(lab.views.Rewind, timeline=None), dict(timeline=[None, 3, "run", {}])),
        "smooth": Row(given(lab.views.smooth, values=[1.0, 2.0], window=2), dict(window=ints(1))),
        "curve": Row(given(lab.views.curve, history=fake.history), dict(history=number_or_history)),
    }


#: Plain data for a picture, or what a function of `views` returns.
DRAWN = {"Bars", "Chart", "Line", "TokenView", "GroupView"}
VIEWS = {"token_view": ["credits", "titles", "color_by", "scale", "k"], "group_view": ["model", "tokenizer", "rollouts", "config", "k"], "compare": ["runs"],
         "Dashboard": ["trainer", "steps", "seconds_between_news", "evaluate_every", "evaluate_n"], "LiveRun": ["trainer", "steps", "evaluate_every", "evaluate_n", "watchers"],
         "Playground": ["model", "tokenizer", "task", "problem", "config", "seed", "problems"], "Blame": ["tokens", "blamed"], "Rewind": ["timeline"], "smooth": ["window"], "curve": ["history"]}


@pytest.fixture(scope="module")
def drawn(one):
    return views(one)


def test_every_view_has_a_row(drawn):
    missing = set(lab.views.__all__) - DRAWN - set(drawn)
    assert not missing, f"views() in {Path(__file__).name} has no row for {', '.join(sorted(missing))}"
    assert {name: list(row.bad) for name, row in drawn.items()} == VIEWS


@pytest.mark.parametrize("name, parameter", [(name, parameter) for name, parameters in VIEWS.items() for parameter in parameters])
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


@pytest.mark.parametrize("made, words", [
    (lambda n: [], "gave 0 problems; it must give 2"), (lambda n: None, "must be a list of Problem objects, got None"), (lambda n: [QUESTION] * n, "two problems with the id 'p'; ids must be unique"),
    (lambda n: [{"prompt": "a"}] * n, "must be a Problem .* got {'prompt': 'a'}"), (lambda n: [Problem(str(i), []) for i in range(n)], "'0' must end with what the user says"),
    (lambda n: [Problem(str(i), [{"role": "user", "content": " \n"}]) for i in range(n)], "'0' must end with what the user says, and that must not be empty"),
    (lambda n: [Problem(str(i), [*CHAT, {"role": "assistant", "content": "4"}]) for i in range(n)], "must end with what the user says"),
    (lambda n: [Problem(str(i), [{"role": "user"}]) for i in range(n)], "a role and a content, both strings; got {'role': 'user'}"),
    (lambda n: [Problem(str(i), ["hi"]) for i in range(n)], "a role and a content, both strings; got 'hi'")])
def test_problems(made, words, one):
    """Refused before anything is sampled, and the trainer is as it was."""
    with pytest.raises((TypeError, ValueError), match=words):
        draw_problems(Gives(made), 2, "train", 0)
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(made), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.step()
    assert len(trainer.history) == 0 and trainer.optimizer_steps == 0


def test_a_list_without_problems_or_with_an_empty_prompt():
    for bad, words in (([], r"at least one problem.*got \[\]"), ([{"prompt": ""}], "prompt of problem 0 is empty"), ([{"prompt": "a"}, {"prompt": "\t "}], r"problem 1 is empty.*got '\\t '"),
                       ([{"prompt": [{"role": "user", "content": ""}]}], "problem 0 is empty")):
        with pytest.raises(ValueError, match=words):
            task_from_function(bad, len)


BAD_VERDICTS = [(None, "NoneType"), ("1.0", "got str: '1.0'"), ((NAN, ""), "reward must be finite, got nan"), ((INF, ""), "reward must be finite, got inf"),
                ((None, ""), "reward must be a number, got None"), (("1", ""), "reward must be a number, got '1'"), ((True, ""), "reward must be a number, got True"),
                ((1.0, None), "feedback must be a string, got None"), ((1.0, 3), "feedback must be a string, got 3"), ((1.0, "", ""), "got tuple"), ([1.0, ""], "got list"),
                ({"reward": 1.0}, "got dict"), ((torch.tensor(1.0), ""), "reward must be a number, got")]


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


@pytest.mark.parametrize("returned, words", [(None, "returned NoneType verdicts for 2"), (3, "returned int"), ([], "returned 0 verdicts for 2"), ([(1.0, "")] * 3, "returned 3 verdicts for 2"),
                                             ([(1.0, ""), (NAN, "")], "problem 'train-0-1': reward must be finite")])
def test_verdicts_of_a_batch(returned, words):
    task = Gives()
    task.judge_many = lambda problems, completions: returned
    with pytest.raises((TypeError, ValueError), match=words):
        judge_all(task, Sums().problems(2), ["a", "b"])


# -- attempts and models at their limits


def test_attempts_that_never_end_groups_of_one_and_equal_rewards(tiny):  # noqa: F811
    """All of them train or are counted as skipped; none is an error."""
    model, tokenizer = tiny
    model.generation_config.eos_token_id = tokenizer.eos_token_id = 0  # which the model can write as any other; nothing else ends an attempt
    trainer = SDPOTrainer(model, tokenizer, Sums(), small(num_generations=1))
    record = trainer.step()
    assert all(r.truncated == (r.completion_ids[-1] != 0) for r in record.rollouts) and math.isfinite(record.loss) == bool(record.metrics["active_fraction"])
    equal = SDPOTrainer(model, tokenizer, Gives(verdict=(0.5, "")), small(distillation_weight=0))
    record = equal.step()
    assert equal.skipped_steps == 1 and equal.optimizer_steps == 0 and {r.why for r in record.rollouts} == {"all attempts of its group have the same reward"}
    silent = SDPOTrainer(model, tokenizer, Gives(verdict=(0.0, "")), small())
    assert silent.step().metrics["active_fraction"] == 0 and silent.skipped_steps == 1
    refused(lambda: small(num_generations=1, distillation_weight=0), "num_generations", 1)


def test_prompts_longer_than_the_context(one):
    long = Problem("long", [{"role": "user", "content": "word " * 3000}])
    with pytest.raises(ValueError, match="a prompt has .* tokens, the model's context is 2048"):
        lab.rollout(one.model, one.tokenizer, [long], 1)
    with pytest.raises(ValueError, match="tokens together, the model's context is 2048; shorten the texts"):
        lab.credit(one.model, one.tokenizer, QUESTION, "ab", feedback="word " * 3000)
    with pytest.raises(ValueError, match="tokens together, the model's context is 2048"):
        lab.credit(one.model, one.tokenizer, long, "ab")
    trainer = SDPOTrainer(one.model, one.tokenizer, Gives(lambda n: [dataclasses.replace(long, id=str(i)) for i in range(n)]), small())
    with pytest.raises(ValueError, match="context is 2048"):
        trainer.step()


def test_a_teacher_s_prompt_gives_way_to_the_context(one):
    from sdpo_lab.reprompt import encode_teacher, reprompt

    config = small(max_reprompt_len=10_000)
    r = Rollout(QUESTION, 0, "ab", [5] * 100, reward=0.0, feedback="word " * 3000)
    reprompt([r], config, None)
    ids, shortened = encode_teacher(one.tokenizer, r, config, context=512)
    assert shortened and len(ids) + 100 <= 512 and r.shown_feedback
    reprompt([r], config, None)
    assert not encode_teacher(one.tokenizer, r, config)[1]
    with pytest.raises(ValueError, match="problem 'p' has .* tokens without any demonstration or feedback; 20 have room"):
        encode_teacher(one.tokenizer, r, config, context=120)


def changed(tokenizer, **attributes):
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_tokenizers_without_template_end_or_padding(tiny):  # noqa: F811
    model, tokenizer = tiny
    bare = changed(tokenizer, chat_template=None)
    for call in (lambda: lab.rollout(model, bare, [QUESTION], 1), lambda: lab.credit(model, bare, QUESTION, "ab"), SDPOTrainer(model, bare, Sums(), small()).step):
        with pytest.raises(ValueError, match="no chat template; set tokenizer.chat_template"):
            call()
    padless = changed(tokenizer, pad_token=None)
    assert lab.rollout(model, padless, [QUESTION], 2, max_completion_length=3)[1].text == lab.rollout(model, tokenizer, [QUESTION], 2, max_completion_length=3)[1].text
    model.generation_config.eos_token_id = None
    endless = changed(tokenizer, eos_token=None)
    with pytest.raises(ValueError, match="end-of-sequence token; set tokenizer.eos_token"):
        lab.rollout(model, endless, [QUESTION], 1)


# -- a judge that hangs


def hanging(release, words=("hang",)):
    return lambda row, completion: (release.wait(30) if completion in words else None, (1.0, "fine"))[1]


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
    with pytest.raises(JudgeError, match=f"problem '{p.id}', completion 'hang': TimeoutError: the judge was not done after seconds=0.2") as caught:
        task.judge(p, "hang")
    assert isinstance(caught.value.__cause__, TimeoutError) and time.monotonic() - began < 5
    assert "seconds=0.2" in repr(task) and task.judge(p, "quick") == Verdict(1.0, "fine"), "the run can go on"


def test_with_zero_a_run_goes_on_until_too_many_hang(release):
    task = task_from_function([{"prompt": "a", "split": "train"}], hanging(release), on_error="zero", seconds=0.05)
    p = task.problems(1)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(adapters.MOST_HANGING - 1):
            assert task.judge(p, "hang") == Verdict(0.0)
        assert task.failures == adapters.MOST_HANGING - 1 and task.judge(p, "quick").reward == 1
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(JudgeError, match=f"{adapters.MOST_HANGING} calls of the judge hang at once.*Give the judge a time limit of its own"):
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
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}.get(completion) or ZeroDivisionError("by zero")

    task = task_from_function([{"prompt": "a", "split": "train"}], judge, on_error="zero", seconds=5)
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

    assert shown("a\x1b[31m\n\u202e\ud800") == repr("a\x1b[31m\n\u202e\ud800") and "\x1b" not in shown("\x1b") and printable("a\x1b[31m\u202e") == "a\\x1b[31m\\u202e"
    assert shown("x" * 1000).endswith("... (1002 characters)") and len(shown(["x" * 10_000])) < 200
    assert shown(torch.zeros(2, 3)) == "Tensor of shape (2, 3), torch.float32" and shown(Rude()) == "Rude without a repr (RuntimeError)"
    assert shown(10**5000) == "int without a repr (ValueError)" and shown(None) == "None" and shown(3.5) == "3.5"
