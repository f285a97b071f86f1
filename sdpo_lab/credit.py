"""One attempt, token by token: what the student thought of it, and what the self-teacher thinks of it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sdpo_lab import losses
from sdpo_lab.chat import encode_chat, encode_plain, render
from sdpo_lab.config import SDPOConfig
from sdpo_lab.reprompt import teacher_messages
from sdpo_lab.rollouts import Rollout
from sdpo_lab.tasks.base import Problem
from sdpo_lab.teachers import Teacher


@dataclass
class Credit:
    """Scores of one attempt of T tokens; arrays are (T,), in nats unless said otherwise."""

    tokens: list[str]  #: their concatenation is the text of the attempt; a special token shows as its own string
    completion_ids: list[int]
    student_log_probs: torch.Tensor  #: log p(y_t | question)
    teacher_log_probs: torch.Tensor  #: log q(y_t | question, what was shown)
    divergence: torch.Tensor  #: per token, under the configuration's divergence over the full vocabulary
    student_distribution: torch.Tensor  #: (T, V), log-probabilities of every token at every position
    teacher_distribution: torch.Tensor
    student_prompt: str
    teacher_prompt: str
    tokenizer: Any

    @property
    def advantages(self) -> torch.Tensor:
        """log q - log p of the sampled tokens (Prop. 2.1): above 0 the teacher would raise it, below 0 lower it."""
        return self.teacher_log_probs - self.student_log_probs

    def top(self, k: int = 8, at: int | None = None) -> list[dict[str, list[tuple[str, float]]]]:
        """The k most likely tokens of both roles with their probabilities, at every position or at `at` alone."""
        places = range(len(self.tokens)) if at is None else [at]
        k = min(k, self.student_distribution.shape[-1])

        def best(log_probs: torch.Tensor) -> list[tuple[str, float]]:
            values, ids = log_probs.topk(k)
            return [(self.tokenizer.decode([i]), float(v.exp())) for v, i in zip(values, ids.tolist())]

        return [{"student": best(self.student_distribution[t]), "teacher": best(self.teacher_distribution[t])} for t in places]

    def _repr_html_(self) -> str:
        from sdpo_lab.views.tokens import token_picture  # the one door from the core to the views

        return token_picture(self)

    def __repr__(self) -> str:
        rows = [f"{t!r:>16} {float(p.exp()):8.3f} {float(q.exp()):8.3f}" for t, p, q in zip(self.tokens, self.student_log_probs, self.teacher_log_probs)]
        return "\n".join([f"{'token':>16} {'student':>8} {'teacher':>8}", *rows])


@torch.no_grad()
def credit(model: Any, tokenizer: Any, problem: Problem, completion: str | list[int] | Rollout, *, feedback: str = "", solution: str = "",
           attempt: str = "", teacher: Any = None, config: SDPOConfig | None = None) -> Credit:
    """Score one attempt under the question alone and under the teacher's prompt with `feedback` and/or `solution`.

    completion  text, token ids (scored as they are), or a Rollout (its ids and nothing else)
    attempt     an earlier attempt to show besides, before the feedback
    teacher     another model in the teacher's role, or a run's `trainer.teacher`; the model itself when None

    Raises ValueError for an empty completion. The weights are not touched.
    """
    config = config or SDPOConfig.preset("laptop")
    if isinstance(completion, str):
        ids = encode_plain(tokenizer, completion)
    else:
        ids = [int(i) for i in (completion.completion_ids if isinstance(completion, Rollout) else completion)]
    if not ids:
        raise ValueError("completion is empty: there is no token to score")
    size = model.get_input_embeddings().num_embeddings
    if not all(0 <= i < size for i in ids):
        raise ValueError(f"completion ids must be from 0 to {size - 1}, the model's vocabulary; got {min(ids)} to {max(ids)}")
    shown = teacher_messages(problem.messages, solution, feedback, config, attempt)
    p = score(Teacher(model, "live", 0.0), tokenizer, problem.messages, ids, config.temperature)
    q = score(teacher if isinstance(teacher, Teacher) else Teacher(teacher or model, "live", 0.0), tokenizer, shown, ids, config.temperature)
    at = torch.tensor(ids, device=p.device)[:, None]
    return Credit(split_text(tokenizer, ids), ids, p.gather(1, at)[:, 0], q.gather(1, at)[:, 0], losses.divergence(p, q, config.distillation_alpha), p, q,
                  render(tokenizer, problem.messages), render(tokenizer, shown), tokenizer)


def score(scorer: Teacher, tokenizer: Any, messages: list[dict[str, str]], ids: list[int], temperature: float) -> torch.Tensor:
    """Log-probabilities of every token at every position of one completion, (T, V), dropout off."""
    was_training = scorer.student.training
    scorer.student.eval()
    try:
        return scorer.read([encode_chat(tokenizer, messages)], [ids], temperature, False)(slice(None)).log_softmax(-1)
    finally:
        scorer.student.train(was_training)


def split_text(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token, exact in concatenation: decoded cumulatively, so that a character cut in two bytes appears with its last byte."""
    pieces, done = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd") and end < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(done):])
        done = text
    return pieces
