"""Checks for the exercises of the notebooks: each calls the reader's function, and says which of
the classic mistakes it saw.

Every check returns one sentence. "✓" is right, "✗" is wrong and says how, "○" means that nothing
has been written yet. A notebook has its own module.
"""

from sdpo_lab.exercises.common import UNWRITTEN
from sdpo_lab.exercises.credit_assignment import (
    check_credit_loss,
    check_group_advantages,
    check_policy_loss,
)
from sdpo_lab.exercises.distillation_loss import check_gradient, check_sequence, check_tail
from sdpo_lab.exercises.from_scratch import check_kl, check_reprompt, check_score
from sdpo_lab.exercises.self_teacher import check_advantages, check_message, check_shift_bits

__all__ = [
    "UNWRITTEN",
    "check_advantages",
    "check_credit_loss",
    "check_gradient",
    "check_group_advantages",
    "check_kl",
    "check_message",
    "check_policy_loss",
    "check_reprompt",
    "check_score",
    "check_sequence",
    "check_shift_bits",
    "check_tail",
]
