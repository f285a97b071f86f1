"""Contexts to try on an attempt: they are what they are called, the scores are lab.credit's, and a
text nobody taught is recognised."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.numpy import save_file

import sdpo_lab as lab
from sdpo_lab.analysis.contexts import PRESETS, contexts, kinds_of, unrelated_feedback
from sdpo_lab.analysis.credit import Rescorer
from sdpo_lab.analysis.familiarity import TAUGHT, familiarity, phrase_hash, pieces
from sdpo_lab.analysis.rescoring import in_words, teacher_attempts
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.teachers import Teacher
from sdpo_lab.tasks import followup
from small_models import taught

TASK, OTHER = lab.load_task("toolcall", seed=100), lab.load_task("toolcall", seed=101)
PROBLEMS = TASK.problems(12, seed=3)
WRONG = {p.id: OTHER.solution(p) for p in PROBLEMS if TASK.judge(p, OTHER.solution(p)).reward < 1}
PROBLEM = next(p for p in PROBLEMS if p.id in WRONG)
ROLLOUTS = [
    Rollout(p, i, text, [1])
    for p in PROBLEMS
    for i, text in enumerate((WRONG.get(p.id, "nothing"), TASK.solution(p)))
]


# -- what to show


def test_presets_are_what_they_are_called():
    wrong = WRONG[PROBLEM.id]
    found = contexts(TASK, PROBLEM, wrong, rollouts=ROLLOUTS)
    assert tuple(found) == PRESETS
    real = TASK.judge(PROBLEM, wrong).feedback
    assert found["the real feedback"] == {"feedback": real, "solution": ""} and real
    anothers = found["another problem's feedback"]["feedback"]
    authors = [r for r in ROLLOUTS if TASK.judge(r.problem, r.text).feedback == anothers]
    assert anothers != real and authors and all(r.problem.id != PROBLEM.id for r in authors)
    assert not any(kinds_of(r.problem) & kinds_of(PROBLEM) for r in authors), (
        "of another tool: of the same one it would tell something here"
    )
    said_by_users = {
        m
        for kind in followup.KINDS.values()
        for messages in kind.messages.values()
        for m in messages
    }
    said_by_users |= {m for messages in followup.TONE_MESSAGES.values() for m in messages}
    assert found["unrelated feedback"]["feedback"] in said_by_users
    nonsense = found["nonsense"]["feedback"]
    assert (
        len(nonsense.split()) == len(real.split())
        and not set(nonsense.split()) & set(real.split())
        and found["nonsense"]["solution"] == ""
    )
    for name in ("the answer itself", "a sibling's success"):
        assert (
            found[name]["feedback"] == ""
            and TASK.judge(PROBLEM, found[name]["solution"]).reward == 1
        )
    assert found["nothing"] == {"feedback": "", "solution": ""}
    assert all(r.reward is None for r in ROLLOUTS), "what was given is judged on copies"


def test_the_same_seed_gives_the_same_contexts_and_another_seed_others():
    first, again, other = (
        contexts(TASK, PROBLEM, WRONG[PROBLEM.id], rollouts=ROLLOUTS, seed=s) for s in (0, 0, 1)
    )
    assert first == again and first["nonsense"] != other["nonsense"]


def test_what_there_is_not_is_left_out():
    question = lab.Problem("q", [{"role": "user", "content": "?"}])
    task = lab.task_from_function([question], lambda problem, completion: (1.0, ""))
    assert list(contexts(task, question, "x")) == ["unrelated feedback", "nonsense", "nothing"]
    right = TASK.solution(PROBLEM)
    found = contexts(TASK, PROBLEM, right, rollouts=[Rollout(PROBLEM, 0, right, [1])])
    assert (
        "the real feedback" not in found
        and "a sibling's success" not in found
        and "another problem's feedback" not in found
    )


def test_a_judged_attempt_is_not_judged_again():
    class Broken:
        def judge(self, problem, completion):
            raise AssertionError("asked again")

    judged = Rollout(PROBLEM, 0, "x", [1], reward=0.0, feedback="as it was said")
    assert contexts(Broken(), PROBLEM, judged)["the real feedback"]["feedback"] == "as it was said"


def test_a_success_is_shown_as_training_would_show_it():
    thinking = Rollout(PROBLEM, 0, f"<think>hm</think>{TASK.solution(PROBLEM)}", [1], reward=1.0)
    assert contexts(TASK, PROBLEM, "x", rollouts=[thinking])["a sibling's success"][
        "solution"
    ] == TASK.solution(PROBLEM)
    half = replace(thinking, text="half", reward=0.5)
    assert "a sibling's success" not in contexts(TASK, PROBLEM, "x", rollouts=[half])
    low = lab.SDPOConfig.preset("laptop", success_reward_threshold=0.5)
    assert (
        contexts(TASK, PROBLEM, "x", rollouts=[half], config=low)["a sibling's success"]["solution"]
        == "half"
    )


def test_there_is_always_something_unrelated():
    assert all(unrelated_feedback("followup", s) for s in range(60)) and all(
        "Error" in unrelated_feedback("toolcall", s) for s in range(20)
    )
    task = lab.load_task("followup")
    assert "Error" in contexts(task, task.problems(1)[0], "x")["unrelated feedback"]["feedback"]


# -- the attempt under them


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"feedback": "TypeError: no"},
        {"solution": "weather(town='Oslo')"},
        {"feedback": "no", "attempt": "x"},
    ],
)
def test_the_scores_are_those_of_credit(tiny, shown):
    model, tokenizer = tiny
    model.train()
    before = [p.clone() for p in model.parameters()]
    config = lab.SDPOConfig.preset("laptop", temperature=0.7, distillation_alpha=0.25)
    rescorer = Rescorer(model, tokenizer, PROBLEM, WRONG[PROBLEM.id], task=TASK, config=config)
    rescorer.score(feedback="another question before")
    ours, theirs = (
        rescorer.score(**shown),
        lab.credit(model, tokenizer, PROBLEM, WRONG[PROBLEM.id], task=TASK, config=config, **shown),
    )
    for name in (
        "student_log_probs",
        "teacher_log_probs",
        "divergence",
        "student_distribution",
        "teacher_distribution",
        "oracle_log_probs",
    ):
        assert torch.allclose(
            getattr(ours, name), getattr(theirs, name), atol=1e-6, rtol=0, equal_nan=True
        ), name
    for name in ("tokens", "spans", "completion_ids", "student_prompt", "teacher_prompt", "shown"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert math.isclose(ours.shift_bits, theirs.shift_bits, abs_tol=1e-5)
    assert model.training and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_another_teacher(tiny):
    model, tokenizer = tiny
    average = Teacher(model, "ema", 0.5)
    with torch.no_grad():
        for p in average.model.parameters():
            p.mul_(1.1)
    for teacher in (average, average.model):
        ours = Rescorer(model, tokenizer, PROBLEM, [5, 6, 7], teacher=teacher).score(feedback="no")
        theirs = lab.credit(model, tokenizer, PROBLEM, [5, 6, 7], teacher=teacher, feedback="no")
        assert (
            torch.allclose(ours.teacher_log_probs, theirs.teacher_log_probs, atol=1e-6)
            and ours.advantages.abs().max() > 0.01
        )
        assert torch.allclose(ours.student_log_probs, theirs.student_log_probs, atol=1e-6)


def test_an_edit_costs_the_teachers_pass_alone(tiny):
    model, tokenizer = tiny
    rescorer, calls = Rescorer(model, tokenizer, PROBLEM, "abc"), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    inner = model.model.register_forward_pre_hook(lambda *_: calls.append("inner"))
    rescorer.score(feedback="no")
    inner.remove()
    assert calls.count("inner") == 1


def test_refusals(tiny):
    model, tokenizer = tiny
    rescorer = Rescorer(model, tokenizer, PROBLEM, "abc")
    with pytest.raises(ValueError, match="pass feedback= or solution="):
        rescorer.score(attempt="x")
    with pytest.raises(
        ValueError,
        match=r"have \d+ tokens together, the model's context is 2048; shorten the texts",
    ):
        rescorer.score(feedback="zq " * 3000)


def test_in_words():
    def moved(*moves):
        return SimpleNamespace(
            advantages=torch.tensor(moves),
            tokens=["a", "", "c\n"],
            completion_ids=[1, 2, 3],
            tokenizer=SimpleNamespace(
                decode=lambda ids, **_: "\ufffd",
                convert_ids_to_tokens=lambda i: "Ã¢",
                added_tokens_decoder={},
            ),
        )

    assert (
        in_words(moved(-4.21, 0.0, 0.5))
        == "most lowered: 'a' (−4.2 nats); most raised: 'c\\n' (+0.5 nats)"
    )
    assert in_words(moved(0.0, -math.inf, 0.0)).startswith("most lowered: '<") and "−∞" in in_words(
        moved(0.0, -math.inf, 0.0)
    )
    assert in_words(moved(0.3, 0.2, 0.1)) == "most raised: 'a' (+0.3 nats)"
    assert in_words(moved(0.04, -0.04, 0.0)) == "no token moved by 0.05 nats or more"


# -- what it would write itself


def test_the_teachers_own_attempts(tiny):
    model, tokenizer = tiny
    config = lab.SDPOConfig.preset("laptop", max_completion_length=6)
    seen = []

    class Judge:
        def judge(self, problem, completion):
            seen.append(problem)
            return 0.25, f"said of {completion!r}"

    model.train()
    found = teacher_attempts(
        model, tokenizer, PROBLEM, 3, feedback="TypeError: no", task=Judge(), config=config, seed=4
    )
    shown = teacher_messages(PROBLEM.messages, "", "TypeError: no", config)
    plain = lab.rollout(
        model, tokenizer, [replace(PROBLEM, messages=shown)], 3, seed=4, max_completion_length=6
    )
    assert [r.completion_ids for r in found] == [r.completion_ids for r in plain] and len(
        {r.text for r in found}
    ) > 1
    assert all(
        r.problem is PROBLEM
        and r.reward == 0.25
        and r.feedback == f"said of {r.text!r}"
        and r.shown_feedback == "TypeError: no"
        for r in found
    )
    assert all(p is PROBLEM for p in seen) and found[0].teacher_messages == shown and model.training
    greedy = teacher_attempts(model, tokenizer, PROBLEM, 2, config=config, temperature=0.0)
    own = lab.rollout(model, tokenizer, [PROBLEM], 1, 0.0, max_completion_length=6)[0]
    assert {r.text for r in greedy} == {own.text} and greedy[0].reward is None
    mixed = teacher_attempts(
        model,
        tokenizer,
        PROBLEM,
        1,
        teacher=Teacher(model, "trust_region", 0.5),
        config=config,
        temperature=0.0,
    )
    assert mixed[0].text == own.text, "frozen and student are the same model here"


# -- was it taught to read this?


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    save_file({"phrases": taught.learn(9000)}, folder / TAUGHT)
    return folder


def test_real_messages_are_familiar_and_others_are_not(folder):
    rng = random.Random(7)
    real = [
        m
        for name, dials in taught.MESSAGES
        if name != "tinycode"
        for m in taught.real_messages(name, rng, 4, 15, **dials)
    ]
    never = [
        m for m in real if "is not the tool asked for" in m
    ]  # no author of a document takes another tool
    real = [m for m in real if m not in never]
    # a file as it ships is made of ten times the cases
    assert len(real) > 200 and share(real, folder) < 0.04
    # close to sentences that documents do hold, and still the words they never hold are named
    assert never and all(familiarity(m, folder).least for m in never)
    assert share(list(taught.ENGLISH), folder) > 0.95
    assert (
        share([" ".join(random.Random(n).choices("abcdefgh", k=6)) for n in range(50)], folder) == 1
    )
    assert share(taught.shuffled(real, rng), folder) > 0.85
    solutions = [
        s
        for name, dials in taught.SOLUTIONS
        for s in taught.real_solutions(name, rng, 4, 15, **dials)
    ]
    assert (
        share(solutions, folder, "solution") < 0.07
        and share(list(taught.ENGLISH), folder, "solution") > 0.95
    )


def share(texts, folder, kind="feedback"):
    return sum(familiarity(t, folder, kind).unfamiliar for t in texts) / len(texts)


def test_the_least_known_word(folder):
    known = "TypeError: order() got an unexpected keyword argument 'item'"
    assert familiarity(known, folder).least == "" and familiarity(known, folder).share == 1
    assert familiarity(known.replace("unexpected", "grotesque"), folder).least == "grotesque"
    assert familiarity("", folder).share == 1 and not familiarity("  \n", folder).unfamiliar
    assert (
        familiarity("?!?!", folder).least in "?!"
        and familiarity("\ud83d</script>\u202e", folder).unfamiliar
    )


def test_a_model_tells_by_its_folder(folder, tiny, tmp_path):
    model, _ = tiny
    assert familiarity("anything", model) is None
    model.config._name_or_path = str(folder)
    assert familiarity("anything at all", model).unfamiliar
    model.config._name_or_path = "Qwen/Qwen3-0.6B"
    assert familiarity("anything", model) is None and familiarity("anything", tmp_path) is None
    with pytest.raises(ValueError, match="kind must be one of 'feedback', 'solution'"):
        familiarity("x", folder, "attempt")


def test_a_newer_file_is_read_again(tmp_path):
    import os

    import numpy as np

    def hashes(text):
        words = ["^", "^", *pieces(text), "$", "$"]
        return np.array(
            sorted({phrase_hash("feedback", *words[t : t + 3]) for t in range(len(words) - 2)}),
            dtype=np.int32,
        )

    save_file({"phrases": hashes("one two")}, tmp_path / TAUGHT)
    assert (
        familiarity("one two", tmp_path).share == 1
        and familiarity("three four", tmp_path).share == 0
    )
    save_file({"phrases": hashes("three four")}, tmp_path / TAUGHT)
    os.utime(tmp_path / TAUGHT, ns=(1, 1))
    assert (
        familiarity("one two", tmp_path).share == 0
        and familiarity("three four", tmp_path).share == 1
    )


def test_hashes_are_the_same_on_every_machine_and_the_file_is_small(folder):
    assert (
        phrase_hash("feedback", "a", "b", "c") == HASH
        and phrase_hash("solution", "a", "b", "c") != HASH
    )
    assert pieces("It's 42 'any name' \"x\" `y`, don't\n") == [
        "It",
        "'",
        "s",
        "0",
        "'",
        "'",
        "'",
        "'",
        "'",
        "'",
        ",",
        "don",
        "'",
        "t",
    ]
    found = taught.learn(300)
    assert (
        (found == taught.learn(300)).all()
        and (found[1:] > found[:-1]).all()
        and found.dtype.name == "int32"
    )
    assert (folder / TAUGHT).stat().st_size < 150_000


HASH = 765930911
