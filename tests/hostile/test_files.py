"""Hostile text on its way to a disk and back: equal to what was written, and never a name there."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdpo_lab.core import records
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.runs import checkpoints
from sdpo_lab.runs.recorded import RunRecord, read_records, write_records
from sdpo_lab.tasks.adapters import task_from_function
from sdpo_lab.trainer import SDPOTrainer
from tests.hostile.texts import CORPUS, PIECES, TEXTS, many

to_json, from_json = (
    getattr(records, name, None) or getattr(checkpoints, name) for name in ("to_json", "from_json")
)
UTF8 = [
    text for text in CORPUS if text.isprintable() or text.encode("utf-8", "ignore").decode() == text
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | TEXTS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXTS, inside, max_size=3),
    max_leaves=8,
)


def same(a, b) -> bool:
    """Equal, and nan is nan."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@many(200)
@given(VALUES)
@example({"a": "\ud83d\u2028", "b": [math.nan, -math.inf, -0.0]})
def test_what_is_written_is_read_back(value):
    line = to_json(value)
    assert len(line.splitlines()) == 1 and line.isascii(), (
        "one line, whatever it says, in any encoding"
    )
    assert same(from_json(line), value)


@pytest.mark.parametrize(
    "value",
    [
        {"not finite": "nan"},
        {"not finite": float("inf")},
        {"not finite": "text"},
        {"not finite": [1]},
        {"not finite": None},
    ],
)
def test_data_that_looks_like_our_own_mark_is_read_back(value):
    assert same(from_json(to_json(value)), value)


@many(40)
@given(TEXTS, TEXTS, PIECES)
def test_recorded_runs(tmp_path_factory, name, text, key):
    path = tmp_path_factory.mktemp("records") / "runs.json"
    run = RunRecord(
        name,
        {"name": text, key: text},
        SDPOConfig().to_dict(),
        {"name": text, "sha256": "0"},
        [{"step": 1, key: 0.5}],
        [{"step": 0, "split": text}],
        {1: {"learning_rate": 0.5}},
        text,
    )
    write_records(path, [run, run])
    assert read_records(path) == [run, run]
    assert sorted(p.name for p in path.parent.iterdir()) == ["runs.json"]


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_a_run_of_hostile_texts_is_saved_and_gone_on_with(tiny, tmp_path, monkeypatch):
    """As ids, prompts, attempts, feedback, data and the task's name: the history comes back equal,
    and no file has a name of theirs."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"{i}: {text}", "id": text or "empty", "split": "train", "note": text}
        for i, text in enumerate(dict.fromkeys(UTF8))
    ]
    name = "../" + "".join(UTF8)[:500].replace("\x00", "")

    def task():
        return task_from_function(
            rows,
            lambda row, completion: (float(len(completion) % 2), completion + row["note"]),
            name=name,
        )

    config = SDPOConfig.preset(
        "laptop", generation_batch_size=4, num_generations=2, max_completion_length=4
    )
    trainer = SDPOTrainer(*tiny, task(), config)
    problems = {p.id: p for p in trainer.task.problems(len(rows))}
    for start in range(0, len(rows), 40):
        group = [
            Rollout(problems[row["id"]], i, CORPUS[(start + n + i) % len(CORPUS)], [5 + i, 6])
            for n, row in enumerate(rows[start : start + 40])
            for i in (0, 1)
        ]
        trainer.step(group)
    before = tree(tmp_path)
    trainer.save(tmp_path / "run")
    new = tree(tmp_path) - before
    assert all(path == "run" or path.startswith("run" + os.sep) for path in new) and all(
        part.isascii() and part.isprintable() for path in new for part in Path(path).parts
    )
    again = SDPOTrainer.resume(tmp_path / "run", task=task())
    assert [
        same(json.loads(to_json(dataclasses.asdict(a))), json.loads(to_json(dataclasses.asdict(b))))
        for a, b in zip(trainer.history, again.history)
    ] == [True] * len(trainer.history)
    assert [r.text for r in again.history[0].rollouts] == [
        r.text for r in trainer.history[0].rollouts
    ] and again.step().loss == trainer.step().loss
    assert tree(tmp_path) - before == new, "going on wrote nothing elsewhere"


def test_an_id_that_no_file_can_hold_is_refused_at_once():
    with pytest.raises(
        ValueError, match="id must be a string with something in it that UTF-8 can hold"
    ):
        Problem("a\ud800", [{"role": "user", "content": "a"}])


@many(60)
@given(PIECES)
def test_a_model_s_name_opens_no_file_of_another_kind(name):
    """A name is a shipped model, a folder with a config.json, or a Hub id; nothing else is opened,
    and the sentence is safe to print."""
    from sdpo_lab.models.loading import find_source

    if (
        "/" in name
        and all(name.split("/"))
        and name.count("/") == 1
        and not name.startswith((".", "~"))
    ):
        return  # like a Hub id: whether there is one, the Hub must say
    with pytest.raises((ValueError, OSError)) as caught:
        find_source(name)
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)


@pytest.mark.parametrize(
    "file, changed",
    [
        (
            "config.json",
            {
                "model_type": "nobody_s",
                "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
            },
        ),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "EvilTokenizer",
                "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]},
            },
        ),
    ],
)
def test_opening_a_checkpoint_runs_no_code_whatever_is_answered(
    tiny,
    tmp_path,
    monkeypatch,
    file,
    changed,
):
    """Where transformers would ask whether to run a model's own code, nobody is asked."""
    task = task_from_function(
        [{"prompt": f"{i}", "split": "train"} for i in range(2)], lambda row, completion: 0.0
    )
    SDPOTrainer(
        *tiny, task, SDPOConfig.preset("laptop", generation_batch_size=4, num_generations=2)
    ).save(tmp_path / "run")
    (model,) = (tmp_path / "run").glob("checkpoint-*/model")
    path = model / file
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8"
    )
    (model / "evil.py").write_text(
        f"open({str(tmp_path / 'hacked')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
        f"class EvilTokenizer: pass\n"
    )
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "yes")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    try:
        checkpoints.read_skeleton(model, "sdpa")
    except (ValueError, OSError, AttributeError, KeyError):
        pass  # refused, in whatever words
    assert not (tmp_path / "hacked").exists() and not asked
