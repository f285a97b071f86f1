"""One attempt, token by token: what the student thought of it, and what the self-teacher thinks of
it now."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sdpo_lab.analysis.token_text import byte_spans, split_text, token_text
from sdpo_lab.core import losses
from sdpo_lab.core.chat import encode_chat, encode_plain, render
from sdpo_lab.core.checks import check_kind, check_model, check_range, check_text, short_repr
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.sampling import context_length
from sdpo_lab.core.task import Problem
from sdpo_lab.core.teachers import Teacher

#: What a notebook shows of a `Credit`: `views` puts its token view here.
html_of: Callable[[Credit], str] | None = None


@dataclass
class Credit:
    """Scores of one attempt of T tokens, vocabulary V; arrays are (T,), log-probs in nats."""

    #: their concatenation is the text of the attempt; a special token shows as its own string
    tokens: list[str]
    #: where each token lies in the UTF-8 bytes of that text, [begin, end)
    spans: list[tuple[int, int]]
    completion_ids: list[int]
    student_log_probs: torch.Tensor  #: log p(y_t | question)
    teacher_log_probs: torch.Tensor  #: log q(y_t | question, what was shown)
    #: per token, under the configuration's divergence over the full vocabulary
    divergence: torch.Tensor
    #: (T, V), log-probabilities of every token at every position
    student_distribution: torch.Tensor = field(repr=False)
    teacher_distribution: torch.Tensor = field(repr=False)
    student_prompt: str  #: as the chat template writes it
    teacher_prompt: str
    #: what the teacher's prompt shows besides the question: "feedback", "solution", "attempt",
    #: those that are not empty
    shown: dict[str, str]
    tokenizer: Any = field(repr=False)
    #: the Bayes oracle's, given the same texts; nan where it has no opinion. None: no oracle
    oracle_log_probs: torch.Tensor | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def advantages(self) -> torch.Tensor:
        """log q - log p of the sampled tokens (Prop. 2.1): above 0 the teacher would raise it."""
        return self.teacher_log_probs - self.student_log_probs

    @property
    def oracle_advantages(self) -> torch.Tensor | None:
        """The same of the oracle: -inf for a token it excludes, nan where it has no opinion."""
        if self.oracle_log_probs is None:
            return None
        return self.oracle_log_probs - self.student_log_probs

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
        """How far what was shown moved the predictions: Σ_t KL(teacher ‖ student), in bits."""
        nats = losses.kl(self.teacher_distribution, self.student_distribution).sum()
        return float(nats) / math.log(2)

    def top(self, k: int = 8, at: int | None = None) -> list[dict[str, Any]]:
        """The k most likely tokens of both roles with their probabilities, at every position or at
        `at` alone.

        Each is {"student": [(token, probability), ...], "teacher": the same, "student tail": mass
        of all other tokens, "teacher tail"}.
        """
        length = len(self.tokens)
        positions = range(length)
        if at is not None:
            positions = [check_range("at", at, int, -length, length - 1)]
        k = min(check_range("k", k, int, 1), self.student_distribution.shape[-1])
        roles = {"student": self.student_distribution, "teacher": self.teacher_distribution}
        rows = []
        for t in positions:
            row: dict[str, Any] = {}
            for role, distribution in roles.items():
                log_probs, ids = distribution[t].topk(k)
                texts = [token_text(self.tokenizer, i) for i in ids.tolist()]
                row[role] = [(text, float(p.exp())) for text, p in zip(texts, log_probs)]
                row[f"{role} tail"] = max(0.0, 1.0 - float(log_probs.exp().sum()))
            rows.append(row)
        return rows

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>" if html_of is None else html_of(self)

    def __repr__(self) -> str:
        rows = [f"{'token':>16} {'student':>8} {'teacher':>8}"]
        for t, p, q in zip(self.tokens, self.student_log_probs, self.teacher_log_probs):
            rows.append(f"{t!r:>16} {float(p.exp()):8.3f} {float(q.exp()):8.3f}")
        return "\n".join(rows)


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
    """Score one attempt under the question alone and under the teacher's prompt with `feedback`
    and/or `solution`.

    completion  text, token ids (scored as they are), or a Rollout (its ids and nothing else)
    attempt     an earlier attempt to show besides, before the feedback
    teacher     another model in the teacher's role, or a run's `trainer.teacher`; the model itself
                when None
    task        a task with a known generating process (`toolcall`): its oracle, which reads the
                same texts, is put beside the two
    config      its templates, temperature and divergence; the preset "laptop" when None

    With nothing to show both roles read the same prompt. Raises ValueError for an empty completion,
    for an attempt without feedback or solution, and for a prompt and completion longer than the
    model's context. The weights are not touched.
    """
    texts = {"feedback": feedback, "solution": solution, "attempt": attempt}
    check_scored(model, tokenizer, problem, config)
    check_shown(**texts)
    rescorer = Rescorer(
        model, tokenizer, problem, completion, teacher=teacher, task=task, config=config
    )
    return rescorer.score(**texts)


class Rescorer:
    """One attempt, read by the student once; `score` gives its `Credit` under any texts for the
    price of the teacher's pass.

    The arguments are those of `lab.credit`, and so are the numbers. Change the model's weights, and
    a new one is needed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        problem: Problem,
        completion: str | list[int] | Rollout,
        *,
        teacher: Any = None,
        task: Any = None,
        config: SDPOConfig | None = None,
    ) -> None:
        self.config = check_scored(model, tokenizer, problem, config)
        self.model, self.tokenizer, self.problem, self.task = model, tokenizer, problem, task
        self.teacher = as_teacher(teacher, model)
        ids = token_ids(model, tokenizer, completion)
        tokens = split_text(tokenizer, ids)
        p = self._read(as_teacher(None, model), problem.messages, ids)  # (T, V)
        prompt = render(tokenizer, problem.messages)
        log_probs = of_sampled(p, ids)
        #: the attempt with the student in both roles
        self.bare = Credit(
            tokens=tokens,
            spans=byte_spans(tokenizer, ids, tokens),
            completion_ids=ids,
            student_log_probs=log_probs,
            teacher_log_probs=log_probs,
            divergence=losses.divergence(p, p, self.config.distillation_alpha),
            student_distribution=p,
            teacher_distribution=p,
            student_prompt=prompt,
            teacher_prompt=prompt,
            shown={},
            tokenizer=tokenizer,
        )

    @torch.no_grad()
    def score(self, feedback: str = "", solution: str = "", attempt: str = "") -> Credit:
        """`lab.credit` of the attempt under these texts. Raises ValueError for an attempt alone,
        and for a prompt longer than the model's context."""
        texts = {"feedback": feedback, "solution": solution, "attempt": attempt}
        check_shown(**texts)
        messages = teacher_messages(self.problem.messages, solution, feedback, self.config, attempt)
        ids, p = self.bare.completion_ids, self.bare.student_distribution
        q = self._read(self.teacher, messages, ids)
        oracle = None
        if hasattr(self.task, "oracle_teacher"):
            oracle = self.task.oracle_teacher(self.tokenizer, self.problem, ids, **texts)
        return replace(
            self.bare,
            teacher_log_probs=of_sampled(q, ids),
            divergence=losses.divergence(p, q, self.config.distillation_alpha),
            teacher_distribution=q,
            teacher_prompt=render(self.tokenizer, messages),
            shown={name: text for name, text in texts.items() if text},
            oracle_log_probs=None if oracle is None else oracle.log_probs.to(p),
        )

    @torch.no_grad()
    def _read(
        self, reader: Teacher, messages: list[dict[str, str]], ids: list[int]
    ) -> torch.Tensor:
        """Log-probabilities of every token at every position of the attempt, (T, V), dropout off.
        Raises ValueError when the context does not hold prompt and attempt."""
        model, prompt = reader.student, encode_chat(self.tokenizer, messages)
        limit, length = context_length(model), len(prompt) + len(ids)
        if limit and length > limit:
            raise ValueError(
                f"the prompt and the attempt have {length} tokens together, the model's context is "
                f"{limit}; shorten the texts"
            )
        was_training = model.training
        model.eval()
        try:
            logits = reader.read([prompt], [ids], self.config.temperature, False)(slice(None))
            return logits.log_softmax(-1)
        finally:
            model.train(was_training)


# arguments


def check_scored(
    model: Any, tokenizer: Any, problem: Problem, config: SDPOConfig | None
) -> SDPOConfig:
    """The configuration, "laptop" when None. Raises TypeError for what cannot be scored with."""
    check_model(model, tokenizer)
    check_kind("problem", problem, Problem, "a Problem, as task.problems() gives them")
    return given_config(config)


def given_config(config: SDPOConfig | None) -> SDPOConfig:
    """The configuration, the preset "laptop" when None. Raises TypeError for anything else."""
    what = "an SDPOConfig, or None for the preset 'laptop'"
    check_kind("config", config, (SDPOConfig, type(None)), what)
    return config or SDPOConfig.preset("laptop")


def check_shown(feedback: str, solution: str, attempt: str) -> None:
    """Raise TypeError unless these are texts, ValueError for an attempt alone."""
    texts = {"feedback": feedback, "solution": solution, "attempt": attempt}
    for name, text in texts.items():
        check_text(name, text, "'' for nothing to show")
    if attempt and not (feedback or solution):
        raise ValueError(
            "attempt is shown before what is said of it; pass feedback= or solution= with it"
        )


def token_ids(model: Any, tokenizer: Any, completion: str | list[int] | Rollout) -> list[int]:
    """The tokens of an attempt. Raises TypeError or ValueError where there are none to score."""
    if isinstance(completion, str):
        ids = encode_plain(tokenizer, completion)
    else:
        given = completion.completion_ids if isinstance(completion, Rollout) else completion
        is_list = isinstance(given, (list, tuple, torch.Tensor))
        if not is_list or any(isinstance(i, (bool, float, str)) for i in given):
            raise TypeError(
                "completion must be a text, a list of token ids or a Rollout; got "
                f"{short_repr(completion)}"
            )
        ids = [int(i) for i in given]
    if not ids:
        raise ValueError(
            "completion is empty, it must have at least one token to score; got "
            f"{short_repr(completion)}"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    if not all(0 <= i < vocabulary for i in ids):
        raise ValueError(
            f"completion ids must be from 0 to {vocabulary - 1}, the model's vocabulary; got "
            f"{min(ids)} to {max(ids)}"
        )
    return ids


def shown_texts(attempt: Rollout) -> dict[str, str]:
    """What the teacher of an attempt was shown in training, as `credit` takes it."""
    return {
        "feedback": attempt.shown_feedback,
        "solution": attempt.shown_solution,
        "attempt": attempt.shown_attempt,
    }


def as_teacher(teacher: Any, model: Any) -> Teacher:
    """A run's teacher as it is, another model in that role, or for None the model itself."""
    return teacher if isinstance(teacher, Teacher) else Teacher(teacher or model, "live", 0.0)


# numbers


def of_sampled(log_probs: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Those of the tokens that were sampled, (T, V) -> (T,)."""
    return log_probs.gather(1, torch.tensor(ids, device=log_probs.device)[:, None])[:, 0]


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Of each row, (..., V) -> (...), nats."""
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)
