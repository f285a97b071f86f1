"""LiveRun measures, saves, is watched and takes calls between two steps: none changes the run."""

from __future__ import annotations

import copy
import math
import threading
import time
import traceback

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.live.measurements import STUDENT, TEACHER, credit_of, measure
from sdpo_lab.views import LiveRun
from tests.shared.tasks import Letters


def build(tiny, **fields):
    model, tokenizer = tiny
    config = lab.SDPOConfig.preset(
        "laptop",
        generation_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        learning_rate=1e-2,
        **fields,
    )
    return lab.SDPOTrainer(copy.deepcopy(model), tokenizer, Letters(), config)


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.state_dict().items()} | {
        f"teacher/{name}": p.clone()
        for name, p in (trainer.teacher.copies() if trainer.teacher else {}).items()
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"distillation_weight": 0.0},
        {"teacher_model_kind": "trust_region", "teacher_update_rate": 0.3},
    ],
)
def test_measuring_and_saving_leave_the_run_as_it_is(tiny, tmp_path, fields):
    plain, measured = build(tiny, **fields), build(tiny, **fields)
    LiveRun(plain, 5).result(progress=False)
    run = LiveRun(measured, 5, evaluate_every=2, evaluate_n=6, folder=tmp_path / "run")
    run.step()
    run.wait()
    scored = run.credit_of(1, 3)
    run.save()
    run.result(progress=False)
    assert len(scored.result().tokens) == len(measured.history[0].rollouts[3].completion_ids)
    a, b = weights(plain), weights(measured)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert [r.reward for r in plain.history] == [r.reward for r in measured.history] and [
        repr(r.loss) for r in plain.history
    ] == [repr(r.loss) for r in measured.history]
    at = [r.step for r in measured.history if STUDENT in r.metrics]
    assert at == [2, 4, 5] and not any(STUDENT in r.metrics for r in plain.history)
    assert [r.step for r in measured.history if TEACHER in r.metrics] == (
        [] if fields.get("distillation_weight") == 0.0 else at
    )
    assert all(
        0 <= r.metrics[STUDENT] <= 1 and r.metrics[STUDENT] * 6 % 1 < 1e-9
        for r in measured.history
        if r.step in at
    )
    # what was measured is in what was saved, and the end was saved
    assert run.saved == (5, tmp_path / "run")
    again = lab.SDPOTrainer.resume(tmp_path / "run", task=Letters())
    assert {r.step: r.metrics[STUDENT] for r in again.history if STUDENT in r.metrics} == {
        r.step: r.metrics[STUDENT] for r in measured.history if r.step in at
    }


def test_measured_after_every_step_saved_after_every_step(tiny, tmp_path):
    """A line of the history is written once: it must hold what was measured after its step."""
    trainer = build(tiny)
    run = LiveRun(trainer, 3, evaluate_every=1, evaluate_n=2, folder=tmp_path / "run")
    trainer.autosaves.seconds = 0.0
    run.result(progress=False)
    again = lab.SDPOTrainer.resume(tmp_path / "run", task=Letters())
    assert [r.metrics[STUDENT] for r in again.history] == [
        r.metrics[STUDENT] for r in trainer.history
    ] and trainer.autosaves is not None


def test_the_measure_is_that_of_evaluate(tiny):
    trainer = build(tiny)
    trainer.train(2, progress=False)
    found = measure(trainer, 16)
    assert found == {
        STUDENT: trainer.evaluate(16).accuracy,
        TEACHER: trainer.evaluate(16, role="teacher").accuracy,
    }
    assert 0 < found[STUDENT] < 1 and found == measure(trainer, 16)


@pytest.mark.parametrize(
    "fields, error",
    [
        ({"evaluate_every": -1}, ValueError),
        ({"evaluate_every": 1.5}, TypeError),
        ({"evaluate_n": 0}, ValueError),
        ({"watchers": [3]}, TypeError),
    ],
)
def test_bad_settings(fake, fields, error):
    with pytest.raises(error, match=next(iter(fields))):
        LiveRun(fake(), 5, **fields)


def test_a_folder_that_cannot_be_used_is_an_error_of_the_caller(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="thesis.tex"):
        LiveRun(build(tiny), 5, folder=tmp_path)


def test_watchers_see_whole_steps_and_the_page_sees_what_they_saw(fake):
    trainer, seen = fake(), []
    run = LiveRun(
        trainer,
        3,
        watchers=[
            lambda record: seen.append(
                (
                    record and record.step,
                    run.count,
                    len(trainer.history),
                    threading.current_thread().name,
                )
            )
        ],
    )
    run.step()
    run.wait(5)
    run.result(progress=False)
    assert (
        seen == [(n or None, max(0, n - 1), n, "sdpo_lab-live-run") for n in (0, 1, 2, 3)]
        and run.count == 3
    )


def hole(record):
    if record is not None and record.step == 2:
        raise KeyError("a watcher with a hole")


def test_a_watcher_that_raises_ends_the_run_with_its_traceback(fake):
    trainer = fake()
    run = LiveRun(trainer, 9, watchers=[hole])
    with pytest.raises(KeyError, match="a watcher with a hole") as caught:
        run.result(progress=False)
    assert run.state == "failed" and run.done == len(trainer.history) == 2
    assert "hole" in [f.name for f in traceback.extract_tb(caught.value.__traceback__)]


def test_a_measurement_that_raises_ends_the_run(tiny, tmp_path):
    trainer = build(tiny)
    judge = trainer.task.judge
    trainer.task.judge = lambda problem, completion: (
        judge(problem, completion) if problem.id.startswith("train") else 1 / 0
    )
    run = LiveRun(trainer, 9, evaluate_every=3, folder=tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        run.result(progress=False)
    assert (run.state, run.done, len(trainer.history)) == (
        "failed",
        3,
        3,
    ) and trainer.autosaves is not None


@pytest.mark.timing
def test_saving_is_done_at_a_boundary_by_the_one_who_steps(fake, until, tmp_path):
    trainer = fake()
    run = LiveRun(trainer, 50, folder=tmp_path / "run")
    trainer.autosaves.seconds = math.inf
    run.start()
    until(lambda: run.done >= 2)
    trainer.gate = threading.Event()
    until(lambda: trainer.inside == 1)
    began = time.monotonic()
    wish = run.save()
    assert time.monotonic() - began < 0.05 and not wish.done() and trainer.saves == []
    trainer.gate.set()
    assert wish.result(5).name.startswith("checkpoint-")
    run.stop()
    assert run.wait(5) and trainer.most_inside == 1
    (where, step), last = trainer.saves[0], trainer.saves[-1]
    assert where == str(tmp_path / "run") and 2 <= step <= last[1] == len(
        trainer.history
    )  # and once more at the end
    assert run.saved == (len(trainer.history), tmp_path / "run")


def test_saving_at_rest_and_after_the_end(fake, tmp_path, monkeypatch):
    trainer = fake()
    monkeypatch.chdir(tmp_path)
    run = LiveRun(trainer, 2)
    wish = run.save()  # nobody named a folder: one of its own, in the working directory
    assert (
        wish.result(5)
        and run.wait(5)
        and run.state == "ready"
        and run.folder.name.startswith("sdpo_run-")
        and trainer.saves == [(str(run.folder), 0)]
    )
    run.result(progress=False)
    assert (
        trainer.saves[1:] == []
        and run.save("elsewhere").result(5)
        and run.state == "finished"
        and run.saved[0] == 2
        and run.saved[1].name == "elsewhere"
    )


def test_a_call_that_fails_is_reported_to_who_asked_and_nobody_else(fake, tmp_path, monkeypatch):
    trainer = fake()
    run = LiveRun(trainer, 3)
    monkeypatch.setattr(
        trainer, "save", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        run.save(tmp_path / "x").result(5)
    with pytest.raises(ValueError, match="step 9 has no attempt 0; no attempt is kept"):
        run.credit_of(9, 0).result(5)
    assert run.wait(5) and run.state == "ready" and len(run.result(progress=False)) == 3


def test_a_run_at_rest_stays_so_while_a_call_is_made(fake, until):
    trainer, gate = fake(), threading.Event()
    run = LiveRun(trainer, 4)
    run.step()
    run.wait(5)
    wish = run.call_between_steps(lambda: gate.wait(20))
    until(lambda: wish.running())
    assert run.state == "paused" and not run.wait(0.05)
    run.start()  # waits for its turn: one thread inside the trainer
    time.sleep(0.05)
    assert run.done == 1
    gate.set()
    assert len(run.result(progress=False)) == 4 and trainer.most_inside == 1


def test_credit_of_an_attempt(tiny):
    trainer = build(tiny)
    trainer.train(2, progress=False)
    for index, r in enumerate(trainer.history[1].rollouts):
        found = credit_of(trainer, 2, index)
        assert (
            found.completion_ids == r.completion_ids
            and found.shown.get("feedback", "") == r.shown_feedback
            and found.shown.get("solution", "") == r.shown_solution
        )
    wanted = lab.credit(
        trainer.model,
        trainer.tokenizer,
        r.problem,
        r,
        feedback=r.shown_feedback,
        solution=r.shown_solution,
        teacher=trainer.teacher,
        config=trainer.config,
    )
    assert torch.equal(found.advantages, wanted.advantages)
    trainer.history[0].rollouts.clear()
    for step, index in ((1, 0), (2, 8), (3, 0), (2, -1)):
        with pytest.raises(
            ValueError,
            match=f"step {step} has no attempt {index}; attempts are kept of steps 2 to 2",
        ):
            credit_of(trainer, step, index)


def test_without_a_teacher_the_model_reads_the_feedback(tiny):
    trainer = build(tiny, distillation_weight=0.0)
    trainer.train(1, progress=False)
    index, r = next((k, r) for k, r in enumerate(trainer.history[0].rollouts) if r.feedback)
    assert credit_of(trainer, 1, index).shown == {"feedback": r.feedback}


def taken(tiny, run, steps):
    """Single steps of a run, to a rest."""
    for _ in range(steps):
        run.step()
        assert run.wait(30)


def test_a_run_that_is_stopped_at_rest_saves_its_end_too(tiny, tmp_path):
    run = LiveRun(build(tiny), 50, folder=tmp_path / "run")
    taken(tiny, run, 2)
    run.stop()
    assert (
        run.wait(30) and run.state == "stopped" and run.saved == (2, (tmp_path / "run").resolve())
    )
    assert len(lab.SDPOTrainer.resume(tmp_path / "run", task=Letters()).history) == 2


def test_what_is_said_to_be_saved_is(tiny, tmp_path, monkeypatch):
    from sdpo_lab.runs import checkpoints

    run = LiveRun(build(tiny), 50, folder=tmp_path / "run")
    taken(tiny, run, 1)
    with monkeypatch.context() as patch:

        def full(*arguments):
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoints, "write_tensors", full)
        assert isinstance(run.save().exception(30), OSError)
        assert run.wait(30) and run.saved is None
    assert run.save(tmp_path / "copy").result(30) and run.wait(30)
    assert run.saved == (1, (tmp_path / "copy").resolve())
    taken(tiny, run, 1)
    assert (
        run.save().result(30).parent == (tmp_path / "run").resolve()
    )  # the run's own folder is still its own


def test_a_wish_that_no_step_will_carry_out_is_refused(fake):
    trainer = fake(seconds=0.2)
    run = LiveRun(trainer, 9)
    run.start()
    run.stop()
    with pytest.raises(RuntimeError, match="takes no further step"):
        run.set(learning_rate=1e-3)
    assert run.wait(5)
    with pytest.raises(RuntimeError, match="stopped"):
        run.set(learning_rate=1e-3)


def test_a_run_and_its_timeline_cannot_share_a_folder(tiny, tmp_path):
    from sdpo_lab.views import Dashboard

    trainer = build(tiny)
    with pytest.raises(ValueError, match="folder must be another than the timeline's"):
        Dashboard(
            trainer,
            5,
            folder=tmp_path / "run",
            timeline=lab.Timeline(trainer, folder=tmp_path / "run"),
        )


def test_what_a_failed_step_held_is_let_go(fake):
    import gc
    import weakref

    class Large:
        pass

    seen = []

    def watcher(record):
        held = Large()  # noqa: F841
        seen.append(weakref.ref(held))
        raise ZeroDivisionError("broken")

    run = LiveRun(fake(), 5, watchers=[watcher])
    run.start()
    assert run.wait(5) and run.state == "failed"
    gc.collect()
    assert seen[0]() is None and isinstance(run.exception, ZeroDivisionError)
