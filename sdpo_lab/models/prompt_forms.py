"""Every form of prompt that anything in the package puts before a model: the list the recipe of the
small models draws its documents from.

A prompt is a *rendering* of some *content*. A rendering takes a chat that ends in a user turn and
what there is to show, and gives the chat a model continues; `small_models/documents.py` draws
documents of each, so a model it makes has read all of them, and a form that is not in this list is
one it was never taught.
"""

from __future__ import annotations

from typing import Any

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import fill, teacher_messages

Messages = list[dict[str, str]]

#: The user's next message, shown in hindsight ("Aligning Language Models from User Interactions",
#: 2603.12273; wording ours).
HINDSIGHT = (
    "{prompt}\n\n<hindsight context>\nA later message of this user follows. Let it guide your "
    "answer.\n\n{feedback}\n</hindsight context>"
)
#: Ask a model to foresee what the environment will say (RLTF's feedback modelling, 2602.02482;
#: wording ours).
PREDICT = "{prompt}\n\nAnswer:\n\n{attempt}\n\nWhat will be said of this answer?"
#: Between several feedbacks.
HISTORY_JOINT = "\n\n"

CONFIGS = {
    "paper": SDPOConfig(),
    "trl": SDPOConfig.preset("trl", include_environment_feedback=True),
}


def paper(
    messages: Messages, solution: str = "", feedback: str = "", attempt: str = ""
) -> Messages:
    """The teacher's prompt in the templates of the paper (Table 2), `SDPOConfig`'s defaults."""
    return teacher_messages(messages, solution, feedback, CONFIGS["paper"], attempt)


def trl(messages: Messages, solution: str = "", feedback: str = "", attempt: str = "") -> Messages:
    """The same in TRL's templates, the preset "trl"."""
    return teacher_messages(messages, solution, feedback, CONFIGS["trl"], attempt)


def reworded(messages: Messages, template: str, **texts: str) -> Messages:
    """The chat with `template` in place of its last message, which is the template's {prompt}."""
    last = messages[-1]
    content = fill(template, prompt=last["content"], **texts)
    return [*messages[:-1], {**last, "content": content}]


def hindsight(messages: Messages, feedback: str, **_: Any) -> Messages:
    """The user's next message in a block after the question."""
    return reworded(messages, HINDSIGHT, feedback=feedback)


def two_turns(messages: Messages, feedback: str, attempt: str, **_: Any) -> Messages:
    """The conversation as it went: question, attempt, feedback; the model answers again."""
    return [
        *messages,
        {"role": "assistant", "content": attempt},
        {"role": "user", "content": feedback},
    ]


def predict(messages: Messages, attempt: str, **_: Any) -> Messages:
    """Question and attempt; the model writes the feedback."""
    return reworded(messages, PREDICT, attempt=attempt)


RENDERINGS = {
    "paper": paper,
    "trl": trl,
    "hindsight": hindsight,
    "two turns": two_turns,
    "predict": predict,
}
#: Feedback that is none on this attempt: of another task; on an attempt at another problem of the
#: same task; of somebody who meant something else.
USELESS = ("unrelated feedback", "permuted feedback", "misleading feedback")
#: What a prompt shows. "feedback" may be a "history" of several.
CONTENTS = (
    "nothing",
    "solution",
    "feedback",
    "solution and feedback",
    "attempt and feedback",
    "history",
    *USELESS,
)
#: Which contents each rendering has.
FORMS = (
    *(("paper", content) for content in CONTENTS),
    *(("trl", content) for content in CONTENTS),
    *(("hindsight", content) for content in ("feedback", "history", *USELESS)),
    *(("two turns", content) for content in ("attempt and feedback", *USELESS)),
    ("predict", "attempt and feedback"),
)
