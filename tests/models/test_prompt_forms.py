"""The list of prompt forms, and that pre-training has documents of every one of them."""

import random
from collections import Counter

import pytest

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.models import prompt_forms as prompts
from small_models.documents import FORMS, draw_document

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q {x}"}]


def test_renderings_by_hand():
    show = dict(solution="<s>", feedback="{f}", attempt="A")
    assert prompts.paper(CHAT, **show) == teacher_messages(CHAT, "<s>", "{f}", SDPOConfig(), "A")
    assert prompts.trl(CHAT, **show)[-1]["content"].startswith(
        "Q {x}\nCorrect solution:\n\n<s>\n\n"
    )
    assert prompts.paper(CHAT) == prompts.trl(CHAT) == CHAT
    assert (
        prompts.hindsight(CHAT, feedback="{f}")[-1]["content"].startswith(
            "Q {x}\n\n<hindsight context>\n"
        )
        and "\n{f}\n" in prompts.hindsight(CHAT, feedback="{f}")[-1]["content"]
    )
    assert [m["role"] for m in prompts.two_turns(CHAT, feedback="f", attempt="A")] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert (
        prompts.predict(CHAT, attempt="A{y}")[-1]["content"]
        == "Q {x}\n\nAnswer:\n\nA{y}\n\nWhat will be said of this answer?"
    )
    assert all(
        name in prompts.RENDERINGS and content in prompts.CONTENTS
        for name, content in prompts.FORMS
    )


@pytest.mark.parametrize("rendering, content", sorted(FORMS))
def test_every_form_is_drawn_and_holds_what_it_says(rendering, content):
    rng = random.Random(f"{rendering}/{content}")
    documents = [draw_document(rng, rendering, content) for _ in range(12)]
    for d in documents:
        assert (
            (d.rendering, d.content) == (rendering, content)
            and d.answer
            and d.messages[-1]["role"] == "user"
        )
        text = d.messages[-1]["content"]
        if rendering in ("paper", "trl") and content != "nothing":
            assert text.endswith(prompts.CONFIGS[rendering].reprompt_template.rpartition("}")[2])
            heads = {
                "solution": "Correct solution:\n\n",
                "feedback": "The following is feedback from your unsuccessful earlier attempt:\n\n",
                "attempt": "Your earlier attempt:\n\n",
            }
            wanted = {name for name in heads if name in content} | (
                {"feedback"} if content == "history" else set()
            )
            assert {name for name, head in heads.items() if head in text} == wanted
        assert ("<hindsight context>" in text) == (rendering == "hindsight")
        assert ("What will be said" in text) == (rendering == "predict")
        assert [m["role"] for m in d.messages] == ["user"] + ["assistant", "user"] * (
            rendering == "two turns"
        )
    assert len({d.messages[0]["content"] for d in documents}) > 6


def test_the_mixture_holds_every_form_in_earnest():
    """Of 20,000 documents (a thirtieth of a recipe) every form has at least 20, but for misleading
    ones: their share is the floor of what a reader believes of an excluded name.
    """
    rng = random.Random(1)
    counts = Counter((d.rendering, d.content) for d in (draw_document(rng) for _ in range(20_000)))
    rare = {form: n for form, n in counts.items() if form[1] == "misleading feedback"}
    often = [n for form, n in counts.items() if form not in rare]
    assert set(counts) == FORMS and min(often) >= 20, counts.most_common()[-8:]
    assert 20 <= sum(rare.values()) <= 0.005 * 20_000
