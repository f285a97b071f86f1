"""Fields of the configuration, when it is made and while a run is on."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import sdpo_lab as lab
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.tasks.adapters import task_from_function
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.fields import FIELDS
from tests.bad_input.rows import Sums, small
from tests.bad_input.values import ALLOWED, HUGE, NAN, floats, ints, optional, refused


def test_every_field_has_a_row():
    assert set(FIELDS) == {f.name for f in dataclasses.fields(SDPOConfig)}


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name):
    base = SDPOConfig()
    for bad in FIELDS[name]:
        refused(lambda: SDPOConfig(**{name: bad}), name, bad)
        refused(lambda: base.replace(**{name: bad}), name, bad)
        refused(lambda: SDPOConfig.from_dict({**base.to_dict(), name: bad}), name, bad)


def test_numpy_s_numbers_become_python_s():
    """Else a run could be trained for hours and not be saved: JSON has no float32."""
    config = SDPOConfig(
        learning_rate=np.float32(0.5), generation_batch_size=np.int64(8), temperature=1
    )
    assert [
        type(v) for v in (config.learning_rate, config.generation_batch_size, config.temperature)
    ] == [float, int, float]
    assert type(lab.load_task("toolcall", seed=np.int64(3)).dials["seed"]) is int


LIVE = {**FIELDS, "reprompt_template": FIELDS["reprompt_template"]}


@pytest.mark.parametrize("name", SDPOTrainer.LIVE_FIELDS)
def test_live_fields(name, one):
    """A change that is refused changes nothing, neither the configuration nor the history."""
    before = one.trainer.config
    for bad in LIVE[name]:
        refused(lambda: one.trainer.apply(**{name: bad}), name, bad)
    assert one.trainer.config is before and not one.trainer.history.changes


def test_fields_that_are_not_live_and_contradictions_are_refused_before_anything_changes(one):
    refused(lambda: one.trainer.apply(num_generations=3), "num_generations", "num_generations")
    refused(lambda: one.trainer.apply(learnin_rate=3), "learnin_rate", "learnin_rate")
    assert not one.trainer.history.changes and one.trainer.config == small()


def test_a_live_run(one):
    """What the trainer would refuse is refused where it is asked for."""
    for name in SDPOTrainer.LIVE_FIELDS:
        for bad in LIVE[name]:
            refused(lambda: one.run.set(**{name: bad}), name, bad)
    refused(lambda: one.run.set(num_generations=3), "num_generations", "num_generations")
    assert not one.run.pending


def test_autosave(one):
    for name, values in (("seconds", floats(0, 10**9)), ("keep", optional(ints(1)))):
        for bad in values:
            refused(
                lambda: one.trainer.autosave(one.folder / "autosaved", **{name: bad}), name, bad
            )
    assert one.trainer.autosaves is None


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"2": {"learning_rate": 1e-3}},
            "changes must have whole numbers as keys, the steps, got '2'; of what was "
            "JSON, give {int",
        ),
        ({0: {"learning_rate": 1e-3}}, "step of changes must be from 1 upwards; got 0"),
        ({1.5: {}}, "step of changes must be a whole number"),
        ({True: {}}, "step of changes must be a whole number"),
        ({HUGE: {}}, "step of changes must be from 1 to 9223372036854775807"),
        ({None: {}}, "step of changes must be a whole number from 1 upwards; got None"),
        (
            {3: {"learnin_rate": 1e-3}},
            r"changes\[3\].*no 'learnin_rate'; it has .*Did you mean 'learning_rate'",
        ),
        ({3: {"num_generations": 2}}, r"changes\[3\].*has no 'num_generations'"),
        (
            {3: {"learning_rate": "1e-3"}},
            "learning_rate must be a number from 0.0 to 10.0; got '1e-3'",
        ),
        ({3: {"advantage_clip": 5.0}}, r"changes\[3\].*has no 'advantage_clip'"),
        ({2: {"reprompt_template": "no slots"}}, "reprompt_template must contain"),
        ({3: [("learning_rate", 1)]}, r"changes\[3\] must be a dictionary"),
    ],
)
def test_changes(changes, words, tiny):
    """Before the first step, not when their own comes."""
    trainer = SDPOTrainer(*tiny, Sums(), small())
    with pytest.raises((TypeError, ValueError), match=words):
        trainer.train(3, changes=changes, progress=False)
    assert len(trainer.history) == 0 and not trainer.history.changes and trainer.config == small()


def test_changes_that_come_too_late_and_those_of_a_whole_history(tiny):
    import copy

    model, tokenizer = tiny
    one, two = (SDPOTrainer(copy.deepcopy(model), tokenizer, Sums(), small()) for _ in range(2))
    one.train(2, changes={2: {"learning_rate": 1e-3}}, progress=False)
    one.apply(temperature=0.5)  # after its last step
    assert one.history.changes == {2: {"learning_rate": 1e-3}, 3: {"temperature": 0.5}}
    with pytest.raises(
        ValueError,
        match=r"changes\[1\] must be of a step to come, from 3 upwards: this trainer has taken 2 "
        r"steps, without \{'temperature': 0.9",
    ):
        one.train(1, changes={1: {"temperature": 0.9}}, progress=False)
    with pytest.raises(ValueError, match=r"changes\[2\] must be of a step to come"):
        one.train(1, changes={2: {"learning_rate": 2e-3}}, progress=False)
    assert len(one.history) == 2
    for late in ("2, 3", "3"):  # in parts, and what was made already is no news
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            two.train(1, changes=one.history.changes, progress=False)
        assert [str(w.message) for w in said if "changes" in str(w.message)] == [
            f"changes of step {late} are not made: this call ends with step {len(two.history)}"
        ]
    assert [r.rollouts for r in one.history] == [
        r.rollouts for r in two.history
    ] and two.history.changes == {2: {"learning_rate": 1e-3}}


@pytest.mark.parametrize(
    "arguments, name, bad",
    [
        (dict(reward_funcs=[]), "reward_funcs", "at least one"),
        (dict(reward_funcs=[3]), "reward function", 3),
        (dict(reward_funcs="a/model"), "reward function", "a/model"),
        (dict(reward_funcs=[len], reward_weights=[1, 2]), "reward_weights", 2),
        (dict(reward_funcs=[len], reward_weights=[NAN]), "reward weight", NAN),
        (dict(reward_funcs=[len], reward_weights=["1"]), "reward weight", "1"),
        (dict(reward_funcs=[len], feedback="no"), "feedback", "no"),
        (dict(reward_funcs=[len], tokenizer="lab-1m"), "tokenizer", "lab-1m"),
        (dict(judge=len, reward_funcs=[len]), "judge", "judge"),
        (dict(judge=len, feedback=len), "feedback", "feedback"),
    ],
)
def test_what_goes_with_reward_functions(arguments, name, bad):
    with pytest.raises((TypeError, ValueError)) as caught:
        task_from_function([{"prompt": "a"}], **arguments)
    assert (
        name in str(caught.value)
        and str(bad) in str(caught.value)
        and ALLOWED.search(str(caught.value))
    )
