"""LiveRun: every state, every call, and nobody inside the trainer twice."""

from __future__ import annotations

import threading
import time
import traceback

import pytest

from sdpo_lab.views import LiveRun


def test_runs_to_the_end(fake):
    trainer = fake()
    run = LiveRun(trainer, 5)
    assert (run.state, run.done, run.exception, run.seconds) == ("ready", 0, None, 0.0)
    history = run.result(progress=False)
    assert history is trainer.history and len(history) == 5 and run.state == "finished"
    assert run.result(progress=False) is history  # asked again, answered again
    assert [r.step for r in run.records_since(3)] == [4, 5] and run.records_since(9) == []
    assert run.seconds >= 0.05 and threading.current_thread().name not in trainer.threads
    with pytest.raises(RuntimeError, match="finished after 5 of 5"):
        run.start()
    with pytest.raises(RuntimeError, match="finished"):
        run.set(learning_rate=1e-3)


@pytest.mark.parametrize(
    "steps, error",
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("6", TypeError), (True, TypeError)],
)
def test_steps_are_checked(fake, steps, error):
    with pytest.raises(error, match="steps must be"):
        LiveRun(fake(), steps)


@pytest.mark.timing
def test_pause_returns_at_once_and_takes_at_most_the_step_in_hand(fake, until):
    trainer = fake()
    run = LiveRun(trainer, 50)
    run.start()
    until(lambda: run.done >= 2)
    trainer.gate = threading.Event()
    until(lambda: trainer.inside == 1)
    done, began = run.done, time.monotonic()
    run.pause()
    assert time.monotonic() - began < 0.05 and run.state == "pausing"
    trainer.gate.set()
    assert run.wait(5) and run.state == "paused" and run.done <= done + 1
    time.sleep(0.1)
    assert len(trainer.history) == run.done
    run.pause()  # nothing to do
    assert run.state == "paused"


def test_starting_while_pausing_goes_on(fake, until):
    trainer = fake()
    trainer.gate = threading.Event()
    run = LiveRun(trainer, 3)
    run.start()
    until(lambda: trainer.inside == 1)
    run.pause()
    run.start()
    assert run.state == "running"
    trainer.gate.set()
    assert len(run.result(progress=False)) == 3 and trainer.most_inside == 1


def test_single_steps(fake):
    run = LiveRun(fake(), 4)
    for n in (1, 2):
        run.step()
        assert run.state == "pausing" and run.wait(5)
        assert (run.state, run.done) == ("paused", n)
    run.step()
    run.step()  # asked for twice, taken twice
    assert run.wait(5) and run.done == 4 and run.state == "finished"


def test_single_step_of_a_running_run_is_refused(fake):
    run = LiveRun(fake(), 100)
    run.start()
    with pytest.raises(RuntimeError, match=r"call pause\(\) first"):
        run.step()
    run.stop()
    assert run.wait(5)


def test_pause_takes_back_single_steps_not_yet_begun(fake, until):
    trainer = fake()
    trainer.gate = threading.Event()
    run = LiveRun(trainer, 9)
    for _ in range(3):
        run.step()
    until(lambda: trainer.inside == 1)
    run.pause()
    trainer.gate.set()
    assert run.wait(5) and run.done == 1


def test_stop(fake, until, capsys):
    trainer = fake()
    trainer.gate = threading.Event()
    run = LiveRun(trainer, 50)
    run.start()
    until(lambda: trainer.inside == 1)
    run.stop()
    assert run.state == "stopping"
    with pytest.raises(RuntimeError, match="about to stop"):
        run.start()
    run.pause()
    assert run.state == "stopping"
    trainer.gate.set()
    history = run.result()
    assert run.state == "stopped" and len(history) == 1
    assert "stopped by hand after 1 of 50 steps" in capsys.readouterr().out


def test_stop_before_the_start(fake):
    run = LiveRun(fake(), 5)
    run.stop()
    assert run.state == "stopped" and len(run.result(progress=False)) == 0


def test_result_of_a_paused_run_goes_on_and_says_so(fake, capsys):
    run = LiveRun(fake(), 3)
    run.step()
    run.wait()
    assert len(run.result()) == 3
    assert "paused after 1 of 3 steps; it goes on" in capsys.readouterr().out


def test_changes_take_effect_at_the_next_step_and_are_logged(fake):
    trainer = fake()
    run, before = LiveRun(trainer, 3), trainer.config.learning_rate
    run.step()
    run.wait()
    run.set(learning_rate=1e-3)
    run.set(teacher_update_rate=0.1)
    assert run.pending == {"learning_rate": 1e-3, "teacher_update_rate": 0.1}
    assert (
        run.value("learning_rate") == 1e-3 and trainer.config.learning_rate == before
    )  # a wish until the boundary
    run.step()
    run.wait()
    assert trainer.rates == [before, 1e-3] and run.pending == {}
    assert run.result(progress=False).changes == {
        2: {"learning_rate": 1e-3, "teacher_update_rate": 0.1}
    }


@pytest.mark.parametrize(
    "fields, error, words",
    [
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be from 0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate"),
        (
            {"teacher_update_rate": 2.0},
            ValueError,
            "teacher_update_rate must be from 0.0 to 1.0; got 2.0",
        ),
        ({"temperature": "hot"}, TypeError, "temperature must be a number"),
        ({"lerning_rate": 1.0}, ValueError, "Did you mean 'learning_rate'"),
        ({"num_generations": 4}, ValueError, "num_generations"),
        ({"learning_rate": 1e-3, "temperature": 0.0}, ValueError, "temperature"),
    ],
)
def test_a_bad_value_reaches_the_caller_and_changes_nothing(fake, fields, error, words):
    trainer = fake()
    run = LiveRun(trainer, 2)
    with pytest.raises(error, match=words):
        run.set(**fields)
    assert run.pending == {}
    assert run.result(progress=False).changes == {}


def broken_judge():
    raise KeyError("a judge with a hole")


def test_the_workers_exception_is_raised_again_with_its_traceback(fake, monkeypatch):
    trainer = fake()
    step = trainer.step
    monkeypatch.setattr(
        trainer, "step", lambda: step() if len(trainer.history) < 2 else broken_judge()
    )
    run = LiveRun(trainer, 10)
    for _ in range(2):  # every time it is asked for, and without growing
        with pytest.raises(KeyError, match="a judge with a hole") as caught:
            run.result(progress=False)
        frames = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
        assert frames.count("broken_judge") == 1 and frames.count("result") == 1
    assert run.state == "failed" and run.exception is caught.value and run.done == 2
    with pytest.raises(RuntimeError, match="failed after 2 of 10"):
        run.start()


def test_system_exit_in_a_judge_does_not_pass_for_success(fake):
    run = LiveRun(fake(fail_at=2, error=SystemExit(0)), 5)
    with pytest.raises(RuntimeError, match="ended in SystemExit"):
        run.result(progress=False)


def test_a_change_the_trainer_refuses_after_all_fails_the_run(fake, monkeypatch):
    trainer = fake()

    def apply(**fields):
        raise ValueError("not in this combination")

    monkeypatch.setattr(trainer, "apply", apply)
    run = LiveRun(trainer, 5)
    run.set(learning_rate=1e-3)
    with pytest.raises(ValueError, match="not in this combination"):
        run.result(progress=False)
    assert run.state == "failed" and run.done == 0


def test_a_history_that_is_too_short_is_an_error(fake, monkeypatch):
    trainer = fake()
    monkeypatch.setattr(trainer, "step", lambda: None)
    with pytest.raises(RuntimeError, match="0 of the 3 steps"):
        LiveRun(trainer, 3).result(progress=False)


def test_interrupt_pauses_at_a_boundary_and_loses_nothing(fake, capsys):
    trainer = fake()
    run = LiveRun(trainer, 30)

    def meanwhile():
        if run.done >= 3 and run.state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.result(every=0.01, meanwhile=meanwhile)
    assert (
        run.state == "paused" and trainer.inside == 0 and 3 <= run.done == len(trainer.history) < 30
    )
    assert "Nothing is lost" in capsys.readouterr().out
    assert len(run.result(progress=False)) == 30
