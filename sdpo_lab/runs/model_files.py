"""The model of a checkpoint without its weights: config, tokenizer, the settings of an adapter.

Nothing in these files is run, whoever wrote them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sdpo_lab.core.checks import short_repr
from sdpo_lab.core.scoring import unwrapped
from sdpo_lab.models.loading import add_adapter, check_attention, read_config
from sdpo_lab.runs.files import STATE
from sdpo_lab.runs.json import from_json

ADAPTER = "adapter.json"
#: What is saved and read of a LoRA adapter's config. Its other fields name modules and files, or
#: are for training that is not done here.
LORA_FIELDS = tuple(
    """
    peft_type task_type r lora_alpha target_modules exclude_modules lora_dropout fan_in_fan_out bias
    lora_bias use_rslora use_dora modules_to_save init_lora_weights layers_to_transform
    layers_pattern rank_pattern alpha_pattern layer_replication target_parameters
    trainable_token_indices ensure_weight_tying inference_mode base_model_name_or_path revision
    """.split()
)
#: Fields that are for other ways of loading: neither saved nor in the way.
IGNORED_FIELDS = ("auto_mapping", "peft_version")


def adapter(model: Any) -> dict[str, Any] | None:
    """The settings of a model's LoRA adapter as JSON has them; None for a model without an adapter.
    Raises ValueError for another kind of adapter, and for several."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    if list(configs) != ["default"] or configs["default"].peft_type != "LORA":
        raise ValueError(
            "only a model with one LoRA adapter named 'default' can be saved as a run; this one "
            f"has {configs}"
        )
    fields = configs["default"].to_dict()
    return lora_fields({k: sorted(v) if isinstance(v, set) else v for k, v in fields.items()})


def lora_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a LoRA adapter's config that are saved and read. Raises ValueError where one of
    the others is in use: some of those name modules and files that peft would load."""
    from peft import LoraConfig

    default = LoraConfig().to_dict()
    for key, value in fields.items():
        handled = key in LORA_FIELDS or key in IGNORED_FIELDS
        if not handled and value and value != default.get(key):
            raise ValueError(
                f"the adapter's config has {short_repr(key)} = {short_repr(value)}, which "
                "cannot be saved "
                f"and read here; of LoRA's settings these can: {', '.join(LORA_FIELDS)}"
            )
    return {key: value for key, value in fields.items() if key in LORA_FIELDS and key in default}


def write_skeleton(model: Any, tokenizer: Any, folder: Path) -> None:
    """All of model and tokenizer that is no tensor, and no adapter."""
    unwrapped(model).config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_skeleton(folder: Path, attention: str) -> tuple[Any, Any]:
    """(model without its weights, tokenizer). Code in the folder is never run, nor asked about."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    check_attention(f"{folder.parent / STATE}", attention)
    model = AutoModelForCausalLM.from_config(
        read_config(folder),
        trust_remote_code=False,
        dtype=torch.float32,
        attn_implementation=attention,
    )
    model.generation_config = GenerationConfig.from_pretrained(folder)
    if (folder / ADAPTER).exists():
        model = with_adapter(model, folder / ADAPTER)
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def with_adapter(model: Any, file: Path) -> Any:
    """The model with the adapter that a file describes. Raises ValueError for a file of others."""
    from peft import LoraConfig

    fields = from_json(file.read_text(encoding="utf-8"))
    if not isinstance(fields, dict) or fields.pop("peft_type", None) != "LORA":
        raise ValueError(f"{file} is not the config of a LoRA adapter")
    lora = LoraConfig(**lora_fields(fields))
    # for the adapter's config: where the model once came from, not where it lies now
    model.name_or_path = lora.base_model_name_or_path
    return add_adapter(model, lora)
