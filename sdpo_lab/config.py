"""One documented dataclass holds every knob; presets are the paper's tables, TRL's defaults, and what suits a laptop."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

from sdpo_lab.errors import check_choice, check_range, unknown_names

MODES = ("topk_logits", "full_logits", "sampled_token")
TEACHERS = ("ema", "frozen", "live")
NORMALIZATIONS = ("all_rows", "active_rows", "active_tokens")


@dataclass(frozen=True, kw_only=True)
class SDPOConfig:
    """Settings of `SDPOTrainer`. Names are TRL's where TRL has the knob; defaults are the paper's §4 (Table 12).

    Raises ValueError or TypeError on construction for an unknown field, a value out of range, and a field that was set
    explicitly (to something else than its default) but would do nothing in the chosen combination. `SDPOConfig.preset(name, **fields)` starts from a preset.
    """

    seed: int = 0  #: decides problems, sampling noise and demonstrations; same seed, same machine, same run

    # rollouts
    generation_batch_size: int = 256  #: attempts a step; a multiple of num_generations (paper: 32 questions x 8)
    num_generations: int = 8  #: attempts a question, the group G; at least 2 for a group baseline
    max_completion_length: int = 256  #: new tokens an attempt may take
    temperature: float = 1.0  #: of sampling; divides the logits of both roles in the loss
    top_p: float = 1.0  #: nucleus of sampling; the loss ignores it, as everywhere

    # what the teacher is shown (paper Table 2)
    success_reward_threshold: float = 1.0  #: an attempt with at least this reward is a success
    dont_reprompt_on_self_success: bool = True  #: True: never its own demonstration (code); False: a success is shown itself (paper's text)
    include_environment_feedback: bool = True  #: show a failed attempt the environment's text
    environment_feedback_only_without_solution: bool = True  #: only where no sibling succeeded
    remove_thinking_from_demonstration: bool = True  #: drop <think>...</think> from the demonstration
    reprompt_template: str = "{prompt}{solution}{feedback}\n\nCorrectly solve the original question."
    solution_template: str = "\nCorrect solution:\n\n{successful_previous_attempt}"
    feedback_template: str = "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}"
    max_reprompt_len: int = 10240  #: tokens of the teacher's prompt; the texts shown are shortened to fit, the frame never

    # the loss
    distillation_weight: float = 1.0  #: w of (1-w) GRPO + w SDPO (TRL); 0 is GRPO, and no teacher is run
    distillation_mode: str = "topk_logits"  #: "topk_logits" (student's top k), "full_logits", "sampled_token"
    distillation_alpha: float = 1.0  #: 0 forward KL(teacher||student), 1 reverse KL(student||teacher), between: JSD (paper §3: 0.5)
    distillation_topk: int = 20  #: k of "topk_logits"; more than the vocabulary means all of it
    distillation_add_tail: bool = True  #: a last bucket for the rest of the mass (paper A.3); False renormalises over k
    normalize: str = "all_rows"  #: mean over "all_rows" (paper's runs, TRL), "active_rows", or "active_tokens"
    scale_rewards: bool = False  #: divide GRPO's advantage by the group's standard deviation (the paper does not)

    # the teacher
    teacher_model_kind: str = "ema"  #: "ema", "frozen" (the initial model), "live" (the student itself; diverges, paper Table 4)
    teacher_update_rate: float = 0.01  #: r of teacher <- (1-r) teacher + r student, once a step (paper Table 12)

    # optimisation
    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    warmup_steps: int = 0  #: linear, then constant
    per_device_train_batch_size: int = 64  #: attempts in one forward and backward; changes memory and speed, not the result
    bf16: bool = False  #: autocast to bfloat16; weights, log-probabilities and loss stay float32

    def __new__(cls, **fields: Any) -> SDPOConfig:
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
        self = super().__new__(cls)
        object.__setattr__(self, "explicit", frozenset(fields))  # fields the user set: only these can be refused as inert
        return self

    def __post_init__(self) -> None:
        for name, (kind, low, high) in RANGES.items():
            check_range(name, getattr(self, name), kind, low, high)
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name, slots in TEMPLATES.items():
            check_template(name, getattr(self, name), slots)
        if self.generation_batch_size % self.num_generations:
            raise ValueError(f"generation_batch_size must be a multiple of num_generations; got {self.generation_batch_size} and "
                             f"{self.num_generations}")
        if self.num_generations == 1 and self.distillation_weight == 0:
            raise ValueError("num_generations must be at least 2 for GRPO (distillation_weight=0), which compares the attempts of a group; got 1")
        for complaint in self.without_effect():
            raise ValueError(complaint + ". Leave it out, or change the other field")

    def without_effect(self) -> list[str]:
        """A sentence for each field that was set by hand, to something else than its default, and does nothing here."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return [f"{name}={getattr(self, name)!r} would do nothing: {reason}" for name, inert, reason in INERT
                if name in self.explicit and getattr(self, name) != defaults[name] and inert(self)]

    @classmethod
    def preset(cls, name: str, **fields: Any) -> SDPOConfig:
        """A named starting point, with `fields` on top: "laptop", "paper", "paper-rich-feedback", "paper-test-time", "trl"."""
        check_choice("preset", name, PRESETS)
        self = cls.__new__(cls, **fields)
        self.__init__(**{**PRESETS[name], **fields})
        return self

    def replace(self, *, live: bool = False, **fields: Any) -> SDPOConfig:
        """A copy with some fields changed, checked like a new one; `live` only warns of a field that does nothing."""
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(self)])
        everything = self.explicit | set(fields)
        new = type(self).__new__(type(self), **dict.fromkeys(() if live else everything))
        new.__init__(**{**self.to_dict(), **fields})
        object.__setattr__(new, "explicit", everything)
        for complaint in new.without_effect():
            warnings.warn(complaint, stacklevel=3)
        return new

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able; `SDPOConfig.from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SDPOConfig:
        """The configuration that `to_dict` wrote down. No field counts as set by hand."""
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
        self = cls.__new__(cls)
        self.__init__(**fields)
        return self


RANGES = {  # field: (kind, lowest, highest)
    "seed": (int, 0, 2**31 - 1), "generation_batch_size": (int, 1, 65536), "num_generations": (int, 1, 4096),
    "max_completion_length": (int, 1, 131072), "temperature": (float, 0.01, 100.0), "top_p": (float, 0.01, 1.0),
    "success_reward_threshold": (float, -1e9, 1e9), "max_reprompt_len": (int, 16, 1_000_000), "distillation_weight": (float, 0.0, 1.0),
    "distillation_alpha": (float, 0.0, 1.0), "distillation_topk": (int, 1, 1_000_000), "teacher_update_rate": (float, 0.0, 1.0),
    "learning_rate": (float, 0.0, 10.0), "weight_decay": (float, 0.0, 10.0), "max_grad_norm": (float, 1e-6, 1e9),
    "warmup_steps": (int, 0, 10**9), "per_device_train_batch_size": (int, 1, 65536),
}
CHOICES = {"distillation_mode": MODES, "teacher_model_kind": TEACHERS, "normalize": NORMALIZATIONS} | dict.fromkeys(
    ("dont_reprompt_on_self_success", "include_environment_feedback", "environment_feedback_only_without_solution",
     "remove_thinking_from_demonstration", "distillation_add_tail", "scale_rewards", "bf16"), (False, True))
TEMPLATES = {"reprompt_template": ("prompt", "solution", "feedback"), "solution_template": ("successful_previous_attempt",),
             "feedback_template": ("feedback_raw",)}

# (field, when it has no effect, why): setting one of these explicitly in vain is an error, never silence
INERT = (
    *((name, lambda c: c.distillation_weight == 0, "distillation_weight=0 is GRPO, which has no teacher") for name in
      ("distillation_mode", "distillation_alpha", "distillation_topk", "distillation_add_tail", "teacher_model_kind", "teacher_update_rate",
       "include_environment_feedback", "environment_feedback_only_without_solution", "dont_reprompt_on_self_success",
       "remove_thinking_from_demonstration", "reprompt_template", "solution_template", "feedback_template", "max_reprompt_len")),
    ("scale_rewards", lambda c: c.distillation_weight == 1, "distillation_weight=1 is SDPO alone, which has no reward advantage"),
    ("distillation_topk", lambda c: c.distillation_mode != "topk_logits", "distillation_mode is not 'topk_logits'"),
    ("distillation_add_tail", lambda c: c.distillation_mode != "topk_logits", "distillation_mode is not 'topk_logits'"),
    ("distillation_alpha", lambda c: c.distillation_mode == "sampled_token" and c.distillation_alpha != 1,
     "distillation_mode='sampled_token' estimates the reverse KL only, which is distillation_alpha=1"),
    ("teacher_update_rate", lambda c: c.teacher_model_kind != "ema", "only teacher_model_kind='ema' moves"),
    ("environment_feedback_only_without_solution", lambda c: not c.include_environment_feedback, "include_environment_feedback=False"),
    ("feedback_template", lambda c: not c.include_environment_feedback, "include_environment_feedback=False"),
)

_TRL_TEMPLATES = {
    "reprompt_template": "{prompt}{solution}{feedback}\n\nCorrectly solve the original question.\n",
    "solution_template": "\nCorrect solution:\n\n{successful_previous_attempt}\n\n",
    "feedback_template": "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}\n\n",
}
PRESETS: dict[str, dict[str, Any]] = {
    # small shipped models on 2 CPU cores, tuned on development conventions (small_models/README.md)
    "laptop": dict(generation_batch_size=64, max_completion_length=64, distillation_alpha=0.5, distillation_topk=100, normalize="active_tokens",
                   learning_rate=5e-4, max_reprompt_len=1024),
    # Table 12, §3: without rich feedback
    "paper": dict(max_completion_length=8192, distillation_alpha=0.5, distillation_topk=100, teacher_update_rate=0.05, learning_rate=1e-5,
                  warmup_steps=10, include_environment_feedback=False),
    # Table 12, §4; departs in taking one optimiser step a batch where the paper takes 32
    "paper-rich-feedback": dict(max_completion_length=8192),
    # Table 12, §5
    "paper-test-time": dict(generation_batch_size=16, num_generations=16, max_completion_length=8192),
    # TRL 1.16; departs in `demonstration`: ours is drawn at random, TRL's is the first success
    "trl": dict(_TRL_TEMPLATES, generation_batch_size=64, distillation_mode="sampled_token", distillation_add_tail=False, distillation_topk=100,
                teacher_update_rate=0.05, environment_feedback_only_without_solution=False, remove_thinking_from_demonstration=False,
                learning_rate=1e-6, weight_decay=0.0, scale_rewards=True),
}


def check_template(name: str, template: object, slots: tuple[str, ...]) -> None:
    """A template must be a string with each of its {slots} and no other brace."""
    if not isinstance(template, str):
        raise TypeError(f"{name} must be a string, got {type(template).__name__}")
    rest = template
    for slot in slots:
        if "{" + slot + "}" not in template:
            raise ValueError(f"{name} must contain {{{slot}}}; got {template!r}")
        rest = rest.replace("{" + slot + "}", "")
    if "{" in rest or "}" in rest:
        raise ValueError(f"{name} may contain no braces but {', '.join('{' + s + '}' for s in slots)}; got {template!r}")
