"""Sweeps: which runs, on which conventions, in which order. Development seeds choose, sealed seeds
report."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.experiments import RECORDS, recorded
from sdpo_lab.models import DEFAULT, load_model, model_folders
from sdpo_lab.runs.recorded import RunRecord, model_checksum, read_records, write_records
from sdpo_lab.tasks import SHIPPED, load_task
from sdpo_lab.tasks.reasoning_gym import PREFIX
from sdpo_lab.trainer import SDPOTrainer

#: Conventions to tune on. The sealed ones are used once a method's settings are chosen.
DEVELOPMENT, SEALED = (100, 101), (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Run:
    """One training run, from a shipped model; the same run always gives the same record."""

    name: str
    config: dict[str, Any]
    seed: int  #: of the convention
    task: dict[str, Any] = field(default_factory=dict)  #: dials
    on: str = "toolcall"  #: the task
    steps: int = 60
    preset: str = "laptop"
    evaluate: int = 512  #: test problems, before and after
    model: str = DEFAULT
    #: what a hand does on the way, as for `SDPOTrainer.train`
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __call__(self) -> RunRecord:
        model, tokenizer = load_model(self.model)
        task = load_task(self.on, **{"seed": self.seed, **self.task})
        trainer = SDPOTrainer(model, tokenizer, task, self.settings())
        # accuracy means the whole call also where the reward is a fraction: 1 for nothing less
        before = trainer.evaluate(self.evaluate).to_dict()
        began = time.perf_counter()
        trainer.train(self.steps, self.changes, progress=False)
        seconds = time.perf_counter() - began
        after = trainer.evaluate(self.evaluate).to_dict()
        return RunRecord(
            self.name,
            {"name": self.on, **task.dials},
            self.settings().to_dict(),
            {"name": self.model, "sha256": self.checksum()},
            trainer.history.rows(),
            [{"step": 0, **before}, {"step": self.steps, "seconds": seconds, **after}],
            trainer.history.changes,
        )

    def checksum(self) -> str:
        return model_checksum(model_folders()[self.model])

    def settings(self) -> SDPOConfig:
        return SDPOConfig.preset(self.preset, **self.config)

    @property
    def key(self) -> tuple:
        """What tells this run from the others of its sweep."""
        where = {
            "on": self.on,
            "model": self.model,
            "changes": repr(self.changes),
            "preset": self.preset,
        }
        usual = {"on": "toolcall", "model": DEFAULT, "changes": "{}", "preset": "laptop"}
        unusual = {k: v for k, v in where.items() if v != usual[k]}
        settings = {**self.task, **self.config, **unusual, "steps": self.steps}
        return self.name, self.seed, tuple(sorted(settings.items()))


GRPO = {"distillation_weight": 0.0}
SHAPED = {"reward": "fraction"}
GRPO_RATES = (1e-4, 2e-4, 3.5e-4, 6e-4, 1e-3)
SDPO_RATES = (3e-4, 5e-4, 8e-4, 1.2e-3)


def tuning() -> list[Run]:
    """Learning rates of every method on the development conventions, equal attempts."""
    methods: tuple[tuple[str, dict, dict, tuple[float, ...]], ...] = (
        ("sdpo", {}, {}, SDPO_RATES),
        ("grpo", GRPO, {}, GRPO_RATES),
        ("grpo-shaped", GRPO, SHAPED, GRPO_RATES),
    )
    return [
        Run(name, {**config, "learning_rate": rate}, seed, task, evaluate=256)
        for seed in DEVELOPMENT
        for name, config, task, rates in methods
        for rate in rates
    ]


def chosen(name: str, on: str = "toolcall") -> float:
    """The learning rate of a method on a task: the one with the best mean accuracy after the last
    step on the development conventions."""
    runs = recorded("tuning", name=name) if on == "toolcall" else recorded("task-tuning", on=on)
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        accuracy = run.evaluations[-1]["accuracy"]
        by_rate.setdefault(run.config["learning_rate"], []).append(accuracy)
    return max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))


def quickstart() -> list[Run]:
    """The headline on sealed conventions: SDPO, GRPO and GRPO with a shaped reward, each at its
    tuned rate, and the other settings of the dial."""
    methods: list[tuple[str, dict, dict]] = [
        ("sdpo", {}, {}),
        ("grpo", GRPO, {}),
        ("grpo-shaped", GRPO, SHAPED),
        *(("sdpo", {}, {"feedback": level}) for level in (0, 1, 3)),
    ]
    return [
        Run(name, {**config, "learning_rate": chosen(name)}, seed, task)
        for seed in SEALED
        for name, config, task in methods
    ]


OTHERS = {on: dials for on, dials in SHIPPED.items() if on != "toolcall"}


def task_rates(on: str) -> tuple[float, ...]:
    return (5e-5, 1e-4, 2.5e-4) if on.startswith(PREFIX) else (1e-4, 2.5e-4, 5e-4)


def task_steps(on: str) -> int:
    """Without feedback fewer attempts are active, and steps are fast: more of them."""
    return 300 if on.startswith(PREFIX) else 60


def task_tuning() -> list[Run]:
    """Learning rates of SDPO on the other shipped tasks, development seeds."""
    return [
        Run("sdpo", {"learning_rate": rate}, seed, dials, on, task_steps(on), evaluate=256)
        for seed in DEVELOPMENT
        for on, dials in OTHERS.items()
        for rate in task_rates(on)
    ]


def tasks() -> list[Run]:
    """SDPO on every shipped task, three sealed seeds, at the rate tuned for it."""
    return [
        *(Run("sdpo", {"learning_rate": chosen("sdpo")}, seed) for seed in SEALED[:3]),
        *(
            Run("sdpo", {"learning_rate": chosen("sdpo", on)}, seed, dials, on, task_steps(on))
            for on, dials in OTHERS.items()
            for seed in SEALED[:3]
        ),
    ]


def by_hand() -> list[Run]:
    """What `05_live_training` invites a reader to do by hand, on three sealed conventions; that of
    the notebook is number 1."""
    usual = SDPOConfig.preset("laptop").learning_rate
    experiments: dict[str, dict[str, Any]] = {
        "hands off": {},
        "teacher rate 1": {"changes": {1: {"teacher_update_rate": 1.0}}},
        "feedback off": {"changes": {1: {"include_environment_feedback": False}}},
        "learning rate x 10": {"changes": {6: {"learning_rate": 10 * usual}}},
        "GRPO": {"config": {**GRPO, "learning_rate": chosen("grpo")}},
        "a weak model": {"model": "lab-1m-at-2000"},
    }
    return [
        Run(name, seed=seed, evaluate=256, **{"config": {}, **how})
        for seed in SEALED[:3]
        for name, how in experiments.items()
    ]


SWEEPS = {
    "by-hand": by_hand,
    "tuning": tuning,
    "quickstart": quickstart,
    "task-tuning": task_tuning,
    "tasks": tasks,
}


def run_sweep(name: str) -> None:
    """Do the runs that are not in the sweep's file yet, writing after each."""
    path = RECORDS / f"{name}.json"
    done = read_records(path) if path.exists() else []
    wanted = {repr(run.key): run for run in SWEEPS[name]()}
    # runs of another model, of settings that have changed since, or that nobody asks for any more
    # are made again or dropped
    settings = {key: (run.settings().to_dict(), run.checksum()) for key, run in wanted.items()}
    done = [r for r in done if (r.config, r.model["sha256"]) == settings.get(r.key)]
    keys = {r.key for r in done}
    for key, run in wanted.items():
        if key in keys:
            continue
        record = run()
        record.key = key
        done.append(record)
        write_records(path, done)
        first, last = record.evaluations
        print(
            f"{run.key}: {first['accuracy']:.3f} -> {last['accuracy']:.3f} "
            f"(greedy {last['greedy']:.3f}) in {last['seconds']:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", choices=SWEEPS)
    run_sweep(parser.parse_args().sweep)
