import dataclasses
import inspect
import runpy
import warnings
from typing import get_args

import pytest

from sdpo_lab.core.config import (
    CHOICES,
    INERT,
    KNOWN,
    OPTIONAL,
    PRESET_SOURCES,
    PRESETS,
    RANGES,
    TEMPLATES,
    SDPOConfig,
)
from tests.conftest import ROOT


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_take_overrides(name):
    config = SDPOConfig.preset(name, seed=7)
    assert config.seed == 7 and SDPOConfig.from_dict(config.to_dict()) == config
    assert config.replace(learning_rate=0.5).learning_rate == 0.5


def test_every_field_is_checked():
    checked = set(RANGES) | set(CHOICES) | set(TEMPLATES)
    assert {f.name for f in dataclasses.fields(SDPOConfig)} == checked


@pytest.mark.parametrize("name", RANGES)
def test_numbers_out_of_range_are_refused_with_name_value_and_range(name):
    kind, low, high = RANGES[name]
    for bad in (
        high * 2 + 1,
        low - 1,
        float("nan"),
        float("inf"),
        "3",
        True,
        *([] if name in OPTIONAL else [None]),
    ):
        with pytest.raises((ValueError, TypeError), match=rf"{name} must be .* got "):
            SDPOConfig(**{name: bad})


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_refused_with_what_there_is(name):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        SDPOConfig(**{name: "nonsense"})


def test_unknown_fields_and_presets_name_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        SDPOConfig(learnin_rate=1)
    with pytest.raises(ValueError, match="'laptop', 'paper', .*Did you mean 'laptop'"):
        SDPOConfig.preset("labtop")


@pytest.mark.parametrize(
    "template",
    [
        "no slot",
        "{prompt}{solution}",
        "{prompt}{solution}{feedback}{more}",
        "{prompt}{solution}{feedback}}",
        3,
    ],
)
def test_templates(template):
    with pytest.raises((ValueError, TypeError), match="reprompt_template"):
        SDPOConfig(reprompt_template=template)


def test_a_knob_that_does_nothing_is_refused_only_when_it_was_set():
    with pytest.raises(
        ValueError,
        match="distillation_topk=5 would do nothing: distillation_mode is not 'topk_logits'",
    ):
        SDPOConfig(distillation_mode="full_logits", distillation_topk=5)
    SDPOConfig(distillation_mode="full_logits")
    with pytest.raises(ValueError, match="teacher_update_rate=0.1 would do nothing"):
        SDPOConfig.preset("laptop", teacher_model_kind="frozen", teacher_update_rate=0.1)
    with pytest.raises(ValueError, match="scale_rewards"):
        SDPOConfig(scale_rewards=True)
    for name, _, _ in INERT:
        assert name in {f.name for f in dataclasses.fields(SDPOConfig)}


@pytest.mark.parametrize(
    "fields, words",
    [
        (
            dict(advantage_lambda=0.9, distillation_alpha=0.5),
            "advantage_lambda=0.9 needs distillation_alpha=1, got 0.5",
        ),
        (
            dict(advantage_clip=5.0, distillation_alpha=0.0),
            "advantage_clip=5.0 needs distillation_alpha=1, got 0.0",
        ),
        (
            dict(advantage_lambda=0.9, distillation_weight=0.5),
            "advantage_lambda=0.9 mixes advantages, distillation_weight=0.5 mixes losses",
        ),
        (
            dict(advantage_lambda=0.5, num_generations=1, generation_batch_size=4),
            "at least 2 for GRPO's advantage",
        ),
        (dict(steps_per_generation=3), "multiple of steps_per_generation; got 256 and 3"),
        (
            dict(distillation_is_clip=3.0),
            "distillation_is_clip=3.0 would do nothing: steps_per_generation=1 and "
            "num_iterations=1",
        ),
        (
            dict(epsilon=0.1, steps_per_generation=4),
            "epsilon=0.1 would do nothing: distillation_weight=1 with advantage_lambda=0",
        ),
        (
            dict(distillation_mode="sequence", distillation_alpha=0.5),
            "'sampled_token' and 'sequence' follow the reverse KL",
        ),
        (
            dict(
                distillation_is_clip=3.0,
                steps_per_generation=4,
                advantage_lambda=0.5,
                distillation_mode="sampled_token",
            ),
            "clipped by epsilon",
        ),
        (
            dict(teacher_sync="optimizer_step"),
            "teacher_sync='optimizer_step' would do nothing: steps_per_generation=1",
        ),
        (
            dict(
                teacher_sync="optimizer_step", steps_per_generation=4, teacher_model_kind="frozen"
            ),
            "only teacher_model_kind='ema' moves",
        ),
        (
            dict(demonstration="first", use_successful_as_teacher=False),
            "use_successful_as_teacher=False shows no solution",
        ),
        (
            dict(dont_reprompt_on_self_success=False, self_success="own"),
            "self_success is not 'sibling'",
        ),
        (dict(attempt_template="{previous_attempt}"), "include_own_attempt=False"),
    ],
)
def test_contradictions_name_both_knobs(fields, words):
    with pytest.raises(ValueError, match=words):
        SDPOConfig(**fields)


def test_a_contradiction_is_refused_wherever_it_comes_from():
    """Also where no field counts as set by hand: from a file, or by a change under way."""
    with pytest.raises(ValueError, match="needs distillation_alpha=1"):
        SDPOConfig.from_dict(
            {**SDPOConfig().to_dict(), "advantage_clip": 5.0, "distillation_alpha": 0.5}
        )
    with pytest.raises(ValueError, match="needs distillation_alpha=1"):
        SDPOConfig(advantage_lambda=0.9).replace(live=True, distillation_alpha=0.5)


def test_the_paper_s_presets_are_its_table_12():
    rich, test_time = SDPOConfig.preset("paper-rich-feedback"), SDPOConfig.preset("paper-test-time")
    assert (
        rich.steps_per_generation == 32
        and rich.generation_batch_size // rich.steps_per_generation == rich.num_generations
    )  # one question a mini-batch
    assert (
        test_time.advantage_clip == 5
        and rich.distillation_is_clip == 2
        and rich.teacher_sync == "rollout_batch"
    )


def test_groups_must_fill_the_batch():
    with pytest.raises(ValueError, match="multiple of num_generations; got 10 and 4"):
        SDPOConfig(generation_batch_size=10, num_generations=4)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SDPOConfig().seed = 3


def test_the_signature_has_every_field_with_its_type_and_default():
    parameters = inspect.signature(SDPOConfig).parameters
    for f in dataclasses.fields(SDPOConfig):
        assert parameters[f.name].default == f.default and parameters[f.name].annotation == f.type
        assert f"{f.name}: {KNOWN[f.name]['help']}" in SDPOConfig.__doc__
    assert len(parameters) == len(KNOWN)
    assert get_args(parameters["teacher_model_kind"].annotation) == CHOICES["teacher_model_kind"]


def test_a_subclass_may_add_a_field():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(SDPOConfig):
        temperature: float = 0.5
        note: str = ""

    mine = Mine(learning_rate=0.1, note="x")
    assert mine.explicit == {"learning_rate", "note"}
    assert mine.replace(seed=1).temperature == 0.5 and mine.replace(note="y").note == "y"


def test_the_page_of_the_settings_is_written_from_them():
    script = runpy.run_path(str(ROOT / "tools" / "config_table.py"))
    written = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == script["page"](), "run python tools/config_table.py"


def test_every_preset_has_a_source():
    assert PRESET_SOURCES.keys() == PRESETS.keys()


def test_fields_marked_as_ours_are_those_that_trl_lacks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdpo = pytest.importorskip("trl.experimental.sdpo")
    theirs = {f.name for f in dataclasses.fields(sdpo.SDPOConfig)}
    assert {name for name, known in KNOWN.items() if known["ours"]} == KNOWN.keys() - theirs
