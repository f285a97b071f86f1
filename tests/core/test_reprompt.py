import random

import pytest

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import remove_thinking, reprompt, teacher_messages
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.tasks import Problem

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q {x}"}]


def group(rewards, feedback="F"):
    problem = Problem("p", MESSAGES)
    return [
        Rollout(problem, i, f"answer {i}", [1, 2], reward=r, feedback="" if r else feedback)
        for i, r in enumerate(rewards)
    ]


def test_the_paper_s_frame_letter_by_letter():
    both = teacher_messages(MESSAGES, "S", "F", SDPOConfig())
    assert both[0] == MESSAGES[0]  # the system message stays
    assert both[1]["content"] == (
        "Q {x}\nCorrect solution:\n\nS\nThe following is feedback from your unsuccessful "
        "earlier attempt:\n\nF\n\n"
        "Correctly solve the original question."
    )
    assert (
        teacher_messages(MESSAGES, "S", "", SDPOConfig())[1]["content"]
        == "Q {x}\nCorrect solution:\n\nS\n\nCorrectly solve the original question."
    )


def test_trl_s_frame_letter_by_letter():
    both = teacher_messages(MESSAGES, "S", "F", SDPOConfig.preset("trl"))
    assert both[1]["content"] == (
        "Q {x}\nCorrect solution:\n\nS\n\n\nThe following is feedback from your "
        "unsuccessful earlier attempt:\n\nF\n\n\n\n"
        "Correctly solve the original question.\n"
    )


def test_braces_in_texts_stay_text():
    shown = teacher_messages(MESSAGES, "{feedback}{prompt}", "{0} {solution}", SDPOConfig())[1][
        "content"
    ]
    assert "{feedback}{prompt}" in shown and "{0} {solution}" in shown


def test_siblings_demonstrate_and_feedback_fills_in():
    g = group([1, 0, 0, 1])
    reprompt(g, SDPOConfig(), random.Random(0))
    assert g[0].demonstration == 3 and g[3].demonstration == 0  # never its own
    assert g[1].demonstration in (0, 3) and all(r.active for r in g)
    assert all(
        "feedback" not in r.teacher_messages[-1]["content"] for r in g
    )  # a solution makes it unnecessary
    g = group([0, 0])
    reprompt(g, SDPOConfig(), random.Random(0))
    assert all(
        r.active and r.demonstration is None and "\n\nF\n\n" in r.teacher_messages[-1]["content"]
        for r in g
    )


def test_who_is_left_out_and_why():
    g = group([1, 0], feedback="")
    reprompt(g, SDPOConfig(), random.Random(0))
    assert (
        not g[0].active
        and g[0].why == "it succeeded, and no sibling did"
        and g[0].teacher_messages == MESSAGES
    )
    assert g[1].active and g[1].demonstration == 0
    g = group([0, 0], feedback="")
    reprompt(g, SDPOConfig(), random.Random(0))
    assert {r.why for r in g} == {"no sibling succeeded, and the environment said nothing"}
    g = group([0, 0])
    reprompt(g, SDPOConfig(include_environment_feedback=False), random.Random(0))
    assert {r.why for r in g} == {"no sibling succeeded, and include_environment_feedback is off"}


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, {3, 1}),
        (dict(self_success="own"), {0}),
        (dict(dont_reprompt_on_self_success=False), {0, 1, 3}),
        (dict(self_success="skip"), {None}),
        (dict(demonstration="first"), {1}),
        (dict(demonstration="first", dont_reprompt_on_self_success=False), {0}),
        (dict(use_successful_as_teacher=False), {None}),
    ],
)
def test_what_a_success_is_shown(fields, expected):
    drawn = set()
    for seed in range(40):
        g = group([1, 1, 0, 1])
        reprompt(g, SDPOConfig(**fields), random.Random(seed))
        drawn.add(g[0].demonstration)
        if fields == dict(self_success="skip"):
            assert (
                not g[0].active
                and g[0].why == "it succeeded, and self_success is 'skip'"
                and g[2].active
            )
    assert drawn == expected


def test_feedback_alone_where_solutions_are_not_used():
    g = group([1, 0])
    reprompt(g, SDPOConfig(use_successful_as_teacher=False), random.Random(0))
    assert g[1].shown_feedback == "F" and not g[1].shown_solution and not g[0].active
    g = group([1, 0], feedback="")
    reprompt(g, SDPOConfig(use_successful_as_teacher=False), random.Random(0))
    assert g[1].why == "use_successful_as_teacher is off, and the environment said nothing"


def test_the_own_attempt_stands_before_the_feedback_and_never_alone():
    g = group([0, 1])
    reprompt(g, SDPOConfig(include_own_attempt=True), random.Random(0))
    assert g[0].teacher_messages[-1]["content"] == (
        "Q {x}\nCorrect solution:\n\nanswer 1\nYour earlier attempt:\n\nanswer 0\n\n"
        "Correctly solve the original question."
    )
    assert not g[1].shown_attempt and g[1].teacher_messages == MESSAGES
    g = group([0])
    reprompt(g, SDPOConfig(include_own_attempt=True), random.Random(0))
    assert "attempt:\n\nanswer 0\nThe following is feedback" in g[0].teacher_messages[-1]["content"]


def test_choices():
    g = group([1, 0, 0])
    reprompt(g, SDPOConfig(environment_feedback_only_without_solution=False), random.Random(0))
    assert (
        "answer 0" in g[1].teacher_messages[-1]["content"]
        and "\n\nF\n\n" in g[1].teacher_messages[-1]["content"]
    )


def test_demonstrations_are_drawn_at_random():
    drawn = set()
    for seed in range(40):
        g = group([1, 1, 1, 0])
        reprompt(g, SDPOConfig(), random.Random(seed))
        drawn.add(g[3].demonstration)
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    "text, left",
    [
        ("<think>a\nb</think>\n\nc", "c"),
        ("a</think> c", "c"),
        ("c<think>never closed", "c"),
        ("plain", "plain"),
        ("<think>1</think>x<think>2</think> y", "xy"),
    ],
)
def test_thinking_is_removed(text, left):
    assert remove_thinking(text) == left


def test_a_chat_must_end_with_the_user():
    with pytest.raises(ValueError, match="must end in a user turn.*'assistant'"):
        teacher_messages([{"role": "assistant", "content": ""}], "", "F", SDPOConfig())


def test_long_texts_give_way_and_the_frame_stays(tiny):
    from sdpo_lab.core.reprompt import encode_teacher

    _, tokenizer = tiny
    g = group([0], feedback="x " * 3000)
    config = SDPOConfig(max_reprompt_len=200)
    reprompt(g, config, random.Random(0))
    ids, shortened = encode_teacher(tokenizer, g[0], config)
    text = tokenizer.decode(ids)
    assert (
        shortened
        and len(ids) <= 200
        and "Correctly solve the original question." in text
        and "Q {x}" in text
        and "x x x" in text
    )
    with pytest.raises(ValueError, match="max_reprompt_len=16 must be larger"):
        encode_teacher(tokenizer, g[0], SDPOConfig(max_reprompt_len=16))


def test_a_frame_that_is_too_long_is_refused_and_the_limit_named(tiny):
    from sdpo_lab.core.reprompt import encode_teacher

    _, tokenizer = tiny
    plain = len(tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"])
    for most in (plain, plain + 5):  # the question would fit alone, the frame does not
        g = group([0], feedback="x " * 300)
        reprompt(g, SDPOConfig(), random.Random(0))
        with pytest.raises(
            ValueError, match=f"a character each.* {most} have room: max_reprompt_len"
        ):
            encode_teacher(tokenizer, g[0], SDPOConfig(max_reprompt_len=most))
    for context in (40, 1):  # the attempt alone has two tokens: room may be less than none
        g = group([0], feedback="x " * 300)
        reprompt(g, SDPOConfig(), random.Random(0))
        with pytest.raises(
            ValueError, match=f", and {context - 2} have room: .*context={context} must"
        ):
            encode_teacher(tokenizer, g[0], SDPOConfig(), context)
    g = group([0], feedback="x " * 300)
    reprompt(g, SDPOConfig(), random.Random(0))
    ids, shortened = encode_teacher(tokenizer, g[0], SDPOConfig(), 150)
    assert shortened and len(ids) <= 148 and "feedback" in g[0].teacher_messages[-1]["content"]


BLANK = "<think>all of it</think>"


@pytest.mark.parametrize(
    "texts, rewards, fields, why",
    [
        (
            ("a", "b"),
            (1, 0),
            dict(use_successful_as_teacher=False),
            "it succeeded, and use_successful_as_teacher is off",
        ),
        (("a", "b"), (1, 1), dict(self_success="skip"), "it succeeded, and self_success is 'skip'"),
        (
            (BLANK, "b"),
            (1, 0),
            dict(self_success="own"),
            "it succeeded, and nothing of its own text can be shown",
        ),
        (
            ("a", BLANK),
            (0, 1),
            {},
            "no sibling has a success that can be shown, and the environment said nothing",
        ),
        (
            ("a", BLANK),
            (1, 1),
            {},
            "it succeeded, and no sibling has a success that can be shown",
        ),
        ((BLANK, "b"), (1, 0), {}, "it succeeded, and no sibling did"),
    ],
)
def test_the_reason_is_the_right_one(texts, rewards, fields, why):
    g = group(rewards, feedback="")
    for r, text in zip(g, texts):
        r.text = text
    reprompt(g, SDPOConfig(**fields), random.Random(0))
    assert not g[0].active and g[0].why == why
