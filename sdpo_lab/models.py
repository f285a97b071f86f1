"""Load a model: a shipped one, a folder, or a Hub id."""

from __future__ import annotations

import difflib
import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.errors import check_range

DEFAULT = "lab-1m"


def model_folders() -> dict[str, Path]:
    """Shipped models by name: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    for root in (here / "small_models", here.parent / "small_models"):
        found = {f.parent.name: f.parent for f in sorted(root.glob("*/model.safetensors"))}
        if found:
            return found
    return {}  # a source tree without weights: `python -m small_models.make` makes them


def list_models() -> list[dict[str, Any]]:
    """The shipped models: name, parameters, and the measured accuracies of their cards."""
    rows = []
    for name, folder in model_folders().items():
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        rows.append({"name": name, "parameters": card["parameters"], **card["summary"]})
    return rows


def load_model(name: str = DEFAULT, device: str = "auto", dtype: str = "auto", lora: int | Any | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a shipped model, a folder, or a Hub id "owner/name".

    device  "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"
    dtype   "auto" or "float32": the weights are float32 and trainable. Half-precision weights do not train (small
            updates vanish); on a GPU use SDPOConfig(bf16=True), which computes in bfloat16. With `lora` also "bfloat16":
            of the weights that do not train
    lora    rank of a fresh LoRA adapter on all linear layers but the head (scale 2, no dropout), or a peft LoraConfig; the
            adapter is float32 and alone trains

    Raises ValueError at once for a name that is neither shipped, nor a folder, nor like a Hub id, with what there is;
    OSError for a Hub id that cannot be reached. No code of a model repository is ever run.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in ("auto", "float32") and (dtype != "bfloat16" or lora is None):
        raise ValueError(f"dtype must be 'auto' or 'float32', with lora also 'bfloat16'; got {dtype!r}: half-precision weights do not train; use "
                         "SDPOConfig(bf16=True) on a GPU")
    adapter = None if lora is None else lora_config(lora)
    device = pick_device(device)
    source = str(find_source(name))
    # float32 in memory whatever the file holds; eager defaults of transformers for the rest
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32, trust_remote_code=False).to(device)
    model = add_adapter(model, adapter) if adapter else model
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None and getattr(model.generation_config, "eos_token_id", None) is None:
        raise ValueError(f"{name!r} names no end-of-sequence token; its attempts would never end")
    return model, tokenizer


def lora_config(lora: int | Any) -> Any:
    """A peft LoraConfig of a rank, or the one given. Raises TypeError or ValueError for anything else, and for dropout."""
    from peft import LoraConfig

    if isinstance(lora, LoraConfig):
        if lora.lora_dropout:
            raise ValueError(f"lora_dropout must be 0, got {lora.lora_dropout}: both roles must be the same function")
        return lora
    check_range("lora", lora, int, 1, 4096)
    return LoraConfig(r=int(lora), lora_alpha=2 * int(lora), lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")


def add_adapter(model: Any, config: Any, seed: int = 0) -> Any:
    """The model with a fresh adapter that changes nothing yet; its random half depends on `seed`, not on the global generator."""
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []), warnings.catch_warnings():
        # what peft says to itself: a deprecation between it and transformers, and settings that it picks or drops on its own
        for words in ("`is_gradient_checkpointing` is deprecated", "fan_in_fan_out is set to", r"The following \w+_pattern keys"):
            warnings.filterwarnings("ignore", words)
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextmanager
def quiet():
    """No progress bar for a file that loads in a blink; the user's own setting is put back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def find_source(name: str) -> Path | str:
    if not isinstance(name, (str, Path)):
        raise TypeError(f"a model's name must be a string, got {type(name).__name__}; to use a model you hold already, pass it to SDPOTrainer")
    shipped = model_folders()
    if name in shipped:
        return shipped[name]
    if Path(name).is_dir():
        if not (Path(name) / "config.json").exists():
            raise ValueError(f"the folder {str(name)!r} holds no config.json, so it is no model; shipped models: {', '.join(shipped)}")
        return Path(name)
    if isinstance(name, str) and name.count("/") == 1 and all(name.split("/")) and not name.startswith((".", "~")):
        check_hub(name)
        return name
    near = difflib.get_close_matches(str(name), shipped, 1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no model {str(name)!r}: not shipped ({', '.join(shipped) or 'none are: run python -m small_models.make'}), not a folder, and not a Hub id like 'Qwen/Qwen3-0.6B'.{hint}")


def check_hub(name: str) -> None:
    """Fail within seconds when a Hub id is neither in the local cache nor reachable; transformers alone retries for most of a minute."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=8)
    except Exception as error:  # any way in which the Hub says no ends in one sentence; the cause stays attached
        raise OSError(f"the Hub model {name!r} is not in the local cache and could not be reached ({type(error).__name__}). Check the name and the "
                      f"connection; shipped models need none: {', '.join(model_folders())}") from error


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps'; got {device!r}") from error
    if (chosen.type == "cuda" and not torch.cuda.is_available()) or (chosen.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(f"device {device!r} is not available on this machine; use 'auto' or 'cpu'")
    return chosen
