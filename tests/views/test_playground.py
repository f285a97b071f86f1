"""The kernel's half of the playground: what it answers, what it drops, and what it survives."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.contexts import PRESETS
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.views import playground
from sdpo_lab.views.page import style
from sdpo_lab.views.playground import KEPT, MOST_CHARACTERS, Playground

HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202egnp.exe\x00\ud83d<|im_end|>{{"
QUESTIONS = [
    lab.Problem(f"p{n}", [{"role": "user", "content": f"Question {n}"}], {"kind": f"k{n}"})
    for n in range(4)
]


class Task:
    """Feedback of its own for every answer; "right" is right."""

    name = "a task"

    def problems(self, n, split="train", seed=0):
        if n > len(QUESTIONS):
            raise ValueError(f"there are {len(QUESTIONS)} problems")
        return QUESTIONS[:n]

    def judge(self, problem, completion):
        if completion == "boom":
            raise ZeroDivisionError("<b>the judge broke</b>")
        return (1.0, "") if completion == "right" else (0.0, f"{problem.id} is not {completion!r}")


@pytest.fixture
def build(tiny, monkeypatch):
    """build(**arguments): a Playground whose messages land in its `.sent`, as JSON that must be
    valid."""

    def build(task=None, model=None, **arguments) -> Playground:
        arguments = {
            "problems": 3,
            "config": lab.SDPOConfig.preset("laptop", max_completion_length=5),
            **arguments,
        }
        pg = Playground(model or tiny[0], tiny[1], task or Task(), **arguments)
        pg.sent = []
        monkeypatch.setattr(
            pg,
            "send",
            lambda m: pg.sent.append(
                json.loads(json.dumps(m, allow_nan=False, ensure_ascii=False).encode())
            ),
        )
        return pg

    return build


def ask(pg: Playground, kind: str = "score", turn: int = 1, page: str = "page", **what) -> dict:
    pg._on_message(
        pg,
        {
            "kind": kind,
            "page": page,
            "turn": turn,
            "problem": 0,
            **({} if "text" in what else {"attempt": 0}),
            **what,
        },
        [],
    )
    return pg.sent[-1]


def test_what_the_page_is_told_at_first(build):
    pg = build()
    json.dumps(pg.setup, allow_nan=False)
    assert [p["question"] for p in pg.setup["problems"]] == [
        "Question 0",
        "Question 1",
        "Question 2",
    ] and tuple(pg.setup["presets"]) == PRESETS
    for n, p in enumerate(pg.setup["problems"]):
        texts = [a["text"] for a in p["attempts"]]
        assert (
            1 <= len(texts) <= 4
            and len(set(texts)) == len(texts)
            and all(a == {"text": a["text"], "reward": 0.0, "right": False} for a in p["attempts"])
        )
    first = pg.setup["first"]
    real = f"p0 is not {pg.setup['problems'][0]['attempts'][0]['text']!r}"
    assert first["shown"] == {"feedback": real, "solution": ""} and first["verdict"] == {
        "reward": 0.0,
        "right": False,
        "feedback": real,
    }
    assert (
        first["contexts"]["another problem's feedback"]["feedback"].startswith(("p1", "p2"))
        and "the answer itself" not in first["contexts"]
    )
    assert (
        first["familiar"] == {"feedback": None, "solution": None} and first["view"]["scale"] == 4.0
    )
    assert len(json.dumps(first)) < 25_000


def test_the_numbers_are_those_of_credit(build, tiny):
    model, tokenizer = tiny
    pg = build()
    r = pg.rollouts[0][0]
    answer = ask(pg, feedback="TypeError: no", solution="yes")
    expected = lab.credit(
        model, tokenizer, QUESTIONS[0], r, feedback="TypeError: no", solution="yes"
    )
    assert (
        torch.allclose(pg.credit.advantages, expected.advantages, atol=1e-6)
        and pg.credit.completion_ids == r.completion_ids
    )
    assert answer["bits"] == pytest.approx(expected.shift_bits, abs=1e-5) and answer[
        "sum"
    ] == pytest.approx(float(expected.advantages.sum()), abs=1e-5)
    assert answer["mean"] == pytest.approx(float(expected.advantages.mean()), abs=1e-6)
    assert answer["view"]["attempts"][0]["advantage"] == pytest.approx(
        expected.advantages.tolist(), abs=6e-4
    )
    assert answer["shown"] == {"feedback": "TypeError: no", "solution": "yes"}
    typed = ask(pg, text="another", feedback="TypeError: no")
    assert typed["sum"] == pytest.approx(
        float(
            lab.credit(
                model, tokenizer, QUESTIONS[0], "another", feedback="TypeError: no"
            ).advantages.sum()
        ),
        abs=1e-5,
    )


def test_presets_follow_an_attempt_that_is_being_typed(build):
    pg = build()
    for n, text in enumerate(("a", "ab", "right")):
        answer = ask(pg, turn=n, text=text, preset="the real feedback")
        said = "" if text == "right" else f"p0 is not {text!r}"
        assert answer["shown"]["feedback"] == said == answer["verdict"]["feedback"] and answer[
            "verdict"
        ]["right"] == (text == "right")
    assert "the real feedback" not in answer["contexts"] and answer["bits"] == 0
    assert ask(pg, turn=9, preset="nothing")["shown"] == {"feedback": "", "solution": ""}


def test_an_edit_costs_one_pass_and_few_attempts_are_kept(build, tiny):
    pg, calls = build(), []
    ask(pg, feedback="first")
    hook = tiny[0].model.register_forward_pre_hook(lambda *_: calls.append(1))
    ask(pg, turn=2, feedback="second")
    hook.remove()
    assert len(calls) == 1
    for n in range(3 * KEPT):
        ask(pg, turn=3 + n, text=f"attempt {n}", feedback="x")
    assert len(pg._kept) == KEPT


def test_only_the_newest_question_of_a_page_is_answered(build):
    pg, threads = build(), []
    with pg._lock:  # the kernel is busy with something
        for page in ("one", "two"):
            for turn in range(1, 6):
                threads.append(threading.Thread(target=ask_later, args=(pg, page, turn)))
                threads[-1].start()
                while pg._newest.get((page, "score"), 0) < turn:
                    pass
    for t in threads:
        t.join(30)
    assert sorted((m["page"], m["turn"]) for m in pg.sent) == [("one", 5), ("two", 5)]
    assert {m["shown"]["feedback"] for m in pg.sent} == {"text 5"}


def ask_later(pg, page, turn):
    pg._on_message(
        pg,
        {
            "kind": "score",
            "page": page,
            "turn": turn,
            "problem": 0,
            "attempt": 0,
            "feedback": f"text {turn}",
        },
        [],
    )


def test_many_threads_and_two_playgrounds_on_one_model(build, tiny):
    model, _ = tiny
    model.train()
    before = [p.clone() for p in model.parameters()]
    both, inside, most = [build(), build(seed=1)], [0], [0]

    def enter(*_):
        inside[0] += 1
        most[0] = max(most[0], inside[0])

    def leave(*_):
        inside[0] -= 1

    hooks = [model.model.register_forward_pre_hook(enter), model.model.register_forward_hook(leave)]
    threads = [
        threading.Thread(target=ask, args=(pg, kind, 1, f"{n}"), kwargs={"feedback": f"no {n}"})
        for n in range(6)
        for pg in both
        for kind in ("score", "write")
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for h in hooks:
        h.remove()
    assert most[0] == 1 and all(
        len(pg.sent) == 12 and not any("error" in m for m in pg.sent) for pg in both
    )
    for pg in both:
        assert {m["shown"]["feedback"] for m in pg.sent if m["kind"] == "score"} == {
            f"no {n}" for n in range(6)
        }
    assert model.training and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_what_breaks_is_told_and_the_next_question_is_answered(build):
    pg = build()
    assert (
        "ZeroDivisionError: <b>the judge broke</b>"
        in ask(pg, text="boom", preset="the real feedback")["error"]
    )
    assert ask(pg, turn=2, feedback="x")["shown"]["feedback"] == "x" and "error" not in pg.sent[-1]


@pytest.mark.parametrize(
    "what, words",
    [
        ({"problem": 3}, "problem must be a whole number from 0 to 2; got 3"),
        ({"problem": -1}, "from 0 to 2"),
        ({"problem": True}, "got True"),
        ({"problem": None}, "got None"),
        ({"attempt": 10**9}, "attempt must be"),
        ({"attempt": "0"}, "attempt must be"),
        ({"feedback": 5}, "feedback must be a text"),
        ({"text": ""}, "completion is empty"),
        ({"feedback": "x" * (MOST_CHARACTERS + 1)}, f"at most {MOST_CHARACTERS} characters"),
        ({"text": None}, "text must be a text"),
        ({"preset": ["x"]}, "preset must be one of"),
    ],
)
def test_strange_questions_are_answered_in_words(build, what, words):
    assert words in ask(build(), **what)["error"]


def test_messages_that_are_no_question_are_ignored(build):
    pg = build()
    for message in (
        None,
        "score",
        [1],
        3,
        {},
        {"kind": "tick"},
        {"kind": ["score"]},
        {"kind": "__init__"},
    ):
        pg._on_message(pg, message, [])
    assert pg.sent == []
    pg._on_message(pg, {"kind": "score", "turn": "x", "problem": 0, "attempt": 0}, [])
    assert pg.sent[-1]["turn"] == 0 and "error" not in pg.sent[-1]


def test_what_the_teacher_writes(build, tiny):
    from sdpo_lab.analysis.rescoring import teacher_attempts

    pg = build()
    greedy = ask(pg, "write", feedback="TypeError: no")
    config = pg.config
    own = teacher_attempts(
        *tiny,
        QUESTIONS[0],
        1,
        feedback="TypeError: no",
        task=Task(),
        config=config,
        temperature=0.0,
    )[0]
    assert (greedy["text"], greedy["feedback"], greedy["right"]) == (
        own.text.encode("utf-8", "backslashreplace").decode(),
        own.feedback,
        False,
    )
    samples = [
        ask(pg, "write", turn=2 + k, feedback="TypeError: no", sample=k)["text"] for k in range(5)
    ]
    assert (
        len(set(samples)) > 1
        and ask(pg, "write", turn=9, feedback="TypeError: no", sample=0)["text"] == samples[0]
    )
    assert "sample must be" in ask(pg, "write", turn=10, sample="x")["error"]


def test_hostile_texts_travel_as_data(build):
    questions = [
        lab.Problem("h", [{"role": "user", "content": HOSTILE.replace("\ud83d", "")}])
    ]  # a tokenizer cannot read half a pair
    pg = build(
        lab.task_from_function(questions, lambda problem, completion: (0.0, HOSTILE)),
        problem=questions[0],
        completion=HOSTILE.replace("\ud83d", ""),
        problems=[],
    )
    answer = ask(pg, feedback=HOSTILE, solution=HOSTILE)
    safe = HOSTILE.replace(
        "\ud83d", "\\ud83d"
    )  # half a surrogate pair is all that JSON cannot carry
    assert (
        answer["shown"] == {"feedback": safe, "solution": safe}
        and answer["verdict"]["feedback"] == safe
    )
    assert "".join(answer["view"]["attempts"][0]["tokens"]) == HOSTILE.replace("\ud83d", "")
    assert pg.tokenizer.convert_tokens_to_ids("<|im_end|>") not in pg.credit.completion_ids
    json.dumps(pg.setup, allow_nan=False, ensure_ascii=False).encode()


def test_the_page_never_makes_html_of_text():
    code = Playground._esm.lower()
    for word in (
        "innerhtml",
        "outerhtml",
        "insertadjacenthtml",
        "document.write",
        "eval(",
        "http://",
        "https://",
        "import(",
        "\nimport ",
    ):
        assert word not in code, word
    assert code.count("export default") == 1 and len(Playground._esm) < 48 * 1024


def test_its_styles_leave_the_token_view_alone():
    """Both have rules for classes; a name in both would meet where one stands in the other. Marks
    of right and wrong are always `.mark.good` here."""
    folder = Path(playground.__file__).parent / "static"
    ours, theirs = (
        set(re.findall(r"\.([a-z][a-z-]+)", re.sub(r"/\*.*?\*/", "", (folder / name).read_text())))
        for name in ("playground.css", "token_view.css")
    )
    assert ours & theirs <= {
        "sdpo-tokens",
        "vscode-dark",
        "vscode-light",
        "good",
        "bad",
        "code",
    } and ".sdpo-play .code:not(.sdpo-tokens .code)" in style("playground")


def test_a_problem_and_an_attempt_of_ones_own(build, tiny):
    mine = lab.Problem("mine", [{"role": "user", "content": "My own"}])
    pg = build(problem=mine, completion="right")
    assert [p["question"] for p in pg.setup["problems"]] == ["My own", "Question 0", "Question 1"]
    assert pg.setup["problems"][0]["attempts"][0] == {
        "text": "right",
        "reward": 1.0,
        "right": True,
    }, "the given one comes first, right or wrong"
    assert pg.credit.text == "right" and pg.setup["first"]["contexts"][
        "another problem's feedback"
    ]["feedback"].startswith("p")
    ids = [5, 6, tiny[1].eos_token_id]
    pg = build(
        problem=QUESTIONS[1],
        completion=Rollout(QUESTIONS[1], 3, "xy", ids, reward=0.5, feedback="half"),
    )
    assert pg.credit.completion_ids == ids and pg.setup["first"]["verdict"] == {
        "reward": 0.5,
        "right": False,
        "feedback": "half",
    }
    assert [p.id for p in pg.problems] == ["p1", "p0", "p2"]
    with pytest.raises(ValueError, match="pass problem= with it"):
        build(completion="x")
    assert [p.id for p in build(problems=QUESTIONS[2:]).problems] == ["p2", "p3"]
    assert [p.id for p in build(problems=QUESTIONS[2:], problem=QUESTIONS[3]).problems] == [
        "p3",
        "p2",
    ]
    assert [p.id for p in build(problems=1, problem=mine).problems] == ["mine"]
    for problems in (0, 51, 2.5, [], ["p1"]):
        with pytest.raises((ValueError, TypeError), match="problems must be"):
            build(problems=problems)
    with pytest.raises(ValueError, match="there are 4 problems"):
        build(problems=5)


def test_the_attempt_is_shown_where_the_configuration_says_so(build):
    config = lab.SDPOConfig.preset("laptop", max_completion_length=5, include_own_attempt=True)
    pg = build(config=config)
    ask(pg, text="an attempt", feedback="no")
    assert pg.credit.shown == {"feedback": "no", "attempt": "an attempt"}
    ask(pg, turn=2, text="an attempt")
    assert pg.credit.shown == {}


def test_what_the_model_was_taught(build, tiny, tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    from sdpo_lab.analysis.familiarity import TAUGHT, phrase_hash

    words = ["^", "^", "known", "words", "$", "$"]
    save_file(
        {
            "phrases": np.array(
                sorted(phrase_hash("feedback", *words[t : t + 3]) for t in range(4)), dtype=np.int32
            )
        },
        tmp_path / TAUGHT,
    )
    tiny[0].config._name_or_path = str(tmp_path)
    pg = build()
    assert ask(pg, feedback="known words")["familiar"]["feedback"] == {
        "unfamiliar": False,
        "least": "",
    }
    assert ask(pg, turn=2, feedback="other texts")["familiar"]["feedback"] == {
        "unfamiliar": True,
        "least": "other",
    }
    assert ask(pg, turn=3)["familiar"] == {
        "feedback": {"unfamiliar": False, "least": ""},
        "solution": {"unfamiliar": False, "least": ""},
    }


def test_without_a_page_it_says_what_it_is(build):
    pg = build()
    assert "3 problems" in repr(pg) and "lab.credit(" in repr(pg) and "sdpo_lab.what_if" in repr(pg)
    bundle = pg._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "lab.credit(" in data["text/plain"]
    assert isinstance(pg.credit, lab.Credit)
