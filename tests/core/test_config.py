import dataclasses

import pytest

from sdpo_lab.config import CHOICES, INERT, OPTIONAL, PRESETS, RANGES, TEMPLATES, SDPOConfig


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
    for bad in (high * 2 + 1, low - 1, float("nan"), float("inf"), "3", True, *([] if name in OPTIONAL else [None])):
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


@pytest.mark.parametrize("template", ["no slot", "{prompt}{solution}", "{prompt}{solution}{feedback}{more}", "{prompt}{solution}{feedback}}", 3])
def test_templates(template):
    with pytest.raises((ValueError, TypeError), match="reprompt_template"):
        SDPOConfig(reprompt_template=template)


def test_a_knob_that_does_nothing_is_refused_only_when_it_was_set():
    with pytest.raises(ValueError, match="distillation_topk=5 would do nothing: distillation_mode is not 'topk_logits'"):
        SDPOConfig(distillation_mode="full_logits", distillation_topk=5)
    SDPOConfig(distillation_mode="full_logits")
    with pytest.raises(ValueError, match="teacher_update_rate=0.1 would do nothing"):
        SDPOConfig.preset("laptop", teacher_model_kind="frozen", teacher_update_rate=0.1)
    with pytest.raises(ValueError, match="scale_rewards"):
        SDPOConfig(scale_rewards=True)
    for name, _, _ in INERT:
        assert name in {f.name for f in dataclasses.fields(SDPOConfig)}


def test_groups_must_fill_the_batch():
    with pytest.raises(ValueError, match="multiple of num_generations; got 10 and 4"):
        SDPOConfig(generation_batch_size=10, num_generations=4)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SDPOConfig().seed = 3
