"""Save a run and go on with it exactly: safetensors and JSON, nothing that could run code.

    run/
      latest.json         which checkpoint is the last whole one
      checkpoint-000012/
        state.json        config, counters, task, versions, what the tensors below belong to
        history.jsonl     one line a step: its numbers and attempts
        model/            config, generation config and tokenizer of the model; adapter.json for LoRA
        student.safetensors, teacher.safetensors    the trainable weights, and the teacher's own
        optimizer.safetensors                       AdamW's moments
        base.safetensors                            weights that do not train, and buffers; never rewritten, only linked

The noise of sampling has no state besides seed and step, so there is none to save.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from sdpo_lab.config import SDPOConfig
from sdpo_lab.models import add_adapter, pick_device
from sdpo_lab.records import History, StepRecord, software
from sdpo_lab.rollouts import Rollout
from sdpo_lab.scoring import unwrapped
from sdpo_lab.tasks import TASKS, load_task
from sdpo_lab.tasks.base import Problem, Task
from sdpo_lab.tasks.reasoning_gym import PREFIX, ReasoningGym

if TYPE_CHECKING:
    from sdpo_lab.trainer import SDPOTrainer

FORMAT = 1


def save(trainer: SDPOTrainer, folder: str | Path, overwrite: bool = False) -> Path:
    """Write a whole checkpoint beside the last one, then point `latest.json` at it, then drop the last one.

    Whatever goes wrong on the way, `latest.json` names a whole checkpoint. Raises ValueError, before anything is written, for a
    folder that holds something else, or another trainer's run unless `overwrite`, and for what cannot be written: an
    optimiser other than AdamW, an adapter other than one of LoRA, problem data that is not JSON.
    """
    run = Path(folder)
    last = check_folder(trainer, run, overwrite)
    if type(trainer.optimizer) is not torch.optim.AdamW or len(trainer.optimizer.param_groups) > 1:
        raise ValueError(f"only the state of one AdamW parameter group can be saved; this trainer's optimizer is\n{trainer.optimizer}")
    texts = {"state.json": state(trainer), "model/adapter.json": adapter(trainer.model)}
    texts = {name: to_json(value) for name, value in texts.items() if value} | {"history.jsonl": "".join(to_json(r) + "\n" for r in map(asdict, trainer.history))}
    name = f"checkpoint-{len(trainer.history):06d}"
    name += "-again" if last and last.name == name else ""  # the same step once more: the switch must be to another name
    run.mkdir(parents=True, exist_ok=True)
    for stale in [*run.glob("*.partial"), run / name]:  # of a save that was killed
        shutil.rmtree(stale, ignore_errors=True)
    new = run / f"{name}.partial"
    write_skeleton(trainer, new / "model")
    for file, text in texts.items():
        (new / file).write_text(text, encoding="utf-8")
    tensors = {"student": trainable(trainer.model), "teacher": trainer.teacher.copies() if trainer.teacher else {}, "optimizer": moments(trainer)}
    if not link(trainer.base_file, new / "base.safetensors"):
        tensors["base"] = {n: p for n, p in trainer.model.named_parameters() if not p.requires_grad} | dict(trainer.model.named_buffers())
    for part, found in tensors.items():
        save_file({key: t.detach().cpu().contiguous().clone() for key, t in found.items()}, new / f"{part}.safetensors")
    for file in filter(Path.is_file, new.rglob("*")):
        sync(file)
    new.rename(run / name)
    pointer = run / "latest.partial.json"
    pointer.write_text(to_json({"checkpoint": name}), encoding="utf-8")
    sync(pointer)
    pointer.replace(run / "latest.json")
    trainer.base_file = run / name / "base.safetensors"
    for old in run.glob("checkpoint-*"):
        if old.name != name:
            shutil.rmtree(old)
    return run / name


def resume(kind: type[SDPOTrainer], folder: str | Path, task: Task | None = None, device: str | None = None) -> SDPOTrainer:
    """The trainer as it was saved, on the device it was on unless another is named.

    Raises ValueError for a folder without a whole checkpoint or of another format, for a model that transformers
    builds in another way now, and when the task is missing or another one.
    """
    at = latest(Path(folder))
    saved = from_json((at / "state.json").read_text(encoding="utf-8"))
    if saved["format"] != FORMAT:
        raise ValueError(f"{at} has format {saved['format']}; this version reads format {FORMAT}")
    task = find_task(saved["task"], task)
    model, tokenizer = read_skeleton(at / "model", saved["model"]["attention"])
    student = load_file(at / "student.safetensors")
    names, tensors = dict(model.named_parameters()) | dict(model.named_buffers()), load_file(at / "base.safetensors") | student
    if type(unwrapped(model)).__name__ != saved["model"]["class"] or set(names) != set(tensors):
        raise ValueError(f"{at} holds a {saved['model']['class']} with other weights than the {type(unwrapped(model)).__name__} that transformers builds of its "
                         f"config (they differ in {sorted(set(names) ^ set(tensors))[:5]}); the versions it was made with are in state.json")
    for name, tensor in tensors.items():
        names[name].data = tensor
    for name, p in model.named_parameters():
        p.requires_grad_(name in student)
    model.to(pick_device(saved["model"]["device"] if device is None else device)).train(saved["model"]["training"])
    trainer = kind(model, tokenizer, task, SDPOConfig.from_dict(saved["config"]))
    object.__setattr__(trainer.config, "explicit", frozenset(saved["explicit"]))
    mine = trainer.teacher.copies() if trainer.teacher else {}
    for name, tensor in load_file(at / "teacher.safetensors").items():
        mine[name].data = tensor.to(mine[name].device)
    trainer.optimizer.param_groups[0].update(saved["optimizer"])
    weights = trainable(model)
    for name, tensor in load_file(at / "optimizer.safetensors").items():
        weight, key = name.rsplit("/", 1)
        trainer.optimizer.state[weights[weight]][key] = tensor if key == "step" else tensor.to(model.device)
    trainer.history = History([read_record(line) for line in (at / "history.jsonl").read_text(encoding="utf-8").splitlines()],
                              {int(step): fields for step, fields in saved["changes"].items()})
    for name, value in saved["counters"].items():
        setattr(trainer, name, value)
    if "state" in saved["task"]:
        task.load_state_dict(saved["task"]["state"])
    trainer.base_file = at / "base.safetensors"
    return trainer


def save_pretrained(trainer: SDPOTrainer, folder: str | Path, merge: bool = False) -> None:
    """The student alone, as transformers and peft read it: a model, or with LoRA the adapter; `merge` adds the adapter into the weights."""
    model = trainer.model
    if merge:
        if not hasattr(model, "merge_and_unload"):
            raise ValueError("merge=True is for a model with an adapter; this one has none")
        model = copy.deepcopy(model).merge_and_unload()
    model.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)


def check_folder(trainer: SDPOTrainer, run: Path, overwrite: bool) -> Path | None:
    """The last checkpoint in the folder, if any."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"{str(run)!r} is a file; name a folder")
    # folders named checkpoint-... are others' too, of transformers for one, and what a save leaves behind it deletes
    strange = [p.name for p in run.glob("*") if not (p.name.startswith("latest.") or p.name.endswith(".partial") or (p / "state.json").exists())]
    if strange:
        raise ValueError(f"{str(run)!r} holds {strange[0]!r}, which no run of sdpo_lab wrote; name a new or an empty folder")
    if not (run / "latest.json").exists():
        return None
    last = latest(run)
    own = trainer.base_file and trainer.base_file.exists() and trainer.base_file.samefile(last / "base.safetensors")
    if not own and not overwrite:
        raise ValueError(f"{str(run)!r} holds another run, at {last.name}; go on with it by SDPOTrainer.resume({str(run)!r}), name another folder, or say "
                         "overwrite=True to lose it")
    return last


def latest(run: Path) -> Path:
    pointer = run / "latest.json"
    if not pointer.exists():
        raise ValueError(f"{str(run)!r} holds no saved run (no latest.json); trainer.save({str(run)!r}) makes one")
    at = run / json.loads(pointer.read_text(encoding="utf-8"))["checkpoint"]
    if not (at / "state.json").exists():
        raise ValueError(f"{pointer} names {at.name}, which is not there or not whole")
    return at


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def state(trainer: SDPOTrainer) -> dict[str, Any]:
    task, model = trainer.task, trainer.model
    return {
        "format": FORMAT, "step": len(trainer.history), "config": trainer.config.to_dict(), "explicit": sorted(trainer.config.explicit),
        "counters": {name: getattr(trainer, name) for name in ("skipped_steps", "bad_steps", "optimizer_steps")}, "changes": trainer.history.changes,
        "optimizer": {k: v for k, v in trainer.optimizer.param_groups[0].items() if k != "params"},
        "model": {"class": type(unwrapped(model)).__name__, "attention": model.config._attn_implementation, "device": str(model.device), "training": model.training},
        "task": {"name": getattr(task, "name", None), "dials": getattr(task, "dials", {}), "class": type(task).__name__}
        | ({"state": task.state_dict()} if hasattr(task, "state_dict") else {}),
        "versions": software(),
    }


def moments(trainer: SDPOTrainer) -> dict[str, torch.Tensor]:
    """AdamW's state by weight: "<name>/exp_avg", "<name>/exp_avg_sq", "<name>/step"; empty before the first step."""
    names = {id(p): name for name, p in trainable(trainer.model).items()}
    return {f"{names[id(p)]}/{key}": value for p, values in trainer.optimizer.state.items() for key, value in values.items()}


def find_task(saved: dict[str, Any], given: Task | None) -> Task:
    shipped = ReasoningGym if str(saved["name"]).startswith(PREFIX) else TASKS.get(saved["name"])
    if given is None and shipped and shipped.__name__ == saved["class"]:  # not one in a guard, say: what its class adds is not in the name
        return load_task(saved["name"], **saved["dials"])
    if given is None:
        raise ValueError(f"the run was made on a task of your own ({saved['class']}); pass it: SDPOTrainer.resume(folder, task=...)")
    was, now = (saved["name"], saved["dials"]), (getattr(given, "name", None), from_json(to_json(getattr(given, "dials", {}))))
    if was != now:
        raise ValueError(f"the run was made on the task {was[0]!r} with the dials {was[1]}; the one given is {now[0]!r} with {now[1]}")
    return given


# the model without its weights


def adapter(model: Any) -> dict[str, Any] | None:
    found = getattr(model, "peft_config", None)
    if not found:
        return None
    if list(found) != ["default"] or found["default"].peft_type != "LORA":
        raise ValueError(f"only a model with one LoRA adapter named 'default' can be saved as a run; this one has {found}")
    return {key: sorted(value) if isinstance(value, set) else value for key, value in found["default"].to_dict().items()}


def write_skeleton(trainer: SDPOTrainer, folder: Path) -> None:
    unwrapped(trainer.model).config.save_pretrained(folder)
    trainer.model.generation_config.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)


def read_skeleton(folder: Path, attention: str) -> tuple[Any, Any]:
    """(model whose weights are yet to be filled in, tokenizer)."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32, attn_implementation=attention)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    if (folder / "adapter.json").exists():
        from peft import LoraConfig

        lora = LoraConfig.from_peft_type(**from_json((folder / "adapter.json").read_text(encoding="utf-8")))
        model.name_or_path = lora.base_model_name_or_path  # where it once came from, not where it lies now
        model = add_adapter(model, lora)
    return model, AutoTokenizer.from_pretrained(folder)


# files


def read_record(line: str) -> StepRecord:
    record = from_json(line)
    rollouts = [Rollout(Problem(**r.pop("problem")), **r) for r in record.pop("rollouts")]
    return StepRecord(rollouts=rollouts, **record)


def link(file: Path | None, to: Path) -> bool:
    """The same file under another name, where there is one and the file system can; else a copy. False: there is none."""
    if file is None or not file.exists():
        return False
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
    return True


def sync(file: Path) -> None:
    """On the disk, not only on its way there."""
    with open(file, "rb") as f:
        os.fsync(f.fileno())


def to_json(value: Any) -> str:
    """One line; a number that JSON lacks becomes {"not finite": "nan"}. Raises ValueError for what is neither."""
    def tidy(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: tidy(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [tidy(x) for x in v]
        return {"not finite": repr(v)} if isinstance(v, float) and not math.isfinite(v) else v

    try:
        return json.dumps(tidy(value), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"a run is saved as JSON, and this is none: {error}. Problem.data, a task's dials and its state_dict() must be JSON-able") from error


def from_json(text: str) -> Any:
    return json.loads(text, object_hook=lambda d: float(d["not finite"]) if set(d) == {"not finite"} else d)
