"""How a model reads feedback, beside what could be read: the rows of the card on messages and
sentences.

Everything is measured on failed attempts of the model itself, test problems of the card's
conventions. Nats are of a name where it stands in the attempt: log p with the message shown, minus
log p without.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch

from sdpo_lab.core.chat import encode_chat, encode_plain
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout, rollout
from sdpo_lab.core.scoring import completion_hidden, token_logits
from sdpo_lab.tasks import SHIPPED, Problem, load_task
from sdpo_lab.tasks.toolcall.judge import Error, find_errors, say
from sdpo_lab.tasks.toolcall.world import BY_NAME
from small_models import held_out, readers


@dataclass
class Wrong:
    """A failed attempt whose first error is a wrong name."""

    task: Any
    rollout: Rollout
    error: Error
    at: int  #: index of the wrong name's first token in the attempt
    name: int  #: that token
    right: int  #: first token of the right name


def wrong_names(tokenizer: Any, attempts: list[tuple[Any, Rollout]]) -> list[Wrong]:
    """Those of `attempts` at one call whose first error is a wrong argument name."""
    found = []
    for task, r in attempts:
        errors, _ = find_errors(r.problem.data["calls"], task.convention, r.text)
        if not errors or errors[0].kind != "unexpected":
            continue
        error = errors[0]
        before = r.text[: r.text.index(f"{error.name}=")]
        prefix = encode_plain(tokenizer, before)
        name = encode_plain(tokenizer, error.name)[0]
        right = encode_plain(tokenizer, error.expected)[0]
        ids = list(r.completion_ids)
        if ids[: len(prefix)] == prefix and ids[len(prefix)] == name and name != right:
            found.append(Wrong(task, r, error, len(prefix), name, right))
    return found


@torch.no_grad()
def next_log_probs(
    model: Any, tokenizer: Any, cases: list[Wrong], said: list[str] | None
) -> torch.Tensor:
    """log p of the next token where each wrong name stands, (N, V); `said` is what the prompt
    shows.
    """
    rows = []
    for start in range(0, len(cases), 64):
        part = cases[start : start + 64]
        prompts = []
        for i, case in enumerate(part):
            messages = case.rollout.problem.messages
            if said is not None:
                messages = teacher_messages(messages, "", said[start + i], SDPOConfig())
            prompts.append(encode_chat(tokenizer, messages))
        completions = [list(c.rollout.completion_ids[: c.at + 1]) for c in part]
        hidden = completion_hidden(model, prompts, completions)
        lengths = torch.tensor([len(c) for c in completions])
        rows.append(token_logits(model, hidden[lengths.cumsum(0) - 1]).log_softmax(-1))
    return torch.cat(rows)


def moved(model: Any, tokenizer: Any, cases: list[Wrong]) -> dict[str, float]:
    """Mean nats by which messages move the wrong name and the right one; {what: nats}."""
    rng = random.Random(5)
    rows = torch.arange(len(cases))
    wrong = torch.tensor([c.name for c in cases])
    right = torch.tensor([c.right for c in cases])
    bare = next_log_probs(model, tokenizer, cases, None)

    def nats(said: list[str], which: torch.Tensor) -> float:
        told = next_log_probs(model, tokenizer, cases, said)
        return (told - bare)[rows, which].mean().item()

    def words(forms: tuple[str, ...]) -> list[str]:
        return [
            rng.choice(forms).format(n=c.error.name, e=c.error.expected, role=role_of(c))
            for c in cases
        ]

    judged = {level: [say(c.error, level) for c in cases] for level in (1, 2, 3)}
    after_two = [f"{say(other_error(c, rng), 1)}\n\n{say(c.error, 1)}" for c in cases]
    requests, corrections = words(held_out.REQUESTS), words(held_out.CORRECTIONS)
    return {
        "excluded name, judge's words": nats(judged[1], wrong),
        "excluded name, held-out messages": nats(words(held_out.EXCLUSIONS), wrong),
        "excluded name, after two exclusions": nats(after_two, wrong),
        "excluded name, held-out sentences": nats(words(held_out.SENTENCES), wrong),
        "excluded name, judge's words with the list": nats(judged[2], wrong),
        "excluded name, held-out corrections": nats(corrections, wrong),
        "asked-for name, judge's words": nats(judged[3], right),
        "asked-for name, held-out corrections": nats(corrections, right),
        "asked-for name, held-out requests": nats(requests, right),
    }


def role_of(case: Wrong) -> str:
    convention = case.task.convention[case.error.tool]
    return next(role for role, name in convention.items() if name == case.error.expected)


def other_error(case: Wrong, rng: random.Random) -> Error:
    """The same error about another wrong name of the same argument."""
    argument = next(a for a in BY_NAME[case.error.tool].arguments if a.role == role_of(case))
    others = [n for n in argument.names if n not in (case.error.name, case.error.expected)]
    return Error(
        "unexpected", case.error.tool, rng.choice(others), case.error.accepted, case.error.expected
    )


@torch.no_grad()
def distance(model: Any, tokenizer: Any, cases: list[Wrong], level: int) -> dict[str, float]:
    """KL(Bayes reader || model) of a whole answer after one message, in nats, mean over `cases`.

    Over the answers the reader may write, and one more entry for everything else; "names": both
    normalised over those answers, so that copying the values does not count.
    """
    whole, names = [], []
    for case in cases:
        problem = case.rollout.problem
        told = readers.tool_answers(problem, say(case.error, level), level)
        if not told:
            continue
        messages = teacher_messages(problem.messages, "", say(case.error, level), SDPOConfig())
        answers = [[*encode_plain(tokenizer, text), tokenizer.eos_token_id] for text in told]
        hidden = completion_hidden(
            model, [encode_chat(tokenizer, messages)] * len(answers), answers
        )
        scores = token_logits(model, hidden).log_softmax(-1)
        own = scores.gather(1, torch.tensor([i for a in answers for i in a])[:, None])[:, 0]
        p = (
            torch.stack([part.sum() for part in own.split([len(a) for a in answers])])
            .exp()
            .double()
        )
        q = torch.tensor(list(told.values()), dtype=torch.double)
        rest = max(0.0, 1 - q.sum().item()), max(1e-9, 1 - p.sum().item())
        kl = (q * (q / p).log()).sum().item()
        whole.append(kl + (rest[0] * math.log(rest[0] / rest[1]) if rest[0] > 1e-9 else 0.0))
        q, p = q / q.sum(), p / p.sum()
        names.append((q * (q / p).log()).sum().item())
    return {"whole answer": sum(whole) / len(whole), "names": sum(names) / len(names)}


def failures(
    model: Any, tokenizer: Any, name: str, seeds: range, n: int, **dials: Any
) -> list[tuple[Any, Rollout, str]]:
    """(task, failed attempt, feedback) of one attempt at `n` test problems of each seed."""
    found = []
    for seed in seeds:
        task = load_task(name, seed=seed, **dials)
        problems = task.problems(n, split="test", seed=1)
        for r in rollout(model, tokenizer, problems, 1, 1.0, seed=7, max_completion_length=64):
            verdict = task.judge(r.problem, r.text)
            if verdict.reward < 1:
                found.append((task, r, verdict.feedback))
    return found


def beside_the_reader(
    model: Any, tokenizer: Any, name: str, seeds: range, n: int, level: int = 2
) -> dict[str, Any]:
    """The model's accuracy after one message of the judge, and the Bayes reader's on the same
    cases.
    """
    dials = {"feedback": level} if name == "toolcall" else SHIPPED[name]
    cases = failures(model, tokenizer, name, seeds, n, **dials)
    problems = [
        Problem(
            f"{r.problem.id}#{i}",
            teacher_messages(r.problem.messages, "", said, SDPOConfig()),
            r.problem.data,
        )
        for i, (_, r, said) in enumerate(cases)
    ]
    answers = rollout(
        model, tokenizer, problems, 1, 1.0, seed=8, max_completion_length=64, batch_size=256
    )
    right = sum(
        task.judge(r.problem, a.text).reward == 1 for (task, r, _), a in zip(cases, answers)
    )
    if name == "toolcall":
        known = [readers.tool_accuracy(task, r.problem, said, level) for task, r, said in cases]
    else:
        accuracy = readers.code_accuracy if name == "tinycode" else readers.chat_accuracy
        known = [accuracy(task, r.problem, said) for task, r, said in cases]
    return {"successes": right, "n": len(cases), "bayes": sum(known) / len(known)}
