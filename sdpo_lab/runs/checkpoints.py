"""Save a run and go on with it exactly: safetensors and JSON, nothing that could run code.

    run/                  latest.json, history.jsonl and the checkpoints, see `run_folder`
      checkpoint-000012/
        state.json        config, counters, task, versions, and what the files of the checkpoint must be
        model/            config, generation config and tokenizer of the model; adapter.json for LoRA
        student.safetensors, teacher.safetensors    the trainable weights, and the teacher's own
        optimizer.safetensors                       AdamW's moments
        base.safetensors                            weights that do not train, and buffers; never rewritten, only linked

The noise of sampling has no state besides seed and step, so there is none to save.
"""

from __future__ import annotations

import copy
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdpo_lab.core.checks import check_choice, check_kind, check_range, check_task, shown
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.loop import Loop
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.scoring import unwrapped
from sdpo_lab.core.task import Problem, Task, draw_problems
from sdpo_lab.models.loading import pick_device
from sdpo_lab.runs.files import (
    FORMAT,
    SHAPE,
    STATE,
    Damaged,
    alone,
    check_history,
    entry,
    link,
    sync,
)
from sdpo_lab.runs.folder import RunFolder
from sdpo_lab.runs.json import from_json, to_json
from sdpo_lab.runs.model_files import adapter, read_skeleton, write_skeleton
from sdpo_lab.runs.recorded import software
from sdpo_lab.tasks import TASKS, load_task
from sdpo_lab.tasks.reasoning_gym import PREFIX, ReasoningGym

BASE = "base.safetensors"


def save(trainer: Loop, folder: str | Path, overwrite: bool = False, keep: int | None = 1) -> Path:
    """Write a whole checkpoint beside the last one, then point `latest.json` at it, then drop all but the newest `keep` of the run (None: none is dropped).

    Whatever goes wrong on the way (a crash, a full disk, an interrupt), `latest.json` names a whole checkpoint, with its part of the
    history, and the next save cleans up. Only the steps since the last save are added to `history.jsonl`. Several folders do not
    disturb each other; one that is new gets the whole history, of steps older than `History.keep_attempts` with the attempts as
    far as a folder this trainer saved to or was resumed from has them.

    Raises ValueError, before anything is written, for a folder that holds something else, or another trainer's run, or steps of this
    run that this trainer has not taken (it was resumed from an older step, or another one went on) unless `overwrite`; and for what cannot
    be written: an optimiser other than AdamW, an adapter other than one of LoRA, problem data that JSON does not give back as it was. Raises OSError, with
    the cause, when the disk does not take it, or another process saves there for half a minute; the trainer and the last checkpoint are as they were.
    """
    check_choice("overwrite", overwrite, (False, True))
    check_keep(keep)
    run = run_of(trainer, folder)
    with disk_errors_explained(run):
        others = run.claim(overwrite)
    check_optimizer(trainer)
    anew = bool(others) or not run.holds_history()
    source = past(trainer, run) if anew else run
    texts = {STATE: state(trainer), "model/adapter.json": adapter(trainer.model)}
    texts = {name: to_json(value) for name, value in texts.items() if value}
    records = trainer.history.records[source.steps if source else 0 :]
    check_data(p for r in records for p in {a.problem.id: a.problem for a in r.rollouts}.values())
    lines = [(to_json(asdict(r)) + "\n").encode() for r in records]
    with disk_errors_explained(run):
        run.path.mkdir(parents=True, exist_ok=True)
        with alone(run.path):
            if run.claim(overwrite) != others:
                raise ValueError(
                    f"{str(run.path)!r} was written by another process while this trainer began to save there; name another folder, or save again to overwrite"
                )
            new = run.begin(len(trainer.history))
            try:
                if anew:
                    run.start_anew(others, source)
                history = run.add(lines)
                base = write_tensors(trainer, run, new)
                write_skeleton(trainer, new / "model")
                if "model/adapter.json" in texts:
                    (new / "model" / "adapter.json").write_text(
                        texts["model/adapter.json"], encoding="utf-8"
                    )
                files = {
                    p.relative_to(new).as_posix(): p for p in sorted(new.rglob("*")) if p.is_file()
                }
                known = {
                    name: base if name == BASE and base else entry(p) for name, p in files.items()
                }
                (new / STATE).write_text(
                    to_json({**from_json(texts[STATE]), "history": history, "files": known}),
                    encoding="utf-8",
                )
                for file in [*files.values(), new / STATE, new / "model"]:
                    sync(file)
            except BaseException:
                shutil.rmtree(
                    new, ignore_errors=True
                )  # on a full disk it would stand in the way of the next try
                raise
            run.base = known[BASE]
            return run.publish(new, keep)


def resume(
    kind: type[Loop],
    folder: str | Path,
    task: Task | None = None,
    device: str | None = None,
    step: int | None = None,
) -> Loop:
    """The trainer as it was saved last, or at `step`, on the device it was on unless another is named.

    Every file is checked against its size and sha256 before it is used, and none is used that was not there when the checkpoint was written. Raises ValueError,
    which says what of the run is still whole, for a damaged, missing or added file and another format; and for a folder without a whole checkpoint, a `step` that was not kept, a model that
    transformers builds in another way now, and when the task is missing or another one.
    """
    run = RunFolder(as_path(folder))
    if task is not None:
        check_task(task)
    if step is not None:
        check_range("step", step, int, 0)
    at, saved = run.open(step)
    task = find_task(saved["task"], task)
    model, tokenizer = read_skeleton(at / "model", saved["model"]["attention"])
    student = load_file(at / "student.safetensors")
    names, tensors = (
        dict(model.named_parameters()) | dict(model.named_buffers()),
        load_file(at / BASE) | student,
    )
    odd = sorted(
        n
        for n in {*names, *tensors}
        if n not in names or n not in tensors or names[n].shape != tensors[n].shape
    )
    if type(unwrapped(model)).__name__ != saved["model"]["class"] or odd:
        raise ValueError(
            f"{at} holds a {shown(saved['model']['class'])} with other weights than the {type(unwrapped(model)).__name__} that transformers builds of its "
            f"config (they differ in {odd[:5]}); the versions it was made with are in {STATE}: {shown(saved['versions'])}"
        )
    for name, tensor in tensors.items():
        names[name].data = tensor
    for name, p in model.named_parameters():
        p.requires_grad_(name in student)
    model.to(pick_device(saved["model"]["device"] if device is None else device)).train(
        saved["model"]["training"]
    )
    trainer = kind(model, tokenizer, task, SDPOConfig.from_dict(saved["config"]))
    object.__setattr__(trainer.config, "explicit", frozenset(saved["explicit"]))
    mine = trainer.teacher.copies() if trainer.teacher else {}
    for name, tensor in load_file(at / "teacher.safetensors").items():
        mine[name].data = tensor.to(mine[name].device)
    group = trainer.optimizer.param_groups[0]
    group.update(
        (key, value)
        for key, value in saved["optimizer"].items()
        if key in group and key != "params"
    )
    weights = trainable(model)
    for name, tensor in load_file(at / "optimizer.safetensors").items():
        weight, key = name.rsplit("/", 1)
        trainer.optimizer.state[weights[weight]][key] = (
            tensor if key == "step" else tensor.to(model.device)
        )
    trainer.history = read_history(run, saved)
    for name in SHAPE["counters"]:
        setattr(trainer, name, saved["counters"][name])
    if "state" in saved["task"]:
        task.load_state_dict(saved["task"]["state"])
    trainer.folders[run.path] = run
    return trainer


def read_run(folder: str | Path, step: int | None = None) -> tuple[History, SDPOConfig]:
    """History and configuration of a saved run, without its model. Raises ValueError as `resume` does."""
    run = RunFolder(as_path(folder))
    _, saved = run.open(step)
    return read_history(run, saved), SDPOConfig.from_dict(saved["config"])


def save_pretrained(trainer: Loop, folder: str | Path, merge: bool = False) -> None:
    """The student alone, as transformers and peft read it: a model, or with LoRA the adapter; `merge` adds the adapter into the weights."""
    check_choice("merge", merge, (False, True))
    folder, model = as_path(folder), trainer.model
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; name a folder")
    if merge:
        if not hasattr(model, "merge_and_unload"):
            raise ValueError("merge=True is for a model with an adapter; this one has none")
        model = copy.deepcopy(model).merge_and_unload()
    model.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)


def check_saveable(trainer: Loop) -> None:
    """Raise ValueError where it can be known before a step that the run could not be saved."""
    check_optimizer(trainer)
    adapter(trainer.model)
    if not hasattr(
        trainer.task, "state_dict"
    ):  # one that has a state might be moved on by the question
        check_data(draw_problems(trainer.task, 1, "train", 0))


def check_optimizer(trainer: Loop) -> None:
    if type(trainer.optimizer) is not torch.optim.AdamW or len(trainer.optimizer.param_groups) > 1:
        raise ValueError(
            f"only the state of one AdamW parameter group can be saved; this trainer's optimizer is\n{trainer.optimizer}"
        )


def check_data(problems: Iterable[Problem]) -> None:
    """Raise ValueError where the data of a problem would come back from a saved history as something else: a tuple as a list, the key 1 as "1"."""
    for p in problems:
        for key, value in p.data.items():
            (back,) = from_json(to_json({key: value})).values()
            if not isinstance(key, str) or not alike(value, back):
                raise ValueError(
                    f"a run is saved as JSON, and data[{shown(key)}] of the problem {shown(p.id)} would come back from it as {shown(back)} instead of {shown(value)}: give "
                    "numbers, strings, lists, and dictionaries whose keys are strings"
                )


def alike(one: Any, two: Any) -> bool:
    """Equal, where nan is nan, and a tuple is no list."""
    if isinstance(one, dict):
        return (
            isinstance(two, dict)
            and one.keys() == two.keys()
            and all(alike(one[key], two[key]) for key in one)
        )
    if isinstance(one, list):
        return isinstance(two, list) and len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two or (one != one and two != two))


def check_keep(keep: int | None) -> None:
    if keep is not None:
        check_range("keep (checkpoints; None: all)", keep, int, 1, 10**6)


def run_of(trainer: Loop, folder: str | Path) -> RunFolder:
    path = as_path(folder)
    return trainer.folders.setdefault(path, RunFolder(path))


def as_path(folder: str | Path) -> Path:
    check_kind("folder", folder, (str, Path), "the path of a folder")
    if not str(folder):
        raise ValueError("folder must be the path of a folder, got ''; '.' is the current one")
    return Path(folder).resolve()


def past(trainer: Loop, run: RunFolder) -> RunFolder | None:
    """A folder whose history file holds this run's first steps as this trainer knows them, attempts included: `run`, or the one with most of them."""
    for f in sorted(trainer.folders.values(), key=lambda f: (f is run, f.steps), reverse=True):
        if f.steps and f.history.is_file():
            try:
                check_history(f.history, {"bytes": f.bytes, "sha256": f.digest.hexdigest()})
                return f
            except Damaged as error:
                if not trainer.history[0].rollouts:
                    warnings.warn(
                        f"{error}. The attempts of steps older than History.keep_attempts={trainer.history.keep_attempts} were in it alone, and are missing "
                        f"in what is saved to {str(run.path)!r}",
                        RuntimeWarning,
                        stacklevel=4,
                    )
    return None


def write_tensors(trainer: Loop, run: RunFolder, new: Path) -> dict[str, Any]:
    """What is known of the weights that never change, where they were only linked; {} where they were written."""
    new.mkdir()
    tensors = {
        "student": trainable(trainer.model),
        "teacher": trainer.teacher.copies() if trainer.teacher else {},
        "optimizer": moments(trainer),
    }
    base, known = next(bases(trainer, run), (None, {}))
    if base:
        link(base, new / BASE)
    else:
        tensors["base"] = {
            n: p for n, p in trainer.model.named_parameters() if not p.requires_grad
        } | dict(trainer.model.named_buffers())
    for part, found in tensors.items():
        save_file(
            {key: t.detach().cpu().contiguous().clone() for key, t in found.items()},
            new / f"{part}.safetensors",
        )
    return known


def bases(trainer: Loop, run: RunFolder) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files with the weights that never change, in the folders this trainer saved to or was resumed from, `run` before others."""
    for f in sorted(trainer.folders.values(), key=lambda f: f is not run):
        for file in (f.path / name / BASE for name in f.own()):
            if file.is_file() and file.stat().st_size == f.base["bytes"]:
                yield file, f.base


@contextmanager
def disk_errors_explained(run: RunFolder) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = re.findall(
            r"os error (\d+)", str(error)
        )  # tokenizers has no kind of exception for it
        if not isinstance(error, (OSError, SafetensorError)) and not (
            type(error) is Exception and said
        ):
            raise
        number = getattr(error, "errno", None) or int((said or [5])[0])
        raise OSError(
            number,
            f"the run could not be saved in {str(run.path)!r}: {error}. What was saved there before is whole, and the trainer holds all of its steps: "
            "make room or name another folder, and save again",
        ) from error


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def state(trainer: Loop) -> dict[str, Any]:
    task, model = trainer.task, trainer.model
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
        }
        | ({"state": task.state_dict()} if hasattr(task, "state_dict") else {}),
        "versions": software(),
    }


def moments(trainer: Loop) -> dict[str, torch.Tensor]:
    """AdamW's state by weight: "<name>/exp_avg", "<name>/exp_avg_sq", "<name>/step"; empty before the first step."""
    names = {id(p): name for name, p in trainable(trainer.model).items()}
    return {
        f"{names[id(p)]}/{key}": value
        for p, values in trainer.optimizer.state.items()
        for key, value in values.items()
    }


def find_task(saved: dict[str, Any], given: Task | None) -> Task:
    shipped = ReasoningGym if str(saved["name"]).startswith(PREFIX) else TASKS.get(saved["name"])
    if (
        given is None and shipped and shipped.__name__ == saved["class"]
    ):  # not one in a guard, say: what its class adds is not in the name
        if saved["dials"].get("allow_weak"):
            raise ValueError(
                f"the run was made on {shown(saved['name'])} with allow_weak=True, which lets programs run that can do harm; pass the task to say so yourself: "
                "resume(folder, task=lab.load_task(...))"
            )
        return load_task(saved["name"], **saved["dials"])
    if given is None:
        raise ValueError(
            f"the run was made on a task of your own ({shown(saved['class'])}); pass it: SDPOTrainer.resume(folder, task=...) needs one, got None"
        )
    was, now = (
        (saved["name"], saved["dials"]),
        (getattr(given, "name", None), from_json(to_json(getattr(given, "dials", {})))),
    )
    if was != now:
        raise ValueError(
            f"the run was made on the task {shown(was[0])} with the dials {shown(was[1])}; the one given is {shown(now[0])} with {shown(now[1])}"
        )
    return given


# the history


def read_history(run: RunFolder, saved: dict[str, Any]) -> History:
    history = History(
        changes={int(step): fields for step, fields in saved["changes"].items()},
        keep_attempts=saved["keep_attempts"],
    )
    for line in run.lines():
        history.append(read_record(line))
    return history


def read_record(line: str) -> StepRecord:
    record = from_json(line)
    rollouts = [Rollout(Problem(**r.pop("problem")), **r) for r in record.pop("rollouts")]
    return StepRecord(rollouts=rollouts, **record)
