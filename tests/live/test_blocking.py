"""`result()` without a page that answers: a progress line, and in a notebook a picture of the
curve, drawn again in place."""

from __future__ import annotations

import time

import nbformat
import pytest

from sdpo_lab.live import progress
from sdpo_lab.views import Dashboard
from tests.browser.kernels import environment

WAIT = """
from tests.shared.fake_trainer import FakeTrainer
from sdpo_lab.views import Dashboard
dash = Dashboard(FakeTrainer(seconds=0.1), 55, evaluate_every=0)
len(dash.result())
""".strip()


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: [(time, mime bundle), ...], the same display in its place."""
    found = []
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(
        progress,
        "redraw",
        lambda handle, bundle: found.append((time.monotonic(), bundle)) or "handle",
    )
    return found


def pictures(shown):
    return [(at, bundle) for at, bundle in shown if "text/html" in bundle]


@pytest.mark.timing
def test_a_picture_once_a_second_when_nobody_answers(fake, shown, monkeypatch):
    monkeypatch.setattr("sdpo_lab.views.dashboard.PRESENT", 0.5)
    dash = Dashboard(fake(seconds=0.05), 60, evaluate_every=0)
    began = time.monotonic()
    dash.result()
    found = pictures(shown)
    assert 2 <= len(found) <= 6 and found[0][0] - began >= 0.5
    assert all(
        b[0] - a[0] >= 1 for a, b in zip(found, found[1:-1])
    )  # but for the last, which is of the end
    assert (
        "<svg" in found[-1][1]["text/html"]
        and "finished · 60 of 60 steps" in found[-1][1]["text/html"]
    )


def test_no_picture_where_a_page_answers_or_the_run_is_short(fake, shown, monkeypatch):
    monkeypatch.setattr("sdpo_lab.views.dashboard.PRESENT", 0.3)
    dash = Dashboard(fake(seconds=0.05), 20, evaluate_every=0)
    monkeypatch.setattr(dash, "send", lambda m: None)
    dash._on_message(
        dash, {"kind": "tick", "since": 0, "seen": -1}, []
    )  # asked just before the cell began to wait
    dash.result()
    assert pictures(shown) == []
    Dashboard(fake(seconds=0.01), 3, evaluate_every=0).result()
    assert pictures(shown) == []


def test_the_picture_goes_when_a_page_comes(fake, shown, monkeypatch, until):
    monkeypatch.setattr("sdpo_lab.views.dashboard.PRESENT", 0.3)
    dash = Dashboard(fake(seconds=0.05), 60, evaluate_every=0)
    monkeypatch.setattr(dash, "send", lambda m: None)
    step = dash.run.trainer.step

    def then():
        if len(dash.run.trainer.history) == 30:
            assert pictures(shown)
            dash._on_message(dash, {"kind": "tick", "since": 0, "seen": -1}, [])
        return step()

    dash.run.trainer.step = then
    dash.result()
    gone = [k for k, (_, bundle) in enumerate(shown) if "in the dashboard" in bundle["text/plain"]]
    assert len(gone) == 1 and not pictures(shown[gone[0] :])


def test_outside_a_notebook_the_line_alone(fake, capsys, monkeypatch):
    monkeypatch.setattr("sdpo_lab.views.dashboard.PRESENT", 0.1)
    Dashboard(fake(seconds=0.05), 10, evaluate_every=0).result()
    out = capsys.readouterr().out
    assert "finished · 10 of 10 steps" in out and "<svg" not in out


@pytest.mark.parametrize("kernel", ["python3", "colab"])
@pytest.mark.timeout(300)
def test_in_a_kernel_without_a_page(kernel, root, monkeypatch):
    """The real thing: IPython's own displays, of today and of Colab."""
    from nbclient import NotebookClient

    for name, value in environment(kernel).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(root))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WAIT)])
    client = NotebookClient(
        notebook, kernel_name=kernel, timeout=200, resources={"metadata": {"path": str(root)}}
    )
    updates = []
    handle = client.process_message

    def listen(msg, cell, index):
        if msg["msg_type"] == "update_display_data" and "text/html" in msg["content"]["data"]:
            updates.append(time.monotonic())
        return handle(msg, cell, index)

    monkeypatch.setattr(client, "process_message", listen)
    client.execute()
    outputs = notebook.cells[0].outputs
    html = [
        o.data["text/html"]
        for o in outputs
        if o.output_type == "display_data" and "text/html" in o.data
    ]
    assert (
        len(html) == 1 and "<svg" in html[0] and "finished · 55 of 55 steps" in html[0]
    )  # one display, updated to the end
    assert 1 <= len(updates) <= 5 and all(b - a > 0.8 for a, b in zip(updates, updates[1:-1]))
    assert outputs[-1].data["text/plain"] == "55"
