"""What the teacher is shown: a sibling's solution, or else the environment's feedback.

Paper Table 2 and §2.2.
"""

from __future__ import annotations

import math
import random
import re
from typing import TYPE_CHECKING

from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def reprompt(group: list[Rollout], config: SDPOConfig, rng: random.Random) -> None:
    """Decide what the teacher of every attempt at one problem is shown, and fill it in.

    Sets `shown_solution`, `shown_feedback`, `shown_attempt`, `demonstration`, `teacher_messages`,
    `active` and `why`. The demonstration is drawn at random among the candidates, or is the first
    of them (`demonstration`, the released code). An attempt that can be shown nothing gets the
    plain question, is not active, and `why` says the reason.
    """
    c = config
    clean = remove_thinking if c.remove_thinking_from_demonstration else str
    solutions = {
        place: clean(r.text)
        for place, r in enumerate(group)
        if r.succeeded(c.success_reward_threshold)
    }
    for place, r in enumerate(group):
        succeeded = place in solutions
        chosen = choose(place, solutions, c, rng)
        r.demonstration = None if chosen is None else group[chosen].index
        r.shown_solution = "" if chosen is None else solutions[chosen]

        allowed = c.include_environment_feedback and not succeeded
        if r.shown_solution and c.environment_feedback_only_without_solution:
            allowed = False
        r.shown_feedback = r.feedback if allowed else ""

        r.active = bool(r.completion_ids and r.shown)
        r.shown_attempt = r.text if c.include_own_attempt and r.active else ""
        r.why = "" if r.active else why_not(r, place, solutions, c)
        r.teacher_messages = teacher_messages(
            r.problem.messages, r.shown_solution, r.shown_feedback, c, r.shown_attempt
        )


def choose(
    place: int, solutions: dict[int, str], config: SDPOConfig, rng: random.Random
) -> int | None:
    """Whose success the attempt at `place` is shown; None when there is none for it."""
    own = place in solutions
    if not config.use_successful_as_teacher or (own and config.self_success == "skip"):
        return None
    if own and config.self_success == "own":
        allowed = {place}
    else:
        allowed = set(solutions)
        if config.dont_reprompt_on_self_success:
            allowed -= {place}
    candidates = [i for i in solutions if i in allowed and solutions[i].strip()]
    if not candidates:
        return None
    return candidates[0] if config.demonstration == "first" else rng.choice(candidates)


def why_not(rollout: Rollout, place: int, solutions: dict[int, str], config: SDPOConfig) -> str:
    """Why an attempt takes no part, in words."""
    if not rollout.completion_ids:
        return "it is empty"
    no_solution = why_no_solution(place, solutions, config)
    if place in solutions:
        return f"it succeeded, and {no_solution}"
    if rollout.feedback and not config.include_environment_feedback:
        return f"{no_solution}, and include_environment_feedback is off"
    return f"{no_solution}, and the environment said nothing"


def why_no_solution(place: int, solutions: dict[int, str], config: SDPOConfig) -> str:
    """Why `choose` found no success for the attempt at `place`, in words."""
    succeeded = place in solutions
    if not config.use_successful_as_teacher:
        return "use_successful_as_teacher is off"
    if succeeded and config.self_success == "skip":
        return "self_success is 'skip'"
    if succeeded and config.self_success == "own":
        return "nothing of its own text can be shown"
    if set(solutions) - {place}:  # they are blank, as where only the thinking was written
        return "no sibling has a success that can be shown"
    return "no sibling did" if succeeded else "no sibling succeeded"


def teacher_messages(
    messages: list[dict[str, str]],
    solution: str,
    feedback: str,
    config: SDPOConfig,
    attempt: str = "",
) -> list[dict[str, str]]:
    """The chat with its last user turn rewritten; earlier turns, the system's among them, stay.

    "" leaves a section out, and nothing to show leaves the chat as it is. The attempt stands before
    the feedback, and only where there is something else to show. Raises ValueError for a chat that
    does not end in a user turn.
    """
    if not messages or messages[-1]["role"] != "user":
        last = messages[-1]["role"] if messages else "nothing"
        raise ValueError(f"a problem's messages must end in a user turn; this one ends in {last!r}")
    if not solution and not feedback:
        return messages
    solution_section = section(config.solution_template, successful_previous_attempt=solution)
    attempt_section = section(config.attempt_template, previous_attempt=attempt)
    feedback_section = section(config.feedback_template, feedback_raw=feedback)
    *earlier, question = messages
    content = fill(
        config.reprompt_template,
        prompt=question["content"],
        solution=solution_section,
        feedback=attempt_section + feedback_section,
    )
    return [*earlier, {**question, "content": content}]


def section(template: str, **text: str) -> str:
    """The filled template, "" where the text is empty."""
    return fill(template, **text) if all(text.values()) else ""


def fill(template: str, **texts: str) -> str:
    """Put texts into a template in one pass: braces inside a text stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda slot: texts[slot.group(1)], template)


def remove_thinking(text: str) -> str:
    """Drop <think>...</think>.

    Also a thought that was never closed, or whose opening stood in the prompt.
    """
    # behind the last </think> nothing closes: looked for from each opening, that would be quadratic
    last = re.match(r"(.*</think>\s*)?", text, flags=re.DOTALL)
    end = last.end() if last else 0
    text = re.sub(r"<think>.*?</think>\s*", "", text[:end], flags=re.DOTALL) + text[end:]
    text = re.sub(r"^.*?</think>\s*", "", text, flags=re.DOTALL)
    return re.sub(r"<think>.*", "", text, flags=re.DOTALL)


def encode_teacher(
    tokenizer: PreTrainedTokenizerBase,
    rollout: Rollout,
    config: SDPOConfig,
    context: int | None = None,
) -> tuple[list[int], bool]:
    """(ids of the teacher's prompt, whether a text was shortened to make it fit).

    It fits where it has at most `max_reprompt_len` tokens, and with the attempt at most `context`,
    the model's. The demonstration, the feedback and the own attempt give way, the longest first,
    from their end, in `teacher_messages` too; the frame never does. Raises ValueError when it is
    too long even with a single character of each.
    """
    r, ids = rollout, encode_chat(tokenizer, rollout.teacher_messages)
    room = min(config.max_reprompt_len, (context or math.inf) - len(r.completion_ids))
    if not r.shown or len(ids) <= room:
        return ids, False
    texts = {"solution": r.shown_solution, "feedback": r.shown_feedback, "attempt": r.shown_attempt}
    while len(ids) > room:
        longest = max(texts, key=lambda name: len(texts[name]))
        text = texts[longest]
        if len(text) == 1:
            limit = f"max_reprompt_len={config.max_reprompt_len} must be larger"
            if room < config.max_reprompt_len:
                limit = f"the model's context={context} must hold the attempt besides"
            raise ValueError(
                f"the teacher's prompt for problem {r.problem.id!r} has {len(ids)} tokens even "
                f"with its texts cut to a character each, and {room} have room: {limit}, or the "
                "problem or the attempt shorter"
            )
        texts[longest] = text[: max(1, int(len(text) * 0.9 * room / len(ids)))]
        r.teacher_messages = teacher_messages(r.problem.messages, **texts, config=config)
        ids = encode_chat(tokenizer, r.teacher_messages)
    return ids, True
