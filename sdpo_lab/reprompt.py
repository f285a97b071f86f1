"""What the teacher is shown: a sibling's solution, or else the environment's feedback (paper Table 2 and §2.2)."""

from __future__ import annotations

import random
import re
from typing import Any

from sdpo_lab.chat import encode_chat
from sdpo_lab.config import SDPOConfig
from sdpo_lab.rollouts import Rollout


def reprompt(group: list[Rollout], config: SDPOConfig, rng: random.Random) -> None:
    """Decide what the teacher of every attempt at one problem is shown, and fill it in: `shown_solution`, `shown_feedback`,
    `demonstration`, `teacher_messages`, `active` and `why`.

    The demonstration is drawn at random among the successful siblings (the released code takes the first). An attempt
    that can be shown nothing gets the plain question, is not active, and `why` says the reason.
    """
    clean = remove_thinking if config.remove_thinking_from_demonstration else str
    solutions = {i: clean(r.text) for i, r in enumerate(group) if r.reward >= config.success_reward_threshold}
    for place, r in enumerate(group):
        own = place in solutions and not config.dont_reprompt_on_self_success
        candidates = [i for i, text in solutions.items() if text.strip() and (i == place if own else i != place)]
        chosen = rng.choice(candidates) if candidates else None
        r.demonstration = None if chosen is None else group[chosen].index
        r.shown_solution = "" if chosen is None else solutions[chosen]
        allowed = config.include_environment_feedback and not (r.shown_solution and config.environment_feedback_only_without_solution)
        r.shown_feedback = r.feedback if allowed and place not in solutions else ""
        r.active = bool(r.completion_ids and (r.shown_solution or r.shown_feedback))
        r.why = "" if r.active else why_not(r, place in solutions, config)
        r.teacher_messages = teacher_messages(r.problem.messages, r.shown_solution, r.shown_feedback, config)


def why_not(rollout: Rollout, succeeded: bool, config: SDPOConfig) -> str:
    if not rollout.completion_ids:
        return "it is empty"
    if succeeded:
        return "it succeeded, and no sibling did"
    if rollout.feedback and not config.include_environment_feedback:
        return "no sibling succeeded, and include_environment_feedback is off"
    return "no sibling succeeded, and the environment said nothing"


def teacher_messages(messages: list[dict[str, str]], solution: str, feedback: str, config: SDPOConfig) -> list[dict[str, str]]:
    """The chat with its last user turn rewritten; earlier turns, the system's among them, stay. "" leaves a section out, nothing to show
    leaves the chat as it is."""
    if not messages or messages[-1]["role"] != "user":
        raise ValueError(f"a problem's messages must end in a user turn; this one ends in {messages[-1]['role'] if messages else 'nothing'!r}")
    if not solution and not feedback:
        return messages
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


def encode_teacher(tokenizer: Any, rollout: Rollout, config: SDPOConfig) -> tuple[list[int], bool]:
    """(ids of the teacher's prompt, whether a text was shortened to keep it within `max_reprompt_len`).

    The demonstration and the feedback give way, the longer one first, from their end; the frame never does.
    Raises ValueError when the frame alone is too long.
    """
    ids, solution, feedback = encode_chat(tokenizer, rollout.teacher_messages), rollout.shown_solution, rollout.shown_feedback
    shortened = rollout.active and len(ids) > config.max_reprompt_len
    while rollout.active and len(ids) > config.max_reprompt_len:
        if not solution and not feedback:
            raise ValueError(f"the teacher's prompt for problem {rollout.problem.id!r} has {len(ids)} tokens without any demonstration or feedback; "
                             f"max_reprompt_len={config.max_reprompt_len} must be larger")
        keep = 0.9 * config.max_reprompt_len / len(ids)
        if len(solution) >= len(feedback):
            solution = solution[: int(len(solution) * keep)]
        else:
            feedback = feedback[: int(len(feedback) * keep)]
        rollout.teacher_messages = teacher_messages(rollout.problem.messages, solution, feedback, config)
        ids = encode_chat(tokenizer, rollout.teacher_messages)
    return ids, shortened
