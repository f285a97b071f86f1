"""One dataclass holds every setting of a run; what is known of a field stands beside it.

From `knob(...)` come the checks, their sentences, the tables below the class, `SDPOConfig?` and
docs/config.md. The type says the kind, the choices (`Literal`) and whether None is allowed.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_args, get_type_hints

from sdpo_lab.core.checks import (
    check_choice,
    check_kind,
    check_range,
    check_template,
    unknown_names,
)

Mode = Literal["topk_logits", "full_logits", "sampled_token", "sequence"]
TeacherKind = Literal["ema", "frozen", "live", "trust_region"]
Normalization = Literal["all_rows", "active_rows", "active_tokens"]
MODES = get_args(Mode)
TEACHERS = get_args(TeacherKind)
NORMALIZATIONS = get_args(Normalization)

T = TypeVar("T")


@dataclass(frozen=True)
class Inert:
    """When a field does nothing, and why."""

    when: Callable[["SDPOConfig"], bool]
    why: str  #: in an error
    short: str = ""  #: beside a knob on a page, where "{c.field}" is a value; "": as `why`


def knob(
    default: T,
    help: str,
    *,
    bounds: tuple[float, float] | None = None,
    slots: tuple[str, ...] = (),
    inert: tuple[Inert, ...] = (),
    live: bool = False,
    ours: bool = False,
    group: str = "",
) -> T:
    """A field of `SDPOConfig` with all that is known of it; to a type checker, its default.

    bounds  the range of a number, both ends allowed
    slots   a template's {slots}: each must be there, and no other brace
    inert   when it does nothing: setting it by hand is an error then, never silence
    live    may be changed while a run is under way
    ours    TRL has no field of this name
    group   a heading: this field and those after it
    """
    known = dict(
        help=help, bounds=bounds, slots=slots, inert=inert, live=live, ours=ours, group=group
    )
    return dataclasses.field(default=default, metadata=known)


def on_policy(c: "SDPOConfig") -> bool:
    """One optimiser step a batch: the ratio p / p_old is 1."""
    return c.steps_per_generation * c.num_iterations == 1


def no_policy_term(c: "SDPOConfig") -> bool:
    """No part of the loss is GRPO's."""
    return c.distillation_weight == 1 and c.advantage_lambda == 0


def sampled_tokens_only(c: "SDPOConfig") -> bool:
    """The loss sees the log-probabilities of the sampled tokens, not the vocabulary's."""
    return c.distillation_mode in ("sampled_token", "sequence")


IS_GRPO = Inert(
    lambda c: c.distillation_weight == 0,
    "distillation_weight=0 is GRPO, which has no teacher",
    "GRPO has no teacher",
)
IS_SDPO_ALONE = Inert(
    no_policy_term,
    "distillation_weight=1 with advantage_lambda=0 is SDPO alone, which has no reward advantage",
)
IS_ON_POLICY = Inert(
    on_policy, "steps_per_generation=1 and num_iterations=1 take one optimiser step a batch"
)
NO_TOP_K = Inert(
    lambda c: c.distillation_mode != "topk_logits", "distillation_mode is not 'topk_logits'"
)
IS_REVERSE_KL = Inert(
    sampled_tokens_only,
    "distillation_mode='sampled_token' and 'sequence' follow the reverse KL, which is "
    "distillation_alpha=1",
    "{c.distillation_mode!r} follows the reverse KL",
)
EPSILON_CLIPS = Inert(
    lambda c: c.advantage_lambda > 0 and sampled_tokens_only(c),
    "with advantage_lambda the sampled token's ratio is clipped by epsilon and epsilon_high",
)
NO_RATE = Inert(
    lambda c: c.teacher_model_kind not in ("ema", "trust_region"),
    "teacher_model_kind is neither 'ema' nor 'trust_region'",
    "a {c.teacher_model_kind} teacher has no rate",
)
NO_AVERAGE = Inert(lambda c: c.teacher_model_kind != "ema", "only teacher_model_kind='ema' moves")
NO_SOLUTION = Inert(
    lambda c: not c.use_successful_as_teacher, "use_successful_as_teacher=False shows no solution"
)
NO_SIBLING = Inert(lambda c: c.self_success != "sibling", "self_success is not 'sibling'")
NO_FEEDBACK = Inert(
    lambda c: not c.include_environment_feedback, "include_environment_feedback=False"
)
NO_OWN_ATTEMPT = Inert(lambda c: not c.include_own_attempt, "include_own_attempt=False")


@dataclass(frozen=True, kw_only=True)
class SDPOConfig:
    """Settings of `SDPOTrainer`. Names are TRL's where TRL has the knob; defaults are the paper's
    §4 (Table 12), except max_completion_length (paper 8192) and steps_per_generation (paper 32).
    `SDPOConfig.preset(name, **fields)` starts from a preset.

    Raises ValueError or TypeError on construction for an unknown field, for a value out of range,
    and for a field that was set by hand, to something else than its default, but would do nothing
    in the chosen combination.
    """

    #: Of an instance: the fields the user set. Only these can be refused because they do nothing.
    explicit: ClassVar[frozenset[str]] = frozenset()

    seed: int = knob(
        0,
        "decides problems, sampling noise and demonstrations; same seed, same machine, same run",
        bounds=(0, 2**31 - 1),
        group="The run",
    )

    generation_batch_size: int = knob(
        256,
        "attempts a step; a multiple of num_generations (paper: 32 questions x 8)",
        bounds=(1, 65536),
        group="Rollouts",
    )
    num_generations: int = knob(
        8, "attempts a question, the group G; at least 2 for a group baseline", bounds=(1, 4096)
    )
    max_completion_length: int = knob(256, "new tokens an attempt may take", bounds=(1, 131072))
    temperature: float = knob(
        1.0,
        "of sampling; divides the logits of both roles in the loss",
        bounds=(0.01, 100.0),
        live=True,
    )
    top_p: float = knob(
        1.0, "nucleus of sampling; the loss ignores it, as everywhere", bounds=(0.01, 1.0)
    )

    success_reward_threshold: float = knob(
        1.0,
        "an attempt with at least this reward is a success",
        bounds=(-1e9, 1e9),
        group="What the teacher is shown (paper Table 2, §2.2)",
    )
    use_successful_as_teacher: bool = knob(
        True, "show a successful attempt of the group as the solution", inert=(IS_GRPO,)
    )
    demonstration: Literal["random", "first"] = knob(
        "random",
        'which of several successes: drawn at "random", or the "first" (official code, TRL)',
        inert=(IS_GRPO, NO_SOLUTION),
        ours=True,
    )
    self_success: Literal["sibling", "own", "skip"] = knob(
        "sibling",
        'a success is shown another\'s ("sibling", official code), its "own" (paper\'s text), '
        'or "skip" leaves it out',
        inert=(IS_GRPO, NO_SOLUTION),
        ours=True,
    )
    dont_reprompt_on_self_success: bool = knob(
        True,
        "True: a success is never shown its own text, only a sibling's (as TRL's code does, "
        "whatever the name says). False: its own is a candidate too. Only with "
        "self_success='sibling'",
        inert=(IS_GRPO, NO_SOLUTION, NO_SIBLING),
    )
    include_own_attempt: bool = knob(
        False,
        "show it its own attempt besides (an ablation that hurts, paper Table 6)",
        inert=(IS_GRPO,),
        ours=True,
    )
    include_environment_feedback: bool = knob(
        True, "show a failed attempt the environment's text", inert=(IS_GRPO,), live=True
    )
    environment_feedback_only_without_solution: bool = knob(
        True,
        "feedback only where no solution is shown",
        inert=(IS_GRPO, NO_SOLUTION, NO_FEEDBACK),
    )
    remove_thinking_from_demonstration: bool = knob(
        True, "drop <think>...</think> from the demonstration", inert=(IS_GRPO, NO_SOLUTION)
    )
    reprompt_template: str = knob(
        "{prompt}{solution}{feedback}\n\nCorrectly solve the original question.",
        "the teacher's user turn; a text that is not shown leaves its slot empty",
        slots=("prompt", "solution", "feedback"),
        inert=(IS_GRPO,),
        live=True,
    )
    solution_template: str = knob(
        "\nCorrect solution:\n\n{successful_previous_attempt}",
        "the words around the solution",
        slots=("successful_previous_attempt",),
        inert=(IS_GRPO, NO_SOLUTION),
        live=True,
    )
    attempt_template: str = knob(
        "\nYour earlier attempt:\n\n{previous_attempt}",
        "the words around its own attempt, before the feedback; ours, the paper prints none",
        slots=("previous_attempt",),
        inert=(IS_GRPO, NO_OWN_ATTEMPT),
        ours=True,
    )
    feedback_template: str = knob(
        "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}",
        "the words around the feedback",
        slots=("feedback_raw",),
        inert=(IS_GRPO, NO_FEEDBACK),
        live=True,
    )
    max_reprompt_len: int = knob(
        10240,
        "tokens of the teacher's prompt; the texts shown are shortened to fit, the frame never",
        bounds=(16, 1_000_000),
        inert=(IS_GRPO,),
    )

    distillation_weight: float = knob(
        1.0,
        "w of (1-w) GRPO + w SDPO (TRL); 0 is GRPO, and no teacher is run",
        bounds=(0.0, 1.0),
        live=True,
        group="The loss",
    )
    advantage_lambda: float = knob(
        0.0,
        "λ of one advantage λ GRPO + (1-λ) SDPO (paper §4.8: 0.9); needs distillation_alpha=1",
        bounds=(0.0, 1.0),
        ours=True,
    )
    distillation_mode: Mode = knob(
        "topk_logits",
        '"topk_logits" (student\'s top k), "full_logits", "sampled_token", "sequence" (paper §4.2)',
        inert=(IS_GRPO,),
    )
    distillation_alpha: float = knob(
        1.0,
        "0 forward KL(teacher||student), 1 reverse KL(student||teacher), between: JSD "
        "(paper §3: 0.5)",
        bounds=(0.0, 1.0),
        inert=(IS_GRPO, IS_REVERSE_KL),
        live=True,
    )
    distillation_topk: int = knob(
        20,
        'k of "topk_logits"; more than the vocabulary means all of it',
        bounds=(1, 1_000_000),
        inert=(IS_GRPO, NO_TOP_K),
    )
    distillation_add_tail: bool = knob(
        True,
        "a last bucket for the rest of the mass (paper A.3); False renormalises over k",
        inert=(IS_GRPO, NO_TOP_K),
    )
    advantage_clip: float | None = knob(
        None,
        "clamps log q - log p to ±this (paper §5: 5); needs distillation_alpha=1",
        bounds=(1e-6, 1e9),
        inert=(IS_GRPO,),
        ours=True,
    )
    distillation_is_clip: float | None = knob(
        2.0,
        "cap of the ratio p / p_old that weighs a token's loss (paper, TRL); None: no weight",
        bounds=(1e-6, 1e9),
        inert=(IS_GRPO, IS_ON_POLICY, EPSILON_CLIPS),
    )
    normalize: Normalization = knob(
        "all_rows",
        'mean over "all_rows" (paper\'s runs, TRL), "active_rows", or "active_tokens"',
        live=True,
        ours=True,
    )
    scale_rewards: bool = knob(
        False,
        "divide GRPO's advantage by the group's standard deviation (the paper does not)",
        inert=(IS_SDPO_ALONE,),
    )
    epsilon: float = knob(
        0.2,
        "GRPO's ratio counts no further down than 1 - this (PPO)",
        bounds=(0.0, 1.0),
        inert=(IS_SDPO_ALONE, IS_ON_POLICY),
    )
    epsilon_high: float = knob(
        0.28,
        "GRPO's ratio counts no further up than 1 + this (paper Table 13; TRL: as epsilon)",
        bounds=(0.0, 1e9),
        inert=(IS_SDPO_ALONE, IS_ON_POLICY),
    )

    teacher_model_kind: TeacherKind = knob(
        "ema",
        '"ema", "frozen" (initial model), "trust_region" (A.2), "live" (the student; diverges, '
        "paper Table 4)",
        inert=(IS_GRPO,),
        live=True,
        group="The teacher",
    )
    teacher_update_rate: float = knob(
        0.01,
        "ema: teacher <- (1-r) teacher + r student (Table 12); trust_region: share r of the "
        "student's logits",
        bounds=(0.0, 1.0),
        inert=(IS_GRPO, NO_RATE),
        live=True,
    )
    teacher_sync: Literal["rollout_batch", "optimizer_step"] = knob(
        "rollout_batch",
        'ema moves once a "rollout_batch" (official code) or at every "optimizer_step" (TRL)',
        inert=(IS_GRPO, IS_ON_POLICY, NO_AVERAGE),
        ours=True,
    )

    learning_rate: float = knob(
        1e-6, "of AdamW", bounds=(0.0, 10.0), live=True, group="Optimisation"
    )
    weight_decay: float = knob(0.01, "of AdamW, decoupled", bounds=(0.0, 10.0))
    max_grad_norm: float = knob(
        1.0, "a longer gradient is scaled down to this norm", bounds=(1e-6, 1e9), live=True
    )
    warmup_steps: int = knob(0, "optimiser steps of linear rise, then constant", bounds=(0, 10**9))
    steps_per_generation: int = knob(
        1,
        "optimiser steps a batch, each on an equal share of its attempts in order (paper §4: 32)",
        bounds=(1, 65536),
    )
    num_iterations: int = knob(1, "passes over the batch (GRPO's mu, TRL)", bounds=(1, 1000))
    per_device_train_batch_size: int = knob(
        64,
        "attempts in one forward and backward (gradients add up); changes memory and speed, not "
        "the result",
        bounds=(1, 65536),
        live=True,
    )
    bf16: bool = knob(
        False, "autocast to bfloat16; weights, log-probabilities and loss stay float32"
    )

    if not TYPE_CHECKING:  # for a type checker, the constructor is the dataclass's own

        def __new__(cls, **fields: Any) -> Self:
            unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
            self = super().__new__(cls)
            object.__setattr__(self, "explicit", frozenset(fields))
            return self

    def __post_init__(self) -> None:
        for name in KNOWN:
            # a number of numpy's becomes one of Python's, which JSON can hold
            object.__setattr__(self, name, check_field(name, getattr(self, name)))
        check_combination(self)
        for complaint in self.without_effect():
            raise ValueError(complaint + ". Leave it out, or change the other field")

    def why_inert(self, name: str) -> list[Inert]:
        """The reasons for which a field does nothing in this combination; [] when it does."""
        reasons = KNOWN[name]["inert"] if name in KNOWN else ()
        return [reason for reason in reasons if reason.when(self)]

    def without_effect(self) -> list[str]:
        """A sentence for each field that was set by hand, to something else than its default, and
        does nothing here."""
        return [
            f"{f.name}={getattr(self, f.name)!r} would do nothing: {reason.why}"
            for f in dataclasses.fields(self)
            if f.name in self.explicit and getattr(self, f.name) != f.default
            for reason in self.why_inert(f.name)
        ]

    @classmethod
    def _make(cls, values: Mapping[str, Any], explicit: Iterable[str]) -> Self:
        """A configuration of which only the `explicit` fields count as set by hand."""
        self = cls.__new__(cls, **dict.fromkeys(explicit))
        self.__init__(**values)  # type: ignore[misc]
        return self

    @classmethod
    def preset(cls, name: str, **fields: Any) -> Self:
        """A named starting point, with `fields` on top: "laptop", "paper", "paper-rich-feedback",
        "paper-test-time", "trl"."""
        check_choice("preset", name, PRESETS)
        return cls._make({**PRESETS[name], **fields}, explicit=fields)

    def replace(self, *, live: bool = False, quiet: bool = False, **fields: Any) -> Self:
        """A copy with some fields changed, checked like a new one; `live` only warns of a field
        that does nothing, `quiet` not even that."""
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(self)])
        everything = self.explicit | set(fields)
        new = self._make({**self.to_dict(), **fields}, explicit=() if live else everything)
        object.__setattr__(new, "explicit", everything)
        for complaint in () if quiet else new.without_effect():
            warnings.warn(complaint, stacklevel=3)
        return new

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able; `SDPOConfig.from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The configuration that `to_dict` wrote down. No field counts as set by hand."""
        check_kind("fields", fields, dict, "a dictionary as to_dict() gives it")
        unknown_names("SDPOConfig", fields, [f.name for f in dataclasses.fields(cls)])
        return cls._make(fields, explicit=())


# what the fields say of themselves, as tables
KNOWN: dict[str, Mapping[str, Any]] = {f.name: f.metadata for f in dataclasses.fields(SDPOConfig)}
TYPES: dict[str, Any] = {name: get_type_hints(SDPOConfig)[name] for name in KNOWN}
#: Fields that may be None.
OPTIONAL = tuple(name for name, kind in TYPES.items() if type(None) in get_args(kind))
#: Of numbers: {field: (kind, lowest, highest)}.
RANGES: dict[str, tuple[type, float, float]] = {
    name: (int if TYPES[name] is int else float, *known["bounds"])
    for name, known in KNOWN.items()
    if known["bounds"]
}
CHOICES: dict[str, tuple[Any, ...]] = {
    name: (False, True) if kind is bool else get_args(kind)
    for name, kind in TYPES.items()
    if kind is bool or (get_args(kind) and name not in OPTIONAL)
}
#: {field: its slots}.
TEMPLATES: dict[str, tuple[str, ...]] = {
    name: known["slots"] for name, known in KNOWN.items() if known["slots"]
}
#: (field, when it has no effect, why).
INERT: tuple[tuple[str, Callable[[SDPOConfig], bool], str], ...] = tuple(
    (name, reason.when, reason.why) for name, known in KNOWN.items() for reason in known["inert"]
)
#: Fields that may be changed while a run is under way.
LIVE_FIELDS = tuple(name for name, known in KNOWN.items() if known["live"])


def describe() -> None:
    """Give `SDPOConfig?` its signature, with every field, and each field's help."""
    signature = inspect.signature(SDPOConfig.__init__)
    arguments = list(signature.parameters.values())[1:]  # without self
    SDPOConfig.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=arguments, return_annotation=inspect.Signature.empty
    )
    lines = []
    for name, known in KNOWN.items():
        lines += [f"\n    {known['group']}:"] if known["group"] else []
        lines += [f"        {name}: {known['help']}"]
    SDPOConfig.__doc__ = f"{SDPOConfig.__doc__}" + "\n".join(lines) + "\n    "


describe()


def check_field(name: str, value: Any) -> Any:
    """The value of a field. Raises TypeError or ValueError unless the field may have it."""
    if name in CHOICES:
        return check_choice(name, value, CHOICES[name])
    if name in TEMPLATES:
        check_template(name, value, TEMPLATES[name])
        return value
    if name in OPTIONAL and value is None:
        return value
    return check_range(name, value, *RANGES[name])


def check_combination(c: SDPOConfig) -> None:
    """Raises ValueError for fields that contradict each other."""
    for name in ("num_generations", "steps_per_generation"):
        if c.generation_batch_size % getattr(c, name):
            raise ValueError(
                f"generation_batch_size must be a multiple of {name}; got "
                f"{c.generation_batch_size} and {getattr(c, name)}"
            )
    if c.num_generations == 1 and (c.distillation_weight == 0 or c.advantage_lambda > 0):
        raise ValueError(
            "num_generations must be at least 2 for GRPO's advantage (distillation_weight=0 or "
            "advantage_lambda>0), which compares the attempts of a group; got 1"
        )
    if c.advantage_lambda > 0 and c.distillation_weight < 1:
        raise ValueError(
            f"advantage_lambda={c.advantage_lambda} mixes advantages, "
            f"distillation_weight={c.distillation_weight} mixes losses; "
            "use one of them, the other at its default (0 and 1)"
        )
    if c.distillation_weight == 0 or c.distillation_alpha == 1:
        return
    for name in ("advantage_lambda", "advantage_clip"):
        if getattr(c, name):
            raise ValueError(
                f"{name}={getattr(c, name)} needs distillation_alpha=1, got "
                f"{c.distillation_alpha}: only the reverse KL has the log-ratio as its advantage "
                "(Prop. 2.1)"
            )


#: Where each preset comes from.
PRESET_SOURCES = {
    "laptop": "the shipped models on 2 CPU cores, tuned on development conventions "
    "(small_models/README.md)",
    "paper": "the paper's Table 12, §3: without rich feedback",
    "paper-rich-feedback": "the paper's Table 12, §4",
    "paper-test-time": "the paper's Table 12, §5",
    "trl": "the defaults of TRL 1.16; but the learning rate is constant where TRL's falls, and "
    'TRL averages its policy term over the tokens of a micro-batch (loss_type "dapo")',
}
PRESETS: dict[str, dict[str, Any]] = {
    "laptop": dict(
        generation_batch_size=64,
        max_completion_length=64,
        distillation_alpha=0.5,
        distillation_topk=100,
        normalize="active_tokens",
        learning_rate=5e-4,
        max_reprompt_len=1024,
    ),
    "paper": dict(
        max_completion_length=8192,
        distillation_alpha=0.5,
        distillation_topk=100,
        teacher_update_rate=0.05,
        learning_rate=1e-5,
        warmup_steps=10,
        include_environment_feedback=False,
    ),
    "paper-rich-feedback": dict(
        max_completion_length=8192,
        steps_per_generation=32,
    ),
    "paper-test-time": dict(
        generation_batch_size=16,
        num_generations=16,
        max_completion_length=8192,
        advantage_clip=5.0,
    ),
    "trl": dict(
        reprompt_template="{prompt}{solution}{feedback}\n\n"
        "Correctly solve the original question.\n",
        solution_template="\nCorrect solution:\n\n{successful_previous_attempt}\n\n",
        feedback_template="\nThe following is feedback from your unsuccessful earlier attempt:"
        "\n\n{feedback_raw}\n\n",
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
