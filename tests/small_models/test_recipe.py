"""The recipe in miniature, and what its documents must never hold."""

import json
import random
import re

import pytest
import torch

from sdpo_lab.tasks.toolcall.judge import find_errors
from sdpo_lab.tasks.toolcall.requests import is_test
from sdpo_lab.tasks.toolcall.world import BY_NAME, HELD_OUT_TOOLS, TOOLS, is_held_out
from small_models import documents as documents_module
from small_models import held_out, wordings
from small_models.documents import draw_document
from small_models.make import MINIATURE, Recipe, answer_loss, draw_pool, export, new_model, pretrain, train_tokenizer


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(11)
    return [draw_document(rng) for _ in range(20_000)]


@pytest.mark.timeout(180)
def test_the_miniature_learns_exports_and_loads(tmp_path):
    """The whole command on a small scale: the answers of fresh documents become much likelier."""
    import sdpo_lab as lab

    tokenizer = train_tokenizer(MINIATURE)
    fresh = draw_pool(Recipe(**{**vars(MINIATURE), "seed": 99}), tokenizer, 0, 2)
    with torch.no_grad():
        start = sum(answer_loss(new_model(MINIATURE, tokenizer), batch).item() for batch in fresh) / 2
    model, tokenizer = pretrain(MINIATURE, tmp_path / "work")
    with torch.no_grad():
        end = sum(answer_loss(model, batch).item() for batch in fresh) / 2
    assert start > 5.5 and end < 0.45 * start
    export(model, tokenizer, tmp_path / "model")
    loaded, _ = lab.load_model(str(tmp_path / "model"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    log = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == MINIATURE.steps


def test_stopped_and_resumed_is_the_same_model(tmp_path):
    recipe = Recipe(name="stub", width=32, layers=1, vocab_size=320, steps=6, documents_per_step=4, warmup=2)
    whole, _ = pretrain(recipe, tmp_path / "whole", save_every=3)

    class Stopped(Exception):
        pass

    import small_models.make as make

    original, seen = make.answer_loss, []

    def stop_at_five(*arguments):
        seen.append(1)
        if len(seen) == 5:
            raise Stopped
        return original(*arguments)

    make.answer_loss = stop_at_five
    try:
        with pytest.raises(Stopped):
            pretrain(recipe, tmp_path / "parts", save_every=3)
    finally:
        make.answer_loss = original
    parts, _ = pretrain(recipe, tmp_path / "parts", save_every=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters()))
    with pytest.raises(ValueError, match="belongs to another recipe"):
        pretrain(Recipe(**{**vars(recipe), "seed": 1}), tmp_path / "parts")


def test_names_have_the_same_tokens_wherever_they_stand():
    tokenizer = train_tokenizer(MINIATURE, documents=1000)
    alone = tokenizer("location").input_ids
    for text in ("weather(location='Oslo')", "x, location=3", "accepted: date, location", "'location'"):
        ids = tokenizer(text).input_ids
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), text
    hostile = "é😀\u202e \x00\t{{x}} <|im_star"
    assert tokenizer.decode(tokenizer(hostile).input_ids) == hostile


def test_held_out_wordings_share_no_word_with_the_documents(documents):
    def words(text):
        return set(re.findall(r"[a-z]{4,}", re.sub(r"\{\w+\}", "", text).lower()))

    used = set().union(*(words(q + " " + a) for q, a in documents))
    for pieces in vars(wordings).values():
        used |= set().union(*map(words, pieces)) if isinstance(pieces, tuple) else set()
    assert len(set(held_out.MESSAGES)) >= 50
    for group in (held_out.MESSAGES, held_out.FEEDBACK_HEADS, held_out.SOLUTION_HEADS, held_out.CLOSINGS):
        for wording in group:
            assert not words(wording) & used, wording


def test_a_hundred_phrasings_and_equal_contexts(documents, monkeypatch):
    assert len(wordings.UNEXPECTED) * len(wordings.ACCEPTED) > 500 and len(wordings.SOLUTION_HEADS) * len(wordings.CLOSINGS) > 400
    frames = {q.split("\n\n")[-1] for q, _ in documents}
    assert len(frames) > 500
    shown = []
    monkeypatch.setattr(documents_module, "frame", lambda question, parts, rng: shown.append(frozenset(parts)) or question)
    rng = random.Random(5)
    for _ in range(3000):
        documents_module.draw_document(rng)
    shown += [frozenset()] * (3000 - len(shown))  # a bare question has no frame
    shares = {kind: shown.count(frozenset(kind)) / 3000 for kind in ((), ("solution",), ("feedback",), ("solution", "feedback"), ("attempt", "feedback"))}
    assert sum(shares.values()) == pytest.approx(1) and all(0.17 < share < 0.23 for share in shares.values()), shares


def test_what_is_held_out_stays_out(documents):
    """No document asks for a test problem, uses the held-out tool, or is answered with a held-out pair or combination."""
    made_up = 0
    for question, answer in documents:
        assert HELD_OUT_TOOLS[0].name not in question + answer
        for line in answer.split("\n"):
            tool = BY_NAME[line.split("(")[0]]
            names = re.findall(r"(\w+)=", line)
            ranks = []
            for argument, name in zip(tool.arguments, names, strict=True):
                assert name != argument.held_out, line
                if name in argument.names:
                    ranks.append(argument.names.index(name))
                else:  # a made-up name: never from the held-out half
                    made_up += 1
                    assert sum(map(ord, name)) % 2 == 1, line
            if len(ranks) == len(tool.arguments):
                assert not is_held_out(tuple(ranks)), line
    assert made_up > 500
    rng = random.Random(12)
    bare = [draw_document(rng, "bare")[0] for _ in range(3000)]  # the prompt and nothing else
    assert not any(map(is_test, bare)) and len(set(bare)) > 2900


def test_answers_are_right_in_their_own_world(documents):
    """Every answer parses, and every call names all arguments of its tool."""
    for _, answer in documents[:3000]:
        lines = answer.split("\n")
        asked, convention = [], {}
        for line in lines:
            tool = BY_NAME[line.split("(")[0]]
            names = re.findall(r"(\w+)=", line)
            convention[tool.name] = dict(zip([a.role for a in tool.arguments], names))
            values = [eval(v) for v in re.findall(r"=('[^']*'|\d+)", line)]  # our own text, not a model's
            asked.append({"tool": tool.name, "values": dict(zip([a.role for a in tool.arguments], values))})
        assert find_errors(asked, convention, answer) == ([], 1.0)
    assert {t.name for t in TOOLS} == {line.split("(")[0] for _, a in documents for line in a.split("\n")}
