"""Checks of 04_from_scratch."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from sdpo_lab.exercises.common import UNWRITTEN, Mistakes, ToyModel, is_close, recognise

Attempt = namedtuple("Attempt", "problem ids text reward feedback")  # as in sdpo_min

#: Of the logits of prompt and attempt s.logits (L, V), of the attempt alone s.alone (T, V), and
#: the rows of s.logits that are about the attempt, s.rows (T, V).
SCORE_MISTAKES: Mistakes = {
    "the rows are shifted by one: the logits at a token are about the NEXT token, so the first row "
    "stands at the last token of the prompt": lambda s: [
        s.logits[s.cut :].log_softmax(-1),
        s.logits[s.cut : -1].log_softmax(-1),
    ],
    "the prompt's tokens are among the rows. Only the attempt is scored; cut the prompt off": (
        lambda s: [s.logits.log_softmax(-1), s.logits[:-1].log_softmax(-1)]
    ),
    "the attempt was read without its prompt, so both roles would get the same numbers": (
        lambda s: [s.alone.log_softmax(-1), s.alone[:-1].log_softmax(-1)]
    ),
    "these are logits. Two rows of logits can be compared only after log_softmax": (
        lambda s: [s.rows]
    ),
    "these are probabilities. Return their logarithms": lambda s: [s.rows.softmax(-1)],
    "this is the sampled token alone, (T,). Return the whole vocabulary, (T, V)": (
        lambda s: [s.rows.log_softmax(-1).gather(1, s.ids[:, None])[:, 0]]
    ),
    "the softmax ran over the places and not over the vocabulary: it belongs to the last "
    "dimension": lambda s: [s.rows.log_softmax(0)],
}

#: Of log-probabilities s.p and s.q (T, V), the summands s.each (T, V) of the KL, and the KLs of
#: both directions at each token (T,).
KL_MISTAKES: Mistakes = {
    "this is KL(teacher || student), the other direction. In Eq. 1 the student's probabilities "
    "weigh the differences": lambda s: [s.forward],
    "the sign is turned round: log p - log q, not log q - log p. A divergence is never negative": (
        lambda s: [-s.reverse, -s.forward]
    ),
    "this is one number for all tokens. Sum over the vocabulary, dimension -1, and keep the tokens "
    "apart": lambda s: [
        s.reverse.sum(),
        s.reverse.mean(),
        s.each.mean(),
        s.forward.sum(),
        s.forward.mean(),
    ],
    "the sum ran over the tokens. It belongs to the vocabulary, dimension -1": (
        lambda s: [s.each.sum(0)]
    ),
    "this is the mean over the vocabulary. An expectation is a sum: the probabilities weigh "
    "already": lambda s: [s.each.mean(-1)],
    "the sum over the vocabulary is missing": lambda s: [s.each],
    "the weights are log-probabilities. Weigh with p.exp()": lambda s: [
        (s.p * (s.p - s.q)).sum(-1),
        ((s.p.exp() * (s.p.exp().log() - s.q)) * s.p).sum(-1),
    ],
    "nothing weighs the differences. The student's probabilities do: p.exp()": (
        lambda s: [(s.p - s.q).sum(-1), (s.p - s.q).mean(-1)]
    ),
    "this is the cross-entropy -Σ p log q. The student's own entropy is missing: Σ p log p": (
        lambda s: [-(s.p.exp() * s.q).sum(-1)]
    ),
}

#: Of the chats that a reader's `reprompt` wrote: {words: what shows the mistake}. Answer and
#: feedback j are the texts "<answer j>" and "<feedback j>".
#: s.alone    the last message shown to attempt 1, which failed; so did its only sibling
#: s.sibling  the one shown to attempt 0, which failed; attempts 1 and 2 did not
#: s.answers  the siblings whose answers are in it
#: s.success  the one shown to attempt 0, a success like attempt 2
#: s.loner    the chat of attempt 0, the only success
#: s.silent   the chat of a failure without feedback and without a successful sibling
REPROMPT_MISTAKES: dict[str, Callable[[SimpleNamespace], bool]] = {
    "a success is shown its own answer, as in the paper's text. The rule here is the released "
    "code's: a sibling's, j != i": lambda s: "<answer 0>" in s.success,
    "a failed attempt is shown itself. The rule shows successes and feedback, not the attempt": (
        lambda s: "<answer 1>" in s.alone
    ),
    "an attempt is shown the feedback on another one": lambda s: "<feedback 0>" in s.alone,
    "a failed attempt with no successful sibling is not shown its feedback": (
        lambda s: "<feedback 1>" not in s.alone
    ),
    "a failed attempt is not shown the success of its sibling": lambda s: not s.answers,
    "the feedback is shown although a sibling succeeded. The rule: feedback only where there is no "
    "solution": lambda s: "<feedback 0>" in s.sibling,
    "the last success is shown, the rule here takes the first": lambda s: s.answers == {2},
    "every success is shown, the rule takes one": lambda s: s.answers == {1, 2},
    "a success is shown feedback. What a judge says of a success is praise; it explains no "
    "failure": lambda s: "<feedback 0>" in s.success + last_message(s.loner),
    "a success is not shown the success of its sibling. It can learn from one too": (
        lambda s: "<answer 2>" not in s.success
    ),
    "a success without a successful sibling has nothing to be shown: return None, so that it is "
    "left out": lambda s: s.loner is not None,
    "a failure with empty feedback and no successful sibling has nothing to be shown: return None, "
    "so that it is left out": lambda s: s.silent is not None,
}


def last_message(chat: list[dict[str, str]] | None) -> str:
    return "" if chat is None else chat[-1]["content"]


def check_score(score: Callable) -> str:
    """Of `score(model, prompt, ids)`: log-probabilities of the whole vocabulary at every token of
    an attempt, (T, V)."""
    model, prompt, ids = ToyModel(), [1, 4, 2], [3, 0, 3, 1]
    answer = score(model, prompt, ids)
    if answer is None:
        return UNWRITTEN
    logits, cut = model(torch.tensor([prompt + ids])).logits[0], len(prompt)
    alone = model(torch.tensor([ids])).logits[0]
    rows = logits[cut - 1 : -1]
    right = rows.log_softmax(-1)
    if not is_close(answer, right):
        s = SimpleNamespace(logits=logits, alone=alone, rows=rows, cut=cut, ids=torch.tensor(ids))
        return recognise("score", answer, right, SCORE_MISTAKES, s)
    if not answer.requires_grad:
        return (
            "✗ score: the numbers are right, but no gradient flows back to the model. The student "
            "is trained through them: no no_grad, no detach"
        )
    return "✓ score: row t is what the model thought before it saw token t"


def check_kl(kl: Callable) -> str:
    """Of `kl(p, q)`: the reverse KL(p||q) at every token from log-probabilities,
    (T, V), (T, V) -> (T,), without gradient for q."""
    student = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]).log().requires_grad_()
    teacher = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]).log().requires_grad_()
    p, q = student.log_softmax(-1), teacher.log_softmax(-1)
    answer = kl(p, q)
    if answer is None:
        return UNWRITTEN
    each = p.exp() * (p - q)  # (T, V)
    right, forward = each.sum(-1), (q.exp() * (q - p)).sum(-1)
    if not is_close(answer, right):
        if isinstance(answer, torch.Tensor) and answer.isnan().any():
            return (
                "✗ kl: the result is NaN. p and q are logarithms already; taking another one is of "
                "negative numbers"
            )
        s = SimpleNamespace(p=p, q=q, each=each, reverse=right, forward=forward)
        return recognise("kl", answer, right, KL_MISTAKES, s)
    to_p = to_q = None
    if answer.requires_grad:
        to_p, to_q = torch.autograd.grad(answer.sum(), (student, teacher), allow_unused=True)
    if to_q is not None and to_q.abs().max() > 0:
        return (
            "✗ kl: the numbers are right, but the teacher gets a gradient too and would be pulled "
            "towards the student. Detach q"
        )
    if to_p is None or not is_close(to_p, p.exp() * (p - q - right[:, None])):
        return (
            "✗ kl: the numbers are right, but the student's gradient is not: p.exp() must keep it. "
            "Detach q alone"
        )
    return (
        "✓ kl: KL(student || teacher), a number for every token, and the teacher is only a target"
    )


def check_reprompt(reprompt: Callable) -> str:
    """Of `reprompt(group, i)`: the chat that the teacher of attempt i reads, or None. Only what is
    shown to whom is checked, not the words around it."""
    messages = [{"role": "system", "content": "SYSTEM"}, {"role": "user", "content": "QUESTION"}]
    problem = SimpleNamespace(id="p", messages=copy.deepcopy(messages))

    def chat_of(i: int, rewards: Sequence[float], feedback: str = "<feedback {}>") -> Any:
        group = [
            Attempt(problem, [1], f"<answer {j}>", reward, feedback.format(j))
            for j, reward in enumerate(rewards)
        ]
        return reprompt(group, i)

    failed = chat_of(1, (0.0, 0.0))
    helped = chat_of(0, (0.0, 1.0, 1.0))
    success = chat_of(0, (1.0, 0.0, 1.0))
    loner = chat_of(0, (1.0, 0.0))
    silent = chat_of(0, (0.0, 0.0), feedback="")
    if failed is None and helped is None:
        return UNWRITTEN
    if problem.messages != messages:
        return (
            "✗ reprompt: the problem's own messages were changed, and the student reads those. "
            "Build a new list and new dictionaries"
        )
    for chat in (failed, helped):
        if chat is not None and (chat[0] != messages[0] or "QUESTION" not in last_message(chat)):
            return (
                "✗ reprompt: the question, or a message before it, is gone. The teacher reads all "
                "of them, and then what is new"
            )
    s = SimpleNamespace(
        alone=last_message(failed),
        sibling=last_message(helped),
        answers={j for j in (1, 2) if f"<answer {j}>" in last_message(helped)},
        success=last_message(success),
        loner=loner,
        silent=silent,
    )
    for words, seen in REPROMPT_MISTAKES.items():
        if seen(s):
            return f"✗ reprompt: {words}"
    return "✓ reprompt: every attempt is shown what it may see, and nothing else"
