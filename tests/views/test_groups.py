"""The group view: who got what, who demonstrates to whom, who is masked and why; and that looking
changes nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

import sdpo_lab as lab
from sdpo_lab.core.reprompt import reprompt
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.views.groups import group_view, in_words
from tests.views.test_tokens import HOSTILE, Reader

PROBLEM = Problem("p", [{"role": "user", "content": "Will it rain in Oslo?"}])
TEXTS = ["weather(city='Oslo')", "weather(town='Oslo')", "weather(city='Oslo')", "rain"]


class Task:
    """'town' is right, 'city' is told why it is wrong, and to all else it says nothing."""

    def judge(self, problem: Problem, completion: str) -> Verdict:
        return (
            Verdict(1.0)
            if "town" in completion
            else Verdict(0.0, "no 'city'" if "city" in completion else "")
        )


@pytest.fixture
def group(tiny):
    _, tokenizer = tiny
    return [
        Rollout(PROBLEM, i, text, tokenizer(text, add_special_tokens=False).input_ids)
        for i, text in enumerate(TEXTS)
    ]


def test_rows_say_who_demonstrates_to_whom_and_who_is_masked(tiny, group):
    view = group_view(*tiny, group, task=Task())
    assert [r["reward"] for r in view.rows] == [0, 1, 0, 0] and [r["index"] for r in view.rows] == [
        0,
        1,
        2,
        3,
    ]
    assert [r["demonstration"] for r in view.rows] == [1, None, 1, 1] and view.rows[1][
        "demonstrates_to"
    ] == [0, 2, 3]
    assert [r["active"] for r in view.rows] == [True, False, True, True] and view.rows[1][
        "why"
    ] == "it succeeded, and no sibling did"
    assert view.rows[0]["shown"]["solution"] == TEXTS[1] and view.rows[0]["feedback"] == "no 'city'"
    assert [r["same_as"] for r in view.rows] == [None, None, 0, None] and view.credits[
        2
    ] is view.credits[0]
    assert all(r.reward is None and not r.teacher_messages and not r.active for r in group), (
        "the attempts given stay as they were"
    )


def test_the_page_has_a_row_for_what_differs(tiny, group):
    view = group_view(*tiny, group, task=Task())
    found = Reader(view.page())
    assert found.tags.count("tr") == 1 + 3, "a heading, and the two that are the same share a row"
    for words in (
        "4 attempts at one problem: 1 right, 3 in the update",
        "Will it rain in Oslo?",
        "0, 2",
        "shown to attempts 0, 2, 3",
        "attempt 1 as a demonstration",
        "masked: it succeeded, and no sibling did",
        "takes part",
        "no 'city'",
    ):
        assert words in found.words, words
    assert [a["title"] for a in found.data["attempts"]] == [
        "attempt 0",
        "attempt 1",
        "attempt 3",
    ] and len(view.page().encode()) < 120_000
    assert repr(view) == "GroupView(4 attempts, rewards 0, 1, 0, 0)"


def test_what_a_training_step_showed_is_kept(tiny, group):
    config = lab.SDPOConfig.preset("laptop")
    judged = [
        replace(r, reward=v.reward, feedback=v.feedback)
        for r in group
        for v in [Task().judge(PROBLEM, r.text)]
    ]
    judged[1] = replace(judged[1], reward=0.0, feedback="wrong day")
    reprompt(judged, config, random.Random(7))
    judged[3] = replace(judged[3], why="too long", active=False)
    view = group_view(*tiny, judged)
    assert (
        view.rows[3]["why"] == "too long"
        and view.rows[0]["shown"]["feedback"] == "no 'city'"
        and not any(r["note"] for r in view.rows)
    )
    by_hand = lab.credit(
        *tiny,
        PROBLEM,
        judged[0],
        feedback=judged[0].shown_feedback,
        attempt=judged[0].shown_attempt,
    )
    assert view.credits[0].teacher_prompt == by_hand.teacher_prompt and view.credits[
        0
    ].advantages.equal(by_hand.advantages)
    # another config would have written another prompt, and it says so
    other = config.replace(feedback_template="Look: {feedback_raw}")
    assert "pass config=" in group_view(*tiny, judged, config=other).rows[0]["note"]
    assert "pass config=" in group_view(*tiny, judged, config=other)._repr_html_()


def test_all_rows_have_one_scale(tiny, group):
    view = group_view(*tiny, group, task=Task(), k=3)
    sizes = [abs(v) for c in view.credits for v in c.advantages.tolist()]
    assert 1 <= view.data["limits"]["advantage"] <= 10 and view.data["limits"]["advantage"] >= min(
        max(sizes), 5
    )
    assert len(view.data["attempts"]) == 3 and len(view.data["attempts"][0]["top"][0]) <= 7


def test_an_empty_attempt_has_a_row_and_no_view(tiny, group):
    nothing = [Rollout(PROBLEM, 0, "", []), group[1]]
    view = group_view(*tiny, nothing, task=Task())
    assert view.credits[0] is None and view.rows[0]["why"] == "it is empty"
    assert (
        "(empty)" in view.page()
        and "masked: it is empty" in view.page()
        and view.page().count('data-view="') == 1
    )
    alone = group_view(*tiny, nothing[:1], task=Task())
    assert alone.data is None and "(empty)" in alone.page()


def test_hostile_attempts_and_feedback_stay_text(tiny):
    model, tokenizer = tiny
    ids = tokenizer(HOSTILE, add_special_tokens=False).input_ids
    problem = Problem("p", [{"role": "user", "content": HOSTILE}])
    task = lab.task_from_function([problem], lambda p, text: (0.0, HOSTILE))
    view = group_view(model, tokenizer, [Rollout(problem, 0, HOSTILE, ids)], task=task)
    found = Reader(view.page())
    assert (
        not {"img", "textarea", "b"} & set(found.tags)
        and found.tags.count("script") == 2
        and found.tags.count("style") == 2
    )
    assert found.words.count("{{ 7*7 }}") == 3 and "\u202e" not in view.page(), (
        "the question, the attempt, the feedback"
    )


def test_what_the_teacher_is_shown_in_words():
    row = {"demonstration": 3, "shown": {"solution": "x", "attempt": "y"}, "note": ""}
    assert in_words([row]) == "attempt 3 as a demonstration, this attempt"
    assert (
        in_words([row, row | {"demonstration": 1}])
        == "attempts 1, 3 as a demonstration, this attempt"
    )
    assert in_words([{"demonstration": None, "shown": {}, "note": ""}]) == "nothing more"


def test_refusals(tiny, group):
    with pytest.raises(ValueError, match="no attempt to show"):
        group_view(*tiny, [])
    with pytest.raises(ValueError, match="attempt 0 has no reward yet; pass task="):
        group_view(*tiny, group)
    others = [replace(r, problem=Problem(name, PROBLEM.messages)) for name, r in zip("abab", group)]
    with pytest.raises(
        ValueError,
        match=r"at 2 \('a', 'b'\); choose one: \[r for r in rollouts if r.problem.id == 'a'\]",
    ):
        group_view(*tiny, others, task=Task())
    with pytest.raises(ValueError, match="have the same index"):
        group_view(*tiny, [group[0], group[0]], task=Task())
    with pytest.raises(
        TypeError, match="rollouts must be attempts as lab.rollout returns them; got str"
    ):
        group_view(*tiny, TEXTS, task=Task())
    with pytest.raises(ValueError, match="k must be from 1 to 64"):
        group_view(*tiny, group, task=Task(), k=0)
