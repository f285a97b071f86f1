"""sdpo_lab: understand, see and experiment with SDPO (Self-Distillation Policy Optimization,
arXiv 2601.20802)."""

import importlib
from typing import Any

from sdpo_lab import _moved, losses, tasks, views
from sdpo_lab._version import __version__
from sdpo_lab.analysis.contexts import contexts
from sdpo_lab.analysis.credit import Credit, credit
from sdpo_lab.analysis.evaluation import Evaluation
from sdpo_lab.analysis.familiarity import Familiarity, familiarity
from sdpo_lab.analysis.preflight import Preflight, preflight
from sdpo_lab.analysis.rescoring import teacher_attempts
from sdpo_lab.analysis.timeline import Timeline
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.core.rollouts import Rollout, rollout
from sdpo_lab.models import list_models, load_model
from sdpo_lab.models.memory import Memory, memory_table, training_memory
from sdpo_lab.tasks import (
    Guard,
    JudgeError,
    Problem,
    Task,
    Verdict,
    list_tasks,
    load_task,
    task_from_function,
)
from sdpo_lab.trainer import SDPOTrainer

__all__ = [
    "Credit",
    "Evaluation",
    "Familiarity",
    "Guard",
    "History",
    "JudgeError",
    "Memory",
    "Preflight",
    "Problem",
    "Rollout",
    "SDPOConfig",
    "SDPOTrainer",
    "StepRecord",
    "Task",
    "Timeline",
    "Verdict",
    "__version__",
    "contexts",
    "credit",
    "experiments",
    "familiarity",
    "list_models",
    "list_tasks",
    "load_model",
    "load_task",
    "losses",
    "memory_table",
    "preflight",
    "rollout",
    "task_from_function",
    "tasks",
    "teacher_attempts",
    "training_memory",
    "views",
]

_moved.install()


def __getattr__(name: str) -> Any:
    if name in _moved.MOVED or name == "experiments":  # loaded when first asked for
        return importlib.import_module(f"sdpo_lab.{name}")
    raise AttributeError(f"module 'sdpo_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
