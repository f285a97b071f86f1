"""What a run's folder promises: one history that only grows, checkpoints kept and picked, damage
named, nothing lost unasked."""

import json
import re
import shutil
import statistics
import time
import warnings
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import sdpo_lab as lab
from sdpo_lab.core.records import History, StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.runs import checkpoints
from sdpo_lab.runs import files as run_files
from sdpo_lab.runs.checkpoints import read_run
from sdpo_lab.runs.folder import RunFolder
from sdpo_lab.runs.json import from_json, to_json
from sdpo_lab.tasks import Problem
from tests.shared.runs import same, trainer
from tests.shared.tasks import Vowels


def steps(folder):
    run = RunFolder(folder)
    return [run_files.number(n) for n in run.there(run.pointer())]


def resume(folder, **settings):
    return lab.SDPOTrainer.resume(folder, task=Vowels(), **settings)


def run_of(tiny, folder, saves=3, keep=2, **fields):
    t = trainer(tiny, **fields)
    for _ in range(saves):
        t.step()
        t.save(folder, keep=keep)
    return t


def test_the_newest_are_kept_and_any_of_them_can_be_gone_on_with(tiny, tmp_path):
    t = run_of(tiny, tmp_path / "run", saves=4, keep=3)
    assert steps(tmp_path / "run") == [2, 3, 4]
    past = resume(tmp_path / "run", step=2)
    past.train(2, progress=False)
    same(past, t)
    with pytest.raises(ValueError, match=r"no checkpoint at step 1; it holds those at 2, 3, 4"):
        resume(tmp_path / "run", step=1)
    t.save(tmp_path / "run", keep=1)
    assert steps(tmp_path / "run") == [4]
    for keep in (0, -1, True, "two", 1.5):
        with pytest.raises((ValueError, TypeError), match="keep"):
            t.save(tmp_path / "run", keep=keep)


def test_the_history_is_only_added_to_and_may_hold_more_than_belongs_to_a_checkpoint(
    tiny, tmp_path
):
    t = run_of(tiny, tmp_path / "run", saves=1)
    file = tmp_path / "run" / "history.jsonl"
    number, begin = file.stat().st_ino, file.read_bytes()
    t.step()
    t.save(tmp_path / "run")
    assert (
        file.stat().st_ino == number
        and file.read_bytes().startswith(begin)
        and len(file.read_bytes().splitlines()) == 2
    )
    with file.open("ab") as f:
        f.write(b'{"step": 3, "rew')  # a save that was killed while it added
    again = resume(tmp_path / "run")
    assert len(again.history) == 2
    again.step()
    again.save(tmp_path / "run")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]
    t.step()
    same(resume(tmp_path / "run"), t)
    history, config = read_run(tmp_path / "run")
    assert config == t.config and [r.loss for r in history] == [r.loss for r in t.history]


@pytest.mark.timing
def test_a_save_costs_what_is_new(tiny, tmp_path):
    """At step 1,000 with 64 attempts a step as much as at step 10."""
    t = run_of(tiny, tmp_path / "run", saves=1, keep=1)
    record = t.history[0]
    attempts = [replace(record.rollouts[i % 8], index=i) for i in range(64)]

    def measured(until):
        while len(t.history) < until:
            t.history.append(replace(record, step=len(t.history) + 1, rollouts=attempts))
        t.save(tmp_path / "run")
        seconds, written = [], []
        for _ in range(5):
            t.history.append(replace(record, step=len(t.history) + 1, rollouts=attempts))
            before, began = (tmp_path / "run" / "history.jsonl").stat().st_size, time.perf_counter()
            t.save(tmp_path / "run")
            seconds.append(time.perf_counter() - began)
            written.append((tmp_path / "run" / "history.jsonl").stat().st_size - before)
        return statistics.median(seconds), max(written)

    early, late = measured(10), measured(1000)
    print(
        f"a save at step 10: {1000 * early[0]:.0f} ms, {early[1]} bytes of history; at "
        f"step 1,000: {1000 * late[0]:.0f} ms, {late[1]} bytes"
    )
    assert late[1] <= early[1] + 200 and late[0] < 3 * early[0] + 0.05


def test_attempts_of_old_steps_leave_memory_but_not_the_disk(tiny, tmp_path):
    history = History(keep_attempts=2)
    for step in range(1, 6):
        history.append(StepRecord(step, 0.0, 0.0, {}, [Rollout(Problem("p", []), 0, "x", [1])]))
    assert [len(r.rollouts) for r in history] == [0, 0, 0, 1, 1]
    everything = History(keep_attempts=None)
    everything.append(history[4])
    assert everything[0].rollouts

    t = trainer(tiny)
    t.history.keep_attempts = 2
    t.autosave(tmp_path / "run", seconds=1e6)  # time alone never asks for a save
    records = [t.step() for _ in range(5)]
    assert [bool(r.rollouts) for r in t.history] == [False, False, False, True, True]
    t.save(tmp_path / "run")
    t.save(tmp_path / "other")
    for folder in ("run", "other"):  # in a new folder they are taken over from the old one
        lines = (tmp_path / folder / "history.jsonl").read_text().splitlines()
        assert [checkpoints.read_record(line) for line in lines] == records
    again = resume(tmp_path / "other")
    assert again.history.keep_attempts == 2
    same(again, t)


def test_two_folders_do_not_disturb_each_other(tiny, tmp_path):
    for lora in (None, 2):
        a, b = tmp_path / f"a{lora}", tmp_path / f"b{lora}"
        t = run_of(tiny, a, saves=1, lora=lora)
        t.save(b)
        shutil.rmtree(b)
        t.step()
        t.save(a)  # needs nothing of b
        t.save(b)
        shutil.rmtree(a)
        t.step()
        t.save(a)
        t.save(b)
        same(resume(a), t)
        same(resume(b), t)


def test_going_on_from_an_older_step_loses_the_newer_ones_only_when_told_to(tiny, tmp_path):
    newest = run_of(tiny, tmp_path / "run", saves=3, keep=None)
    past = resume(tmp_path / "run", step=1)
    past.apply(learning_rate=1e-4)
    past.step()
    with pytest.raises(
        ValueError,
        match=r"has gone on without this trainer, to checkpoint-000003; saving here would lose "
        r"checkpoint-000002, checkpoint-000003",
    ):
        past.save(tmp_path / "run", keep=None)
    with pytest.raises(ValueError, match="has gone on without this trainer"):
        past.autosave(tmp_path / "run")
    same(resume(tmp_path / "run"), newest)
    past.save(tmp_path / "branch")
    same(resume(tmp_path / "branch"), past)
    past.save(tmp_path / "run", overwrite=True, keep=None)
    assert steps(tmp_path / "run") == [1, 2]
    same(resume(tmp_path / "run"), past)
    assert len(resume(tmp_path / "run", step=1).history) == 1
    with pytest.raises(
        ValueError, match="has gone on without this trainer"
    ):  # nor does the one that wrote them write over the branch
        newest.save(tmp_path / "run")


@pytest.mark.parametrize("other", ["an older step", "another run"])
def test_overwriting_that_is_cut_short_leaves_what_was_there(tiny, tmp_path, monkeypatch, other):
    newest = run_of(tiny, tmp_path / "run", saves=3, keep=None)
    t = resume(tmp_path / "run", step=1) if other == "an older step" else trainer(tiny)
    t.step()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            checkpoints, "write_tensors", killed
        )  # when the history is written anew already
        t.save(tmp_path / "run", overwrite=True)
    again = resume(tmp_path / "run")
    same(again, newest)
    assert len(resume(tmp_path / "run", step=2).history) == 2
    again.step()
    again.save(tmp_path / "run", keep=None)  # and it can be gone on with
    same(resume(tmp_path / "run"), again)
    assert (
        steps(tmp_path / "run") == [1, 2, 3, 4]
        and len(resume(tmp_path / "run", step=2).history) == 2
    )
    t.save(tmp_path / "run", overwrite=True)
    same(resume(tmp_path / "run"), t)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "student.safetensors": (flip, r"student\.safetensors is damaged: it has other bytes"),
    "teacher.safetensors": (
        lambda f: f.write_bytes(f.read_bytes()[:-7]),
        r"teacher\.safetensors has \d+ bytes instead of \d+",
    ),
    "optimizer.safetensors": (lambda f: f.unlink(), r"optimizer\.safetensors is missing"),
    "base.safetensors": (lambda f: f.unlink(), r"base\.safetensors is missing"),
    "model/config.json": (
        lambda f: f.write_text(f.read_text().replace("32", "64")),
        r"model/config\.json is damaged",
    ),
    "state.json": (
        lambda f: f.write_text(f.read_text().replace('"bad_steps": 0', '"bad_steps": 2')),
        r"state\.json is not the file that was written",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_by_name_and_an_older_checkpoint_is_offered(tiny, tmp_path, name):
    run_of(tiny, tmp_path / "run", saves=2)
    damage, words = DAMAGE[name]
    damage(tmp_path / "run" / "checkpoint-000002" / name)
    with pytest.raises(ValueError, match=words) as refused:
        resume(tmp_path / "run")
    offered = re.search(
        r"checkpoint-000001 is whole: SDPOTrainer\.resume\((.*), step=1\) goes on from there",
        str(refused.value),
    )
    assert offered and offered[1] == repr(str(tmp_path / "run"))
    assert len(resume(tmp_path / "run", step=1).history) == 1


def test_a_damaged_history_is_refused_where_it_matters(tiny, tmp_path):
    run_of(tiny, tmp_path / "run", saves=2)
    file = tmp_path / "run" / "history.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(
        ValueError,
        match=rf"history\.jsonl has {len(whole) - 5} bytes where the checkpoint needs "
        rf"{len(whole)}; checkpoint-000001 is whole",
    ):
        resume(tmp_path / "run")
    file.write_bytes(whole[:-5] + b"x" * 5)
    with pytest.raises(
        ValueError,
        match=r"history\.jsonl is damaged: its first \d+ bytes.*checkpoint-000001 is whole",
    ):
        resume(tmp_path / "run")
    file.unlink()
    with pytest.raises(
        ValueError,
        match=r"history\.jsonl is missing; the weights of the student of checkpoint-000002 are "
        r"whole",
    ):
        resume(tmp_path / "run")


def test_where_nothing_else_is_whole_the_sentence_that_saves_the_student_works(tiny, tmp_path):
    t = run_of(tiny, tmp_path / "run", saves=2, keep=1)
    flip(tmp_path / "run" / "checkpoint-000002" / "optimizer.safetensors")
    with pytest.raises(
        ValueError, match="the weights of the student of checkpoint-000002 are whole"
    ) as refused:
        resume(tmp_path / "run")
    sentence = re.search(r"model\.load_state_dict\(.*?strict=False\)", str(refused.value))[0]
    model = trainer(tiny).model
    assert not torch.equal(
        model.get_input_embeddings().weight, t.model.get_input_embeddings().weight
    )
    eval(sentence, {"model": model, "safetensors": safetensors})
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), t.model.parameters()))
    flip(tmp_path / "run" / "checkpoint-000002" / "student.safetensors")
    with pytest.raises(ValueError, match="nothing else of the run is whole"):
        resume(tmp_path / "run")


def test_a_run_of_a_later_version_is_neither_read_nor_written_over(tiny, tmp_path):
    t = run_of(tiny, tmp_path / "run", saves=2)
    file = tmp_path / "run" / "latest.json"
    file.write_text('{"format": 3, "newest": "checkpoint-000002"}')
    before = sorted(tmp_path.rglob("*"))
    for what in (
        lambda: resume(tmp_path / "run"),
        lambda: t.save(tmp_path / "run", overwrite=True),
        lambda: trainer(tiny).autosave(tmp_path / "run"),
    ):
        with pytest.raises(
            ValueError,
            match="has format 3; this version of sdpo_lab reads format 2. Use the version that "
            "wrote it, or name another folder$",
        ):
            what()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ("[" * 200_000, "RecursionError"),
        ('{"checkpoint": "../../etc", "kept": {"../../etc": ""}}', "it names '../../etc'"),
        ('{"checkpoint": "checkpoint-000009", "kept": {}}', "it names 'checkpoint-000009'"),
    ],
)
def test_a_damaged_pointer_is_refused_and_the_line_that_mends_it_does(tiny, tmp_path, text, words):
    t = run_of(tiny, tmp_path / "run", saves=2)
    (tmp_path / "run" / "latest.json").write_text(text)
    with pytest.raises(
        ValueError,
        match=rf"latest\.json is damaged \(.*{re.escape(words)}.*checkpoint-000002 is whole: "
        rf"with the line",
    ) as refused:
        resume(tmp_path / "run")
    with pytest.raises(ValueError, match=r"latest\.json is damaged.*overwrite=True"):
        t.save(tmp_path / "run")
    (tmp_path / "run" / "latest.json").write_text(
        re.search(r"with the line (.*) as latest", str(refused.value))[1]
    )
    same(resume(tmp_path / "run"), t)


def test_format_1_another_model_and_a_missing_checkpoint_are_refused(tiny, tmp_path, monkeypatch):
    t = run_of(tiny, tmp_path / "run", saves=1)
    old = tmp_path / "old" / "checkpoint-000001"
    shutil.copytree(tmp_path / "run" / "checkpoint-000001", old)
    (old / "state.json").write_text(
        json.dumps({"format": 1, "step": 1, "versions": {"sdpo_lab": "0.1.0"}})
    )
    (tmp_path / "old" / "latest.json").write_text(json.dumps({"checkpoint": "checkpoint-000001"}))
    with pytest.raises(
        ValueError,
        match=r"has format 1; this version reads format 2.*written by sdpo_lab .0\.1\.0.; the "
        r"weights of the student of checkpoint-000001 are whole",
    ):
        resume(tmp_path / "old")
    with pytest.raises(ValueError, match="holds another run"):
        t.save(tmp_path / "old")
    with monkeypatch.context() as patch:  # transformers builds it wider now
        original = checkpoints.read_skeleton

        def wider(folder, attention):
            model, tokenizer = original(folder, attention)
            model.model.norm.weight = torch.nn.Parameter(torch.ones(64))
            return model, tokenizer

        patch.setattr(checkpoints, "read_skeleton", wider)
        with pytest.raises(
            ValueError,
            match=r"with other weights than the \w+ that transformers "
            r"builds.*model\.norm\.weight.*'transformers'",
        ):
            resume(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoint-000001")
    with pytest.raises(
        ValueError,
        match="checkpoint-000001, which latest.json names, is missing in .*; nothing else of the "
        "run is whole",
    ):
        resume(tmp_path / "run")


def test_a_first_save_that_was_cut_short_is_no_run_and_in_nobodys_way(tiny, tmp_path, monkeypatch):
    t = trainer(tiny)
    t.step()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        t.save(tmp_path / "run")
    with pytest.raises(ValueError, match="holds no whole checkpoint: the first save was cut short"):
        resume(tmp_path / "run")
    (tmp_path / "run" / ".DS_Store").write_text("what a file manager leaves")
    other = trainer(tiny)
    other.save(tmp_path / "run")
    assert len(resume(tmp_path / "run").history) == 0


def test_autosave_saves_by_time_and_train_turns_it_on(tiny, tmp_path, monkeypatch):
    from sdpo_lab import trainer as between_steps

    clock = [0.0]
    monkeypatch.setattr(between_steps.time, "monotonic", lambda: clock[0])
    t = trainer(tiny)
    t.autosave(tmp_path / "run", seconds=30)
    saved = []
    for _ in range(6):
        clock[0] += 12
        t.step()
        saved.append(
            (tmp_path / "run" / "latest.json").exists()
            and RunFolder(tmp_path / "run").open()[1]["step"]
        )
    assert saved == [False, False, 3, 3, 3, 6] and steps(tmp_path / "run") == [3, 6]
    t.autosave(None)
    clock[0] += 1000
    t.step()
    assert steps(tmp_path / "run") == [3, 6]
    t.train(2, folder=tmp_path / "other", progress=False)
    assert steps(tmp_path / "other") == [9] and t.autosaves.seconds == 30
    same(resume(tmp_path / "other"), t)
    for bad in (dict(seconds=-1), dict(seconds="soon"), dict(seconds=float("nan")), dict(keep=0)):
        with pytest.raises((ValueError, TypeError), match="seconds|keep"):
            t.autosave(tmp_path / "run", **bad)
    with pytest.raises(ValueError, match="holds another run"):
        trainer(tiny).train(1, folder=tmp_path / "run", progress=False)


@pytest.mark.parametrize("kind", ["frozen", "trust_region", "live", "ema"])
def test_the_teachers_kind_and_the_templates_may_change_on_the_way(tiny, tmp_path, kind):
    began = "frozen" if kind == "ema" else "ema"
    words = dict(
        reprompt_template="{prompt}{solution}{feedback}\nTry it once more.",
        feedback_template="\nIt said: {feedback_raw}",
        solution_template="\nThis was right: {successful_previous_attempt}",
    )
    one, two = trainer(tiny, teacher_model_kind=began), trainer(tiny, teacher_model_kind=began)
    one.train(2, progress=False)
    one.apply(teacher_model_kind=kind, **words)
    if kind != "live":
        student = dict(one.model.named_parameters())
        assert one.teacher.kind == kind and all(
            torch.equal(p, student[n]) for n, p in one.teacher.copies().items()
        )
    record = one.step()
    shown = [r.teacher_messages[-1]["content"] for r in record.rollouts if r.shown]
    assert shown and all(
        "Try it once more." in s and ("It said: " in s or "This was right: " in s) for s in shown
    )
    one.save(tmp_path / "run")
    again = resume(tmp_path / "run")
    for t in (one, again):
        t.step()
    two.train(4, changes=one.history.changes, progress=False)
    same(one, again)
    same(one, two)
    with pytest.raises(ValueError, match="reprompt_template must contain"):
        one.apply(reprompt_template="no slots")


def test_numbers_and_texts_survive_json():
    odd = {
        "a": [float("nan"), float("inf"), -float("inf"), 1e-300, 0.1],
        "b": {"not finite": "perhaps"},
        "c": "\ud800 \u2028 \x00 <b>",
        "d": (1, 2),
    }
    again = from_json(to_json(odd))
    assert (
        repr(again["a"]) == repr(odd["a"])
        and again["b"] == odd["b"]
        and again["c"] == odd["c"]
        and to_json(odd).isascii()
    )
    with warnings.catch_warnings(), pytest.raises(ValueError, match="JSON-able"):
        to_json({"x": {1, 2}})
