"""The knobs of a dashboard: what may be turned while a run is under way, and why one would do
nothing. Ranges, choices and reasons are `core.config`'s; here are the words of the page."""

from __future__ import annotations

from typing import Any

from sdpo_lab.core.checks import check_choice
from sdpo_lab.core.config import CHOICES, TEMPLATES, SDPOConfig
from sdpo_lab.models.prompt_forms import CONFIGS

TEMPLATE = "template"  # one knob for the strings that belong together
TEMPLATE_FIELDS = ("reprompt_template", "solution_template", "feedback_template")
OWN = "your own"


def knobs(trainer: Any) -> list[dict[str, Any]]:
    """The knobs of a trainer in their order, the first for first sight.

    {"field", "label", "kind", "says"}, where the kind is "slider" with "low", "high", "log" and
    "zero" (may be 0), "choice" with "choices", or "switch".
    """
    c = trainer.config
    templates = [*presets(), *([OWN] if template_of(c) == OWN else [])]
    offered = [
        slider(c, "learning_rate", "Learning rate", 1e-6, 1e-1),
        slider(
            c,
            "teacher_update_rate",
            "Teacher rate",
            1e-4,
            1.0,
            zero=True,
            says="how fast the teacher follows the student",
        ),
        choice(
            "teacher_model_kind",
            "Teacher",
            CHOICES["teacher_model_kind"],
            says="another one begins as the student is then",
        ),
        slider(
            c,
            "distillation_alpha",
            "Divergence",
            0.0,
            1.0,
            log=False,
            says="0 forward KL, 1 reverse KL, between: Jensen-Shannon",
        ),
        slider(
            c,
            "temperature",
            "Temperature",
            0.1,
            3.0,
            says="of sampling, and of both roles in the loss",
        ),
        choice(TEMPLATE, "Template", templates, says="the words around what the teacher is shown"),
        {
            "field": "include_environment_feedback",
            "label": "Show feedback",
            "kind": "switch",
            "says": "off: only a sibling's success is shown",
        },
        slider(
            c,
            "distillation_weight",
            "SDPO or GRPO",
            0.0,
            1.0,
            log=False,
            says="1 SDPO, 0 GRPO, between: both losses",
        ),
    ]
    live = set(trainer.LIVE_FIELDS)
    return [k for k in offered if live.issuperset(fields_of(k["field"]))]


def slider(
    config: SDPOConfig,
    field: str,
    label: str,
    low: float,
    high: float,
    *,
    log: bool = True,
    zero: bool = False,
    says: str = "",
) -> dict[str, Any]:
    """A slider from `low` to `high`, widened where the field's value lies outside."""
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


def choice(field: str, label: str, choices: Any, *, says: str) -> dict[str, Any]:
    return {
        "field": field,
        "label": label,
        "kind": "choice",
        "choices": list(choices),
        "says": says,
    }


def presets() -> dict[str, dict[str, str]]:
    """The templates by name: {"paper": {"reprompt_template": ..., ...}, "trl": ...}."""
    return {
        name: {field: getattr(c, field) for field in TEMPLATE_FIELDS} for name, c in CONFIGS.items()
    }


def fields_of(knob: str) -> tuple[str, ...]:
    """The fields of SDPOConfig that a knob sets."""
    return TEMPLATE_FIELDS if knob == TEMPLATE else (knob,)


def change(knob: object, value: Any) -> dict[str, Any]:
    """What to pass to `LiveRun.set` when a knob is turned to `value`. ValueError for a template
    that is not there."""
    if knob != TEMPLATE:
        return {str(knob): value}
    check_choice(TEMPLATE, value, presets())
    return presets()[value]


def template_of(config: Any) -> str:
    """The name of the templates in use; `OWN` when they are none of `presets`."""
    used = {field: getattr(config, field) for field in TEMPLATE_FIELDS}
    return next((name for name, texts in presets().items() if texts == used), OWN)


def as_next(run: Any) -> SDPOConfig:
    """The configuration of the next step: the trainer's, with the changes that wait."""
    return run.trainer.config.replace(live=True, quiet=True, **run.pending)


def value_of(knob: str, config: Any) -> Any:
    return template_of(config) if knob == TEMPLATE else getattr(config, knob)


def why_idle(knob: str, config: SDPOConfig) -> str:
    """In words, why turning a knob changes nothing in this configuration; "" when it does."""
    reasons = config.why_inert(fields_of(knob)[0])
    return (reasons[0].short or reasons[0].why).format(c=config) if reasons else ""


def by_name(fields: dict[str, Any]) -> dict[str, Any]:
    """A change as it is shown: the strings of a template by its name."""
    short = {f: v for f, v in fields.items() if f not in TEMPLATES}
    if len(short) < len(fields):
        names = (
            name
            for name, texts in presets().items()
            if all(fields.get(f) == text for f, text in texts.items())
        )
        short[TEMPLATE] = next(names, OWN)
    return short


told = by_name  # its name until now, for one version
