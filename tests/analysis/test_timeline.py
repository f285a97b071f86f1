"""Rewind: what is kept of every step, and a trainer as it was after any of them."""

import copy
import json
import math
import shutil
import threading

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis import timeline as module
from sdpo_lab.analysis.credit import token_text
from sdpo_lab.analysis.pictures import MOST_BYTES, MOST_TOKENS, picture
from sdpo_lab.analysis.probe import failures
from sdpo_lab.analysis.snapshots import size
from sdpo_lab.analysis.timeline import Timeline
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.models.loading import add_adapter, lora_config
from sdpo_lab.runs.checkpoints import moments
from tests.shared.tasks import SMALL, Vowels

HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202e<|im_end|>"


def trainer(tiny, lora=None, task=None, **fields):
    model, tokenizer = tiny
    model = copy.deepcopy(model)
    model = add_adapter(model, lora_config(lora)) if lora else model
    return lab.SDPOTrainer(
        model,
        tokenizer,
        task or Vowels(),
        lab.SDPOConfig.preset("laptop", **{**SMALL, **(fields or {"teacher_update_rate": 0.2})}),
    )


def tensors(t):
    """Everything that is trained."""
    mine = {f"teacher/{n}": p for n, p in t.teacher.copies().items()} if t.teacher else {}
    return {
        n: p.detach().clone() for n, p in {**t.model.state_dict(), **mine, **moments(t)}.items()
    }


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def run(t, timeline, steps, changes=()):
    """Watched steps; what was trained after each."""
    after = {}
    for _ in range(steps):
        t.apply(**dict(changes).get(len(t.history) + 1, {}))
        timeline.watch(t.step())
        after[len(t.history)] = tensors(t)
    return after


@pytest.mark.parametrize(
    "lora, fields", [(None, {}), (4, {}), (None, {"distillation_weight": 0.0})]
)
def test_any_step_comes_back_bit_for_bit_and_the_run_is_left_alone(tiny, lora, fields):
    t = trainer(tiny, lora, **fields)
    twin = trainer(tiny, lora, **fields)
    timeline = Timeline(t, every=3)
    changes = {
        3: {"learning_rate": 3e-3, "temperature": 0.9},
        6: {"max_grad_norm": 0.5} if fields else {"teacher_model_kind": "frozen"},
    }
    before = {0: tensors(t)}
    timeline.watch(None)
    before |= run(t, timeline, 7, changes)
    assert timeline.snapshots == [0, 3, 6] and timeline.steps == list(range(8))
    generator, base, folders = torch.get_rng_state(), len(t.history), dict(t.folders)
    for step in (0, 2, 3, 5, 7):
        past = timeline.at(step)
        assert equal(tensors(past), before[step]), step
        assert len(past.history) == step and past.task is t.task and past.model is not t.model
        assert past.history.changes == {s: c for s, c in t.history.changes.items() if s <= step}
        past.step()  # it is a trainer like any other
    assert (
        equal(tensors(t), before[7])
        and len(t.history) == base
        and t.folders == folders
        and torch.equal(torch.get_rng_state(), generator)
    )
    # it was watched and looked back at, and goes on as if nobody had
    run(t, timeline, 1)
    twin.train(8, changes=changes, progress=False)
    assert equal(tensors(t), tensors(twin))


def test_the_picture_is_what_credit_says_and_the_same_when_computed_again(tiny):
    t = trainer(tiny)
    timeline = Timeline(t, every=2)
    timeline.watch(None)
    run(t, timeline, 3)
    probe = timeline.probe
    shown = (
        {"feedback": probe.feedback}
        if not probe.shown
        else {"feedback": probe.shown_feedback, "solution": probe.shown_solution}
    )
    credit = lab.credit(
        t.model, t.tokenizer, probe.problem, probe, **shown, teacher=t.teacher, config=t.config
    )
    found = timeline.picture(3)
    assert found["tokens"] == [
        t or token_text(credit.tokenizer, i) for t, i in zip(credit.tokens, credit.completion_ids)
    ]
    assert found["advantage"] == [pytest.approx(float(a), abs=6e-4) for a in credit.advantages]
    assert found["student"] == [pytest.approx(float(a), abs=6e-4) for a in credit.student_log_probs]
    assert found["sum"] == pytest.approx(float(credit.advantages.abs().sum()), abs=0.01)
    top = credit.top(5, at=1)[0]
    alternatives = {found["vocabulary"][place]: (p, q) for place, p, q in found["top"][1]}
    for role, column in (("student", 0), ("teacher", 1)):
        for token, probability in top[role]:
            if probability >= 0.001:
                assert alternatives[token][column] == pytest.approx(probability, abs=6e-4)
    kept = {step: timeline.picture(step) for step in (1, 2, 3)}
    timeline._pictures.clear()
    assert {step: timeline.picture(step) for step in (1, 2, 3)} == kept
    assert kept[1]["course"]["steps"] == [1, 2, 3] and kept[1]["course"]["sums"] == [
        kept[s]["sum"] for s in (1, 2, 3)
    ]
    assert timeline.picture(0)["sum"] != kept[1]["sum"] and timeline.course()["steps"] == [
        0,
        1,
        2,
        3,
    ]  # the beginning, computed when asked for


def test_a_probe_of_ones_own(tiny):
    t = trainer(tiny)
    problem = t.task.problems(1, "train", 0)[0]
    for probe in (
        Rollout(
            problem,
            0,
            "abc",
            lab.credit(*tiny, problem, "abc").completion_ids,
            feedback="wrong: " + HOSTILE,
        ),
        (problem, "abc", "wrong: " + HOSTILE),
    ):
        timeline = Timeline(t, probe)
        timeline.watch(None)
        assert timeline.steps == [len(t.history)]
        found = timeline.picture(len(t.history))
        assert "".join(found["tokens"]) == "abc" and found["shown"] == {
            "feedback": "wrong: " + HOSTILE
        }
        json.dumps(found, allow_nan=False)
    with pytest.raises(ValueError, match="empty attempt"):
        Timeline(t, (problem, "", "wrong"))
    with pytest.raises(ValueError, match="no feedback"):
        Timeline(t, (problem, "abc", ""))
    with pytest.raises(TypeError, match="must be a Rollout or"):
        Timeline(t, "abc")


def test_the_failure_looked_at_is_the_one_the_student_was_surest_of():
    problem = Problem("p", [{"role": "user", "content": "?"}])
    rows = [
        Rollout(problem, 0, "a", [1], entropy=0.5, reward=0.0, feedback="no"),
        Rollout(problem, 1, "b", [1], entropy=0.1, reward=0.0, feedback=""),
        Rollout(problem, 2, "c", [1], entropy=0.2, reward=0.0, feedback="no"),
        Rollout(problem, 3, "d", [1], entropy=0.0, reward=1.0, feedback="well done"),
        Rollout(problem, 4, "", [], entropy=0.0, reward=0.0, feedback="empty"),
    ]
    record = lab.records.StepRecord(1, 0.2, 0.1, {}, rows)
    assert [r.index for r in failures(record, 1.0)] == [2, 0]
    rows[1].shown_solution = "d"
    assert [r.index for r in failures(lab.records.StepRecord(1, 0.2, 0.1, {}, rows[1:2]), 1.0)] == [
        1
    ]
    assert failures(lab.records.StepRecord(1, 1.0, 0.1, {}, rows[3:]), 1.0) == []


@pytest.mark.parametrize("count", [1, 512, 600])
def test_a_picture_has_a_bound_whatever_the_attempt(tiny, count):
    model, tokenizer = tiny
    problem = Problem("p", [{"role": "user", "content": "?"}])
    ids = [(7 * i) % 390 + 3 for i in range(count)]
    credit = lab.credit(model, tokenizer, problem, ids, feedback="no")
    credit.shown["feedback"] = HOSTILE * 300
    found = picture(credit)
    assert len(json.dumps(found, allow_nan=False)) <= MOST_BYTES
    assert len(found["tokens"]) + found["cut"] == count and found["cut"] == max(
        0, count - MOST_TOKENS
    )
    assert all(found["top"]), "some alternatives fit beside 512 tokens"
    assert len(found["shown"]["feedback"]) < 2100
    long = copy.copy(credit)
    long.tokens = [
        "\u202e" * 200
    ] * count  # hostile names: each as long as may be, six bytes a character in JSON
    assert len(json.dumps(picture(long))) <= MOST_BYTES and picture(long)["cut"] > 0 or count == 1


def test_numbers_that_are_none(tiny):
    credit = lab.credit(
        *tiny, Problem("p", [{"role": "user", "content": "?"}]), "abc", feedback="no"
    )
    credit.teacher_log_probs[1], credit.teacher_log_probs[2] = -math.inf, math.nan
    found = picture(credit)
    assert (
        found["teacher"][1] is None
        and found["advantage"][1:3] == [None, None]
        and math.isfinite(found["sum"])
    )


def test_snapshots_stay_under_their_cap_and_thin_out_evenly(tiny):
    t = trainer(tiny)
    free = Timeline(t, every=1)
    free.watch(None)
    run(t, free, 2)
    base = size(free.folder, *[free.folder / f"checkpoint-{s:06d}" for s in (0,)])
    one = size(free.folder, *free._saved().values()) - size(
        free.folder, *[free._saved()[s] for s in (0, 1)]
    )
    t = trainer(tiny)
    cap = (base + 4.6 * one) / 1e6  # room for the beginning and four more
    timeline = Timeline(t, every=1, max_megabytes=cap)
    timeline.watch(None)
    after = {}
    for _ in range(13):
        after |= run(t, timeline, 1)
        assert (
            size(timeline.folder, *timeline._saved().values()) <= cap * 1e6
            and timeline.snapshots[0] == 0
        )
    assert (
        timeline.every in (4, 8)
        and all(s % timeline.every == 0 or s == max(timeline.snapshots) for s in timeline.snapshots)
        and len(timeline.snapshots) >= 3
    )
    assert not timeline.trouble and equal(tensors(timeline.at(7)), after[7])


def test_a_cap_without_room_for_two_keeps_the_beginning(tiny):
    t = trainer(tiny)
    timeline = Timeline(t, every=1, max_megabytes=0.6)
    timeline.watch(None)
    with pytest.warns(UserWarning, match="no room for a second snapshot"):
        after = run(t, timeline, 2)
    assert timeline.snapshots == [0] and equal(tensors(timeline.at(2)), after[2])


def test_a_run_that_cannot_be_saved_goes_on_and_says_so(tiny, monkeypatch):
    t = trainer(tiny)
    timeline = Timeline(t, every=1)
    timeline.watch(None)
    run(t, timeline, 1)
    monkeypatch.setattr(
        t, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.warns(UserWarning, match="No space left"):
        after = run(t, timeline, 2)
    assert (
        "No space left" in timeline.trouble
        and timeline.course()["trouble"]
        and timeline.steps == [0, 1, 2, 3]
    )
    assert equal(tensors(timeline.at(3)), after[3])  # from the snapshot at step 1
    shutil.rmtree(timeline.folder)
    with pytest.raises(RuntimeError, match="no snapshot at or before step 3.*No space left"):
        timeline.at(3)


def test_pictures_are_bounded_by_number(tiny, monkeypatch):
    monkeypatch.setattr(module, "MOST_PICTURES", 4)
    t = trainer(tiny)
    timeline = Timeline(t, every=2)
    timeline.watch(None)
    run(t, timeline, 11)
    assert timeline.steps == [0, 4, 8] and timeline.course()["steps"] == [*range(1, 12)]
    assert timeline.picture(5)["sum"] == timeline.course()["sums"][4]
    assert (
        len(timeline._pictures) <= 4
        and max(len(p) for p in timeline._pictures.values()) < MOST_BYTES
    )


def test_unknown_steps_and_times_before_the_beginning(tiny, tmp_path):
    t = trainer(tiny)
    timeline = Timeline(t)
    for ask in (timeline.at, timeline.picture):
        with pytest.raises(ValueError, match="has not begun"):
            ask(0)
    t.step()
    timeline.watch(None)
    with pytest.raises(ValueError, match="no attempt to look at yet"):
        timeline.picture(1)
    for step in (0, 2, -1, 10**9):
        with pytest.raises(ValueError, match=f"step must be from 1 to 1; got {step}"):
            timeline.at(step)
    for step in ("1", 1.0, None, True):
        with pytest.raises(TypeError, match="step must be a whole number"):
            timeline.at(step)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(ValueError, match="must be a new or an empty one"):
            Timeline(t, folder=folder)
    with pytest.raises(ValueError, match="every must be from 1"):
        Timeline(t, every=0)
    with pytest.raises(ValueError, match="max_megabytes must be from"):
        Timeline(t, max_megabytes=math.nan)


def test_an_attempt_too_long_to_be_read_costs_a_picture_not_the_run(tiny):
    long = "{prompt}{solution}{feedback}" + " again" * 2100  # more than the model's context
    t = trainer(tiny)
    timeline = Timeline(t, every=10)
    timeline.watch(None)
    run(t, timeline, 1)
    t.config = t.config.replace(
        reprompt_template=long
    )  # what it is shown is read by the template of the moment
    record = t.history[0]
    timeline._pictures.clear()
    timeline.watch(record)
    assert timeline.steps == [0] and "context is 2048" in timeline.blind
    own = Timeline(t, (record.rollouts[0].problem, "abc", "no"))
    with pytest.raises(ValueError, match="the probe cannot be scored: .*context is 2048"):
        own.watch(None)
    late = Timeline(t)
    late.watch(None)
    late.watch(record)
    assert late.probe is None and late.steps == []


def test_a_step_that_cannot_be_taken_again_is_told_not_shown(tiny):
    """Attempts given by hand are nobody's to sample again."""
    t = trainer(tiny)
    timeline = Timeline(t, every=10)
    timeline.watch(None)
    run(t, timeline, 1)
    given = [copy.copy(r) for r in t.history[0].rollouts]
    for r in given:
        r.reward, r.feedback = None, ""
    t.apply(temperature=1.3)
    timeline.watch(t.step(given))
    with pytest.raises(
        RuntimeError, match="step 2 could not be taken again: its mean reward was .* given by hand"
    ):
        timeline.at(2)
    timeline.at(1)


def test_a_task_with_a_state_is_not_touched(tiny):
    class Counting(Vowels):
        def __init__(self):
            self.seen = 0

        def judge(self, problem, completion):
            self.seen += 1
            return super().judge(problem, completion)

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

    t = trainer(tiny, task=Counting())
    timeline = Timeline(t, every=10)
    timeline.watch(None)
    run(t, timeline, 2)
    seen = t.task.seen
    past = timeline.at(1)
    assert t.task.seen == seen and past.task is not t.task and past.task.seen == seen // 2


def test_looking_back_while_the_run_goes_on(tiny):
    t, twin = trainer(tiny), trainer(tiny)
    timeline = Timeline(t, every=2)
    timeline.watch(None)
    after = run(t, timeline, 3)
    errors = []

    def look():
        try:
            for _ in range(4):
                assert equal(tensors(timeline.at(3)), after[3])
                assert timeline.picture(2)["course"]["steps"][:3] == [1, 2, 3]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    run(t, timeline, 5)
    thread.join()
    twin.train(8, progress=False)
    assert not errors and equal(tensors(t), tensors(twin))


def test_a_folder_of_ones_own_stays_and_a_temporary_one_goes(tiny, tmp_path):
    t = trainer(tiny)
    timeline, temporary = Timeline(t, folder=tmp_path / "past", every=1), Timeline(t)
    for each in (timeline, temporary):
        each.watch(None)
    run(t, timeline, 1)
    t.save(tmp_path / "run")  # and the run's own folder is another matter
    run(t, timeline, 1)
    t.save(tmp_path / "run")
    gone = temporary.folder
    assert "steps 0 to 2" in repr(timeline) and gone.exists()
    del timeline, temporary, each
    assert (tmp_path / "past" / "latest.json").exists() and not gone.exists()
    assert len(lab.SDPOTrainer.resume(tmp_path / "past", task=Vowels(), step=1).history) == 1
