"""The same run on several threads."""

import pytest
import torch

import sdpo_lab as lab


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.timing  # of two threads each waits for the other: they want both cores
def test_two_runs_on_two_threads_are_equal_to_the_last_bit(two_threads):
    """Large enough that torch divides its work: gradients must not be added up in the order in
    which threads happen to finish."""

    def losses():
        model, tokenizer = lab.load_model()
        return [
            r.loss
            for r in lab.SDPOTrainer(model, tokenizer, lab.load_task("toolcall", seed=1)).train(
                4, progress=False
            )
        ]

    first = losses()
    assert losses() == first and losses() == first
