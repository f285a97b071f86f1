"""The attempt that a `Timeline` looks at after every step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sdpo_lab.analysis.pictures import MOST_TOKENS
from sdpo_lab.core.records import StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem


def as_probe(probe: Any) -> Rollout:
    """A Rollout that can be scored, with something for its teacher to read. Raises TypeError or
    ValueError for what is none and does not make one."""
    if isinstance(probe, Rollout):
        rollout = replace(probe, completion_ids=list(probe.completion_ids[:MOST_TOKENS]))
    elif is_triple(probe):
        problem, completion, feedback = probe
        if isinstance(completion, str):
            text, ids = completion, []
        else:
            given = completion.completion_ids if isinstance(completion, Rollout) else completion
            text, ids = "", list(given)[:MOST_TOKENS]
        rollout = Rollout(problem, 0, text, ids, feedback=feedback)
    else:
        raise TypeError(
            "probe must be a Rollout or (problem, completion, feedback), feedback a text; got "
            f"{type(probe).__name__}"
        )
    if not (rollout.text or rollout.completion_ids):
        raise ValueError("probe is an empty attempt: there is no token to look at")
    if not (rollout.shown or rollout.feedback):
        raise ValueError(
            "probe has no feedback, and its teacher was shown nothing else: student and teacher "
            "would read the same"
        )
    return rollout


def is_triple(probe: Any) -> bool:
    if not isinstance(probe, tuple) or len(probe) != 3:
        return False
    return isinstance(probe[0], Problem) and isinstance(probe[2], str)


def failures(record: StepRecord, threshold: float) -> list[Rollout]:
    """The failed attempts with feedback, those first that the student was surest of: habits, not
    accidents of sampling. Where there are none, those whose teacher was shown something else."""
    failed = [r for r in record.rollouts if r.completion_ids and (r.reward or 0) < threshold]
    candidates = [r for r in failed if r.feedback] or [r for r in failed if r.shown]
    candidates.sort(key=lambda r: r.entropy if math.isfinite(r.entropy) else math.inf)
    return [as_probe(r) for r in candidates]
