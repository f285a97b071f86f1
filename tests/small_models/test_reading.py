"""Plain sentences, the second lesson, and the exact readers beside which a card puts a model."""

import random
import re
from dataclasses import asdict

import pytest

from sdpo_lab.tasks import SHIPPED, followup, load_task
from sdpo_lab.tasks.toolcall.oracle import Posterior
from sdpo_lab.tasks.toolcall.world import BY_NAME
from small_models import plain, readers, reading
from small_models.card_text import card_text, checkpoint_text
from small_models.lessons import draw_choice, draw_options
from small_models.make import MINIATURE


def said(rng):
    wrong = [("alpha", "beta", "city"), ("gamma", "delta", "date")]
    return plain.Said(wrong, ["kappa"], ("beta", "delta", "kappa"))


def test_sentences_are_many_and_tell_what_the_dial_tells():
    rng = random.Random(1)
    drawn = {
        level: [plain.sentence(said(rng), level, rng) for _ in range(8000)] for level in (1, 2, 3)
    }
    for sentences in drawn.values():
        assert len(set(sentences)) > 7500
    for text in drawn[1]:
        assert "alpha" in text.lower() and not {"beta", "delta"} & set(text.lower().split()), text
    for text in drawn[2]:
        assert all(name in text.lower() for name in ("beta", "delta", "kappa")), text
    for text in drawn[3]:
        assert "beta" in text.lower(), text
    missing = plain.Said([], [], ("beta", "delta"), ("beta", "city"))
    for _ in range(200):
        assert "beta" not in plain.sentence(missing, 1, rng).lower()
        assert "beta" in plain.sentence(missing, 3, rng).lower()


def test_the_second_lesson_has_one_right_answer(monkeypatch):
    """Each other option is ruled out in a line of its own and the right one in none, or it is the
    one that is asked for. Words that mean nothing are set aside: any may be a name.
    """
    monkeypatch.setattr(plain, "random_words", lambda rng, low, high: "...")
    rng = random.Random(2)
    ruled_out = 0
    for _ in range(2000):
        choice = draw_options(rng)
        assert all(option in choice.head for option in (choice.right, *choice.others))
        said = [set(re.findall(r"\w+", line.lower())) for line in choice.lines]
        if choice.ruled_out:
            ruled_out += 1
            assert len(said) == len(choice.others)
            for other, words in zip(choice.others, said, strict=True):
                assert other in words, (other, words)
        else:
            assert choice.right in said[0]
    assert 0.6 < ruled_out / 2000 < 0.8
    prompt, answer = draw_choice(random.Random(3))
    assert prompt.startswith(draw_options(random.Random(3)).head)
    assert answer == draw_options(random.Random(3)).right


def test_the_reader_without_lies_and_strange_names_is_the_oracle(monkeypatch):
    """Both are exact for the same author, written independently."""
    monkeypatch.setattr(readers, "STRANGE", 0.0)
    monkeypatch.setattr(readers, "LIES", 0.0)
    readers.told_prior.cache_clear()
    readers.messages.cache_clear()
    for level in (1, 2, 3):
        task = load_task("toolcall", seed=200, feedback=level)
        for problem in task.problems(25, split="test", seed=3):
            call = problem.data["calls"][0]
            first = BY_NAME[call["tool"]].arguments[0]
            names = {a.role: a.names[0] for a in BY_NAME[call["tool"]].arguments}
            values = ", ".join(f"{names[role]}={value!r}" for role, value in call["values"].items())
            text = f"{call['tool']}({values})"
            message = task.judge(problem, text).feedback
            if "unexpected" not in message:
                continue
            oracle = (
                Posterior.of(task)
                .update_from_feedback(problem, message)
                .probabilities(call["tool"])
            )
            mine = readers.tool_posterior(call["tool"], level, message)
            assert first.names[0] and mine
            for ranks, p in oracle.items():
                assert mine.get(ranks, 0.0) == pytest.approx(p, abs=1e-9)
    readers.told_prior.cache_clear()
    readers.messages.cache_clear()


def test_readers_know_more_than_nothing_and_never_more_than_all():
    shipped = {name: SHIPPED[name] for name in ("tinycode", "followup")}
    for name, dials in shipped.items():
        task, other = (load_task(name, seed=seed, **dials) for seed in (200, 201))
        accuracy = readers.code_accuracy if name == "tinycode" else readers.chat_accuracy
        known = []
        for problem in task.problems(20, split="test", seed=4):
            message = task.judge(problem, other.solution(problem)).feedback
            if message:
                known.append(accuracy(task, problem, message))
        assert len(known) > 5 and all(0 <= p <= 1 + 1e-9 for p in known)
        assert sum(known) / len(known) > 0.2  # the bare question gives a tenth


def test_a_chat_reader_told_both_things_is_certain():
    """With one reading of each question left, what remains is how often documents lie."""
    task = load_task("followup", seed=200)
    problem = task.problems(1, split="test", seed=5)[0]
    kind = problem.data["kind"]
    posterior = readers.reading_accuracy(
        followup.QUESTIONS[kind],
        0.2,
        lambda readings: readings == task.convention[kind],
        lambda readings: float(readings == task.convention[kind]),
    )
    assert 0.97 < posterior <= 1


def test_messages_move_names_on_a_model(models_on_failures):
    """The rows of the card are of the names they speak of: a list lowers the wrong name most."""
    model, tokenizer, cases = models_on_failures
    nats = reading.moved(model, tokenizer, cases)
    assert nats["excluded name, judge's words with the list"] < -1
    assert nats["asked-for name, judge's words"] > 0.5
    distance = reading.distance(model, tokenizer, cases[:10], 3)
    assert distance["whole answer"] > distance["names"] >= 0


def test_a_model_stands_beside_the_reader_on_the_same_cases(models_on_failures):
    model, tokenizer, _ = models_on_failures
    seen = reading.beside_the_reader(model, tokenizer, "toolcall", range(200, 202), 20, 2)
    failed = reading.failures(model, tokenizer, "toolcall", range(200, 202), 20, feedback=2)
    assert seen["n"] == len(failed) > 20
    assert 0.5 < seen["bayes"] <= 1 and 0.4 * seen["n"] < seen["successes"] <= seen["n"]


def test_a_card_says_what_could_be_read():
    proportion = {"accuracy": 0.5, "interval": (0.4, 0.6), "n": 96}
    card = {
        "name": "stub",
        "parameters": 1000,
        "sha256": "abc",
        "recipe": asdict(MINIATURE),
        "tasks": {"toolcall": {"pass@1": proportion, "pass@8": proportion}},
        "loss_curve": [{"step": 1, "loss": 0.25}],
        "measured": {"one": proportion, "two": proportion | {"bayes": 0.75}},
        "summary": {"kept in new words": 0.9},
        "words": {
            "n": 12,
            "nats": {"excluded name": -2.5},
            "distance": {"dial 1": {"whole answer": 0.31, "names": 0.12}},
        },
    }
    text = card_text(card)
    assert "| two | 0.500 (0.400–0.600) | 0.750 | 96 |" in text
    assert "| one | 0.500 (0.400–0.600) |  | 96 |" in text
    assert "| excluded name | -2.50 |" in text and "dial 1 0.31 (0.12)" in text
    assert "after 7 of its 150 steps" in checkpoint_text(card | {"step": 7})


@pytest.fixture(scope="module")
def models_on_failures():
    import sdpo_lab as lab

    model, tokenizer = lab.load_model("lab-300k")
    failed = reading.failures(model, tokenizer, "toolcall", range(200, 202), 20)
    cases = reading.wrong_names(tokenizer, [(task, r) for task, r, _ in failed])
    assert len(cases) > 15
    return model, tokenizer, cases
