"""One attempt, token by token: what the student thought of it, and what the self-teacher thinks of it now."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from sdpo_lab.core import losses
from sdpo_lab.core.chat import encode_chat, encode_plain, render
from sdpo_lab.core.checks import check_kind, check_model, check_range, check_text, shown
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout, context_length
from sdpo_lab.core.task import Problem
from sdpo_lab.core.teachers import Teacher

#: What a notebook shows of a `Credit`: `views` puts its token view here.
html_of: Callable[[Credit], str] | None = None


@dataclass
class Credit:
    """Scores of one attempt of T tokens under a vocabulary of V; arrays are (T,), log-probabilities in nats."""

    tokens: list[
        str
    ]  #: their concatenation is the text of the attempt; a special token shows as its own string
    spans: list[
        tuple[int, int]
    ]  #: where each token lies in the UTF-8 bytes of that text, [begin, end)
    completion_ids: list[int]
    student_log_probs: torch.Tensor  #: log p(y_t | question)
    teacher_log_probs: torch.Tensor  #: log q(y_t | question, what was shown)
    divergence: (
        torch.Tensor
    )  #: per token, under the configuration's divergence over the full vocabulary
    student_distribution: torch.Tensor = field(
        repr=False
    )  #: (T, V), log-probabilities of every token at every position
    teacher_distribution: torch.Tensor = field(repr=False)
    student_prompt: str  #: as the chat template writes it
    teacher_prompt: str
    shown: dict[
        str, str
    ]  #: what the teacher's prompt shows besides the question: "feedback", "solution", "attempt", those that are not empty
    tokenizer: Any = field(repr=False)
    oracle_log_probs: torch.Tensor | None = (
        None  #: the Bayes oracle's, given the same texts; nan where it has no opinion. None: no oracle
    )

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def advantages(self) -> torch.Tensor:
        """log q - log p of the sampled tokens (Prop. 2.1): above 0 the teacher would raise it, below 0 lower it."""
        return self.teacher_log_probs - self.student_log_probs

    @property
    def oracle_advantages(self) -> torch.Tensor | None:
        """The same with the oracle in the teacher's place: -inf for a token it excludes, nan where it has no opinion."""
        return (
            None
            if self.oracle_log_probs is None
            else self.oracle_log_probs - self.student_log_probs
        )

    @property
    def student_entropy(self) -> torch.Tensor:
        return entropy(self.student_distribution)

    @property
    def teacher_entropy(self) -> torch.Tensor:
        return entropy(self.teacher_distribution)

    @property
    def student_ranks(self) -> torch.Tensor:
        """(T,) of integers: 1 where the sampled token was the student's most likely one."""
        return 1 + (self.student_distribution > self.student_log_probs[:, None]).sum(-1)

    @property
    def teacher_ranks(self) -> torch.Tensor:
        return 1 + (self.teacher_distribution > self.teacher_log_probs[:, None]).sum(-1)

    @property
    def shift_bits(self) -> float:
        """How far what was shown moved the predictions along this attempt: Σ_t KL(teacher ‖ student), in bits."""
        return float(
            losses.kl(self.teacher_distribution, self.student_distribution).sum()
        ) / math.log(2)

    def top(self, k: int = 8, at: int | None = None) -> list[dict[str, Any]]:
        """The k most likely tokens of both roles with their probabilities, at every position or at `at` alone.

        Each is {"student": [(token, probability), ...], "teacher": the same, "student tail": mass of all other tokens, "teacher tail"}.
        """
        places = (
            range(len(self.tokens))
            if at is None
            else [check_range("at", at, int, -len(self.tokens), len(self.tokens) - 1)]
        )
        k = min(check_range("k", k, int, 1), self.student_distribution.shape[-1])
        found = []
        for t in places:
            row = {}
            for role, log_probs in (
                ("student", self.student_distribution[t]),
                ("teacher", self.teacher_distribution[t]),
            ):
                values, ids = log_probs.topk(k)
                row[role] = [
                    (token_text(self.tokenizer, i), float(v.exp()))
                    for v, i in zip(values, ids.tolist())
                ]
                row[f"{role} tail"] = max(0.0, 1.0 - float(values.exp().sum()))
            found.append(row)
        return found

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>" if html_of is None else html_of(self)

    def __repr__(self) -> str:
        rows = [
            f"{t!r:>16} {float(p.exp()):8.3f} {float(q.exp()):8.3f}"
            for t, p, q in zip(self.tokens, self.student_log_probs, self.teacher_log_probs)
        ]
        return "\n".join([f"{'token':>16} {'student':>8} {'teacher':>8}", *rows])


@torch.no_grad()
def credit(
    model: Any,
    tokenizer: Any,
    problem: Problem,
    completion: str | list[int] | Rollout,
    *,
    feedback: str = "",
    solution: str = "",
    attempt: str = "",
    teacher: Any = None,
    task: Any = None,
    config: SDPOConfig | None = None,
) -> Credit:
    """Score one attempt under the question alone and under the teacher's prompt with `feedback` and/or `solution`.

    completion  text, token ids (scored as they are), or a Rollout (its ids and nothing else)
    attempt     an earlier attempt to show besides, before the feedback
    teacher     another model in the teacher's role, or a run's `trainer.teacher`; the model itself when None
    task        a task with a known generating process (`toolcall`): its oracle, which reads the same texts, is put beside the two
    config      its templates, temperature and divergence; the preset "laptop" when None

    With nothing to show both roles read the same prompt. Raises ValueError for an empty completion, for an attempt without
    feedback or solution, and for a prompt and completion longer than the model's context. The weights are not touched.
    """
    config = check_scored(model, tokenizer, problem, config)
    texts = {"feedback": feedback, "solution": solution, "attempt": attempt}
    for name, text in texts.items():
        check_text(name, text, "'' for nothing to show")
    if isinstance(completion, str):
        ids = encode_plain(tokenizer, completion)
    else:
        given = completion.completion_ids if isinstance(completion, Rollout) else completion
        if not isinstance(given, (list, tuple, torch.Tensor)) or any(
            isinstance(i, (bool, float, str)) for i in given
        ):
            raise TypeError(
                f"completion must be a text, a list of token ids or a Rollout; got {shown(completion)}"
            )
        ids = [int(i) for i in given]
    if not ids:
        raise ValueError(
            f"completion is empty, it must have at least one token to score; got {shown(completion)}"
        )
    size = model.get_input_embeddings().num_embeddings
    if not all(0 <= i < size for i in ids):
        raise ValueError(
            f"completion ids must be from 0 to {size - 1}, the model's vocabulary; got {min(ids)} to {max(ids)}"
        )
    if attempt and not (feedback or solution):
        raise ValueError(
            "attempt is shown before what is said of it; pass feedback= or solution= with it"
        )
    asked = teacher_messages(problem.messages, solution, feedback, config, attempt)
    p = score(Teacher(model, "live", 0.0), tokenizer, problem.messages, ids, config.temperature)
    q = score(
        teacher if isinstance(teacher, Teacher) else Teacher(teacher or model, "live", 0.0),
        tokenizer,
        asked,
        ids,
        config.temperature,
    )
    at = torch.tensor(ids, device=p.device)[:, None]
    oracle = (
        task.oracle_teacher(tokenizer, problem, ids, **texts)
        if hasattr(task, "oracle_teacher")
        else None
    )
    tokens = split_text(tokenizer, ids)
    return Credit(
        tokens,
        byte_spans(tokenizer, ids, tokens),
        ids,
        p.gather(1, at)[:, 0],
        q.gather(1, at)[:, 0],
        losses.divergence(p, q, config.distillation_alpha),
        p,
        q,
        render(tokenizer, problem.messages),
        render(tokenizer, asked),
        {k: v for k, v in texts.items() if v},
        tokenizer,
        None if oracle is None else oracle.log_probs.to(p),
    )


def check_scored(
    model: Any, tokenizer: Any, problem: Problem, config: SDPOConfig | None
) -> SDPOConfig:
    """The configuration, the preset "laptop" when None. Raises TypeError for what cannot be scored with."""
    check_model(model, tokenizer)
    check_kind("problem", problem, Problem, "a Problem, as task.problems() gives them")
    check_kind(
        "config", config, (SDPOConfig, type(None)), "an SDPOConfig, or None for the preset 'laptop'"
    )
    return config or SDPOConfig.preset("laptop")


def score(
    scorer: Teacher,
    tokenizer: Any,
    messages: list[dict[str, str]],
    ids: list[int],
    temperature: float,
) -> torch.Tensor:
    """Log-probabilities of every token at every position of one completion, (T, V), dropout off. Raises ValueError when the context does not hold both."""
    prompt, limit = encode_chat(tokenizer, messages), context_length(scorer.student)
    if limit and len(prompt) + len(ids) > limit:
        raise ValueError(
            f"the prompt and the attempt have {len(prompt) + len(ids)} tokens together, the model's context is {limit}; shorten the texts"
        )
    was_training = scorer.student.training
    scorer.student.eval()
    try:
        return scorer.read([prompt], [ids], temperature, False)(slice(None)).log_softmax(-1)
    finally:
        scorer.student.train(was_training)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Of each row, (..., V) -> (...), nats."""
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def split_text(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token, exact in concatenation: decoded cumulatively, so that a character cut in two bytes appears with its last byte."""
    pieces, done = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(
            ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if text.endswith("\ufffd") and end < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(done) :])
        done = text
    return pieces


def byte_spans(tokenizer: Any, ids: list[int], tokens: list[str]) -> list[tuple[int, int]]:
    """[begin, end) of each token in the UTF-8 bytes of the text. A character's bytes go to the tokens that hold them; where the tokenizer does not
    tell which (or they make no character, which shows as U+FFFD), all go to the last of them."""
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in tokens]
    first = 0
    for last, size in enumerate(sizes):
        if tokens[last]:
            raw = [token_bytes(tokenizer, i) for i in ids[first : last + 1]]
            if first < last and None not in raw and sum(map(len, raw)) == size:
                sizes[first : last + 1] = map(len, raw)
            first = last + 1
    ends = [sum(sizes[: t + 1]) for t in range(len(sizes))]
    return list(zip([0, *ends], ends))


def token_bytes(tokenizer: Any, token: int) -> bytes | None:
    """The bytes one token of the vocabulary stands for, for byte-level and byte-fallback tokenizers; None where that cannot be told."""
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None or token in tokenizer.added_tokens_decoder:
        return None
    if len(name) == 6 and name.startswith("<0x"):
        return bytes([int(name[3:5], 16)])
    return bytes(BYTE_OF[c] for c in name) if all(c in BYTE_OF for c in name) else None


def byte_alphabet() -> dict[str, int]:
    """{character: byte} of byte-level tokenizers (GPT-2's): printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_OF = byte_alphabet()


def token_text(tokenizer: Any, token: int) -> str:
    """One token of the vocabulary as text; one that is only part of a character as its bytes, such as "<E2 82>"."""
    text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    raw = token_bytes(tokenizer, token) if "\ufffd" in text else None
    return f"<{raw.hex(' ').upper()}>" if raw else text
