"""followup: users, what they like, and what they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.tasks import followup, load_task
from sdpo_lab.tasks.conventions import combinations
from sdpo_lab.tasks.followup import KINDS, QUESTIONS, TONES, UNRELATED, FollowUp, write_answer


def test_problems_are_different_repeatable_and_of_one_split():
    train, test = (FollowUp(3).problems(500, split, seed=5) for split in ("train", "test"))
    assert (
        train == FollowUp(4).problems(500, "train", 5) and len({p.id for p in train + test}) == 1000
    )
    assert not {p.messages[0]["content"] for p in train} & {p.messages[0]["content"] for p in test}
    assert {p.data["kind"] for p in train} == set(KINDS)
    assert load_task("followup", seed=3, unrelated=0.5).dials["unrelated"] == 0.5


def test_an_answer_is_right_for_the_one_user_who_wants_it_so():
    for p in FollowUp().problems(100, seed=1):
        answers = [
            write_answer(p.data, readings)
            for _, readings in combinations(QUESTIONS[p.data["kind"]])
        ]
        assert len(set(answers)) == len(answers), answers
        for seed in range(3):
            user = FollowUp(seed)
            right = [a for a in answers if user.judge(p, a).reward == 1]
            assert right == [user.solution(p)] and user.judge(p, right[0]).feedback == ""


def test_the_next_message_is_about_what_is_wrong_and_the_opening_goes_first():
    for p in FollowUp().problems(60, seed=2):
        for seed in range(4):
            user = FollowUp(seed)
            wanted = user.convention[p.data["kind"]]
            for _, readings in combinations(QUESTIONS[p.data["kind"]]):
                said = user.judge(p, write_answer(p.data, readings)).feedback
                if readings["tone"] != wanted["tone"]:
                    assert said in followup.TONE_MESSAGES[wanted["tone"]]
                elif readings != wanted:
                    assert said in KINDS[p.data["kind"]].messages[wanted["form"]]


def test_no_two_wishes_are_said_in_the_same_words():
    for kind in KINDS.values():
        said = [
            m
            for messages in (*kind.messages.values(), *followup.TONE_MESSAGES.values())
            for m in messages
        ]
        assert len(set(said)) == len(said) and not set(said) & {
            *UNRELATED,
            *kind.complaints,
            *followup.TONE_COMPLAINTS,
        }
        assert set(kind.messages) == set(kind.forms) and all(
            len(m) >= 4 for m in kind.messages.values()
        )
    assert set(TONES) == set(followup.TONE_MESSAGES)


def test_dials():
    p = FollowUp().problems(1)[0]
    assert FollowUp(0, feedback=0).judge(p, "x").feedback == ""
    kind = KINDS[p.data["kind"]]
    assert FollowUp(0, feedback=1).judge(p, "x").feedback in (
        *kind.complaints,
        *followup.TONE_COMPLAINTS,
    )
    assert FollowUp(0, unrelated=1).judge(p, "x").feedback in UNRELATED
    many = [
        FollowUp(0, unrelated=0.3).judge(q, "x").feedback in UNRELATED
        for q in FollowUp().problems(400)
    ]
    assert 0.2 < sum(many) / 400 < 0.4


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.integers(0, 50))
def test_every_text_gets_a_verdict_and_the_same_one_again(text, n):
    user = FollowUp(n)
    p = user.problems(1, seed=n)[0]
    assert user.judge(p, text) == user.judge(p, text)
    assert (user.judge(p, text).reward == 1) == (text == user.solution(p))


@pytest.mark.parametrize(
    "dials, says",
    [
        ({"base_accuracy": 0.9}, "0.01 to 0.5"),
        ({"feedback": 3}, "0, 1, 2"),
        ({"unrelated": 2}, "0 to 1"),
        ({"tone": 1}, "has no 'tone'"),
    ],
)
def test_bad_dials_are_refused(dials, says):
    with pytest.raises(ValueError, match=says):
        load_task("followup", **dials)


def test_the_prior_is_right_about_as_often_as_the_dial_says():
    found = []
    for seed in range(100):
        convention = FollowUp(seed, base_accuracy=0.05).convention
        found += [
            next(p for p, r in combinations(QUESTIONS[kind]) if r == readings)
            for kind, readings in convention.items()
        ]
    assert 0.03 < sum(found) / len(found) < 0.08
    rng = random.Random(0)
    assert followup.draw_problem("test", rng).id.startswith("followup-")
