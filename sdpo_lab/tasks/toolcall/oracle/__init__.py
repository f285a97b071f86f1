"""The known limit of `toolcall`: what can be known of the convention, and how soon, whoever learns.

The oracle knows how the world is made (`world`), reads what was attempted and what the judge said
of it, and forgets nothing. It knows the prior of the pre-training documents, not how the task
chooses rare names. Tools have independent names, so there is one posterior a tool, over at most 4^3
combinations of names, each exact:

    p(c | attempts, verdicts) ∝ p(c) · Π_i [under c the judge would have said just verdict_i of
                                            attempt_i]

`Posterior` is that, `next_tokens` the teacher it makes, `learner_curve` the learner. Probabilities
are in [0, 1], information in bits, log-probabilities in nats.
"""

from sdpo_lab.tasks.toolcall.oracle.learner import Curve, answer_table, chain, learner_curve
from sdpo_lab.tasks.toolcall.oracle.posterior import FallibleAuthor, NoPosterior, Posterior
from sdpo_lab.tasks.toolcall.oracle.teacher import MAX_TEXTS, OracleTeacher, next_tokens

__all__ = [
    "MAX_TEXTS",
    "Curve",
    "FallibleAuthor",
    "NoPosterior",
    "OracleTeacher",
    "Posterior",
    "answer_table",
    "chain",
    "learner_curve",
    "next_tokens",
]
