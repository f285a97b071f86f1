"""What the shipped model must be able to do, measured afresh (the full numbers are in its card)."""

import pytest

import sdpo_lab as lab
from sdpo_lab.tasks import SHIPPED
from sdpo_lab.tasks.reasoning_gym import PREFIX
from small_models.card import Bench


@pytest.fixture(scope="module")
def bench():
    model, tokenizer = lab.load_model()
    return Bench(model, tokenizer, n=50, seeds=range(300, 304))


def test_it_is_weak_alone_and_better_once_it_reads(bench):
    bare = bench.bare()["accuracy"]
    assert 0.01 <= bare <= 0.15
    assert bench.shown(("solution",))["accuracy"] > 0.9
    assert bench.shown(("feedback",))["accuracy"] > bare + 0.4


def test_the_teacher_keeps_four_fifths_of_its_effect_in_words_it_never_saw(bench):
    """Fifty messages and frames that share no word with any document
    (`test_held_out_wordings_share_no_word_with_the_documents`)."""
    bare = bench.bare()["accuracy"]
    for parts in (("feedback",), ("solution",)):
        familiar, new = (bench.shown(parts, words)["accuracy"] for words in ("seen", "held out"))
        assert new - bare >= 0.8 * (familiar - bare), (parts, bare, familiar, new)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_task_is_within_its_reach_and_its_teacher_is_clearly_better(name):
    """Some attempts succeed, most fail, and what a teacher can be shown helps: measured afresh on
    seeds that serve for nothing else."""
    if name.startswith(PREFIX):
        pytest.importorskip("reasoning_gym")
    report = lab.preflight(
        *lab.load_model(), lab.load_task(name, seed=300, **SHIPPED[name]), n=64, seed=1
    )
    assert report.ready and 0.01 <= float(report.pass_at_1) <= 0.6, report
    shares = [share for share in (report.teacher_feedback, report.teacher_solution) if share.n]
    assert shares and all(share.interval[0] > report.pass_at_1.interval[1] for share in shares), (
        report
    )
