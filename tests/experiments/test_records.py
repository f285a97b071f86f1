import math

import pytest

from sdpo_lab.experiments import recorded
from sdpo_lab.experiments.sweeps import (
    DEVELOPMENT,
    SEALED,
    SWEEPS,
    Run,
    chosen,
    task_tuning,
    tasks,
    tuning,
)
from sdpo_lab.models.loading import model_folders
from sdpo_lab.runs.recorded import RunRecord, model_checksum, read_records, write_records
from sdpo_lab.tasks import SHIPPED


def test_a_record_survives_writing_and_reading(tmp_path):
    run = RunRecord(
        "x",
        {"name": "toolcall", "seed": 1},
        {"learning_rate": 0.1},
        {"name": "m", "sha256": "0"},
        [{"step": 1, "loss": math.nan, "reward": 1 / 3}],
        [],
    )
    write_records(tmp_path / "r.json", [run, run])
    (one, two) = read_records(tmp_path / "r.json")
    assert (
        one.rows == [{"step": 1, "loss": None, "reward": 0.333333}]
        and one.versions["torch"]
        and one == two
    )
    (tmp_path / "old.json").write_text('[{"format": 0}]')
    with pytest.raises(ValueError, match="has format 0; this version reads format 1"):
        read_records(tmp_path / "old.json")


def test_sealed_conventions_are_none_that_anything_was_chosen_on():
    assert not set(DEVELOPMENT) & set(SEALED)
    assert {run.seed for run in tuning()} == set(DEVELOPMENT)
    assert {run.seed for run in SWEEPS["quickstart"]()} == set(SEALED)
    assert {run.seed for run in task_tuning()} == set(DEVELOPMENT) and {
        run.seed for run in tasks()
    } < set(SEALED)
    for name in ("grpo", "grpo-shaped"):
        assert len({run.config["learning_rate"] for run in tuning() if run.name == name}) >= 5


@pytest.mark.parametrize("sweep", SWEEPS)
def test_shipped_records_are_complete_and_made_with_the_shipped_model(sweep):
    runs = recorded(sweep)
    wanted = {repr(r.key): r.settings().to_dict() for r in SWEEPS[sweep]()}
    assert {r.key: r.config for r in runs} == wanted and len(runs) == len(wanted)
    assert {r.key: r.model["sha256"] for r in runs} == {
        repr(r.key): model_checksum(model_folders()[r.model]) for r in SWEEPS[sweep]()
    }
    assert all(
        r.evaluations[0]["step"] == 0 and r.evaluations[-1]["step"] == len(r.rows) for r in runs
    )
    assert {r.key: len(r.rows) for r in runs} == {repr(r.key): r.steps for r in SWEEPS[sweep]()}


def test_recorded_filters_by_run_and_dials():
    runs = recorded("quickstart", name="sdpo", feedback=2)
    assert sorted(r.task["seed"] for r in runs) == list(SEALED) and {r.name for r in runs} == {
        "sdpo"
    }
    assert {r.config["learning_rate"] for r in runs} == {chosen("sdpo")}
    with pytest.raises(
        ValueError,
        match="no recorded sweep 'nope'; there are by-hand, quickstart, task-tuning, tasks, tuning",
    ):
        recorded("nope")


def test_a_run_can_be_done_again_exactly():
    """A short run twice, and its first steps against the long recorded one."""
    run = Run("sdpo", {"learning_rate": chosen("sdpo")}, seed=0, steps=2, evaluate=8)
    once, twice = run(), run()
    assert [r["loss"] for r in once.rows] == [r["loss"] for r in twice.rows]
    first = recorded("quickstart", name="sdpo", feedback=2, seed=0)[0].rows[0]
    assert once.rows[0]["success_fraction"] == pytest.approx(
        first["success_fraction"], abs=0.035
    )  # other machines may round a token away
    assert once.rows[0]["completion_length"] == pytest.approx(first["completion_length"], abs=0.5)
    assert once.rows[0]["loss"] == pytest.approx(first["loss"], rel=0.1)


def test_the_laptop_preset_is_what_the_tuning_chose():
    from sdpo_lab.core.config import SDPOConfig

    assert SDPOConfig.preset("laptop").learning_rate == chosen("sdpo")


def test_sdpo_improves_every_shipped_task_within_two_minutes():
    """As recorded: three sealed seeds each, the intervals before and after apart in every one."""
    for on in SHIPPED:
        runs = recorded("tasks", on=on)
        assert [r.task["seed"] for r in runs] == list(SEALED[:3])
        for r in runs:
            before, after = r.evaluations
            assert after["interval"][0] > before["interval"][1], (
                on,
                r.task["seed"],
                before["accuracy"],
                after["accuracy"],
            )
            assert after["seconds"] <= 120, (on, r.task["seed"], after["seconds"])
