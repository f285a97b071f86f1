"""Checks of 04_from_scratch."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from sdpo_lab.exercises.common import UNWRITTEN, ToyModel, is_close, recognise

Attempt = namedtuple("Attempt", "problem ids text reward feedback")  # as in sdpo_min


def check_score(score: Callable) -> str:
    """Of `score(model, prompt, ids)`: log-probabilities of the whole vocabulary at every token of an attempt, (T, V)."""
    model, prompt, ids = ToyModel(), [1, 4, 2], [3, 0, 3, 1]
    found = score(model, prompt, ids)
    if found is None:
        return UNWRITTEN
    logits, cut = model(torch.tensor([prompt + ids])).logits[0], len(prompt)
    right = logits[cut - 1 : -1].log_softmax(-1)
    alone = model(torch.tensor([ids])).logits[0]
    if is_close(found, right):
        if not found.requires_grad:
            return "✗ score: the numbers are right, but no gradient flows back to the model. The student is trained through them: no no_grad, no detach"
        return "✓ score: row t is what the model thought before it saw token t"
    wrong = {
        "the rows are shifted by one: the logits at a token are about the NEXT token, so the first row stands at the last token of the prompt": [
            logits[cut:].log_softmax(-1),
            logits[cut:-1].log_softmax(-1),
        ],
        "the prompt's tokens are among the rows. Only the attempt is scored; cut the prompt off": [
            logits.log_softmax(-1),
            logits[:-1].log_softmax(-1),
        ],
        "the attempt was read without its prompt, so both roles would get the same numbers": [
            alone.log_softmax(-1),
            alone[:-1].log_softmax(-1),
        ],
        "these are logits. Two rows of logits can be compared only after log_softmax": [
            logits[cut - 1 : -1]
        ],
        "these are probabilities. Return their logarithms": [right.exp()],
        "this is the sampled token alone, (T,). Return the whole vocabulary, (T, V)": [
            right.gather(1, torch.tensor(ids)[:, None])[:, 0]
        ],
        "the softmax ran over the places and not over the vocabulary: it belongs to the last dimension": [
            logits[cut - 1 : -1].log_softmax(0)
        ],
    }
    return "✗ score: " + recognise(found, right, wrong)


def check_kl(kl: Callable) -> str:
    """Of `kl(p, q)`: the reverse KL(p||q) at every token from log-probabilities, (T, V), (T, V) -> (T,), without gradient for q."""
    logits = [
        torch.tensor(rows).log().requires_grad_()
        for rows in ([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], [[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
    ]
    p, q = (z.log_softmax(-1) for z in logits)
    found = kl(p, q)
    if found is None:
        return UNWRITTEN
    each = p.exp() * (p - q)  # (T, V)
    right, forward = each.sum(-1), (q.exp() * (q - p)).sum(-1)
    if is_close(found, right):
        to_p, to_q = (
            torch.autograd.grad(found.sum(), logits, allow_unused=True)
            if found.requires_grad
            else (None, None)
        )
        if to_q is not None and to_q.abs().max() > 0:
            return "✗ kl: the numbers are right, but the teacher gets a gradient too and would be pulled towards the student. Detach q"
        if to_p is None or not is_close(to_p, p.exp() * (p - q - right[:, None])):
            return "✗ kl: the numbers are right, but the student's gradient is not: p.exp() must keep it. Detach q alone"
        return "✓ kl: KL(student || teacher), a number for every token, and the teacher is only a target"
    wrong = {
        "this is KL(teacher || student), the other direction. In Eq. 1 the student's probabilities weigh the differences": [
            forward
        ],
        "the sign is turned round: log p - log q, not log q - log p. A divergence is never negative": [
            -right,
            -forward,
        ],
        "this is one number for all tokens. Sum over the vocabulary, dimension -1, and keep the tokens apart": [
            right.sum(),
            right.mean(),
            each.mean(),
            forward.sum(),
            forward.mean(),
        ],
        "the sum ran over the tokens. It belongs to the vocabulary, dimension -1": [each.sum(0)],
        "this is the mean over the vocabulary. An expectation is a sum: the probabilities weigh already": [
            each.mean(-1)
        ],
        "the sum over the vocabulary is missing": [each],
        "the weights are log-probabilities. Weigh with p.exp()": [
            (p * (p - q)).sum(-1),
            ((p.exp() * (p.exp().log() - q)) * p).sum(-1),
        ],
        "nothing weighs the differences. The student's probabilities do: p.exp()": [
            (p - q).sum(-1),
            (p - q).mean(-1),
        ],
        "this is the cross-entropy -Σ p log q. The student's own entropy is missing: Σ p log p": [
            -(p.exp() * q).sum(-1)
        ],
    }
    if isinstance(found, torch.Tensor) and found.isnan().any():
        return "✗ kl: the result is NaN. p and q are logarithms already; taking another one is of negative numbers"
    return "✗ kl: " + recognise(found, right, wrong)


def check_reprompt(reprompt: Callable) -> str:
    """Of `reprompt(group, i)`: the chat that the teacher of attempt i reads, or None. Only what is shown to whom is checked, not the words around it."""
    messages = [{"role": "system", "content": "SYSTEM"}, {"role": "user", "content": "QUESTION"}]
    problem = SimpleNamespace(id="p", messages=copy.deepcopy(messages))

    def shown(
        rewards: Sequence[float], i: int, says: Callable = lambda j: f"<feedback {j}>"
    ) -> tuple[Any, str]:
        group = [Attempt(problem, [1], f"<answer {j}>", r, says(j)) for j, r in enumerate(rewards)]
        chat = reprompt(group, i)
        return chat, "" if chat is None else chat[-1]["content"]

    (failed, alone), (helped, with_sibling), (_, success) = (
        shown((0.0, 0.0), 1),
        shown((0.0, 1.0, 1.0), 0),
        shown((1.0, 0.0, 1.0), 0),
    )
    loner, _ = shown((1.0, 0.0), 0)
    silent, _ = shown((0.0, 0.0), 0, says=lambda j: "")
    if failed is None and helped is None:
        return UNWRITTEN
    if problem.messages != messages:
        return "✗ reprompt: the problem's own messages were changed, and the student reads those. Build a new list and new dictionaries"
    for chat in (failed, helped):
        if chat is not None and (chat[0] != messages[0] or "QUESTION" not in chat[-1]["content"]):
            return "✗ reprompt: the question, or a message before it, is gone. The teacher reads all of them, and then what is new"
    answers = {j for j in (1, 2) if f"<answer {j}>" in with_sibling}
    wrong = [
        (
            "<answer 0>" in success,
            "a success is shown its own answer, as in the paper's text. The rule here is the released code's: a sibling's, j != i",
        ),
        (
            "<answer 1>" in alone,
            "a failed attempt is shown itself. The rule shows successes and feedback, not the attempt",
        ),
        ("<feedback 0>" in alone, "an attempt is shown the feedback on another one"),
        (
            "<feedback 1>" not in alone,
            "a failed attempt with no successful sibling is not shown its feedback",
        ),
        (not answers, "a failed attempt is not shown the success of its sibling"),
        (
            "<feedback 0>" in with_sibling,
            "the feedback is shown although a sibling succeeded. The rule: feedback only where there is no solution",
        ),
        (answers == {2}, "the last success is shown, the rule here takes the first"),
        (answers == {1, 2}, "every success is shown, the rule takes one"),
        (
            "<feedback 0>" in success
            or loner is not None
            and "<feedback 0>" in loner[-1]["content"],
            "a success is shown feedback. What a judge says of a success is praise; it explains no failure",
        ),
        (
            "<answer 2>" not in success,
            "a success is not shown the success of its sibling. It can learn from one too",
        ),
        (
            loner is not None,
            "a success without a successful sibling has nothing to be shown: return None, so that it is left out",
        ),
        (
            silent is not None,
            "a failure with empty feedback and no successful sibling has nothing to be shown: return None, so that it is left out",
        ),
    ]
    return next(
        (f"✗ reprompt: {words}" for seen, words in wrong if seen),
        "✓ reprompt: every attempt is shown what it may see, and nothing else",
    )
