"""The oracle as a teacher: what it would write next, at every token of an attempt."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from sdpo_lab.core.chat import encode_plain
from sdpo_lab.core.checks import check_range
from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall.oracle.posterior import Posterior
from sdpo_lab.tasks.toolcall.requests import write_call

MAX_TEXTS = 4096  # answers that `next_tokens` mixes at most; with one call there are up to 64


@dataclass
class OracleTeacher:
    """The oracle's opinion of one attempt of T tokens, beside the student's and the self-teacher's
    of `lab.credit`."""

    #: (T,), the attempt
    completion_ids: list[int]
    #: (T,) booleans; False where no answer the author may write begins with the tokens before
    defined: torch.Tensor
    #: (T,), of the attempt's own tokens; nan where undefined, -inf for a token that is excluded
    log_probs: torch.Tensor
    #: {token id: probability} at each position, empty where undefined
    next: list[dict[int, float]] = field(repr=False)

    def distribution(self, size: int) -> torch.Tensor:
        """Log-probabilities (T, size) of a vocabulary of `size` tokens: -inf where 0, rows of nan
        where undefined."""
        largest = max(self.completion_ids + [v for tokens in self.next for v in tokens])
        if size <= largest:
            raise ValueError(f"size must be above every token id; got {size}, there is {largest}")
        log_probs = torch.full((len(self.next), size), -math.inf)
        for row, tokens in zip(log_probs, self.next):
            row[list(tokens)] = torch.tensor(list(tokens.values())).log()
        log_probs[~self.defined] = math.nan
        return log_probs


def next_tokens(
    posterior: Posterior,
    tokenizer: Any,
    problem: Problem,
    completion: Any,
    *,
    slip: float = 0.0,
    end: int | None = None,
) -> OracleTeacher:
    """The oracle in the self-teacher's role: the next token at each position of an attempt.

    The author whose writing it foresees draws a convention from the posterior and writes the right
    call under it, as `ToolCall.solution` does; with probability `slip` (0 to 1) the convention is
    drawn from the prior instead, whatever was seen. So with w(c) = (1 - slip) p(c | seen) + slip
    p(c), and the sum over conventions whose answer begins with the prefix,

        q(v | prefix) = Σ w(c) [the answer's next token is v] / Σ w(c)

    where nothing begins with the prefix, q is undefined: with slip = 0, after a name that the
    feedback excludes. With an empty posterior it is undefined everywhere.

    Prefixes are compared token by token, not as strings: each answer is tokenised as a whole, by
    itself, and followed by the end token. A prefix that spells the same text in other tokens
    therefore counts as another prefix, and undefined.

    completion  text, token ids (taken as they are), or a Rollout
    end         id of the end token; the tokenizer's `eos_token_id` when None

    Raises ValueError when the answer has several calls and more than `MAX_TEXTS` forms.
    """
    check_range("slip", slip, float, 0.0, 1.0)
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise ValueError("the tokenizer names no end-of-sequence token; pass end=")
    ids = (
        encode_plain(tokenizer, completion)
        if isinstance(completion, str)
        else [int(i) for i in getattr(completion, "completion_ids", completion)]
    )
    if not ids:
        raise ValueError("completion is empty: there is no token to score")
    answers = [
        ([*encode_plain(tokenizer, text), end], w)
        for text, w in _weighted_texts(posterior, problem, slip).items()
    ]
    following: list[dict[int, float]] = []
    for t, token in enumerate(ids):
        weights: dict[int, float] = {}
        for answer, w in answers:
            weights[answer[t]] = weights.get(answer[t], 0.0) + w
        total = sum(weights.values())
        following.append({v: w / total for v, w in weights.items()})
        # those that begin with the prefix of the next position
        answers = [(a, w) for a, w in answers if a[t] == token and len(a) > t + 1]
    defined = torch.tensor([bool(f) for f in following])
    own = torch.tensor([f.get(i, 0.0) if f else math.nan for f, i in zip(following, ids)]).log()
    return OracleTeacher(ids, defined, own, following)


def _weighted_texts(posterior: Posterior, problem: Problem, slip: float) -> dict[str, float]:
    """{answer: w(c)} of every convention of positive weight; {} when the posterior is empty."""
    calls = problem.data["calls"]
    tools = posterior._tools(problem)
    if set(tools) & set(posterior.empty):
        return {}
    fresh = Posterior(prior=posterior.prior)
    texts: dict[str, float] = {}
    for share, source in ((1 - slip, posterior), (slip, fresh)):
        if not share:
            continue
        each = [
            [(p, names) for p, names in zip(source._p[name].tolist(), source._names(name)) if p]
            for name in tools
        ]
        forms = math.prod(map(len, each))
        if forms > MAX_TEXTS:
            raise ValueError(
                f"the answer to these {len(calls)} calls has {forms} forms, more than {MAX_TEXTS}; "
                "use calls=1"
            )
        for choice in itertools.product(*each):
            names = dict(zip(tools, (n for _, n in choice)))
            text = "\n".join(write_call(c["tool"], names[c["tool"]], c["values"]) for c in calls)
            texts[text] = texts.get(text, 0.0) + share * math.prod(p for p, _ in choice)
    return texts
