"""What the teacher is shown: a sibling's solution, or else the environment's feedback (paper Table 2 and §2.2)."""

from __future__ import annotations

import random
import re
from typing import Any

from sdpo_lab.chat import encode_chat
from sdpo_lab.config import SDPOConfig
from sdpo_lab.rollouts import Rollout


def reprompt(group: list[Rollout], config: SDPOConfig, rng: random.Random) -> None:
    """Fill in `teacher_messages`, `demonstration`, `active` and `why` of every attempt at one problem.

    The demonstration is drawn at random among the successful siblings (the released code takes the first). An attempt
    that can be shown nothing gets the plain question, is not active, and `why` says the reason.
    """
    successes = [r.index for r in group if r.reward >= config.success_reward_threshold]
    for r in group:
        succeeded = r.index in successes
        if succeeded and not config.dont_reprompt_on_self_success:
            candidates = [r.index]
        else:
            candidates = [i for i in successes if i != r.index]
        r.demonstration = rng.choice(candidates) if candidates else None
        solution = "" if r.demonstration is None else next(s.text for s in group if s.index == r.demonstration)
        allowed = config.include_environment_feedback and not (solution and config.environment_feedback_only_without_solution)
        feedback = r.feedback if allowed and not succeeded else ""
        r.active = bool(solution or feedback)
        r.why = "" if r.active else why_not(r, succeeded, config)
        r.teacher_messages = teacher_messages(r.problem.messages, solution, feedback, config) if r.active else r.problem.messages


def why_not(rollout: Rollout, succeeded: bool, config: SDPOConfig) -> str:
    if succeeded:
        return "it succeeded, and no sibling did"
    if rollout.feedback and not config.include_environment_feedback:
        return "no sibling succeeded, and include_environment_feedback is off"
    return "no sibling succeeded, and the environment said nothing"


def teacher_messages(messages: list[dict[str, str]], solution: str, feedback: str, config: SDPOConfig) -> list[dict[str, str]]:
    """The chat with its last user turn rewritten; earlier turns, the system's among them, stay. "" leaves a section out."""
    if not messages or messages[-1]["role"] != "user":
        raise ValueError(f"a problem's messages must end in a user turn; this one ends in {messages[-1]['role'] if messages else 'nothing'!r}")
    if config.remove_thinking_from_demonstration:
        solution = remove_thinking(solution)
    shown = fill(config.reprompt_template, prompt=messages[-1]["content"],
                 solution=fill(config.solution_template, successful_previous_attempt=solution) if solution else "",
                 feedback=fill(config.feedback_template, feedback_raw=feedback) if feedback else "")
    return [*messages[:-1], {**messages[-1], "content": shown}]


def fill(template: str, **texts: str) -> str:
    """Put texts into a template in one pass: braces inside a text stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda m: texts[m.group(1)], template)


def remove_thinking(text: str) -> str:
    """Drop <think>...</think>; also a thought that was never closed, or whose opening stood in the prompt."""
    text = re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"^.*?</think>\s*", "", text, flags=re.DOTALL)
    return re.sub(r"<think>.*", "", text, flags=re.DOTALL)


def encode_teacher(tokenizer: Any, rollout: Rollout, group: list[Rollout], config: SDPOConfig) -> tuple[list[int], bool]:
    """(ids of the teacher's prompt, whether a text was shortened to keep it within `max_reprompt_len`).

    The demonstration and the feedback give way, the longer one first, from their end; the frame never does.
    Raises ValueError when the frame alone is too long.
    """
    ids = encode_chat(tokenizer, rollout.teacher_messages)
    if len(ids) <= config.max_reprompt_len or not rollout.active:
        return ids, False
    solution = "" if rollout.demonstration is None else next(s.text for s in group if s.index == rollout.demonstration)
    feedback = rollout.feedback if fill(config.feedback_template, feedback_raw=rollout.feedback) in rollout.teacher_messages[-1]["content"] else ""
    while len(ids) > config.max_reprompt_len:
        if not solution and not feedback:
            raise ValueError(f"the teacher's prompt for problem {rollout.problem.id!r} has {len(ids)} tokens without any demonstration or feedback; "
                             f"max_reprompt_len={config.max_reprompt_len} must be larger")
        keep = 1 - (len(ids) - config.max_reprompt_len) / len(ids)
        if len(solution) >= len(feedback):
            solution = solution[: int(len(solution) * keep * 0.9)]
        else:
            feedback = feedback[: int(len(feedback) * keep * 0.9)]
        rollout.teacher_messages = teacher_messages(rollout.problem.messages, solution, feedback, config)
        ids = encode_chat(tokenizer, rollout.teacher_messages)
    return ids, True
