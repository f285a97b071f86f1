"""sdpo_lab: understand, see and experiment with SDPO (Self-Distillation Policy Optimization, arXiv 2601.20802)."""

from sdpo_lab import losses
from sdpo_lab._version import __version__
from sdpo_lab.config import SDPOConfig
from sdpo_lab.credit import Credit, credit
from sdpo_lab.evaluation import Evaluation
from sdpo_lab.memory import Memory, memory_table, training_memory
from sdpo_lab.models import list_models, load_model
from sdpo_lab.records import History, StepRecord
from sdpo_lab.rollouts import Rollout, rollout
from sdpo_lab.tasks import Guard, JudgeError, Problem, Task, Verdict, list_tasks, load_task, task_from_function
from sdpo_lab.tasks.preflight import Preflight, preflight
from sdpo_lab.timeline import Timeline
from sdpo_lab.trainer import SDPOTrainer
from sdpo_lab.what_if import Familiarity, contexts, familiarity, teacher_attempts

__all__ = ["__version__", "Credit", "Evaluation", "Familiarity", "Guard", "History", "JudgeError", "Memory", "Preflight", "Problem", "Rollout",
           "SDPOConfig", "SDPOTrainer", "StepRecord", "Task", "Timeline", "Verdict", "contexts", "credit", "familiarity", "list_models", "list_tasks", "load_model",
           "load_task", "losses", "memory_table", "preflight", "rollout", "task_from_function", "teacher_attempts", "training_memory", "views"]


def __getattr__(name: str):
    if name == "views":  # widgets and plotly are imported when first asked for, never before
        import importlib

        return importlib.import_module("sdpo_lab.views")
    raise AttributeError(f"module 'sdpo_lab' has no attribute {name!r}")
