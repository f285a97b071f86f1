"""The kernel's half of the time slider: what it answers, what it never does, and what a page
without a kernel shows."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser

import pytest

import sdpo_lab as lab
from sdpo_lab.analysis.timeline import Timeline
from sdpo_lab.views import Rewind
from tests.shared.tasks import SMALL, Vowels

HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202e\x00\ud83d<|im_end|>"


@pytest.fixture
def timeline(tiny):
    model, tokenizer = tiny
    trainer = lab.SDPOTrainer(
        copy.deepcopy(model), tokenizer, Vowels(), lab.SDPOConfig.preset("laptop", **SMALL)
    )
    problem = trainer.task.problems(1, "train", 0)[0]
    problem.messages[-1]["content"] = (
        HOSTILE.replace("\ud83d", "") + problem.messages[-1]["content"]
    )
    found = Timeline(trainer, (problem, "<b>abc</b>", HOSTILE.replace("\ud83d", "")), every=2)
    found.watch(None)
    for _ in range(3):
        found.watch(trainer.step())
    return found


@pytest.fixture
def tell(monkeypatch):
    """tell(rewind, message): what the page is answered, as JSON that must be valid."""

    def ask(rewind: Rewind, message) -> list[dict]:
        sent = []
        monkeypatch.setattr(
            rewind,
            "send",
            lambda m: sent.append(
                json.loads(json.dumps(m, allow_nan=False, ensure_ascii=False).encode())
            ),
        )
        rewind._on_message(rewind, message, [])
        return sent

    return ask


def test_what_the_page_is_told(timeline, tell):
    rewind = Rewind(timeline)
    assert rewind.setup == {"kind": "steps", "mark": "4/3", "steps": [0, 1, 2, 3]}
    assert tell(rewind, {"kind": "steps", "known": "4/3"}) == [
        {"kind": "steps", "mark": "4/3"}
    ]  # nothing new, nothing sent
    for step in (3, 1):
        (past,) = tell(rewind, {"kind": "rewind", "step": step})
        assert past == {"kind": "past", "step": step, "picture": timeline.picture(step)} and past[
            "picture"
        ]["shown"]["feedback"].startswith("</script>")
    timeline.watch(timeline.trainer.step())
    assert tell(rewind, {"kind": "steps", "known": "4/3"}) == [
        {"kind": "steps", "mark": "5/4", "steps": [0, 1, 2, 3, 4]}
    ]
    assert repr(rewind).startswith("Rewind(Timeline(steps 0 to 4")


@pytest.mark.parametrize(
    "message, words",
    [
        ({"kind": "rewind", "step": 99}, "ValueError: step must be from 0 to 3; got 99"),
        ({"kind": "rewind", "step": -1}, "step must be from"),
        ({"kind": "rewind", "step": "1"}, "TypeError: step must be a whole number"),
        ({"kind": "rewind"}, "TypeError"),
        ({"kind": "rewind", "step": True}, "TypeError"),
    ],
)
def test_strange_questions_are_answered_in_words(timeline, tell, message, words):
    (answer,) = tell(Rewind(timeline), message)
    assert words in answer["error"] and "picture" not in answer


@pytest.mark.parametrize(
    "message", [None, 3, "rewind", [1], {}, {"kind": "__init__"}, {"kind": ["rewind"]}]
)
def test_messages_that_are_none_are_ignored(timeline, tell, message):
    assert tell(Rewind(timeline), message) == []


def test_what_breaks_on_the_way_is_told(timeline, tell, monkeypatch):
    monkeypatch.setattr(timeline, "at", lambda step: 1 / 0)
    timeline._pictures.clear()
    (answer,) = tell(Rewind(timeline), {"kind": "rewind", "step": 2})
    assert answer == {"kind": "past", "step": 2, "error": "ZeroDivisionError: division by zero"}


def test_a_timeline_that_has_not_begun(timeline, tell):
    rewind = Rewind(Timeline(timeline.trainer))
    assert rewind.setup["steps"] == [] and "No step to look back to yet" in rewind._repr_html_()
    assert "has not begun" in tell(rewind, {"kind": "rewind", "step": 0})[0]["error"]
    with pytest.raises(TypeError, match="timeline must be a .*Timeline, .*got SDPOTrainer"):
        Rewind(timeline.trainer)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def test_a_saved_notebook_shows_three_steps(timeline):
    rewind = Rewind(timeline)
    data = rewind._repr_mimebundle_()[0]
    page, tags = data["text/html"], Tags()
    tags.feed(page)
    assert tags.tags == {"div", "span"} and "&lt;" in page
    assert [
        title
        for title in ("before the first step", "after step 1", "after step 2", "after step 3")
        if title in page
    ] == ["before the first step", "after step 2", "after step 3"]
    assert "rgba(" in page and "application/vnd.jupyter.widget-view+json" in data


def test_the_page_never_makes_html_of_text():
    code = Rewind._esm.lower()
    for word in (
        "innerhtml",
        "outerhtml",
        "insertadjacenthtml",
        "document.write",
        "eval(",
        "https://",
        "import(",
    ):
        assert word not in code, word
    assert len(Rewind._esm) < 22 * 1024
