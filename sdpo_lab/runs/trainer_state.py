"""What of a trainer a checkpoint holds, and what of it cannot be saved. Knows no file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from sdpo_lab.core.checks import short_repr
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History
from sdpo_lab.core.scoring import unwrapped
from sdpo_lab.core.task import Problem, Task
from sdpo_lab.core.teachers import Teacher
from sdpo_lab.runs.files import FORMAT, SHAPE
from sdpo_lab.runs.folder import RunFolder
from sdpo_lab.runs.json import from_json, to_json
from sdpo_lab.runs.recorded import software
from sdpo_lab.tasks import TASKS, load_task
from sdpo_lab.tasks.reasoning_gym import PREFIX, ReasoningGym


class Saveable(Protocol):
    """What checkpoints need of a trainer; `SDPOTrainer` has it. Besides: the counters that
    `files.SHAPE` names."""

    model: Any
    tokenizer: Any
    task: Task
    config: SDPOConfig
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    history: History
    folders: dict[Path, RunFolder]  #: by path, those it saved to or was resumed from

    def __init__(self, model: Any, tokenizer: Any, task: Task, config: SDPOConfig) -> None: ...


def state(trainer: Saveable) -> dict[str, Any]:
    """All of `state.json` that does not depend on the checkpoint's files."""
    task, model = trainer.task, trainer.model
    task_state = {"state": task.state_dict()} if hasattr(task, "state_dict") else {}
    return {
        "format": FORMAT,
        "step": len(trainer.history),
        "config": trainer.config.to_dict(),
        "explicit": sorted(trainer.config.explicit),
        "counters": {name: getattr(trainer, name) for name in SHAPE["counters"]},
        "changes": trainer.history.changes,
        "keep_attempts": trainer.history.keep_attempts,
        "optimizer": {k: v for k, v in trainer.optimizer.param_groups[0].items() if k != "params"},
        "model": {
            "class": type(unwrapped(model)).__name__,
            "attention": model.config._attn_implementation,
            "device": str(model.device),
            "training": model.training,
        },
        "task": {
            "name": getattr(task, "name", None),
            "dials": getattr(task, "dials", {}),
            "class": type(task).__name__,
            **task_state,
        },
        "versions": software(),
    }


def trainable(model: Any) -> dict[str, torch.Tensor]:
    """The weights that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def constant(model: Any) -> dict[str, torch.Tensor]:
    """The weights that do not train, and the buffers, by name."""
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return frozen | dict(model.named_buffers())


def moments(trainer: Saveable) -> dict[str, torch.Tensor]:
    """AdamW's state, {"<weight>/exp_avg": ..., ".../exp_avg_sq", ".../step"}; {} before a step."""
    names = {id(p): name for name, p in trainable(trainer.model).items()}
    return {
        f"{names[id(p)]}/{key}": value
        for p, values in trainer.optimizer.state.items()
        for key, value in values.items()
    }


def set_moments(trainer: Saveable, saved: dict[str, torch.Tensor]) -> None:
    """The inverse of `moments`."""
    weights = trainable(trainer.model)
    for name, tensor in saved.items():
        weight, key = name.rsplit("/", 1)
        on_device = tensor if key == "step" else tensor.to(trainer.model.device)
        trainer.optimizer.state[weights[weight]][key] = on_device


# what cannot be saved


def check_optimizer(trainer: Saveable) -> None:
    """Raise ValueError for another optimiser than one AdamW with one parameter group."""
    if type(trainer.optimizer) is not torch.optim.AdamW or len(trainer.optimizer.param_groups) > 1:
        raise ValueError(
            "only the state of one AdamW parameter group can be saved; this trainer's optimizer is"
            f"\n{trainer.optimizer}"
        )


def check_data(problems: Iterable[Problem]) -> None:
    """Raise ValueError where JSON would change a problem's data: a tuple, or the key 1."""
    for p in problems:
        for key, value in p.data.items():
            (back,) = from_json(to_json({key: value})).values()
            if not isinstance(key, str) or not equal_as_json(value, back):
                raise ValueError(
                    f"a run is saved as JSON, and data[{short_repr(key)}] of the problem "
                    f"{short_repr(p.id)} "
                    f"would come back from it as {short_repr(back)} instead of "
                    f"{short_repr(value)}: give "
                    "numbers, strings, lists, and dictionaries whose keys are strings"
                )


def equal_as_json(one: Any, two: Any) -> bool:
    """Equality in which nan equals nan, and a tuple does not equal a list."""
    if isinstance(one, dict):
        same_keys = isinstance(two, dict) and one.keys() == two.keys()
        return same_keys and all(equal_as_json(one[key], two[key]) for key in one)
    if isinstance(one, list):
        same_length = isinstance(two, list) and len(one) == len(two)
        return same_length and all(map(equal_as_json, one, two))
    return bool(one == two or (one != one and two != two))


# the task of a saved run


def find_task(saved: dict[str, Any], given: Task | None) -> Task:
    """The task a run was made on: the one given, or a shipped one, built again from its dials.

    Raises ValueError when the one given is another, and when one must be given: for a task of the
    reader's own, and for one that was allowed to run programs without full isolation.
    """
    if given is None:
        return rebuilt_task(saved)
    was = saved["name"], saved["dials"]
    now = getattr(given, "name", None), from_json(to_json(getattr(given, "dials", {})))
    if was != now:
        raise ValueError(
            f"the run was made on the task {short_repr(was[0])} with the dials "
            f"{short_repr(was[1])}; "
            f"the one given is {short_repr(now[0])} with {short_repr(now[1])}"
        )
    return given


def rebuilt_task(saved: dict[str, Any]) -> Task:
    """A shipped task from its name and dials; of a subclass the name does not say enough."""
    shipped = ReasoningGym if str(saved["name"]).startswith(PREFIX) else TASKS.get(saved["name"])
    if not shipped or shipped.__name__ != saved["class"]:
        raise ValueError(
            f"the run was made on a task of your own ({short_repr(saved['class'])}); pass it: "
            "SDPOTrainer.resume(folder, task=...) needs one, got None"
        )
    if saved["dials"].get("allow_weak"):
        raise ValueError(
            f"the run was made on {short_repr(saved['name'])} with allow_weak=True, which lets "
            "programs "
            "run that can do harm; pass the task to say so yourself: "
            "resume(folder, task=lab.load_task(...))"
        )
    return load_task(saved["name"], **saved["dials"])
