"""A trainer without a model: it has the real records and configuration, and does what a test tells
it to."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sdpo_lab.core.checks import unknown_names
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.trainer import SDPOTrainer


class FakeTrainer:
    LIVE_FIELDS = SDPOTrainer.LIVE_FIELDS

    def __init__(
        self,
        seconds: float = 0.01,
        fail_at: int = 0,
        error: BaseException | None = None,
        text: str = "weather(city='Oslo')",
        feedback: str = "TypeError: no",
        metrics: dict[str, float] | None = None,
        rewards: list[float] | None = None,
    ) -> None:
        self.config, self.history = SDPOConfig.preset("laptop"), History()
        self.seconds, self.fail_at, self.error, self.text, self.feedback = (
            seconds,
            fail_at,
            error,
            text,
            feedback,
        )
        self.metrics = {"active_fraction": 1.0} if metrics is None else metrics
        self.rewards = rewards
        self.gate: threading.Event | None = None  # a step waits here for the test
        self.inside, self.most_inside, self.threads, self.rates = 0, 0, set(), []
        self.lock = threading.RLock()
        self.saves: list[tuple[str, int]] = []  # (where, after how many steps)
        self.folders: dict[Path, Any] = {}
        self.autosaves: Any = None

    def apply(self, **fields: Any) -> None:
        if not fields:
            return
        unknown_names("a running trainer's live fields", fields, list(self.LIVE_FIELDS))
        self.config = self.config.replace(live=True, **fields)
        self.history.changes.setdefault(len(self.history) + 1, {}).update(fields)

    def autosave(self, folder: Any, seconds: float = 30.0, keep: int = 2) -> None:
        self.autosaves = SimpleNamespace(
            folder=folder, seconds=seconds, last=time.monotonic(), trouble=""
        )

    def autosave_if_due(self) -> None:
        if self.autosaves and time.monotonic() - self.autosaves.last >= self.autosaves.seconds:
            self.save(self.autosaves.folder)
            self.autosaves.last = time.monotonic()

    def save(self, folder: Any, overwrite: bool = False, keep: int | None = 1) -> Path:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        time.sleep(self.seconds)
        self.inside -= 1
        self.saves.append((str(folder), len(self.history)))
        self.folders[Path(folder).resolve()] = SimpleNamespace(
            steps=len(self.history), newest=len(self.history)
        )
        return Path(folder) / f"checkpoint-{len(self.history):06d}"

    def step(self) -> StepRecord:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.threads.add(threading.current_thread().name)
        self.rates.append(self.config.learning_rate)
        time.sleep(self.seconds)
        if self.gate is not None:
            assert self.gate.wait(20)
        number = len(self.history) + 1
        try:
            if number == self.fail_at:
                raise self.error or ValueError("the judge broke")
            reward = self.rewards[number - 1] if self.rewards else 1 - math.exp(-number / 20)
            problem = Problem("p", [{"role": "user", "content": "Will it rain in Oslo?"}])
            rollouts = [
                Rollout(
                    problem,
                    i,
                    self.text,
                    [1],
                    reward=float(i % 2),
                    feedback="" if i % 2 else self.feedback,
                    active=True,
                )
                for i in range(8)
            ]
            record = StepRecord(number, reward, 0.1, dict(self.metrics), rollouts, self.seconds)
            self.history.records.append(record)
            self.autosave_if_due()
            return record
        finally:
            self.inside -= 1
