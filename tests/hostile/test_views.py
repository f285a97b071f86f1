"""Hostile text on its way to a reader: HTML, data for a page, a line of a terminal. It is shown as
it is, and nothing of it becomes markup."""

from __future__ import annotations

import html
import json
import re
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sdpo_lab as lab
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.live.progress import ProgressLine
from sdpo_lab.tasks.adapters import JudgeError, task_from_function
from sdpo_lab.views import (
    Bars,
    Chart,
    Dashboard,
    Line,
    LiveRun,
    Playground,
    compare,
    curve,
    group_view,
    token_view,
)
from sdpo_lab.views.html import escape, storable
from tests.hostile.texts import CORPUS, TEXTS, Page, many, same_shape, whole
from tests.shared.fake_trainer import FakeTrainer

LAPTOP = SDPOConfig.preset("laptop")
#: Characters that move a cursor, ring, colour, or turn the direction of what follows.
RAW = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029]"
)


def surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def asked(text: str) -> Problem:
    return Problem("p", [{"role": "user", "content": text if text.strip() else "question"}])


@pytest.fixture(scope="module")
def pages(tiny_original):
    """pages(text) -> {name of a view: its HTML}: every view that can be made without a page, with
    the text wherever a text can stand."""

    def build(text: str) -> dict[str, str]:
        problem = asked(text)
        scored = lab.credit(
            *tiny_original, problem, text or "a", feedback=text or "b", solution=text, attempt=""
        )
        view = token_view([scored], titles=[text or "c"])
        attempts = [
            Rollout(problem, i, text, [5 + i, 6], reward=float(i), feedback=text) for i in range(3)
        ]
        trainer = FakeTrainer(text=text, feedback=text, seconds=0)
        for _ in range(3):
            trainer.step()
        trainer.apply(learning_rate=0.1)
        trainer.step()
        return {
            "token view": view._repr_html_(),
            "its page": view.page(),
            "group view": group_view(*tiny_original, attempts)._repr_html_(),
            "chart": Chart(
                text,
                [Line(text, [0, 1], [0, 1], [0, 0], [1, 1], True)],
                text,
                text,
                note=text,
                marks={0.5: text},
            )._repr_html_(),
            "bars": Bars(
                text, {text: 1.0, text + "b": -1.0}, text, text, colour=text
            )._repr_html_(),
            "compare": html_of(
                compare({text: trainer.history, text + "b": trainer.history}, "reward", note=text)
            ),
            "curve": curve(trainer.history, text, text)._repr_html_(),
        }

    return build


def html_of(view) -> str:
    return view._repr_html_()


@pytest.fixture(scope="module")
def plain_pages(pages):
    return pages("plain words")


@many(20)
@given(TEXTS)
@example("".join(CORPUS)[:400])
@example("".join(CORPUS)[400:800])
def test_no_view_has_markup_of_the_text(pages, plain_pages, text):
    for name, found in pages(text).items():
        page = same_shape(found, plain_pages[name])
        if name == "chart":
            assert "".join(whole(text).split()) in "".join(whole(page.words).split()), (
                "shown as it is"
            )


@pytest.mark.parametrize(
    "name", ["token view", "its page", "group view", "chart", "bars", "compare", "curve"]
)
def test_half_a_surrogate_pair_does_not_keep_a_notebook_from_being_saved(pages, name):
    assert pages("a\ud83d")[name].encode("utf-8")


@many(60)
@given(TEXTS)
@example("<a href=//evil.example>x</a>")
@example("".join(CORPUS))
def test_no_text_is_a_tag_to_plotly(text):
    """Which takes `<a href>`, `<b>` and others in every text of a figure for what they are in
    HTML."""
    pytest.importorskip("plotly")
    figures = [
        Chart(
            text,
            [Line(text, [0, 1], [0, 1], [0, 0], [1, 1], True)],
            text,
            text,
            note=text,
            marks={0.5: text},
        ).figure(),
        compare(
            {text: stepped(text).history, text + "b": stepped(text).history}, "reward", note=text
        ).figure(),
        curve(stepped(text).history, text, text).figure(),
    ]
    for figure in figures:
        plain = json.loads(figure.to_json())
        said = strings(plain["data"]) + strings(plain["layout"] | {"template": 0})
        assert not any(c in value for value in said for c in "<>") and (
            not text or any(escape(text) in value for value in said)
        )


def stepped(text: str) -> FakeTrainer:
    trainer = FakeTrainer(text=text, feedback=text, seconds=0)
    trainer.step()
    return trainer


def strings(value) -> list[str]:
    """Every string in plain data."""
    if isinstance(value, dict):
        return [s for v in value.values() for s in strings(v)]
    return (
        [s for v in value for s in strings(v)]
        if isinstance(value, list)
        else [value]
        if isinstance(value, str)
        else []
    )


def exported(pages, texts: list[str], folder) -> str:
    """Every view of every text in one notebook, with what Python prints of charts beside them,
    converted to a page."""
    nbconvert, nbformat = pytest.importorskip("nbconvert"), pytest.importorskip("nbformat")
    data = [
        {"text/html": found, "text/plain": name}
        for text in texts
        for name, found in pages(text).items()
        if name != "its page"
    ]
    data += [{"text/plain": repr(Chart(text, [Line(text, [0], [0])]))} for text in texts]
    cells = [
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", d)])
        for d in data
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "book.ipynb")
    return nbconvert.HTMLExporter().from_filename(str(folder / "book.ipynb"))[0]


def test_a_converted_notebook_has_no_markup_of_any_text(pages, tmp_path):
    """All of them at once: those of each kind beside each other, and one text cut into the next."""
    corpus = "".join(CORPUS)
    texts = [corpus[i : i + 450] for i in range(0, len(corpus), 450)]
    found = same_shape(
        exported(pages, texts, tmp_path), exported(pages, ["plain words"] * len(texts), tmp_path)
    )
    words = "".join(found.words.split())
    assert all(
        "".join(whole(text).split()) in words
        for text in CORPUS
        if not surrogate(text) and any(text in part for part in texts)
    ), "shown as they are"


@many(40)
@given(TEXTS)
def test_the_data_of_a_token_view_is_the_text(tiny_original, text):
    scored = lab.credit(*tiny_original, asked(text), text or "a", feedback=text or "b")
    source = token_view(scored, titles=text).page()
    (block,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', source, re.DOTALL)
    assert not re.search("[<\u2028\u2029]", block), "nothing in it can end the script"
    data = json.loads(block)["attempts"][0]
    assert "".join(data["tokens"]) == scored.text and not RAW.search(
        re.sub(r"<(script|style).*?</\1>", "", source, flags=re.DOTALL)
    )


@pytest.fixture(scope="module")
def summary() -> str:
    """What a dashboard leaves in a notebook whose run failed in words that are plain."""
    dash = Dashboard(FakeTrainer(seconds=0, fail_at=2, error=ValueError("no")), 2, evaluate_every=0)
    with pytest.raises(ValueError):
        dash.result()
    return dash.summary()._repr_html_()


@many(80)
@given(TEXTS, TEXTS)
def test_what_pages_are_sent_is_data(summary, text, feedback):
    """JSON in UTF-8, whatever the model, the judge and an exception say; no HTML is made of it
    there (the browser's test)."""
    sent = []

    def keep(message, buffers=None) -> None:
        sent.append(
            json.loads(json.dumps(message, allow_nan=False, ensure_ascii=False).encode("utf-8"))
        )

    dash = Dashboard(
        FakeTrainer(seconds=0, text=text, feedback=feedback, fail_at=2, error=ValueError(feedback)),
        2,
        evaluate_every=0,
    )
    dash.send = keep
    with pytest.raises(ValueError):
        dash.result()
    keep(dash.news(0))
    told = json.dumps(sent[-1], ensure_ascii=False)
    assert json.dumps(storable(feedback[:100]), ensure_ascii=False)[1:-1] in told, (
        "the page is told what went wrong, as it was said"
    )
    same_shape(dash.summary()._repr_html_(), summary)


@many(12)
@given(TEXTS, TEXTS)
def test_the_playground_answers_in_data(tiny_original, text, feedback):
    task = task_from_function(
        [{"prompt": f"Question {i}", "split": "train"} for i in range(2)],
        lambda row, c: (0.0, feedback),
    )
    pg, sent = (
        Playground(
            *tiny_original,
            task,
            problems=1,
            config=SDPOConfig.preset("laptop", max_completion_length=3),
        ),
        [],
    )
    pg.send = lambda message, buffers=None: sent.append(
        json.loads(json.dumps(message, allow_nan=False, ensure_ascii=False).encode("utf-8"))
    )
    pg._on_message(
        pg,
        {
            "kind": "score",
            "page": "page",
            "turn": 1,
            "problem": 0,
            "text": text,
            "feedback": feedback,
            "solution": text,
        },
        [],
    )
    assert sent


@many(60)
@given(TEXTS, TEXTS)
def test_nothing_of_a_text_reaches_a_terminal_raw(capsys, text, feedback):
    """What is printed of a run, and what is said of a judge that fails: in the exception, and in
    the warning."""
    run = LiveRun(FakeTrainer(seconds=0, text=text, feedback=feedback), 1)
    run.start()
    run.result(progress=True) if "progress" in LiveRun.result.__code__.co_varnames else run.result()
    line = ProgressLine(run)
    line.update(last=True)
    print(repr(run.trainer.history[0]), repr(run.trainer.history[0].rollouts[0]))
    assert not RAW.search(capsys.readouterr().out.replace("\r", ""))

    def judge(row, completion):
        raise ValueError(feedback)

    for on_error in ("raise", "zero"):
        task = (
            task_from_function(
                [{"prompt": text or "a", "id": text, "split": "train"}], judge, on_error=on_error
            )
            if text.strip() and not surrogate(text)
            else None
        )
        if task is None:
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                task.judge(task.problems(1)[0], text)
            except JudgeError as error:
                assert not RAW.search(str(error)) and "\n" not in str(error)
        assert not any(RAW.search(str(w.message)) or "\n" in str(w.message) for w in caught)


@many(80)
@given(TEXTS, st.text(max_size=5))
def test_what_python_prints_of_views_and_charts_is_safe_too(text, other):
    for shown in (
        Chart(text, [Line(text, [0, 1], [0, 1])]),
        Bars(text, {text: 1.0}, other),
        Line(text, [0], [0]),
    ):
        assert not RAW.search(repr(shown)), "a chart's name may be a tool's, which a model made up"


def test_the_reader_of_pages_sees_what_a_browser_would():
    """The test's own eyes: a page that was broken open is seen as broken."""
    good = f"<figure><b>{html.escape('<i>')}</b></figure>"
    assert same_shape(good, "<figure><b>x</b></figure>").words == "<i>"
    for broken in (
        "<figure><b><i></b></figure>",
        "<figure><b onclick=x>x</b></figure>",
        "<figure><b>x</b></figure><figure></figure>",
        "<figure><b>x</b><!-- --></figure>",
    ):
        with pytest.raises(AssertionError):
            same_shape(broken, good)
    assert len(CORPUS) > 100 and Page("<script>a<b</script>").tags == {"script": 1}
