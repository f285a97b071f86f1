"""Where modules lived before the rooms: for one version an old path gives the same module."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

#: {old path: new path}, both inside sdpo_lab
MOVED = {
    "between_steps": "trainer",
    "chat": "core.chat",
    "checkpoints": "runs.checkpoints",
    "checks": "exercises",
    "checks.common": "exercises.common",
    "checks.credit_assignment": "exercises.credit_assignment",
    "checks.distillation_loss": "exercises.distillation_loss",
    "checks.from_scratch": "exercises.from_scratch",
    "checks.self_teacher": "exercises.self_teacher",
    "config": "core.config",
    "credit": "analysis.credit",
    "errors": "core.checks",
    "evaluation": "analysis.evaluation",
    "faults": "core.resilience",
    "memory": "models.memory",
    "metrics": "core.records",
    "model_files": "runs.model_files",
    "objective": "core.objective",
    "pictures": "analysis.pictures",
    "prompts": "models.prompt_forms",
    "records": "core.records",
    "reprompt": "core.reprompt",
    "rollouts": "core.rollouts",
    "run_files": "runs.files",
    "run_folder": "runs.folder",
    "scoring": "core.scoring",
    "special_tokens": "core.special_tokens",
    "tasks.base": "core.task",
    "tasks.preflight": "analysis.preflight",
    "tasks.readings": "tasks.conventions",
    "tasks.toolcall.written": "analysis.written",
    "teachers": "core.teachers",
    "timeline": "analysis.timeline",
    "views.asides": "live.measurements",
    "views.knobs": "live.knobs",
    "views.live": "live.run",
    "views.progress": "live.progress",
    "views.worker": "live.worker",
    "views.worries": "live.diagnostics",
    "analysis.what_if": "analysis.rescoring",
    "what_if": "analysis.rescoring",
}
#: What was in what_if and is no longer beside `teacher_attempts`.
WHAT_IF = {
    "Credit": "analysis.credit",
    "Familiarity": "analysis.familiarity",
    "KINDS": "analysis.familiarity",
    "PRESETS": "analysis.contexts",
    "Rescorer": "analysis.credit",
    "TAUGHT": "analysis.familiarity",
    "THRESHOLD": "analysis.familiarity",
    "contexts": "analysis.contexts",
    "familiarity": "analysis.familiarity",
    "kinds_of": "analysis.contexts",
    "load_taught": "analysis.familiarity",
    "phrase_hash": "analysis.familiarity",
    "phrases": "analysis.familiarity",
    "pieces": "analysis.familiarity",
    "unrelated_feedback": "analysis.contexts",
}
#: {old path: {name: its new path}}, of names that went another way than their module
NAMES = {
    "analysis.what_if": WHAT_IF,
    "errors": {"check_rollouts": "core.rollouts"},
    "rollouts": {
        "context_length": "core.sampling",
        "draw": "core.sampling",
        "noise": "core.sampling",
        "noise_key": "core.sampling",
        "pad_left": "core.sampling",
        "positions": "core.sampling",
        "sample": "core.sampling",
    },
    "records": {
        "FORMAT": "runs.recorded",
        "RunRecord": "runs.recorded",
        "each_float": "runs.json",
        "from_json": "runs.json",
        "model_checksum": "runs.recorded",
        "read_records": "runs.recorded",
        "software": "runs.recorded",
        "to_json": "runs.json",
        "write_records": "runs.recorded",
    },
    "timeline": {"size": "analysis.snapshots", "weight_bytes": "analysis.snapshots"},
    "what_if": WHAT_IF,
}


def module_at(old: str) -> ModuleType:
    """The module that was at `old`, with the names that were in it."""
    module = importlib.import_module(f"sdpo_lab.{MOVED[old]}")
    for name, place in NAMES.get(old, {}).items():
        if not hasattr(module, name):
            setattr(module, name, getattr(importlib.import_module(f"sdpo_lab.{place}"), name))
    return module


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module at its old path, when it is asked for there and not before."""

    def find_spec(
        self, fullname: str, path=None, target=None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.removeprefix("sdpo_lab.") not in MOVED or not fullname.startswith("sdpo_lab."):
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = module_at(spec.name.removeprefix("sdpo_lab."))
        spec.loader_state = module.__spec__  # the import system is about to write over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Make the old paths known. Those of modules that are loaded already are entered at once."""
    if not any(isinstance(f, Finder) for f in sys.meta_path):
        sys.meta_path.insert(
            0, Finder()
        )  # first: what is left of an old folder would be taken for a package
    for old, new in MOVED.items():
        if f"sdpo_lab.{new}" in sys.modules and old not in NAMES:
            sys.modules.setdefault(f"sdpo_lab.{old}", sys.modules[f"sdpo_lab.{new}"])
