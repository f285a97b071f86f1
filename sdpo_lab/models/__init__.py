"""Models: how they are loaded, what memory their training takes, and the forms of prompt the
shipped ones have read."""

from sdpo_lab.models.loading import (
    ATTENTION,
    DEFAULT,
    add_adapter,
    check_attention,
    check_hub,
    find_source,
    list_models,
    load_model,
    lora_config,
    model_folders,
    own_code_refused,
    pick_device,
    quiet,
    read_config,
    set_chat,
)

__all__ = [
    "ATTENTION",
    "DEFAULT",
    "add_adapter",
    "check_attention",
    "check_hub",
    "find_source",
    "list_models",
    "load_model",
    "lora_config",
    "model_folders",
    "own_code_refused",
    "pick_device",
    "quiet",
    "read_config",
    "set_chat",
]
