"""Load a model: a shipped one, a folder, or a Hub id."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.core.chat import render
from sdpo_lab.core.checks import check_choice, check_kind, check_range, short_repr

DEFAULT = "lab-1m"
#: Ways to compute attention that are part of transformers, or of a package installed here. Any
#: other name would be fetched from the Hub, and is code.
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")


def model_folders() -> dict[str, Path]:
    """Shipped models by name: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent.parent
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


def load_model(
    name: str = DEFAULT,
    device: str = "auto",
    dtype: str = "auto",
    lora: int | Any | None = None,
    *,
    attn_implementation: str = "auto",
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(model, tokenizer) of a shipped model, a folder, or a Hub id "owner/name".

    device  "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"
    dtype   "auto" or "float32": the weights are float32 and trainable. Half-precision weights do
            not train (small updates vanish); on a GPU use SDPOConfig(bf16=True), which computes in
            bfloat16. With `lora` also "bfloat16": of the weights that do not train
    lora    rank of a fresh LoRA adapter on all linear layers but the head (scale 2, no dropout), or
            a peft LoraConfig; the adapter is float32 and alone trains
    attn_implementation   "auto" (transformers' choice), "sdpa" or "eager"; flash attention cannot
                          take float32 weights
    chat_template         a Jinja template in place of the tokenizer's, for a model that has none
    chat_template_kwargs  what the template reads besides the messages. enable_thinking=False is the
                          default everywhere; {"enable_thinking": True} lets a Qwen3 think. They
                          travel with the tokenizer, into checkpoints too

    Raises ValueError at once for a name that is neither shipped, nor a folder, nor like a Hub id,
    with what there is, and for a model that cannot be used here: no end-of-sequence token, no chat
    template, an architecture or an attention that brings its own code. OSError for a Hub id that
    cannot be reached. No code of a model repository is ever run. A padding token is not needed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # what can be refused before anything is read
    if dtype not in ("auto", "float32") and (dtype != "bfloat16" or lora is None):
        raise ValueError(
            f"dtype must be 'auto' or 'float32', with lora also 'bfloat16'; got {dtype!r}: "
            "half-precision weights do not train; use SDPOConfig(bf16=True) on a GPU"
        )
    check_choice("attn_implementation", attn_implementation, ("auto", "sdpa", "eager"))
    adapter = None if lora is None else lora_config(lora)
    chosen_device = pick_device(device)
    source = str(find_source(name))

    # the tokenizer first: what is wrong with it is known before the weights are there
    options: dict[str, Any] = {"trust_remote_code": False}
    with quiet(), own_code_refused(name):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        set_chat(tokenizer, name, chat_template, chat_template_kwargs)
        if attn_implementation != "auto":
            options["attn_implementation"] = attn_implementation
        # in memory float32, whatever the file holds
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=read_config(source),
            dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32,
            **options,
        ).to(chosen_device)
    if adapter:
        model = add_adapter(model, adapter)
    check_ends(model, tokenizer, name)
    return model, tokenizer


def check_ends(model: Any, tokenizer: Any, name: str) -> None:
    """Raise ValueError for a model that has no token to end a text with."""
    of_model = getattr(model.generation_config, "eos_token_id", None)
    if tokenizer.eos_token_id is None and of_model is None:
        raise ValueError(
            f"{str(name)!r} names no end-of-sequence token, so its attempts would never end. Load "
            "it with transformers, set tokenizer.eos_token to the token that ends a turn in its "
            "chat template, and save the tokenizer into the model's folder or pass both to "
            "SDPOTrainer"
        )


def set_chat(
    tokenizer: Any, name: str, template: str | None, arguments: dict[str, Any] | None
) -> None:
    """Give a tokenizer its chat template and what the template is to read; `chat.render` uses both,
    and a saved tokenizer keeps them."""
    if template is not None and not isinstance(template, str):
        raise TypeError(
            f"chat_template must be a string, a Jinja template; got {short_repr(template)} "
            f"({type(template).__name__})"
        )
    kinds = (dict, type(None))
    what = "a dictionary of what the template reads"
    check_kind("chat_template_kwargs", arguments, kinds, what)
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {str(name)!r} has no chat template: it is not an instruction-tuned "
            "model, or its template lies elsewhere (see its card). Take an instruction-tuned one, "
            "or give the template: load_model(..., chat_template='...')"
        )
    if arguments:
        check_chat_arguments(tokenizer, name, arguments)
        tokenizer.init_kwargs["chat_template_kwargs"] = dict(arguments)
    rendered = render(tokenizer, [{"role": "user", "content": "question"}])
    if "question" not in rendered:
        raise ValueError(
            f"the chat template of {str(name)!r} does not show what the user says; it renders "
            f"{rendered!r}"
        )


#: Arguments of `apply_chat_template` that are set here.
OWN_ARGUMENTS = (
    "conversation",
    "messages",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
)


def check_chat_arguments(tokenizer: Any, name: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError or TypeError for what a chat template does not read, or no file can hold."""
    for key, value in arguments.items():
        if key in OWN_ARGUMENTS:
            raise ValueError(f"chat_template_kwargs must leave {key!r} alone, which is set here")
        if not re.search(rf"\b{re.escape(key)}\b", str(tokenizer.chat_template)):
            raise ValueError(
                f"chat_template_kwargs has {key!r}, which the chat template of {str(name)!r} never "
                "reads, so it would do nothing"
            )
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(
                "chat_template_kwargs must hold what JSON can hold, to be saved with the "
                f"tokenizer; {key!r} is {value!r}"
            ) from error


def read_config(source: str | Path) -> Any:
    """The config of a model. Raises ValueError where it would have code fetched."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        check_attention(
            f"the config of {str(source)!r}", getattr(part, "_attn_implementation", None)
        )
    return config


def check_attention(where: str, name: object) -> None:
    """Raise ValueError unless attention of this name is computed by what is installed here; None is
    transformers' choice."""
    if name is not None and name not in ATTENTION:
        raise ValueError(
            f"{where} asks for attention of the kind {short_repr(name)}, which is none of "
            f"{', '.join(ATTENTION)}: it would be code from elsewhere, which is never run here. "
            "Take the name out of the file"
        )


@contextmanager
def own_code_refused(name: str):
    """In our words, and without advice that does not apply here, what transformers says of a model
    that needs code from its repository."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{str(name)!r} brings code of its own, which is never run here; take a model of an "
            "architecture that transformers has itself"
        ) from error


def lora_config(lora: int | Any) -> Any:
    """A peft LoraConfig of a rank, or the one given. Raises TypeError or ValueError for anything
    else, and for dropout."""
    from peft import LoraConfig

    if isinstance(lora, LoraConfig):
        if lora.lora_dropout:
            raise ValueError(
                f"lora_dropout must be 0, got {lora.lora_dropout}: both roles must be the same "
                "function"
            )
        return lora
    check_range("lora", lora, int, 1, 4096)
    return LoraConfig(
        r=int(lora),
        lora_alpha=2 * int(lora),
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def add_adapter(model: Any, config: Any, seed: int = 0) -> Any:
    """The model with a fresh adapter that changes nothing yet; its random half depends on `seed`,
    not on the global generator."""
    from peft import get_peft_model

    gpus = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        # what peft says to itself: a deprecation between it and transformers, and settings that it
        # picks or drops on its own
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", r"The following \w+_pattern keys")
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextmanager
def quiet():
    """No progress bar for a file that loads in a blink; the user's own setting is put back."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def find_source(name: str | Path) -> Path | str:
    """The folder of a shipped model, the folder of this name, or the Hub id as it is."""
    if not isinstance(name, (str, Path)):
        raise TypeError(
            f"a model's name must be a string, got {short_repr(name)} ({type(name).__name__}); "
            "to use a "
            "model you hold already, pass it to SDPOTrainer"
        )
    shipped = model_folders()
    if name in shipped:
        return shipped[str(name)]
    if Path(name).is_dir():
        if not (Path(name) / "config.json").exists():
            raise ValueError(
                f"the folder {str(name)!r} holds no config.json, so it is no model; shipped "
                f"models: {', '.join(shipped)}"
            )
        return Path(name)
    if isinstance(name, str) and re.fullmatch(r"[^/.~][^/]*/[^/]+", name):
        check_hub(name)
        return name
    near = difflib.get_close_matches(str(name), shipped, 1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    there_are = ", ".join(shipped) or "none are: run python -m small_models.make"
    raise ValueError(
        f"no model {str(name)!r}: not shipped ({there_are}), not a folder, and not a Hub id like "
        f"'Qwen/Qwen3-0.6B'.{hint}"
    )


def check_hub(name: str) -> None:
    """Fail within seconds when a Hub id is neither in the local cache nor reachable; transformers
    alone retries for most of a minute."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=8)
    # any way in which the Hub says no ends in one sentence; the cause stays attached
    except Exception as error:
        raise OSError(
            f"the Hub model {name!r} is not in the local cache and could not be reached "
            f"({type(error).__name__}). Check the name and the connection; shipped models need "
            f"none: {', '.join(model_folders())}"
        ) from error


def pick_device(device: str) -> torch.device:
    """The device of this name. Raises ValueError for one that is none of "auto", "cpu", "cuda",
    "cuda:<n>" and "mps", or is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        # of the others torch knows, "meta" holds no weights, and none was ever tried
        check_choice("device", chosen.type, ("cpu", "cuda", "mps"))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps'; got {short_repr(device)}"
        ) from error
    no_cuda = chosen.type == "cuda" and not torch.cuda.is_available()
    no_mps = chosen.type == "mps" and not torch.backends.mps.is_available()
    if no_cuda or no_mps:
        raise ValueError(
            f"device {short_repr(device)} is not available on this machine; use 'auto' or 'cpu'"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {short_repr(device)} is not there: this machine has cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    return chosen
