"""Save a run and go on with it exactly: safetensors and JSON, nothing that could run code.

    run/                  latest.json, history.jsonl and the checkpoints, see `runs.folder`
      checkpoint-000012/
        state.json        config, counters, task, versions; size and sha256 of all other files
        model/            config, generation config and tokenizer; adapter.json for LoRA
        student.safetensors, teacher.safetensors    trainable weights, and the teacher's own
        optimizer.safetensors                       AdamW's moments
        base.safetensors  weights that do not train, and buffers; never rewritten, only linked

The noise of sampling has no state besides seed and step, so there is none to save.
"""

from __future__ import annotations

import copy
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdpo_lab.core.checks import check_choice, check_kind, check_range, check_task, short_repr
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.scoring import unwrapped
from sdpo_lab.core.task import Problem, Task, draw_problems
from sdpo_lab.models.loading import pick_device
from sdpo_lab.runs.files import BASE, SHAPE, STATE, Damaged, alone, check_history, entry, link, sync
from sdpo_lab.runs.folder import RunFolder
from sdpo_lab.runs.json import from_json, to_json
from sdpo_lab.runs.model_files import ADAPTER, adapter, read_skeleton, write_skeleton
from sdpo_lab.runs.trainer_state import (
    Saveable,
    check_data,
    check_optimizer,
    constant,
    find_task,
    moments,
    set_moments,
    state,
    trainable,
)

T = TypeVar("T", bound=Saveable)


def save(
    trainer: Saveable, folder: str | Path, overwrite: bool = False, keep: int | None = 1
) -> Path:
    """Write a whole checkpoint beside the last one, point `latest.json` at it, and drop all but the
    newest `keep` of the run (None: none is dropped). Returns the new checkpoint's folder.

    Whatever goes wrong on the way (a crash, a full disk, an interrupt), `latest.json` names a whole
    checkpoint, with its part of the history, and the next save cleans up. Only the steps since the
    last save are added to `history.jsonl`; a folder that is new gets all of them, the attempts of
    old steps from a folder that has them.

    Raises ValueError, before anything is written, for a folder that may not be overwritten and for
    what cannot be saved, and OSError, with the cause, when the disk does not take it or another
    process saves there for half a minute: trainer and last checkpoint are then as they were.
    """
    check_choice("overwrite", overwrite, (False, True))
    check_keep(keep)
    run = run_of(trainer, folder)
    # Nothing is written before it is known that the folder may be used, and that all can be saved.
    with disk_errors_explained(run):
        replaced = run.claim(overwrite)
    contents = serialized(trainer, run, anew=bool(replaced) or not run.holds_history())
    with disk_errors_explained(run):
        run.path.mkdir(parents=True, exist_ok=True)
        with alone(run.path):
            if run.claim(overwrite) != replaced:
                raise ValueError(
                    f"{str(run.path)!r} was written by another process while this trainer began to "
                    "save there; name another folder, or save again to overwrite"
                )
            # It is named *.partial, and no checkpoint yet. After a kill the next save removes it.
            new = run.begin(len(trainer.history))
            try:
                write(trainer, run, new, contents, replaced)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)  # the next try may need the room
                raise
            # All is on the disk. One rename makes it a checkpoint, a second one the newest.
            return run.publish(new, keep)


def check_saveable(trainer: Saveable) -> None:
    """Raise ValueError where it can be known before a step that the run could not be saved."""
    check_optimizer(trainer)
    adapter(trainer.model)
    if not hasattr(trainer.task, "state_dict"):  # asking for problems might change its state
        check_data(draw_problems(trainer.task, 1, "train", 0))


@dataclass
class Contents:
    """What a save writes besides tensors, model and tokenizer."""

    state: dict[str, Any]  #: of state.json, without "history" and "files"
    adapter: str  #: the text of adapter.json; "" for a model without one
    lines: list[bytes]  #: of history.jsonl, one a step
    anew: bool  #: does the history file begin anew, instead of being added to
    source: RunFolder | None  #: the folder whose history holds the steps before those of `lines`


def serialized(trainer: Saveable, run: RunFolder, anew: bool) -> Contents:
    """Everything that JSON must be able to hold. Raises ValueError where it is not."""
    check_optimizer(trainer)
    source = written_history(trainer, run) if anew else run
    saved_state = from_json(to_json(state(trainer)))
    lora = adapter(trainer.model)
    records = trainer.history.records[source.steps if source else 0 :]
    for record in records:
        check_data({a.problem.id: a.problem for a in record.rollouts}.values())
    lines = [(to_json(asdict(record)) + "\n").encode() for record in records]
    return Contents(saved_state, to_json(lora) if lora else "", lines, anew, source)


def write(
    trainer: Saveable, run: RunFolder, new: Path, contents: Contents, replaced: list[str]
) -> None:
    """Fill the folder `new`. Each file is written before the one that holds its checksum."""
    # The history first: lines after those that latest.json's checkpoint counts are not part of it.
    if contents.anew:
        run.start_anew(replaced, contents.source)
    history = run.add(contents.lines)

    known_base = write_tensors(trainer, run, new)
    write_skeleton(trainer.model, trainer.tokenizer, new / "model")
    if contents.adapter:
        (new / "model" / ADAPTER).write_text(contents.adapter, encoding="utf-8")

    # state.json last, with the checksums of all others; latest.json will hold that of state.json.
    files = {p.relative_to(new).as_posix(): p for p in sorted(new.rglob("*")) if p.is_file()}
    known = {n: known_base if n == BASE and known_base else entry(p) for n, p in files.items()}
    text = to_json({**contents.state, "history": history, "files": known})
    (new / STATE).write_text(text, encoding="utf-8")
    for file in [*files.values(), new / STATE, new / "model"]:
        sync(file)
    run.base = known[BASE]


def write_tensors(trainer: Saveable, run: RunFolder, new: Path) -> dict[str, Any]:
    """Write the tensors into `new`. Weights that never change are linked to a file that holds them
    already, where there is one; returns that file's size and checksum, else {}."""
    new.mkdir()
    parts = {
        "student": trainable(trainer.model),
        "teacher": trainer.teacher.copies() if trainer.teacher else {},
        "optimizer": moments(trainer),
    }
    base, known = next(bases(trainer, run), (None, {}))
    if base:
        link(base, new / BASE)
    else:
        parts["base"] = constant(trainer.model)
    for part, tensors in parts.items():
        on_cpu = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(on_cpu, new / f"{part}.safetensors")
    return known


def bases(trainer: Saveable, run: RunFolder) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, its entry) of weights that never change, in this trainer's folders, `run` first."""
    for folder in sorted(trainer.folders.values(), key=lambda f: f is not run):
        for name in folder.own():
            file = folder.path / name / BASE
            if file.is_file() and file.stat().st_size == folder.base["bytes"]:
                yield file, folder.base


def written_history(trainer: Saveable, run: RunFolder) -> RunFolder | None:
    """A folder whose history file holds this run's first steps, attempts included: `run`, or the
    one with most of them. None where there is none, with a warning if attempts are lost by that."""
    folders = sorted(trainer.folders.values(), key=lambda f: (f is run, f.steps), reverse=True)
    for f in folders:
        if not f.steps or not f.history.is_file():
            continue
        try:
            check_history(f.history, {"bytes": f.bytes, "sha256": f.digest.hexdigest()})
            return f
        except Damaged as error:
            if trainer.history[0].rollouts:
                continue  # nothing was in it alone
            warnings.warn(
                f"{error}. The attempts of steps older than History.keep_attempts="
                f"{trainer.history.keep_attempts} were in it alone, and are missing in what is "
                f"saved to {str(run.path)!r}",
                RuntimeWarning,
                stacklevel=5,
            )
    return None


@contextmanager
def disk_errors_explained(run: RunFolder) -> Iterator[None]:
    """What the disk, safetensors or tokenizers raise becomes an OSError that says what is safe."""
    try:
        yield
    except Exception as error:
        # tokenizers raises a bare Exception, with the number in its text
        numbers = re.findall(r"os error (\d+)", str(error))
        is_disk = isinstance(error, (OSError, SafetensorError))
        if not is_disk and not (type(error) is Exception and numbers):
            raise
        number = getattr(error, "errno", None) or int((numbers or [5])[0])
        raise OSError(
            number,
            f"the run could not be saved in {str(run.path)!r}: {error}. What was saved there "
            "before is whole, and the trainer holds all of its steps: make room or name another "
            "folder, and save again",
        ) from error


# going on


def resume(
    kind: type[T],
    folder: str | Path,
    task: Task | None = None,
    device: str | None = None,
    step: int | None = None,
) -> T:
    """The trainer as it was saved last, or at `step`, on the device it was on unless another is
    named.

    Every file is checked against its size and sha256 before it is used, and none is used that was
    not there when the checkpoint was written. Raises ValueError, which says what of the run is
    still whole; also for a `step` that was not kept, a model that transformers builds in another
    way now, and when the task is missing or another one.
    """
    run = RunFolder(as_path(folder))
    if task is not None:
        check_task(task)
    if step is not None:
        check_range("step", step, int, 0)
    at, saved = run.open(step)  # from here on every byte is the one that was written
    task = find_task(saved["task"], task)

    # the model, with the weights that train and those that do not
    model, tokenizer = read_skeleton(at / "model", saved["model"]["attention"])
    student = load_file(at / "student.safetensors")
    fill_in(model, load_file(at / BASE) | student, at, saved)
    for name, p in model.named_parameters():
        p.requires_grad_(name in student)
    model.to(pick_device(saved["model"]["device"] if device is None else device))
    model.train(saved["model"]["training"])

    # the trainer, its teacher and its optimiser
    trainer = kind(model, tokenizer, task, SDPOConfig.from_dict(saved["config"]))
    object.__setattr__(trainer.config, "explicit", frozenset(saved["explicit"]))
    copies = trainer.teacher.copies() if trainer.teacher else {}
    for name, tensor in load_file(at / "teacher.safetensors").items():
        copies[name].data = tensor.to(copies[name].device)
    settings = trainer.optimizer.param_groups[0]
    known = settings.keys() - {"params"}
    settings.update({key: value for key, value in saved["optimizer"].items() if key in known})
    set_moments(trainer, load_file(at / "optimizer.safetensors"))

    # what it has done so far
    trainer.history = read_history(run, saved)
    for name in SHAPE["counters"]:
        setattr(trainer, name, saved["counters"][name])
    if "state" in saved["task"]:
        task.load_state_dict(saved["task"]["state"])
    trainer.folders[run.path] = run
    return trainer


def fill_in(model: Any, tensors: dict[str, Any], at: Path, saved: dict[str, Any]) -> None:
    """Give a model its weights and buffers. Raises ValueError unless names and shapes agree."""
    places = dict(model.named_parameters()) | dict(model.named_buffers())
    differing = places.keys() ^ tensors.keys()
    differing |= {n for n in places.keys() & tensors if places[n].shape != tensors[n].shape}
    name = type(unwrapped(model)).__name__
    if name != saved["model"]["class"] or differing:
        raise ValueError(
            f"{at} holds a {short_repr(saved['model']['class'])} with other weights than the "
            f"{name} "
            f"that transformers builds of its config (they differ in {sorted(differing)[:5]}); the "
            f"versions it was made with are in {STATE}: {short_repr(saved['versions'])}"
        )
    for name, tensor in tensors.items():
        places[name].data = tensor


def read_run(folder: str | Path, step: int | None = None) -> tuple[History, SDPOConfig]:
    """History and configuration of a saved run, without its model. Raises as `resume`."""
    run = RunFolder(as_path(folder))
    _, saved = run.open(step)
    return read_history(run, saved), SDPOConfig.from_dict(saved["config"])


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


# arguments, and the model alone


def save_pretrained(trainer: Saveable, folder: str | Path, merge: bool = False) -> None:
    """The student alone, as transformers and peft read it: a model, or with LoRA the adapter;
    `merge` adds the adapter into the weights."""
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


def check_keep(keep: int | None) -> None:
    if keep is not None:
        check_range("keep (checkpoints; None: all)", keep, int, 1, 10**6)


def run_of(trainer: Saveable, folder: str | Path) -> RunFolder:
    """The folder as this trainer knows it; one that is new to it is remembered."""
    path = as_path(folder)
    return trainer.folders.setdefault(path, RunFolder(path))


def as_path(folder: str | Path) -> Path:
    check_kind("folder", folder, (str, Path), "the path of a folder")
    if not str(folder):
        raise ValueError("folder must be the path of a folder, got ''; '.' is the current one")
    return Path(folder).resolve()
