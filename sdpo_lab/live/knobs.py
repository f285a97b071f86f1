"""What may be turned while a run is under way: the dashboard's knobs, and why one would do nothing."""

from __future__ import annotations

from typing import Any

from sdpo_lab.core.checks import check_choice
from sdpo_lab.core.config import INERT, TEACHERS, TEMPLATES, SDPOConfig

TEMPLATE = "template"  # one knob for the strings that belong together
# where the configuration does not have the reason in words a reader of the page knows
REASONS = {"distillation_weight=0 is GRPO, which has no teacher": "GRPO has no teacher"}


def knobs(trainer: Any) -> list[dict[str, Any]]:
    """The knobs of a trainer in their order, the first for first sight. Ranges are widened where its own value lies outside.

    {"field", "label", "kind": "slider" with "low", "high", "log", "zero" (may be 0) | "choice" with "choices" | "switch", "says"}
    """
    c = trainer.config
    found = [
        slider("learning_rate", "Learning rate", c, 1e-6, 1e-1),
        slider(
            "teacher_update_rate",
            "Teacher rate",
            c,
            1e-4,
            1.0,
            zero=True,
            says="how fast the teacher follows the student",
        ),
        {
            "field": "teacher_model_kind",
            "label": "Teacher",
            "kind": "choice",
            "choices": list(TEACHERS),
            "says": "another one begins as the student is then",
        },
        slider(
            "distillation_alpha",
            "Divergence",
            c,
            0.0,
            1.0,
            log=False,
            says="0 forward KL, 1 reverse KL, between: Jensen-Shannon",
        ),
        slider(
            "temperature",
            "Temperature",
            c,
            0.1,
            3.0,
            says="of sampling, and of both roles in the loss",
        ),
        {
            "field": TEMPLATE,
            "label": "Template",
            "kind": "choice",
            "choices": [*presets(), *([OWN] if template_of(c) == OWN else [])],
            "says": "the words around what the teacher is shown",
        },
        {
            "field": "include_environment_feedback",
            "label": "Show feedback",
            "kind": "switch",
            "says": "off: only a sibling's success is shown",
        },
        slider(
            "distillation_weight",
            "SDPO or GRPO",
            c,
            0.0,
            1.0,
            log=False,
            says="1 SDPO, 0 GRPO, between: both losses",
        ),
    ]
    return [k for k in found if all(f in trainer.LIVE_FIELDS for f in fields_of(k["field"]))]


def slider(
    field: str,
    label: str,
    config: Any,
    low: float,
    high: float,
    *,
    log: bool = True,
    zero: bool = False,
    says: str = "",
) -> dict[str, Any]:
    value = getattr(config, field)
    return {
        "field": field,
        "label": label,
        "kind": "slider",
        "low": min(low, value or low),
        "high": max(high, value),
        "log": log,
        "zero": zero,
        "says": says,
    }


OWN = "your own"


def presets() -> dict[str, dict[str, str]]:
    """The templates there are by name: {"paper": {"reprompt_template": ..., ...}, "trl": ...}."""
    from sdpo_lab.models.prompt_forms import CONFIGS

    return {
        name: {field: getattr(c, field) for field in fields_of(TEMPLATE)}
        for name, c in CONFIGS.items()
    }


def fields_of(knob: str) -> tuple[str, ...]:
    """The fields of SDPOConfig that a knob sets."""
    return (
        ("reprompt_template", "solution_template", "feedback_template")
        if knob == TEMPLATE
        else (knob,)
    )


def change(knob: object, value: Any) -> dict[str, Any]:
    """What to pass to `LiveRun.set` when a knob is turned to `value`. ValueError for a template that is not there."""
    if knob != TEMPLATE:
        return {str(knob): value}
    check_choice(TEMPLATE, value, presets())
    return presets()[value]


def template_of(config: Any) -> str:
    """The name of the templates in use; `OWN` when they are none of `presets`."""
    used = {field: getattr(config, field) for field in fields_of(TEMPLATE)}
    return next((name for name, texts in presets().items() if texts == used), OWN)


def as_next(run: Any) -> SDPOConfig:
    """The configuration of the next step: the trainer's, with the changes that wait."""
    return run.trainer.config.replace(live=True, quiet=True, **run.pending)


def value_of(knob: str, config: Any) -> Any:
    return template_of(config) if knob == TEMPLATE else getattr(config, knob)


def why_idle(knob: str, config: Any) -> str:
    """In words, why turning a knob changes nothing in this configuration; "" when it does."""
    if (
        knob == "teacher_update_rate"
        and config.distillation_weight > 0
        and config.teacher_model_kind in ("frozen", "live")
    ):
        return f"a {config.teacher_model_kind} teacher has no rate"
    if (
        knob == "distillation_alpha"
        and config.distillation_weight > 0
        and config.distillation_mode in ("sampled_token", "sequence")
    ):
        return f"{config.distillation_mode!r} follows the reverse KL"
    field = fields_of(knob)[0]
    reason = next((reason for name, inert, reason in INERT if name == field and inert(config)), "")
    return REASONS.get(reason, reason)


def told(fields: dict[str, Any]) -> dict[str, Any]:
    """A change as it is told: the strings of a template by its name."""
    short = {f: v for f, v in fields.items() if f not in TEMPLATES}
    if len(short) < len(fields):
        short[TEMPLATE] = next(
            (
                name
                for name, texts in presets().items()
                if all(fields.get(f) == text for f, text in texts.items())
            ),
            OWN,
        )
    return short
