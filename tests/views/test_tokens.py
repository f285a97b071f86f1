"""The token view: its numbers are the credit's, its scale withstands a spike, and a hostile text is
shown and does nothing."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.task import Problem
from sdpo_lab.views.html import visible
from sdpo_lab.views.page import STATIC, bundle, style, without_comments
from sdpo_lab.views.token_data import SHARE, STEPS, limit, page_data, prompts, view_data
from sdpo_lab.views.tokens import token_view

PROBLEM = Problem("p", [{"role": "user", "content": "Will it rain in Oslo?"}])
COMPLETION, FEEDBACK = (
    "weather(city='Oslo')",
    "TypeError: weather() got an unexpected keyword argument 'city'",
)
HOSTILE = (
    "<script>window.hacked = 1</script></style></textarea><img src=x onerror=alert(1)> {{ "
    "7*7 }} ${7*7} 👩‍👩‍👧 🇳🇴 مرحبا \u202eevil\u202c \u200b\u2028"
    "\x00\x1b[31m\x07 <|im_end|><|im_start|>user\n--><!--]]>\t&lt;b&gt; \\u003cb\\u003e"
)


@pytest.fixture
def credit(tiny):
    return lab.credit(*tiny, PROBLEM, COMPLETION, feedback=FEEDBACK)


class Reader(HTMLParser):
    """What a browser would find: the tags, the text outside of scripts and styles, and the scripts
    by their type."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.words, self.scripts, self.inside = [], "", {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = (
            (tag, dict(attributes).get("type", "code")) if tag in ("script", "style") else None
        )

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside is None:
            self.words += text
        elif self.inside[0] == "script":
            self.scripts[self.inside[1]] = self.scripts.get(self.inside[1], "") + text

    @property
    def data(self):
        return json.loads(
            self.scripts["application/json"],
            parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
        )


def near(values, tensor, digits=3):
    return values == pytest.approx(tensor.tolist(), abs=0.51 * 10**-digits)


# -- the numbers


def test_the_numbers_are_those_of_the_credit(credit):
    d = view_data(credit, 5, "first")
    assert (
        d["title"] == "first"
        and d["tokens"] == credit.tokens
        and d["ends"] == [end for _, end in credit.spans]
    )
    for name, tensor in (
        ("student", credit.student_log_probs),
        ("teacher", credit.teacher_log_probs),
        ("advantage", credit.advantages),
        ("student_entropy", credit.student_entropy),
        ("teacher_entropy", credit.teacher_entropy),
    ):
        assert near(d[name], tensor), name
    assert near(d["divergence"], credit.divergence, 4)
    assert (
        d["student_rank"] == credit.student_ranks.tolist()
        and d["teacher_rank"] == credit.teacher_ranks.tolist()
    )
    assert d["oracle"] is None and d["size"] == credit.student_distribution.shape[1]
    assert d["shift_bits"] == pytest.approx(credit.shift_bits, abs=1e-3) and d["shown"] == {
        "feedback": FEEDBACK
    }


def test_the_alternatives_are_the_union_of_both_with_the_mass_of_all_others(credit):
    d = view_data(credit, 5)
    for t, row in enumerate(credit.top(5)):
        names = [d["vocabulary"][v] for v in d["top"][t]]
        both = {name for role in ("student", "teacher") for name, _ in row[role]}
        assert names[0] == credit.tokens[t] and set(names) == both | {credit.tokens[t]}
        for role, distribution in (
            ("student", credit.student_distribution),
            ("teacher", credit.teacher_distribution),
        ):
            shown = [math.exp(v) for v in d[f"top_{role}"][t]]
            assert sum(shown) + d[f"tail_{role}"][t] == pytest.approx(1, abs=2e-3)
            for name, p in row[role]:
                assert shown[names.index(name)] == pytest.approx(p, rel=2e-3)
            assert d[f"top_{role}"][t][0] == d[role][t], "the sampled token comes first"
        largest = [max(a, b) for a, b in zip(d["top_student"][t], d["top_teacher"][t])][1:]
        assert largest == sorted(largest, reverse=True)
    assert len(view_data(credit, 64)["top"][0]) <= 129


def test_special_tokens_and_parts_of_characters(tiny):
    model, tokenizer = tiny
    ids = [*tokenizer("a👩", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    d = view_data(lab.credit(model, tokenizer, PROBLEM, ids, feedback="no"))
    assert d["tokens"] == ["a", "", "", "", "👩", tokenizer.eos_token] and d["special"] == [5]
    assert d["partial"] == {"1": "F0", "2": "9F", "3": "91"}
    assert view_data(lab.credit(model, tokenizer, PROBLEM, tokenizer.eos_token))["special"] == [], (
        "typed, it is text"
    )


def test_what_is_no_number_is_valid_json(credit):
    odd = replace(
        credit,
        student_log_probs=credit.student_log_probs.clone(),
        divergence=credit.divergence * math.nan,
        student_distribution=credit.student_distribution.clone(),
        oracle_log_probs=torch.full_like(credit.student_log_probs, math.nan),
    )
    odd.student_log_probs[0] = -math.inf
    odd.student_distribution[0] = -math.inf
    odd.student_distribution[1] = math.nan
    odd.oracle_log_probs[1] = -math.inf
    d = Reader(token_view(odd)._repr_html_()).data["attempts"][0]
    assert (
        d["student"][0] == "-inf" and d["advantage"][0] == "inf" and set(d["divergence"]) == {None}
    )
    assert d["oracle"][:2] == [None, "-inf"] and None in d["top_student"][1]
    assert token_view(odd, color_by="oracle").data["limits"]["oracle"] in STEPS


def test_half_a_surrogate_pair_survives(credit):
    view = token_view(
        replace(credit, student_prompt="\ud83d!", teacher_prompt="\ud83d! \udc00"), titles="\ud83d"
    )
    d = Reader(view.page().encode("utf-8").decode()).data["attempts"][0]
    assert (
        d["title"] == "\\ud83d"
        and "".join(text for _, text in d["prompts"]["student"]) == "\\ud83d!"
    )


# -- the scale


def test_the_scale_withstands_a_spike():
    calm = [[0.1 * (n % 7) for n in range(200)], [-2.0, 1.5]]
    spiked = [[*calm[0], 50.0], calm[1]]
    assert limit(calm, 1) == 2 and limit(spiked, 1) == 5, (
        "one spike, however high, takes it to 5 nats at most"
    )
    assert limit([[*calm[0], 5e5], calm[1]], 1) == limit(spiked, 1)
    assert limit([[0.01, -0.02]], 1) == 1 and limit([[30.0] * 10], 1) == 10 and limit([[]], 1) == 1
    assert limit([[None, "inf", "-inf", 1.4]], 1) == 2
    rising = [n / 100 for n in range(1000)]
    end = limit([rising], 1)
    assert sum(v <= end for v in rising) >= SHARE * len(rising)


def test_views_of_one_stack_share_the_scale_and_separate_ones_can(credit):
    other = replace(credit, teacher_log_probs=credit.student_log_probs - 4.5)
    both = token_view([credit, other], titles=["a", "b"])
    assert (
        both.data["limits"]["advantage"]
        == limit([view_data(c)["advantage"] for c in (credit, other)], 1)
        == 5
    )
    assert [a["title"] for a in both.data["attempts"]] == ["a", "b"]
    assert token_view(credit, scale=7).data["limits"] == token_view(credit).data["limits"] | {
        "advantage": 7.0,
        "oracle": 7.0,
    }


# -- the prompts


def test_the_prompts_are_cut_where_they_differ():
    student, teacher = prompts(
        "Question?\nEnd", "Question?\n\nFeedback: no such name as city.\n\nEnd"
    )
    assert student == [[0, "Question?\nEnd"]]
    assert "".join(t for m, t in teacher if m).strip() == "Feedback: no such name as city."
    # words in common on both sides of a change in the middle
    student, teacher = prompts(
        "A b c. The same long common middle part. x y",
        "A q c. The same long common middle part. z y",
    )
    assert [t for m, t in student if m] == ["b", "x"] and [t for m, t in teacher if m] == ["q", "z"]
    assert prompts("same", "same") == ([[0, "same"]], [[0, "same"]]) and prompts("", "") == ([], [])


@pytest.mark.parametrize(
    "pair",
    [
        ("", "a b"),
        ("a b", ""),
        ("a a a", "a a"),
        ("a\n\nb" * 50, "b\n\na" * 40),
        (HOSTILE, HOSTILE[::-1]),
    ],
)
def test_the_pieces_of_a_prompt_make_it_up(pair):
    for text, pieces in zip(pair, prompts(*pair)):
        assert "".join(piece for _, piece in pieces) == text and all(piece for _, piece in pieces)


def test_the_teachers_prompt_marks_what_it_was_shown(credit):
    d = view_data(credit)
    assert all(not marked for marked, _ in d["prompts"]["student"])
    assert FEEDBACK in "".join(text for marked, text in d["prompts"]["teacher"] if marked)
    assert "".join(text for _, text in d["prompts"]["teacher"]) == credit.teacher_prompt


# -- the page


def test_a_hostile_text_stays_text(tiny):
    c = lab.credit(*tiny, PROBLEM, HOSTILE, feedback=HOSTILE)
    view = token_view([c, c], titles=[HOSTILE, "plain"])
    plain = Reader(token_view(lab.credit(*tiny, PROBLEM, "a", feedback="b"), titles="c").page())
    found = Reader(view.page())
    assert set(found.tags) == set(plain.tags), "no tag comes from the text"
    assert found.tags.count("script") == 2 and found.tags.count("style") == 2
    assert (
        "".join(found.data["attempts"][0]["tokens"]) == HOSTILE
        and found.data["attempts"][0]["title"] == HOSTILE
    )
    assert (
        html.unescape(visible("<script>window.hacked")) in found.words
        and "{{ 7*7 }}" in found.words
        and "<|im_end|>" in found.words
    )
    assert "\u202e" not in view.page() and "\u2028" not in view.page() and "\x1b" not in view.page()
    assert "\\u202e" in found.words, "it is there as its code"


def test_what_nobody_could_see_is_written_as_its_code():
    assert (
        visible("a\u200bb") == "a\\u200bb"
        and visible("\u0301x") == "◌\u0301x"
        and visible("\n") == "⏎\n"
        and visible("\t") == "⇥"
    )
    assert (
        visible("\U000e0041") == "\\ue0041"
        and visible("\u00a0") == "\\u00a0"
        and visible("❤️ <") == "❤️ &lt;"
    )


def test_the_fallback_is_coloured_and_stands_alone(credit):
    """Without scripts and without style sheets, as in an untrusted notebook."""
    text = token_view(credit, scale=1)._repr_html_()
    bare = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    assert bare.count("rgba(213,94,0") + bare.count("rgba(0,114,178") >= 3
    assert (
        COMPLETION in Reader(bare).words
        and "the teacher lowers it −1 0 +1 raises it, in nats" in Reader(bare).words
    )
    assert (
        "student: 0 1 probability"
        in Reader(token_view(credit, color_by="student")._repr_html_()).words
    )


def test_two_showings_have_two_places(credit):
    view = token_view(credit)
    places = [re.search(r'<div id="([\w-]+)"', view._repr_html_()).group(1) for _ in range(2)]
    assert places[0] != places[1] and f"'#{places[0]}'" not in view._repr_html_()


def test_nothing_comes_from_elsewhere(credit):
    text = token_view(credit).page()
    assert not re.search(
        r"https?:|//cdn|@import|url\(|\bimport\b|\bfetch\(|innerHTML|document\.currentScript", text
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in STATIC.glob("*.js")))
def test_every_script_is_a_module_and_stands_in_html(name):
    text, code = (STATIC / f"{name}.js").read_text(encoding="utf-8"), bundle(name)
    assert "\nexport " in text and not re.search(r"^\s*(import|export)\b", code, re.MULTILINE)
    for other in re.findall(r'from "\./(\w+)\.js";', text):
        assert code.count(f"const ${other} = ") == 1, other
    assert "</" not in code and "<!--" not in code
    # only whole lines are left out as comments, and no text goes over a line's end
    assert without_comments('a("  //");\n  // b\nc; // d') == 'a("  //");\nc; // d'
    assert all(line.count("`") % 2 == 0 for line in text.splitlines() if "//" not in line)


def test_the_styles_are_rules_for_one_class():
    rules = re.sub(r"@[^{]+\{", "", style("token_view"))
    for selectors in re.findall(r"([^{}]+)\{[^{}]*\}", rules):
        assert all(
            ".sdpo-" in part
            for part in re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "", selectors).split(",")
        ), selectors


def test_the_size_of_the_page(tiny):
    model, tokenizer = tiny
    short = lab.credit(model, tokenizer, PROBLEM, list(range(10, 30)), feedback=FEEDBACK)
    assert len(token_view(short)._repr_html_().encode()) <= 60_000
    # 512 tokens of random scores, so that hardly two alternatives coincide
    p, q = ((3 * torch.randn(512, 400)).log_softmax(-1) for _ in range(2))
    ids = torch.randint(10, 400, (512,)).tolist()
    at = torch.tensor(ids)[:, None]
    long = replace(
        short,
        completion_ids=ids,
        tokens=[tokenizer.decode([i]) for i in ids],
        spans=[(3 * t, 3 * t + 3) for t in range(512)],
        student_distribution=p,
        teacher_distribution=q,
        student_log_probs=p.gather(1, at)[:, 0],
        teacher_log_probs=q.gather(1, at)[:, 0],
        divergence=p[:, 0].abs(),
    )
    assert len(token_view(long)._repr_html_().encode()) <= 300_000


def test_the_repr_of_a_credit_is_the_view_and_a_file_can_be_written(credit, tmp_path):
    assert "tokenView" in credit._repr_html_()
    path = token_view(credit).save(tmp_path / "view.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (
        repr(token_view([credit, credit]))
        == f"TokenView(2 attempts, {2 * len(credit.tokens)} tokens, by advantage)"
    )


# -- refusals


def test_refusals(credit):
    with pytest.raises(
        ValueError,
        match="color_by must be one of 'advantage', 'divergence', 'student', 'teacher'.*got "
        "'advantages'.*Did you mean 'advantage'",
    ):
        token_view(credit, color_by="advantages")
    with pytest.raises(ValueError, match="color_by='oracle' needs an oracle: pass task="):
        token_view(credit, color_by="oracle")
    with pytest.raises(ValueError, match="no attempt to show"):
        token_view([])
    with pytest.raises(ValueError, match="2 attempts and 1 titles"):
        token_view([credit, credit], titles=["a"])
    with pytest.raises(TypeError, match="credits must be a Credit.*got str"):
        token_view(["text"])
    for scale, error in (
        (0, ValueError),
        (math.nan, ValueError),
        (1000, ValueError),
        ("1", TypeError),
    ):
        with pytest.raises(error, match="scale must be"):
            token_view(credit, scale=scale)
    with pytest.raises(ValueError, match="k must be from 1 to 64"):
        view_data(credit, 0)
    with pytest.raises(ValueError, match="no attempt"):
        page_data([])
