"""Runs side by side: from wherever they come, on common axes, with what they differ in."""

import json
import math

import pytest

from sdpo_lab import views
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.runs.json import to_json
from sdpo_lab.runs.recorded import RunRecord, write_records

HOSTILE = "</script><img src=x onerror=alert(1)>"


def history(values, metric="success_fraction", changes=None):
    return History(
        [StepRecord(i + 1, v, 0.1, {metric: v}, []) for i, v in enumerate(values)], changes or {}
    )


def recorded(values, name="sdpo", seed=0, task=None, **fields):
    config = SDPOConfig.preset("laptop", seed=seed, **fields).to_dict()
    return RunRecord(
        name,
        {"name": "toolcall", "seed": seed, **(task or {})},
        config,
        {"name": "lab-1m", "sha256": "0"},
        history(values).rows(),
        [],
    )


def saved(folder, steps, metric="success_fraction", name="toolcall", changes=None, **fields):
    """A folder as `trainer.save` leaves it, without the tensors: comparing must not need them."""
    at = folder / f"checkpoint-{steps:06d}"
    at.mkdir(parents=True)
    state = {
        "format": 2,
        "step": steps,
        "config": SDPOConfig.preset("laptop", **fields).to_dict(),
        "changes": changes or {},
        "task": {"name": name, "dials": {"feedback": 3}, "class": "ToolCall"},
    }
    (at / "state.json").write_text(to_json(state))
    lines = [
        to_json(
            {
                "step": s,
                "reward": s / 10,
                "loss": math.nan if s == 2 else 0.1,
                "metrics": {metric: s / 10},
                "rollouts": [],
                "seconds": 0.1,
            }
        )
        for s in range(1, steps + 3)
    ]
    (folder / "history.jsonl").write_text(
        "\n".join(lines) + "\n"
    )  # two steps more than the checkpoint has
    (folder / "latest.json").write_text(
        json.dumps({"format": 2, "checkpoint": at.name, "kept": {at.name: "0"}})
    )
    return folder


def test_runs_of_every_kind_on_one_chart(fake, tmp_path):
    trainer = fake(rewards=[0.1, 0.2, 0.3], metrics={"success_fraction": 0.5})
    for _ in range(3):
        trainer.step()
    run = views.LiveRun(fake(metrics={"success_fraction": 0.25}), 2)
    dash = views.Dashboard(fake(metrics={"success_fraction": 0.75}), 2, evaluate_every=0)
    for live in (run, dash):
        live.result()
    write_records(tmp_path / "one.json", [recorded([0.0, 1.0], seed=s) for s in (0, 1)])
    found = views.compare(
        {
            "a trainer": trainer,
            "a run": run,
            "a dashboard": dash,
            "a history": history([0, 1]),
            "a record": recorded([1, 0]),
            "a folder": saved(tmp_path / "run", 4),
            "a path": str(tmp_path / "run"),
            "records": tmp_path / "one.json",
            "several": [history([0, 0]), str(tmp_path / "run")],
        },
        window=1,
    )
    lines = {line.name: (list(line.x), list(line.y)) for line in found.lines}
    assert lines == {
        "a trainer": ([1, 2, 3], [0.5] * 3),
        "a run": ([1, 2], [0.25] * 2),
        "a dashboard": ([1, 2], [0.75] * 2),
        "a history": ([1, 2], [0, 1]),
        "a record": ([1, 2], [1, 0]),
        "a folder": ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]),
        "a path": ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]),
        "records (2 runs)": ([1, 2], [0, 1]),
        "several (2 runs)": ([1, 2], [0.05, 0.1]),
    }


def test_the_table_lists_what_differs_and_nothing_else(tmp_path):
    found = views.compare(
        {
            "slow": recorded([0, 1], learning_rate=1e-5),
            "fast": [recorded([0, 1], seed=s, learning_rate=1e-3) for s in (1, 2)],
            "on disk": saved(tmp_path / "run", 2, name="tinycode", learning_rate=1e-3),
            "who knows": history([0, 1]),
        }
    )
    assert found.differences == {
        "seed": {"slow": "0", "fast": "1, 2", "on disk": "0", "who knows": "not known"},
        "learning_rate": {
            "slow": "1e-05",
            "fast": "0.001",
            "on disk": "0.001",
            "who knows": "not known",
        },
        "task": {
            "slow": "toolcall",
            "fast": "toolcall",
            "on disk": "tinycode",
            "who knows": "not known",
        },
        "task seed": {"slow": "0", "fast": "1, 2", "on disk": "none", "who knows": "not known"},
        "task feedback": {"slow": "none", "fast": "none", "on disk": "3", "who knows": "not known"},
    }
    picture = found._repr_html_()
    assert (
        picture.count("<tr>") == 6 and "learning rate" in picture and "temperature" not in picture
    )
    assert repr(found).endswith(
        "they differ in seed, learning_rate, task, task seed, task feedback"
    )
    assert "<table" not in views.compare({"a": history([0]), "b": history([1])})._repr_html_()
    assert "<table" not in views.compare({"a": recorded([0]), "b": recorded([1])})._repr_html_()


def test_changes_made_by_hand_are_marked(tmp_path):
    found = views.compare(
        {
            "by hand": history([0, 1, 1], changes={2: {"learning_rate": 1e-3}}),
            "too": saved(
                tmp_path / "run", 3, changes={2: {"temperature": 0.9}, 3: {"normalize": "all_rows"}}
            ),
        }
    )
    assert found.marks == {
        2: "by hand: learning rate 0.001; too: temperature 0.9",
        3: "too: normalize all_rows",
    }
    assert "a: step 2, by hand: learning rate 0.001" in found._repr_html_()


def test_a_file_of_several_kinds_of_run_is_several_curves(tmp_path, root):
    write_records(
        tmp_path / "r.json",
        [recorded([0, 1], "sdpo", s, learning_rate=r) for s in (0, 1) for r in (1e-3, 1e-5)]
        + [recorded([1, 1], "grpo", distillation_weight=0.0)],
    )
    found = views.compare({"r": tmp_path / "r.json"}, window=1)
    assert [line.name for line in found.lines] == [
        "r: sdpo, learning rate 0.001 (2 runs)",
        "r: sdpo, learning rate 1e-05 (2 runs)",
        "r: grpo",
    ]
    shipped = views.compare(
        {"quickstart": root / "sdpo_lab" / "experiments" / "records" / "quickstart.json"}
    )
    assert {line.name.split(" (")[0] for line in shipped.lines} == {
        "quickstart: grpo",
        "quickstart: grpo-shaped",
        *(f"quickstart: sdpo, task feedback {n}" for n in range(4)),
    }


def test_a_metric_that_was_not_measured_at_every_step():
    rows = History(
        [
            StepRecord(s, 0.0, math.nan, {"held_out_accuracy": s / 10} if s % 3 == 0 else {}, [])
            for s in range(1, 10)
        ]
    )
    found = views.compare({"x": rows}, "held_out_accuracy", window=2)
    assert (
        found.lines[0].x == [3, 6, 9]
        and found.lines[0].y == pytest.approx([0.3, 0.45, 0.75])
        and found.y_range == (0, 1)
    )
    with pytest.raises(ValueError, match="'x' has no step at which 'loss' is a number"):
        views.compare({"x": rows}, "loss")


def test_hostile_names_and_values_stay_text(tmp_path):
    a, b = (
        recorded([0, 1], reprompt_template="{prompt}{solution}{feedback}" + HOSTILE * 5),
        recorded([0, 1]),
    )
    a.task["name"] = HOSTILE
    picture = views.compare({HOSTILE: a, "b": b})._repr_html_()
    assert (
        "<img" not in picture
        and "<script" not in picture
        and "&lt;img" in picture
        and "characters)" in picture
    )


def test_wrong_input_is_named(tmp_path):
    for runs in (history([1.0]), {}, [history([1.0])]):
        with pytest.raises(ValueError, match="must be a dictionary"):
            views.compare(runs)
    for window in (0, 1.5, True):
        with pytest.raises(ValueError, match="window must be a whole number"):
            views.compare({"x": history([1.0])}, window=window)
    with pytest.raises(
        TypeError, match="'x' must be a trainer, a LiveRun or Dashboard, .* got int"
    ):
        views.compare({"x": 3})
    for empty in (History(), []):
        with pytest.raises(ValueError, match="'x' has no steps yet"):
            views.compare({"x": empty})
    with pytest.raises(ValueError, match="'x' has no metric 'sucess'; there are loss, reward"):
        views.compare({"x": history([1.0])}, metric="sucess")
    with pytest.raises(ValueError, match="holds no saved run"):
        views.compare({"x": tmp_path})
    with pytest.raises(ValueError, match="it is not there"):
        views.compare({"x": tmp_path / "no.json"})
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="other.json' is no file of recorded runs"):
        views.compare({"x": tmp_path / "other.json"})
    folder = saved(tmp_path / "run", 3)
    (folder / "history.jsonl").write_text('{"step": 1')
    with pytest.raises(ValueError, match="checkpoint-000003 cannot be read as a saved run"):
        views.compare({"x": folder})


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"",
        b"null",
        b"3",
        b'{"a": 1}',
        b"\xff\xfe\x00",
        b'[{"format": 1}]',
        b'["a"]',
        b"[" * 100_000,
        b'[{"format": 99}]',
        b'"\\u001b[31m"',
    ],
)
def test_a_file_that_holds_no_recorded_runs_is_named(content, tmp_path):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"bad.json' is no file of recorded runs, as .*write_records makes them \("
    ) as caught:
        views.compare({"a": str(tmp_path / "bad.json")})
    assert (
        not isinstance(caught.value, UnicodeDecodeError)
        and str(caught.value).isprintable()
        and len(str(caught.value)) < 600
    )


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("rows", {"step": [1], "reward": ["a\x1b[31m"]}, "nothing but numbers, one has 'a"),
        ("rows", {"reward": [1.0]}, "must have a step"),
        ("rows", [], "AttributeError"),
        ("task", None, "AttributeError"),
        ("model", 3, "AttributeError"),
        ("changes", {"1": 3}, "dictionary of dictionaries"),
        ("changes", {"x": {}}, "ValueError"),
    ],
)
def test_a_recorded_run_that_is_damaged_is_named(field, value, words, tmp_path):
    write_records(tmp_path / "r.json", [recorded([0.0, 1.0])])
    (entry,) = json.loads((tmp_path / "r.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps([entry | {field: value}]))
    with pytest.raises(ValueError, match=f"r.json' is no file of recorded runs.*{words}") as caught:
        views.compare({"a": tmp_path / "r.json"})
    assert str(caught.value).isprintable()


def test_the_name_is_a_function_however_it_is_reached():
    import sdpo_lab.views.comparison  # a submodule of the same name would stand in its place

    assert views.compare is sdpo_lab.views.comparison.compare and callable(views.compare)
