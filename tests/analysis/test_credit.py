"""One attempt token by token: the numbers are the two forwards', the texts and byte ranges are the
attempt's."""

import math

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.credit import byte_spans, split_text, token_text
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.task import Problem

PROBLEM = Problem("p", [{"role": "user", "content": "Will it rain in Oslo?"}])
COMPLETION, FEEDBACK = "weather(city='Oslo')", "TypeError: no 'city'"


def by_hand(model, tokenizer, messages, ids):
    prompt = encode_chat(tokenizer, messages)
    with torch.no_grad():
        return model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


def test_the_numbers_are_those_of_two_forwards(tiny):
    model, tokenizer = tiny
    before = [p.clone() for p in model.parameters()]
    c = lab.credit(model, tokenizer, PROBLEM, COMPLETION, feedback=FEEDBACK)
    config = lab.SDPOConfig.preset("laptop")
    p = by_hand(model, tokenizer, PROBLEM.messages, c.completion_ids)
    q = by_hand(
        model, tokenizer, teacher_messages(PROBLEM.messages, "", FEEDBACK, config), c.completion_ids
    )
    at = torch.tensor(c.completion_ids)[:, None]
    assert torch.allclose(c.student_distribution, p, atol=1e-5) and torch.allclose(
        c.teacher_distribution, q, atol=1e-5
    )
    assert torch.allclose(c.advantages, (q - p).gather(1, at)[:, 0], atol=1e-5)
    assert torch.allclose(c.divergence, lab.losses.divergence(p, q, 0.5), atol=1e-5)
    assert math.isclose(c.shift_bits, float((q.exp() * (q - p)).sum() / math.log(2)), rel_tol=1e-4)
    assert torch.allclose(c.student_entropy, -(p.exp() * p).sum(-1), atol=1e-5)
    order = p.argsort(-1, descending=True)
    assert c.student_ranks.tolist() == [
        1 + order[t].tolist().index(i) for t, i in enumerate(c.completion_ids)
    ]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters())) and not model.training
    assert (
        c.shown == {"feedback": FEEDBACK}
        and FEEDBACK in c.teacher_prompt
        and FEEDBACK not in c.student_prompt
    )


def test_nothing_to_show_changes_nothing(tiny):
    c = lab.credit(*tiny, PROBLEM, COMPLETION)
    assert (
        c.advantages.abs().max() == 0 and c.shift_bits == 0 and c.student_prompt == c.teacher_prompt
    )


def test_the_alternatives_and_their_tails_make_one(tiny):
    c = lab.credit(*tiny, PROBLEM, COMPLETION, solution="weather(town='Oslo')")
    for t, row in enumerate(c.top(5)):
        for role in ("student", "teacher"):
            assert len(row[role]) == 5 and math.isclose(
                sum(p for _, p in row[role]) + row[f"{role} tail"], 1, abs_tol=1e-5
            )
        assert row == c.top(5, at=t)[0]
    everything = c.top(10_000, at=0)[0]
    assert (
        len(everything["student"]) == c.student_distribution.shape[1]
        and everything["student tail"] < 1e-5
    )


@pytest.mark.parametrize(
    "text",
    [
        "plain text",
        "weather(city='Zürich')",
        "👩‍👩‍👧 family, 🇳🇴 flag",
        "مرحبا بالعالم",
        "日本語のテキスト",
        "tab\tnew\nline  two",
        "e\u0301 \u200b\u202e",
    ],
)
def test_spans_cut_the_bytes_of_the_text(tiny, text):
    model, tokenizer = tiny
    c = lab.credit(model, tokenizer, PROBLEM, text)
    assert c.text == text
    assert (
        c.spans[0][0] == 0
        and c.spans[-1][1] == len(text.encode())
        and all(a[1] == b[0] for a, b in zip(c.spans, c.spans[1:]))
    )
    # this tokenizer is byte-level, so every token holds at least a byte, and its bytes are those of
    # the text
    for (begin, end), i in zip(c.spans, c.completion_ids):
        assert end > begin and tokenizer.decode([i]) == text.encode()[begin:end].decode(
            "utf-8", "replace"
        )


def test_a_character_of_several_tokens_is_written_with_its_last_and_its_bytes_are_divided(tiny):
    _, tokenizer = tiny
    ids = tokenizer("a👩b", add_special_tokens=False).input_ids
    tokens = split_text(tokenizer, ids)
    assert "".join(tokens) == "a👩b" and tokens.count("") == 3, (
        "four bytes, none of them known together to this tokenizer"
    )
    assert byte_spans(tokenizer, ids, tokens) == [(i, i + 1) for i in range(6)]
    assert token_text(tokenizer, ids[1]) == "<F0>" and token_text(tokenizer, ids[0]) == "a"


def test_bytes_that_make_no_character_belong_to_the_last_token(tiny):
    _, tokenizer = tiny
    ids = tokenizer("👩", add_special_tokens=False).input_ids[:2]
    tokens = split_text(tokenizer, ids)
    text = "".join(tokens)
    assert text == tokenizer.decode(ids) and "\ufffd" in text
    assert byte_spans(tokenizer, ids, tokens)[-1][1] == len(text.encode())


def test_special_tokens_are_there_and_their_strings_in_text_are_not(tiny):
    model, tokenizer = tiny
    ended = lab.credit(
        model,
        tokenizer,
        PROBLEM,
        [*tokenizer("a", add_special_tokens=False).input_ids, tokenizer.eos_token_id],
    )
    assert ended.tokens[-1] == tokenizer.eos_token and ended.spans[-1] == (
        1,
        1 + len(tokenizer.eos_token),
    )
    typed = lab.credit(model, tokenizer, PROBLEM, "a" + tokenizer.eos_token)
    assert typed.text == ended.text and tokenizer.eos_token_id not in typed.completion_ids


def test_refusals(tiny):
    model, tokenizer = tiny
    with pytest.raises(ValueError, match="completion is empty"):
        lab.credit(model, tokenizer, PROBLEM, "", feedback="x")
    with pytest.raises(ValueError, match="completion ids must be from 0 to 399"):
        lab.credit(model, tokenizer, PROBLEM, [400])
    with pytest.raises(ValueError, match="pass feedback= or solution="):
        lab.credit(model, tokenizer, PROBLEM, "a", attempt="b")


# -- the oracle beside them

TASK = lab.load_task("toolcall", seed=100)


def wrong_and_right(problem):
    right = TASK.solution(problem)
    name = list(TASK.convention[problem.data["calls"][0]["tool"]].values())[0]
    return right.replace(f"{name}=", "nonsense=", 1), right


def test_the_oracle_reads_what_the_teacher_reads(tiny):
    model, tokenizer = tiny
    problem = TASK.problems(1, seed=3)[0]
    wrong, right = wrong_and_right(problem)
    alone = lab.credit(model, tokenizer, problem, right, task=TASK)
    shown = lab.credit(model, tokenizer, problem, right, solution=right, task=TASK)
    assert shown.oracle_log_probs.abs().max() < 1e-6, "shown the answer, the oracle is sure of it"
    assert float(alone.oracle_log_probs.sum().exp()) == pytest.approx(TASK_prior(problem), rel=1e-3)
    told = lab.credit(
        model,
        tokenizer,
        problem,
        wrong,
        feedback=TASK.judge(problem, wrong).feedback,
        attempt=wrong,
        task=TASK,
    )
    assert -math.inf in told.oracle_log_probs.tolist(), "the name the message excludes"
    assert told.oracle_log_probs[-1].isnan(), "after it there is no posterior"
    assert torch.equal(told.oracle_advantages.isnan(), told.oracle_log_probs.isnan())


def TASK_prior(problem):
    from sdpo_lab.tasks.toolcall.oracle import Posterior

    names = TASK.convention[problem.data["calls"][0]["tool"]]
    posterior = Posterior.of(TASK)
    found = posterior.probabilities(problem.data["calls"][0]["tool"])
    from sdpo_lab.tasks.toolcall.world import BY_NAME, names_of

    tool = BY_NAME[problem.data["calls"][0]["tool"]]
    return sum(p for ranks, p in found.items() if names_of(tool, ranks) == names)


def test_a_text_no_judge_would_say_leaves_the_oracle_without_opinion(tiny):
    problem = TASK.problems(1, seed=3)[0]
    c = lab.credit(*tiny, problem, TASK.solution(problem), feedback="Try harder.", task=TASK)
    assert c.oracle_log_probs.isnan().all()


def test_no_oracle_where_there_is_none(tiny):
    several = lab.load_task("toolcall", seed=100, calls=2)
    problem = several.problems(1)[0]
    assert (
        lab.credit(*tiny, problem, several.solution(problem), task=several).oracle_log_probs is None
    )
    assert lab.credit(*tiny, PROBLEM, COMPLETION, task=object()).oracle_log_probs is None
