import torch

from sdpo_lab.scoring import completion_logits


def test_padding_and_company_change_nothing(tiny):
    model, _ = tiny
    prompts, completions = [[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[20, 21, 22, 2], [30, 2]]
    together = completion_logits(model, prompts, completions)
    for i in range(2):
        alone = completion_logits(model, prompts[i : i + 1], completions[i : i + 1])[0]
        assert torch.allclose(together[i, : len(completions[i])], alone, atol=1e-5)
        plain = model(torch.tensor([prompts[i] + completions[i]])).logits[0, len(prompts[i]) - 1 : -1]
        assert torch.allclose(alone, plain, atol=1e-5)


def test_temperature_divides_and_autocast_returns_float32(tiny):
    model, _ = tiny
    one = completion_logits(model, [[5, 6]], [[7, 8]])
    assert torch.allclose(completion_logits(model, [[5, 6]], [[7, 8]], temperature=2.0), one / 2)
    low = completion_logits(model, [[5, 6]], [[7, 8]], bf16=True)
    assert low.dtype == torch.float32 and torch.allclose(low, one, atol=0.05)
