"""Small random models of other families."""

from __future__ import annotations

import torch

#: family: what its configuration needs besides sizes.
FAMILIES = {
    "llama": dict(num_key_value_heads=1),
    "mistral": dict(num_key_value_heads=1, sliding_window=4),
    "gemma2": dict(num_key_value_heads=1, head_dim=16),
    "granite": dict(num_key_value_heads=2, logits_scaling=3.0),
    "cohere": dict(num_key_value_heads=2, logit_scale=0.3),
    "gpt_neox": {},
    "gpt2": dict(n_embd=32, n_layer=2, n_head=2, n_positions=64),
    "opt": dict(ffn_dim=64, word_embed_proj_dim=32),
    "qwen3_moe": dict(
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        head_dim=16,
    ),
}


def random_model(family):
    """Of a vocabulary of 50 ids, without a tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = (
        {}
        if family == "gpt2"
        else dict(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
        )
    )
    if family not in ("gpt2", "opt"):
        sizes["intermediate_size"] = 64
    config = AutoConfig.for_model(
        family,
        vocab_size=50,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **sizes,
        **FAMILIES[family],
    )
    return AutoModelForCausalLM.from_config(config).eval()


CHAT_FAMILIES = {
    "qwen3": dict(num_key_value_heads=1, head_dim=16),
    **{name: FAMILIES[name] for name in ("llama", "gpt2", "gemma2", "qwen3_moe")},
}


def random_chat_model(family, tokenizer):
    """Of 256 positions, with the vocabulary of a tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        intermediate_size=64,
    )
    if family == "gpt2":
        sizes = dict(n_positions=256)
    config = AutoConfig.for_model(
        family,
        **{**CHAT_FAMILIES[family], **sizes},
        vocab_size=len(tokenizer),
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)
