"""The recipe in miniature, and what its documents must never hold."""

import json
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from sdpo_lab.models.loading import model_folders
from sdpo_lab.tasks.conventions import is_test
from sdpo_lab.tasks.toolcall.judge import find_errors
from sdpo_lab.tasks.toolcall.world import BY_NAME, HELD_OUT_TOOLS, is_held_out
from small_models import held_out, plain, wordings
from small_models import worlds as worlds_module
from small_models.documents import Document, draw_document, draw_lesson
from small_models.lessons import draw_choice, draw_echo
from small_models.make import (
    FAMILY,
    MINIATURE,
    RECIPES,
    Recipe,
    answer_loss,
    export,
    mean_loss_backward,
    new_model,
    pretrain,
    train_tokenizer,
)
from small_models.muon import Muon
from small_models.pools import draw_pool, encode


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(11)
    return [draw_document(rng) for _ in range(20_000)]


def mean_loss(model, batches):
    """Mean over the answer tokens."""
    return sum(answer_loss(model, batch).item() for batch in batches) / sum(
        len(a) for batch in batches for _, a in batch
    )


@pytest.mark.timeout(180)
def test_the_miniature_learns_exports_and_loads(tmp_path):
    """The whole command on a small scale: the answers of fresh documents become much likelier."""
    import sdpo_lab as lab

    tokenizer = train_tokenizer(MINIATURE)
    fresh = draw_pool(Recipe(**{**vars(MINIATURE), "seed": 99}), tokenizer, 0, 2)
    with torch.no_grad():
        start = mean_loss(new_model(MINIATURE, tokenizer), fresh)
    model, tokenizer = pretrain(MINIATURE, tmp_path / "work")
    with torch.no_grad():
        end = mean_loss(model, fresh)
    assert start > 5.5 and end < 0.75 * start
    export(model, tokenizer, tmp_path / "model")
    loaded, _ = lab.load_model(str(tmp_path / "model"))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    log = [json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == MINIATURE.steps


def test_stopped_and_resumed_is_the_same_model(tmp_path):
    recipe = Recipe(
        name="stub", width=32, layers=1, vocab_size=320, steps=6, documents_per_step=4, warmup=2
    )
    whole, _ = pretrain(recipe, tmp_path / "whole", save_every=3)

    class Stopped(Exception):
        pass

    import small_models.make as make

    original, seen = make.mean_loss_backward, []

    def stop_at_five(*arguments):
        seen.append(1)
        if len(seen) == 5:
            raise Stopped
        return original(*arguments)

    make.mean_loss_backward = stop_at_five
    try:
        with pytest.raises(Stopped):
            pretrain(recipe, tmp_path / "parts", save_every=3)
    finally:
        make.mean_loss_backward = original
    parts, _ = pretrain(recipe, tmp_path / "parts", save_every=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters()))
    with pytest.raises(ValueError, match="belongs to another recipe"):
        pretrain(Recipe(**{**vars(recipe), "seed": 1}), tmp_path / "parts")


def test_a_batch_in_two_parts_is_the_whole_batch():
    tokenizer = train_tokenizer(MINIATURE, documents=1000)
    model = new_model(MINIATURE, tokenizer)
    (batch,) = draw_pool(MINIATURE, tokenizer, 0, 1)
    mean = mean_loss_backward(model, batch)
    parts = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    whole = answer_loss(model, batch) / sum(len(a) for _, a in batch)
    whole.backward()
    assert mean == pytest.approx(whole.item(), rel=1e-5)
    for part, p in zip(parts, model.parameters()):
        assert torch.allclose(part, p.grad, atol=1e-6, rtol=1e-4)
    assert mean_loss_backward(model, batch[:1]) > 0  # a single document has no second part


@pytest.mark.parametrize("shape", [(64, 64), (192, 64), (64, 192)])
def test_muon_is_that_of_torch_without_its_rounding(shape):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(ours.detach().clone())
    settings = dict(lr=1e-2, weight_decay=0.1)
    both = (
        Muon([ours], **settings),
        torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        before = ours.detach().clone(), theirs.detach().clone()
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in both:
            optimizer.step()
        moved = ours.detach() - before[0], theirs.detach() - before[1]
        assert (moved[0] - moved[1]).norm() < 0.03 * moved[1].norm()  # bfloat16 keeps three digits
    with pytest.raises(ValueError, match="matrices alone"):
        Muon([torch.nn.Parameter(torch.ones(3))], **settings)


def test_names_have_the_same_tokens_wherever_they_stand():
    tokenizer = train_tokenizer(MINIATURE, documents=1000)
    alone = tokenizer("location").input_ids
    for text in (
        "weather(location='Oslo')",
        "x, location=3",
        "accepted: date, location",
        "'location'",
    ):
        ids = tokenizer(text).input_ids
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), text
    hostile = "é😀\u202e \x00\t{{x}} <|im_star"
    assert tokenizer.decode(tokenizer(hostile).input_ids) == hostile


def text_of(document):
    return "\n".join([*(m["content"] for m in document.messages), document.answer])


def test_held_out_wordings_share_no_word_with_the_documents(documents):
    def words(text):
        return set(re.findall(r"[a-z]{4,}", re.sub(r"\{\w+\}", "", text).lower()))

    # words to be reversed and what comes of them are material, like values; so are made-up names
    # and random letters
    rng = random.Random(15)
    lessons = [draw_lesson(draw, rng) for draw in (draw_echo, draw_choice) for _ in range(3000)]
    drawn = [*documents, *lessons]
    stands_in = Counter(
        word for d in drawn if not d.world.startswith("reasoning_gym") for word in words(text_of(d))
    )
    used = {word for word, times in stands_in.items() if times >= 3}  # random letters rarely repeat
    for pieces in (*vars(wordings).values(), *vars(plain).values()):
        used |= (
            set().union(*map(words, pieces))
            if isinstance(pieces, tuple) and isinstance(pieces[0], str)
            else set()
        )
    assert len(set(held_out.MESSAGES)) >= 50
    assert held_out.SMALL_WORDS == ("from", "with", "than", "over")  # too common to be held out
    for group in (
        held_out.MESSAGES,
        held_out.FEEDBACK_HEADS,
        held_out.SOLUTION_HEADS,
        held_out.CLOSINGS,
        held_out.EXCLUSIONS,
        held_out.SENTENCES,
        held_out.CORRECTIONS,
        held_out.REQUESTS,
    ):
        for wording in group:
            common = words(wording) & used - set(held_out.SMALL_WORDS)
            assert not common, (wording, common)


def test_hundreds_of_phrasings_and_the_shares_of_worlds_and_contents(documents):
    assert (
        len(wordings.UNEXPECTED) * len(wordings.ACCEPTED) > 500
        and len(wordings.SOLUTION_HEADS) * len(wordings.CLOSINGS) > 400
    )
    assert (
        len(
            {
                d.messages[-1]["content"].split("\n\n")[-1]
                for d in documents
                if d.rendering == "varied"
            }
        )
        > 500
    )
    worlds = Counter(d.world for d in documents)
    shares = {f.__name__: share for f, share in worlds_module.WORLDS.items()}
    assert sum(shares.values()) == pytest.approx(1)
    assert worlds["reasoning_gym:chain_sum"] / len(documents) == pytest.approx(
        shares["add"], rel=0.25
    )
    told = [d for d in documents if d.world in ("toolcall", "tinycode", "followup")]
    contents = Counter(d.content for d in told)
    for content in ("nothing", "solution", "feedback", "attempt and feedback"):
        assert contents[content] > 0.1 * len(told), contents
    assert all(
        d.content in ("nothing", "solution")
        for d in documents
        if d.world.startswith("reasoning_gym")
    )


def test_no_document_asks_a_test_problem(documents):
    """Neither for itself nor about another request: every question comes from the train split."""
    rng = random.Random(12)
    bare = [
        d
        for d in (draw_document(rng, "paper", "nothing") for _ in range(4000))
        if d.world != "toolcall"
    ]
    assert (
        not any(is_test(d.messages[0]["content"]) for d in bare)
        and len({d.messages[0]["content"] for d in bare}) > 1500
    )
    asked = []
    original = worlds_module.tool_case
    worlds_module.tool_case = lambda question, calls, api: (
        asked.append(question) or original(question, calls, api)
    )
    try:
        for _ in range(3000):
            worlds_module.toolcall(rng)
    finally:
        worlds_module.tool_case = original
    assert not any(map(is_test, asked))


def test_what_is_held_out_of_toolcall_stays_out(documents, monkeypatch):
    """The held-out tool, pairs, combinations and half of the made-up names are in no convention
    that a document draws.
    """
    for d in documents:
        assert not re.search(rf"\b{HELD_OUT_TOOLS[0].name}\(", text_of(d))
    conventions = []
    original = worlds_module.tool_case
    monkeypatch.setattr(
        worlds_module,
        "tool_case",
        lambda question, calls, api: conventions.append(api) or original(question, calls, api),
    )
    rng, made_up, borrowed, renamed = random.Random(13), 0, 0, 0
    for _ in range(15_000):
        worlds_module.toolcall(rng)
    for api in conventions:
        renamed += any(name != shown for name, shown in api.shown.items())
        for tool, names in api.names.items():
            arguments = BY_NAME[tool].arguments
            assert len(set(names.values())) == len(names) and all(
                names[a.role] != a.held_out for a in arguments
            )
            for a in arguments:
                if names[a.role] not in worlds_module.EVERY_NAME:
                    made_up += 1
                    assert sum(map(ord, names[a.role])) % 2 == 1  # never from the held-out half
                borrowed += (
                    names[a.role] in worlds_module.EVERY_NAME and names[a.role] not in a.names
                )
            if all(names[a.role] in a.names for a in arguments):
                assert not is_held_out(tuple(a.names.index(names[a.role]) for a in arguments))
    assert made_up > 1000 and borrowed > 1000 and renamed > 1000
    assert all(
        api.odd or set(names.values()) <= set(worlds_module.EVERY_NAME)
        for api in conventions
        for names in api.names.values()
    )


def test_answers_are_right_in_their_own_world():
    """Every answer passes its own world's judge, every attempt of the fallible author fails it, and
    says why.
    """
    rng = random.Random(14)
    for _ in range(300):
        case = worlds_module.code(rng)
        attempt, feedback = case.fail(rng)
        assert attempt != case.answer and feedback
        compile(case.answer, "answer", "exec")
    for _ in range(300):
        case = worlds_module.chat(rng)
        attempt, feedback = case.fail(rng)
        assert attempt != case.answer and feedback
    for _ in range(300):
        original = worlds_module.tool_case
        seen = []
        worlds_module.tool_case = lambda question, calls, api: (
            seen.append((calls, api)) or original(question, calls, api)
        )
        try:
            case = worlds_module.toolcall(rng)
        finally:
            worlds_module.tool_case = original
        ((calls, api),) = seen
        plain = case.answer
        for name, shown in api.shown.items():
            plain = re.sub(rf"^{shown}(?=\()", name, plain, flags=re.MULTILINE)
        assert find_errors(calls, api.names, plain) == ([], 1.0)
        attempt, feedback = case.fail(rng)
        assert attempt != case.answer and feedback
    for world in (worlds_module.spell, worlds_module.add):
        case = world(rng)
        assert case.answer and case.fail is None


def test_the_lessons_are_certain_and_their_shares_fall(monkeypatch):
    from small_models import pools

    rng = random.Random(16)
    for prompt, answer in (draw_echo(rng) for _ in range(500)):
        assert answer in prompt
    drawn = Counter()
    originals = {"draw_lesson": draw_lesson, "draw_document": draw_document}

    def counting(name):
        def draw(*arguments):
            drawn[arguments[0].__name__ if name == "draw_lesson" else "document"] += 1
            return originals[name](*arguments)

        return draw

    for name in originals:
        monkeypatch.setattr(pools, name, counting(name))
    recipe = Recipe(
        name="stub", vocab_size=320, documents_per_step=8, echo_steps=32, choice_steps=64
    )
    tokenizer = train_tokenizer(recipe, documents=200)
    for pool, echo in ((0, 0.8), (1, 0.4), (2, 0.0), (4, 0.0)):  # 16 steps each
        drawn.clear()
        draw_pool(recipe, tokenizer, pool, 16)
        assert drawn["draw_echo"] / drawn.total() == pytest.approx(echo, abs=0.1)
        choice = pools.CHOICE + (0.4 - pools.CHOICE) * (1 - pool / 4)
        others = drawn.total() - drawn["draw_echo"]
        assert drawn["draw_choice"] / others == pytest.approx(choice, abs=0.2)


def test_controls_read_no_feedback_or_no_exclusions():
    from small_models.pools import draw_one

    rng = random.Random(17)
    bare = replace(MINIATURE, diet="no feedback")
    contents = Counter(draw_one(bare, 10_000, rng).content for _ in range(2000))
    assert set(contents) == {"nothing", "solution"}
    listed = replace(MINIATURE, diet="no exclusions")
    drawn = [draw_one(listed, 10_000, rng) for _ in range(4000)]
    assert not any(d.excludes or d.world == "draw_choice" for d in drawn)
    usual = [draw_one(MINIATURE, 10_000, rng) for _ in range(4000)]
    assert sum(d.excludes for d in usual) > 100


def test_words_spelt_backward_are_written_letter_by_letter():
    tokenizer = train_tokenizer(MINIATURE, documents=500)
    document = Document(
        [{"role": "user", "content": "Spell"}],
        "order",
        "reasoning_gym:spell_backward",
        "paper",
        "nothing",
    )
    other = Document(
        [{"role": "user", "content": "Spell"}], "order", "toolcall", "paper", "nothing"
    )
    (_, letters), (_, whole) = encode([document, other], tokenizer)
    assert (
        [tokenizer.decode([i]) for i in letters] == [*"order", "<|im_end|>"]
        and len(whole) < len(letters)
        and whole[-1] == letters[-1]
    )
    for style in worlds_module.STYLES:
        ((_, ids),) = encode([replace(document, answer=style.format("order"))], tokenizer)
        texts = [tokenizer.decode([i]) for i in ids]
        assert "".join(texts) == style.format("order") + "<|im_end|>" and all(
            c in texts for c in "order"
        )


def test_what_is_made_unless_told_is_what_ships():
    assert set(FAMILY) == {name for name in model_folders() if "-at-" not in name}
    others = set(RECIPES) - set(FAMILY) - {"lab-3m"}
    assert all("seed" in name or "-no-" in name for name in others)  # replicates and controls


def test_sizes_lie_a_factor_of_three_to_four_apart_and_fit():
    tokenizer = train_tokenizer(RECIPES["lab-1m"], documents=500)

    def size(recipe):
        return sum(p.numel() for p in new_model(recipe, tokenizer).parameters())

    family = [RECIPES[name] for name in (*FAMILY, "lab-3m")]
    sizes = list(map(size, family))
    assert all(3 <= b / a <= 4 for a, b in zip(sizes, sizes[1:])), sizes
    equal = {(r.steps, r.documents_per_step, r.vocab_size, r.max_tokens) for r in RECIPES.values()}
    assert len(equal) == 1  # equal tokens, one tokenizer
    shipped = [r for r in RECIPES.values() if r.name != "lab-3m"]
    assert sum(2 * size(r) * (1 + len(r.keep_at)) for r in shipped) < 24e6
