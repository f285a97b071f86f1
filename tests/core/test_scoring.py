import pytest
import torch

from sdpo_lab.scoring import check_scoring, completion_logits


def test_padding_and_company_change_nothing(tiny):
    model, _ = tiny
    prompts, completions = [[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[20, 21, 22, 2], [30, 2]]
    together = completion_logits(model, prompts, completions)
    for i in range(2):
        alone = completion_logits(model, prompts[i : i + 1], completions[i : i + 1])[0]
        assert torch.allclose(together[i, : len(completions[i])], alone, atol=1e-5)
        plain = model(torch.tensor([prompts[i] + completions[i]])).logits[0, len(prompts[i]) - 1 : -1]
        assert torch.allclose(alone, plain, atol=1e-5)


FAMILIES = {
    "llama": dict(num_key_value_heads=1), "gemma2": dict(num_key_value_heads=1, head_dim=16), "granite": dict(num_key_value_heads=2, logits_scaling=3.0),
    "cohere": dict(num_key_value_heads=2, logit_scale=0.3), "gpt_neox": {}, "gpt2": dict(n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "opt": dict(ffn_dim=64, word_embed_proj_dim=32), "qwen3_moe": dict(num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_architectures_score_as_they_do_themselves(family):
    """Soft caps, logit scales, absolute positions, experts: `head` and right-padding reproduce the model's own logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {} if family == "gpt2" else dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64)
    if family not in ("gpt2", "opt"):
        sizes["intermediate_size"] = 64
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes, **FAMILIES[family])).eval()
    check_scoring(model)
    prompts, completions = [[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[20, 21, 22, 2], [30, 2]]
    together = completion_logits(model, prompts, completions)
    for i in range(2):
        own = model(torch.tensor([prompts[i] + completions[i]])).logits[0, len(prompts[i]) - 1 : -1]
        assert torch.allclose(together[i, : len(completions[i])], own, atol=1e-4)


def test_a_model_that_scales_its_logits_in_a_way_not_known_is_refused(tiny):
    model, _ = tiny
    forward = model.forward
    model.forward = lambda **inputs: type("Out", (), {"logits": 2 * forward(**inputs).logits})()
    with pytest.raises(ValueError, match="must learn how it scales them"):
        check_scoring(model)


def test_temperature_divides_and_autocast_returns_float32(tiny):
    model, _ = tiny
    one = completion_logits(model, [[5, 6]], [[7, 8]])
    assert torch.allclose(completion_logits(model, [[5, 6]], [[7, 8]], temperature=2.0), one / 2)
    low = completion_logits(model, [[5, 6]], [[7, 8]], bf16=True)
    assert low.dtype == torch.float32 and torch.allclose(low, one, atol=0.05)
