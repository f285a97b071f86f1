"""The dashboard kernel-side in the older kernels, under a stand-in for the page: one that never
answers, and one that asks and presses."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from tests.browser.kernels import TOOL, need
from tests.conftest import ROOT

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(300)]

IMPORTS = (
    "from tests.shared.fake_trainer import FakeTrainer\nfrom sdpo_lab.views import Dashboard\n"
)
VERSIONS = "from importlib.metadata import version\nprint({name: version(name) for name in %s})"


class Front:
    """A kernel and what a page would see of it; the page answers nothing unless a test does."""

    def __init__(self, name: str) -> None:
        self.manager = KernelManager(kernel_name=name)
        self.manager.kernel_spec_manager = KernelSpecManager(
            kernel_dirs=[str(TOOL["share"](name) / "kernels")]
        )
        self.manager.start_kernel(
            cwd=str(ROOT), env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.comm = ""  # of the widget that was shown last

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str, seconds: float = 120) -> list[dict[str, Any]]:
        """Run a cell to its end; everything it sent, as [{type, **content}]."""
        return self.until(self.client.execute(code, stop_on_error=False), idle, seconds)

    def press(self, kind: str, seconds: float = 20, **more: Any) -> dict[str, Any]:
        """What the page sends when something is pressed, or time has come to ask; the news that
        come back."""
        content = {
            "comm_id": self.comm,
            "data": {"method": "custom", "content": {"kind": kind, "since": 0, "seen": 0, **more}},
        }
        message = self.client.session.msg("comm_msg", content)
        self.client.shell_channel.send(message)
        said = self.until(
            message["header"]["msg_id"], lambda said: news_in(said) is not None, seconds
        )
        return news_in(said[-1])

    def until(
        self, parent: str, over: Callable[[dict[str, Any]], bool], seconds: float
    ) -> list[dict[str, Any]]:
        """What was sent on behalf of message `parent`, until one is `over`; shown widgets are
        remembered."""
        found, end = [], time.monotonic() + seconds
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.0, end - time.monotonic()))
            if message["parent_header"].get("msg_id") != parent:
                continue
            found.append({"type": message["msg_type"], **message["content"]})
            view = found[-1].get("data", {}).get("application/vnd.jupyter.widget-view+json")
            self.comm = view["model_id"] if view else self.comm
            if over(found[-1]):
                return found


def idle(said: dict[str, Any]) -> bool:
    return said["type"] == "status" and said["execution_state"] == "idle"


def news_in(said: dict[str, Any]) -> dict[str, Any] | None:
    content = said.get("data", {}).get("content") if said["type"] == "comm_msg" else None
    return content if content and content.get("kind") == "news" else None


def printed(said: list[dict[str, Any]]) -> str:
    return "".join(s["text"] for s in said if s["type"] == "stream")


def pictures(said: list[dict[str, Any]]) -> list[str]:
    return [
        s["data"]["text/html"]
        for s in said
        if s["type"] in ("display_data", "update_display_data")
        and "text/html" in s["data"]
        and "application/vnd.jupyter.widget-view+json" not in s["data"]
    ]


@pytest.fixture(scope="module", params=["colab", "ipykernel6"])
def front(request):
    need(request.param)
    front = Front(request.param)
    front.name = request.param
    yield front
    front.close()


def test_the_kernel_has_the_versions_it_is_there_for(front):
    own = TOOL["pinned"](front.name)
    assert eval(printed(front.run(VERSIONS % list(own)))) == own


def test_the_kernels_are_found_from_inside_one_too(front):
    """Tests that start kernels are themselves run in Colab's environment."""
    said = printed(
        front.run(
            "import runpy\nprint(*map(runpy.run_path('tools/kernels.py')['home'], "
            "['colab', 'ipykernel6']))"
        )
    )
    assert said.split() == [str(TOOL["home"](name)) for name in ("colab", "ipykernel6")]


def test_a_page_that_never_answers_gets_the_blocking_view(front):
    """A progress line from the start; after a few seconds without a question from the page also the
    curve, as a picture that needs no page's help."""
    shown = front.run(
        IMPORTS + "dash = Dashboard(FakeTrainer(seconds=0.1), 60, evaluate_every=0)\ndash"
    )
    assert front.comm and not [s for s in shown if s["type"] == "error"]
    began = time.monotonic()
    said = front.run("history = dash.result()\nprint(len(history), dash.run.state)")
    assert time.monotonic() - began > 5, "the cell waits for the run"
    assert "60 finished" in printed(said)
    lines = [
        s["data"]["text/plain"]
        for s in said
        if s["type"] == "update_display_data" and "of 60 steps" in s["data"].get("text/plain", "")
    ]
    assert len(lines) >= 5 and re.match(r"finished · 60 of 60 steps", lines[-1]), lines
    drawn = pictures(said)
    assert len(drawn) >= 2 and "<svg" in drawn[-1] and "<script" not in drawn[-1].lower()
    assert len(drawn) <= 2 + time.monotonic() - began, "no flood"


def test_a_short_run_needs_no_page_at_all(front):
    said = front.run(IMPORTS + "print(len(Dashboard(FakeTrainer(), 3, evaluate_every=0).result()))")
    assert printed(said).strip().endswith("3")


def test_what_breaks_in_the_worker_fails_the_cell_that_waits(front):
    said = front.run(
        IMPORTS
        + "Dashboard(FakeTrainer(fail_at=3, error=ZeroDivisionError('the judge broke')), 20, "
        "evaluate_every=0).result()"
    )
    (error,) = [s for s in said if s["type"] == "error"]
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "the judge broke")
    assert "self.error or ValueError" in re.sub(
        r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"])
    ), "with the worker's own traceback"


def test_a_page_that_asks_holds_the_run_in_its_hands(front):
    front.run(IMPORTS + "dash = Dashboard(FakeTrainer(seconds=0.05), 500, evaluate_every=0)\ndash")
    assert front.press("ask")["state"] == "ready"
    front.press("start")
    end = time.monotonic() + 20
    while (news := front.press("ask"))["done"] < 5:
        assert time.monotonic() < end and news["state"] == "running", news["state"]
    assert len(news["points"]) == news["count"] == news["done"]
    front.press("pause")
    assert "paused" in printed(front.run("dash.run.wait(10)\nprint(dash.run.state)"))
    rested = front.press("ask")["done"]
    front.press("step")
    front.run("dash.run.wait(10)")
    assert front.press("ask")["done"] == rested + 1
    front.press("stop")
    assert front.press("ask")["state"] == "stopped"


def test_interrupting_the_kernel_pauses_and_loses_nothing(front):
    front.run(IMPORTS + "dash = Dashboard(FakeTrainer(seconds=0.05), 500, evaluate_every=0)\ndash")
    waits = front.client.execute("dash.result()", stop_on_error=False)
    front.until(waits, lambda said: "of 500 steps" in str(said.get("data")), 30)
    time.sleep(1)
    front.manager.interrupt_kernel()
    said = front.until(waits, idle, 30)
    assert [s["ename"] for s in said if s["type"] == "error"] == [
        "KeyboardInterrupt"
    ] and "Nothing is lost" in printed(said)
    state, done, kept = eval(
        printed(front.run("print((dash.run.state, dash.run.done, len(dash.run.trainer.history)))"))
    )
    assert state == "paused" and done == kept > 0
    front.run("dash.run.stop()")
