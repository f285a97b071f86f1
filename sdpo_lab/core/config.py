"""One documented dataclass holds every knob; presets are the paper's tables, TRL's defaults, and what suits a laptop."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_range,
    check_template,
    unknown_names,
)

MODES = ("topk_logits", "full_logits", "sampled_token", "sequence")
TEACHERS = ("ema", "frozen", "live", "trust_region")
NORMALIZATIONS = ("all_rows", "active_rows", "active_tokens")


@dataclass(frozen=True, kw_only=True)
class SDPOConfig:
    """Settings of `SDPOTrainer`. Names are TRL's where TRL has the knob; defaults are the paper's §4 (Table 12).

    Raises ValueError or TypeError on construction for an unknown field, a value out of range, and a field that was set
    explicitly (to something else than its default) but would do nothing in the chosen combination. `SDPOConfig.preset(name, **fields)` starts from a preset.
    """

    seed: int = (
        0  #: decides problems, sampling noise and demonstrations; same seed, same machine, same run
    )

    # rollouts
    generation_batch_size: int = (
        256  #: attempts a step; a multiple of num_generations (paper: 32 questions x 8)
    )
    num_generations: int = 8  #: attempts a question, the group G; at least 2 for a group baseline
    max_completion_length: int = 256  #: new tokens an attempt may take
    temperature: float = 1.0  #: of sampling; divides the logits of both roles in the loss
    top_p: float = 1.0  #: nucleus of sampling; the loss ignores it, as everywhere

    # what the teacher is shown (paper Table 2, §2.2)
    success_reward_threshold: float = 1.0  #: an attempt with at least this reward is a success
    use_successful_as_teacher: bool = (
        True  #: show a successful attempt of the group as the solution
    )
    demonstration: str = (
        "random"  #: which of several: drawn at "random", or the "first" (official code, TRL)
    )
    self_success: str = "sibling"  #: a success is shown another's ("sibling", official code), its "own" (paper's text), or "skip" leaves it out
    dont_reprompt_on_self_success: bool = (
        True  #: with "sibling"; False counts its own among the others' (TRL)
    )
    include_own_attempt: bool = (
        False  #: show it its own attempt besides (an ablation that hurts, paper Table 6)
    )
    include_environment_feedback: bool = True  #: show a failed attempt the environment's text
    environment_feedback_only_without_solution: bool = True  #: only where no sibling succeeded
    remove_thinking_from_demonstration: bool = (
        True  #: drop <think>...</think> from the demonstration
    )
    reprompt_template: str = (
        "{prompt}{solution}{feedback}\n\nCorrectly solve the original question."
    )
    solution_template: str = "\nCorrect solution:\n\n{successful_previous_attempt}"
    attempt_template: str = "\nYour earlier attempt:\n\n{previous_attempt}"  #: ours: the paper prints none; stands before the feedback
    feedback_template: str = (
        "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}"
    )
    max_reprompt_len: int = 10240  #: tokens of the teacher's prompt; the texts shown are shortened to fit, the frame never

    # the loss
    distillation_weight: float = (
        1.0  #: w of (1-w) GRPO + w SDPO (TRL); 0 is GRPO, and no teacher is run
    )
    advantage_lambda: float = (
        0.0  #: λ of one advantage λ GRPO + (1-λ) SDPO (paper §4.8: 0.9); needs distillation_alpha=1
    )
    distillation_mode: str = "topk_logits"  #: "topk_logits" (student's top k), "full_logits", "sampled_token", "sequence" (paper §4.2)
    distillation_alpha: float = 1.0  #: 0 forward KL(teacher||student), 1 reverse KL(student||teacher), between: JSD (paper §3: 0.5)
    distillation_topk: int = 20  #: k of "topk_logits"; more than the vocabulary means all of it
    distillation_add_tail: bool = (
        True  #: a last bucket for the rest of the mass (paper A.3); False renormalises over k
    )
    advantage_clip: float | None = (
        None  #: clamps log q - log p to ±this (paper §5: 5); needs distillation_alpha=1
    )
    distillation_is_clip: float | None = (
        2.0  #: cap of the ratio p / p_old that weighs a token's loss (paper, TRL); None: no weight
    )
    normalize: str = (
        "all_rows"  #: mean over "all_rows" (paper's runs, TRL), "active_rows", or "active_tokens"
    )
    scale_rewards: bool = (
        False  #: divide GRPO's advantage by the group's standard deviation (the paper does not)
    )
    epsilon: float = 0.2  #: GRPO's ratio counts no further down than 1 - this (PPO)
    epsilon_high: float = 0.28  #: and no further up than 1 + this (paper Table 13; TRL: as epsilon)

    # the teacher
    teacher_model_kind: str = "ema"  #: "ema", "frozen" (initial model), "trust_region" (A.2), "live" (the student; diverges, paper Table 4)
    teacher_update_rate: float = 0.01  #: ema: teacher <- (1-r) teacher + r student (Table 12); trust_region: share r of the student's logits
    teacher_sync: str = "rollout_batch"  #: ema moves once a "rollout_batch" (official code) or at every "optimizer_step" (TRL)

    # optimisation
    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    warmup_steps: int = 0  #: optimiser steps of linear rise, then constant
    steps_per_generation: int = 1  #: optimiser steps a batch, each on an equal share of its attempts in order (paper §4: 32)
    num_iterations: int = 1  #: passes over the batch (GRPO's mu, TRL)
    per_device_train_batch_size: int = 64  #: attempts in one forward and backward (gradients add up); changes memory and speed, not the result
    bf16: bool = False  #: autocast to bfloat16; weights, log-probabilities and loss stay float32

    def __new__(cls, **fields: Any) -> SDPOConfig:
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
        self = super().__new__(cls)
        object.__setattr__(
            self, "explicit", frozenset(fields)
        )  # fields the user set: only these can be refused as inert
        return self

    def __post_init__(self) -> None:
        for name, (kind, low, high) in RANGES.items():
            if name not in OPTIONAL or getattr(self, name) is not None:
                object.__setattr__(
                    self, name, check_range(name, getattr(self, name), kind, low, high)
                )  # numpy's numbers are no JSON
        for name, allowed in CHOICES.items():
            object.__setattr__(self, name, check_choice(name, getattr(self, name), allowed))
        for name, slots in TEMPLATES.items():
            check_template(name, getattr(self, name), slots)
        if self.generation_batch_size % self.num_generations:
            raise ValueError(
                f"generation_batch_size must be a multiple of num_generations; got {self.generation_batch_size} and "
                f"{self.num_generations}"
            )
        if self.generation_batch_size % self.steps_per_generation:
            raise ValueError(
                f"generation_batch_size must be a multiple of steps_per_generation; got {self.generation_batch_size} and "
                f"{self.steps_per_generation}"
            )
        if self.num_generations == 1 and (
            self.distillation_weight == 0 or self.advantage_lambda > 0
        ):
            raise ValueError(
                "num_generations must be at least 2 for GRPO's advantage (distillation_weight=0 or advantage_lambda>0), which compares the "
                "attempts of a group; got 1"
            )
        if self.advantage_lambda > 0 and self.distillation_weight < 1:
            raise ValueError(
                f"advantage_lambda={self.advantage_lambda} mixes advantages, distillation_weight={self.distillation_weight} mixes losses; "
                "use one of them, the other at its default (0 and 1)"
            )
        for name in ("advantage_lambda", "advantage_clip"):
            if (
                getattr(self, name)
                and self.distillation_alpha != 1
                and self.distillation_weight > 0
            ):
                raise ValueError(
                    f"{name}={getattr(self, name)} needs distillation_alpha=1, got {self.distillation_alpha}: only the reverse KL has the "
                    "log-ratio as its advantage (Prop. 2.1)"
                )
        for complaint in self.without_effect():
            raise ValueError(complaint + ". Leave it out, or change the other field")

    def without_effect(self) -> list[str]:
        """A sentence for each field that was set by hand, to something else than its default, and does nothing here."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return [
            f"{name}={getattr(self, name)!r} would do nothing: {reason}"
            for name, inert, reason in INERT
            if name in self.explicit and getattr(self, name) != defaults[name] and inert(self)
        ]

    @classmethod
    def preset(cls, name: str, **fields: Any) -> SDPOConfig:
        """A named starting point, with `fields` on top: "laptop", "paper", "paper-rich-feedback", "paper-test-time", "trl"."""
        check_choice("preset", name, PRESETS)
        self = cls.__new__(cls, **fields)
        self.__init__(**{**PRESETS[name], **fields})
        return self

    def replace(self, *, live: bool = False, quiet: bool = False, **fields: Any) -> SDPOConfig:
        """A copy with some fields changed, checked like a new one; `live` only warns of a field that does nothing."""
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(self)])
        everything = self.explicit | set(fields)
        new = type(self).__new__(type(self), **dict.fromkeys(() if live else everything))
        new.__init__(**{**self.to_dict(), **fields})
        object.__setattr__(new, "explicit", everything)
        for complaint in () if quiet else new.without_effect():
            warnings.warn(complaint, stacklevel=3)
        return new

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able; `SDPOConfig.from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SDPOConfig:
        """The configuration that `to_dict` wrote down. No field counts as set by hand."""
        check_kind("fields", fields, dict, "a dictionary as to_dict() gives it")
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
        self = cls.__new__(cls)
        self.__init__(**fields)
        return self


RANGES = {  # field: (kind, lowest, highest)
    "seed": (int, 0, 2**31 - 1),
    "generation_batch_size": (int, 1, 65536),
    "num_generations": (int, 1, 4096),
    "max_completion_length": (int, 1, 131072),
    "temperature": (float, 0.01, 100.0),
    "top_p": (float, 0.01, 1.0),
    "success_reward_threshold": (float, -1e9, 1e9),
    "max_reprompt_len": (int, 16, 1_000_000),
    "distillation_weight": (float, 0.0, 1.0),
    "distillation_alpha": (float, 0.0, 1.0),
    "distillation_topk": (int, 1, 1_000_000),
    "teacher_update_rate": (float, 0.0, 1.0),
    "learning_rate": (float, 0.0, 10.0),
    "weight_decay": (float, 0.0, 10.0),
    "max_grad_norm": (float, 1e-6, 1e9),
    "warmup_steps": (int, 0, 10**9),
    "per_device_train_batch_size": (int, 1, 65536),
    "steps_per_generation": (int, 1, 65536),
    "num_iterations": (int, 1, 1000),
    "advantage_lambda": (float, 0.0, 1.0),
    "advantage_clip": (float, 1e-6, 1e9),
    "distillation_is_clip": (float, 1e-6, 1e9),
    "epsilon": (float, 0.0, 1.0),
    "epsilon_high": (float, 0.0, 1e9),
}
OPTIONAL = ("advantage_clip", "distillation_is_clip")  # may be None
CHOICES = {
    "distillation_mode": MODES,
    "teacher_model_kind": TEACHERS,
    "normalize": NORMALIZATIONS,
    "demonstration": ("random", "first"),
    "self_success": ("sibling", "own", "skip"),
    "teacher_sync": ("rollout_batch", "optimizer_step"),
} | dict.fromkeys(
    (
        "dont_reprompt_on_self_success",
        "use_successful_as_teacher",
        "include_own_attempt",
        "include_environment_feedback",
        "environment_feedback_only_without_solution",
        "remove_thinking_from_demonstration",
        "distillation_add_tail",
        "scale_rewards",
        "bf16",
    ),
    (False, True),
)
TEMPLATES = {
    "reprompt_template": ("prompt", "solution", "feedback"),
    "solution_template": ("successful_previous_attempt",),
    "attempt_template": ("previous_attempt",),
    "feedback_template": ("feedback_raw",),
}


def on_policy(c: SDPOConfig) -> bool:
    """One optimiser step a batch: the ratio p / p_old is 1."""
    return c.steps_per_generation * c.num_iterations == 1


def no_policy_term(c: SDPOConfig) -> bool:
    return c.distillation_weight == 1 and c.advantage_lambda == 0


_ON_POLICY = "steps_per_generation=1 and num_iterations=1 take one optimiser step a batch"
_NO_DEMONSTRATION = "use_successful_as_teacher=False shows no solution"
# (field, when it has no effect, why): setting one of these explicitly in vain is an error, never silence
INERT = (
    *(
        (
            name,
            lambda c: c.distillation_weight == 0,
            "distillation_weight=0 is GRPO, which has no teacher",
        )
        for name in (
            "distillation_mode",
            "distillation_alpha",
            "distillation_topk",
            "distillation_add_tail",
            "advantage_clip",
            "distillation_is_clip",
            "teacher_model_kind",
            "teacher_update_rate",
            "teacher_sync",
            "use_successful_as_teacher",
            "demonstration",
            "self_success",
            "include_own_attempt",
            "include_environment_feedback",
            "environment_feedback_only_without_solution",
            "dont_reprompt_on_self_success",
            "remove_thinking_from_demonstration",
            "reprompt_template",
            "solution_template",
            "attempt_template",
            "feedback_template",
            "max_reprompt_len",
        )
    ),
    *(
        (
            name,
            no_policy_term,
            "distillation_weight=1 with advantage_lambda=0 is SDPO alone, which has no reward advantage",
        )
        for name in ("scale_rewards", "epsilon", "epsilon_high")
    ),
    *(
        (name, on_policy, _ON_POLICY)
        for name in ("distillation_is_clip", "epsilon", "epsilon_high", "teacher_sync")
    ),
    *(
        (
            name,
            lambda c: c.distillation_mode != "topk_logits",
            "distillation_mode is not 'topk_logits'",
        )
        for name in ("distillation_topk", "distillation_add_tail")
    ),
    (
        "distillation_alpha",
        lambda c: (
            c.distillation_mode in ("sampled_token", "sequence") and c.distillation_alpha != 1
        ),
        "distillation_mode='sampled_token' and 'sequence' follow the reverse KL, which is distillation_alpha=1",
    ),
    (
        "distillation_is_clip",
        lambda c: c.advantage_lambda > 0 and c.distillation_mode in ("sampled_token", "sequence"),
        "with advantage_lambda the sampled token's ratio is clipped by epsilon and epsilon_high",
    ),
    (
        "teacher_update_rate",
        lambda c: c.teacher_model_kind not in ("ema", "trust_region"),
        "teacher_model_kind is neither 'ema' nor 'trust_region'",
    ),
    (
        "teacher_sync",
        lambda c: c.teacher_model_kind != "ema",
        "only teacher_model_kind='ema' moves",
    ),
    *(
        (name, lambda c: not c.use_successful_as_teacher, _NO_DEMONSTRATION)
        for name in (
            "demonstration",
            "self_success",
            "dont_reprompt_on_self_success",
            "solution_template",
            "remove_thinking_from_demonstration",
            "environment_feedback_only_without_solution",
        )
    ),
    (
        "dont_reprompt_on_self_success",
        lambda c: c.self_success != "sibling",
        "self_success is not 'sibling'",
    ),
    *(
        (name, lambda c: not c.include_environment_feedback, "include_environment_feedback=False")
        for name in ("environment_feedback_only_without_solution", "feedback_template")
    ),
    ("attempt_template", lambda c: not c.include_own_attempt, "include_own_attempt=False"),
)

_TRL_TEMPLATES = {
    "reprompt_template": "{prompt}{solution}{feedback}\n\nCorrectly solve the original question.\n",
    "solution_template": "\nCorrect solution:\n\n{successful_previous_attempt}\n\n",
    "feedback_template": "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}\n\n",
}
PRESETS: dict[str, dict[str, Any]] = {
    # small shipped models on 2 CPU cores, tuned on development conventions (small_models/README.md)
    "laptop": dict(
        generation_batch_size=64,
        max_completion_length=64,
        distillation_alpha=0.5,
        distillation_topk=100,
        normalize="active_tokens",
        learning_rate=5e-4,
        max_reprompt_len=1024,
    ),
    # Table 12, §3: without rich feedback
    "paper": dict(
        max_completion_length=8192,
        distillation_alpha=0.5,
        distillation_topk=100,
        teacher_update_rate=0.05,
        learning_rate=1e-5,
        warmup_steps=10,
        include_environment_feedback=False,
    ),
    # Table 12, §4
    "paper-rich-feedback": dict(max_completion_length=8192, steps_per_generation=32),
    # Table 12, §5
    "paper-test-time": dict(
        generation_batch_size=16, num_generations=16, max_completion_length=8192, advantage_clip=5.0
    ),
    # the defaults of TRL 1.16, but constant where its learning rate falls linearly; its policy term alone is averaged otherwise
    # (loss_type "dapo": over the tokens of a micro-batch)
    "trl": dict(
        _TRL_TEMPLATES,
        generation_batch_size=64,
        distillation_mode="sampled_token",
        distillation_add_tail=False,
        distillation_topk=100,
        teacher_update_rate=0.05,
        teacher_sync="optimizer_step",
        demonstration="first",
        include_environment_feedback=False,
        environment_feedback_only_without_solution=False,
        remove_thinking_from_demonstration=False,
        epsilon_high=0.2,
        learning_rate=5e-5,
        weight_decay=0.0,
        scale_rewards=True,
    ),
}
