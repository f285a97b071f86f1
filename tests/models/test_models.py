import time

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.models.loading import pick_device


def test_the_default_model_loads_in_float32_and_is_listed():
    model, tokenizer = lab.load_model()
    assert {p.dtype for p in model.parameters()} == {torch.float32} and all(
        p.requires_grad for p in model.parameters()
    )
    listed = {row["name"]: row for row in lab.list_models()}
    assert listed["lab-1m"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert 0.01 <= listed["lab-1m"]["pass@1"] <= 0.15 < listed["lab-1m"]["teacher, feedback"]
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"


def test_the_weights_on_disk_are_half_precision_and_small(root):
    from safetensors import safe_open

    path = root / "small_models" / "lab-1m" / "model.safetensors"
    with safe_open(path, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}
    assert path.stat().st_size < 4e6


@pytest.mark.parametrize(
    "name, words",
    [
        ("lab-1", "Did you mean 'lab-1m'"),
        ("gpt5", "not shipped \\(lab-100k"),
        ("/no/such/folder", "not a folder"),
        ("a/b/c", "not a Hub id"),
    ],
)
def test_unknown_names_fail_at_once_with_what_there_is(name, words):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=words):
        lab.load_model(name)
    assert time.perf_counter() - began < 2


def test_an_unreachable_hub_model_fails_within_seconds():
    began = time.perf_counter()
    with pytest.raises(
        OSError, match="'someone/no-such-model' is not in the local cache and could not be reached"
    ):
        lab.load_model("someone/no-such-model")
    assert time.perf_counter() - began < 10


def test_wrong_kinds_of_arguments(tmp_path):
    with pytest.raises(TypeError, match="must be a string"):
        lab.load_model(3)
    with pytest.raises(ValueError, match="holds no config.json"):
        lab.load_model(str(tmp_path))
    with pytest.raises(ValueError, match="half-precision weights do not train"):
        lab.load_model(dtype="bfloat16")
    with pytest.raises(ValueError, match="device must be 'auto'"):
        pick_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="not available on this machine"):
            pick_device("cuda")


def test_lora_is_a_fresh_adapter_that_changes_nothing_and_alone_trains():
    import warnings

    plain, _ = lab.load_model()
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = (lab.load_model(lora=4)[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    trainable = {name: p for name, p in one.named_parameters() if p.requires_grad}
    assert (
        trainable
        and all("lora_" in name for name in trainable)
        and {p.dtype for p in trainable.values()} == {torch.float32}
    )
    assert not any("lm_head" in name for name in trainable) and one.peft_config["default"].r == 4
    assert all(
        torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters())
    )  # the random half is always the same
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        assert torch.equal(one(ids).logits, plain(ids).logits)
    half, _ = lab.load_model(lora=4, dtype="bfloat16")
    assert {p.dtype for p in half.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}


def test_lora_takes_a_rank_or_a_config_of_ones_own():
    from peft import LoraConfig

    model, _ = lab.load_model(
        lora=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    assert all("q_proj" in name for name, p in model.named_parameters() if p.requires_grad)
    for bad, error in (
        (0, ValueError),
        (-1, ValueError),
        ("8", TypeError),
        (True, TypeError),
        (2.5, TypeError),
    ):
        with pytest.raises(error, match="lora must be"):
            lab.load_model(lora=bad)
    with pytest.raises(ValueError, match="lora_dropout must be 0, got 0.1"):
        lab.load_model(lora=LoraConfig(r=2, lora_dropout=0.1))


def test_importing_loads_no_widget_no_plot_and_opens_no_connection():
    import subprocess
    import sys

    script = (
        "import socket, sys\n"
        "def refuse(*a): raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "import sdpo_lab as lab\n"
        "lab.load_model(); lab.load_task('toolcall').problems(2)\n"
        "heavy = [m for m in ('plotly', 'ipywidgets', 'anywidget', 'IPython', 'pandas') if "
        "m in sys.modules]\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
