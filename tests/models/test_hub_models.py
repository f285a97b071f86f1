"""Models from elsewhere: chat templates, what they read, tokenizers that lack something, code that
must not run. All offline, on folders of random weights."""

import json

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.chat import encode_chat, end_ids
from tests.shared.architectures import random_chat_model
from tests.shared.tasks import SMALL, Vowels

#: Qwen3's way: an empty thought unless thinking is asked for.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n"
    "\n{% endif %}{% if city is defined %}in {{ city }}{% endif %}"
)


@pytest.fixture
def folder(tiny, tmp_path):
    model, tokenizer = tiny
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def edit(folder, file, **fields):
    """Change what a file of JSON says; None takes a field away."""
    path = folder / file
    said = json.loads(path.read_text())
    said.update(fields)
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def rendered(tokenizer):
    return tokenizer.decode(encode_chat(tokenizer, [{"role": "user", "content": "hello"}]))


def test_thinking_is_off_by_default_and_a_setting_that_travels(folder, tmp_path):
    _, tokenizer = lab.load_model(str(folder), chat_template=THINKING)
    assert rendered(tokenizer).endswith("<think>\n\n</think>\n\n")
    model, tokenizer = lab.load_model(
        str(folder),
        chat_template=THINKING,
        chat_template_kwargs={"enable_thinking": True, "city": "Oslo"},
    )
    assert "<think>" not in rendered(tokenizer) and rendered(tokenizer).endswith(
        "assistant\nin Oslo"
    )
    tokenizer.save_pretrained(tmp_path / "again")
    from transformers import AutoTokenizer

    assert rendered(AutoTokenizer.from_pretrained(tmp_path / "again")) == rendered(tokenizer)
    trainer = lab.SDPOTrainer(model, tokenizer, Vowels(), lab.SDPOConfig.preset("laptop", **SMALL))
    trainer.step()
    trainer.save(tmp_path / "run")
    again = lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels())
    assert (
        rendered(again.tokenizer) == rendered(tokenizer)
        and again.step().loss == trainer.step().loss
    )
    assert lab.credit(model, tokenizer, Vowels().problems(1)[0], "a").student_prompt.endswith(
        "in Oslo"
    )


def test_special_strings_stay_text_whatever_the_template_reads(folder):
    _, tokenizer = lab.load_model(
        str(folder), chat_template=THINKING, chat_template_kwargs={"enable_thinking": True}
    )
    ids = encode_chat(tokenizer, [{"role": "user", "content": "a<|im_end|>b"}])
    assert ids.count(tokenizer.eos_token_id) == 1 and "a<|im_end|>b" in tokenizer.decode(ids)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            {"thinking": True},
            ValueError,
            "'thinking', which the chat template of .* never reads, so it would do nothing",
        ),
        ({"add_generation_prompt": False}, ValueError, "must leave 'add_generation_prompt' alone"),
        ({"city": {1, 2}}, TypeError, "what JSON can hold"),
    ],
)
def test_arguments_that_cannot_work_are_refused(folder, arguments, error, words):
    with pytest.raises(error, match=words):
        lab.load_model(str(folder), chat_template=THINKING, chat_template_kwargs=arguments)


def test_a_tokenizer_without_a_chat_template(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder, "tokenizer_config.json", chat_template=None)
    with pytest.raises(
        ValueError, match=r"has no chat template.*load_model\(\.\.\., chat_template="
    ):
        lab.load_model(str(folder))
    _, tokenizer = lab.load_model(str(folder), chat_template=THINKING)
    assert "hello" in rendered(tokenizer)
    with pytest.raises(ValueError, match="does not show what the user says; it renders 'fixed'"):
        lab.load_model(str(folder), chat_template="fixed")
    with pytest.raises(TypeError, match="must be a string"):
        lab.load_model(str(folder), chat_template=3)


def test_no_padding_token_is_needed(folder):
    edit(folder, "tokenizer_config.json", pad_token=None)
    if (folder / "special_tokens_map.json").exists():
        edit(folder, "special_tokens_map.json", pad_token=None)
    edit(folder, "config.json", pad_token_id=None)
    model, tokenizer = lab.load_model(str(folder))
    assert tokenizer.pad_token_id is None
    record = lab.SDPOTrainer(
        model, tokenizer, Vowels(), lab.SDPOConfig.preset("laptop", **SMALL)
    ).step()
    assert record.loss > 0


def test_no_end_token_is_refused_with_a_way_out(folder):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            edit(folder, file, eos_token=None)
    for file in ("config.json", "generation_config.json"):
        edit(folder, file, eos_token_id=None)
    with pytest.raises(ValueError, match="names no end-of-sequence token.*set tokenizer.eos_token"):
        lab.load_model(str(folder))
    edit(folder, "generation_config.json", eos_token_id=[1, 2])  # one of the two is enough
    assert end_ids(*lab.load_model(str(folder))) == {1, 2}


def test_code_of_a_repository_is_never_run(folder, tmp_path):
    mark = tmp_path / "mark"
    (folder / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    edit(
        folder,
        "config.json",
        model_type="own",
        auto_map={
            "AutoConfig": "modeling_own.Config",
            "AutoModelForCausalLM": "modeling_own.Model",
        },
    )
    with pytest.raises(ValueError, match="brings code of its own, which is never run here"):
        lab.load_model(str(folder))
    with pytest.raises(TypeError, match="trust_remote_code"):
        lab.load_model(str(folder), trust_remote_code=True)
    assert not mark.exists()


def test_attention_can_be_chosen_and_changes_no_number_beyond_rounding(folder):
    ids, logits = torch.arange(5, 25)[None], {}
    for name in ("auto", "sdpa", "eager"):
        model, _ = lab.load_model(str(folder), attn_implementation=name)
        assert name == "auto" or model.config._attn_implementation == name
        with torch.no_grad():
            logits[name] = model(ids).logits
    assert torch.allclose(logits["sdpa"], logits["eager"], atol=1e-4)
    with pytest.raises(
        ValueError, match="attn_implementation must be one of 'auto', 'sdpa', 'eager'"
    ):
        lab.load_model(str(folder), attn_implementation="flash_attention_2")


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma2"])
def test_another_family_from_a_folder_of_half_precision_weights(tiny, tmp_path, family):
    """As a Hub model comes: bfloat16 on disk, float32 here, an adapter, a step, an export that
    transformers reads."""
    from transformers import AutoModelForCausalLM

    _, tokenizer = tiny
    random_chat_model(family, tokenizer).bfloat16().save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    model, tokenizer = lab.load_model(str(tmp_path / "m"), lora=4)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    trainer = lab.SDPOTrainer(model, tokenizer, Vowels(), lab.SDPOConfig.preset("laptop", **SMALL))
    assert trainer.step().loss > 0
    trainer.save_pretrained(tmp_path / "merged", merge=True)
    merged, ids = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval(),
        torch.arange(5, 25)[None],
    )
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, model.eval()(ids).logits, atol=1e-4)
