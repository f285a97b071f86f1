"""Checks, made once, where a value comes in from outside.

A message names the value, what is allowed, and the nearest thing there is. `short_repr` and
`printable` make any value safe in a message.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Characters of a value in a message.
MAX_REPR = 160
#: A reward lies between minus this and this: far beyond, a gradient in float32 is not finite.
MAX_REWARD = 1e6
#: The largest number of a range without an upper end: what torch and JSON's readers can hold.
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}
PACKAGE = str(Path(__file__).parent.parent)


# -- values ---------------------------------------------------------------------------------------


def check_choice(name: str, value: object, allowed: Iterable) -> Any:
    """The one of `allowed` that `value` is.

    Raises ValueError, with the nearest one, when it is not among them.
    """
    allowed = list(allowed)
    comparable = isinstance(value, (str, numbers.Number))
    same_kind = isinstance(value, bool) == isinstance(allowed[0], bool)  # True is not 1 here
    if comparable and same_kind and value in allowed:
        return allowed[allowed.index(value)]
    hint = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
    choices = ", ".join(map(repr, allowed))
    raise ValueError(f"{name} must be one of {choices}; got {short_repr(value)}.{hint}")


def check_range(name: str, value: object, kind: type, low: float, high: float = math.inf) -> Any:
    """`value` as a Python int (or float).

    Raises TypeError unless it is one, ValueError unless low <= value <= high and it is finite; an
    int, where `high` is infinite, must be below 2**63.
    """
    between = f"from {low} to {high}" if high < math.inf else f"from {low} upwards"
    number = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, number):
        what = "a whole number" if kind is int else "a number"
        raise TypeError(f"{name} must be {what} {between}; got {short_repr(value)}")
    real: Any = value  # the types of `numbers` have no order with a float
    if not low <= real <= high or real == math.inf:
        raise ValueError(f"{name} must be {between}; got {short_repr(value)}")
    # Python's whole numbers have no end
    if isinstance(value, numbers.Rational) and real > LARGEST[kind]:
        raise ValueError(f"{name} must be from {low} to {LARGEST[kind]}; got {short_repr(value)}")
    return kind(value)


def check_reward(name: str, value: object) -> float:
    """`value` as a float.

    Raises TypeError unless it is an int or a float, ValueError unless it is finite and from
    -MAX_REWARD to MAX_REWARD.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a number, got {short_repr(value)} ({kind})")
    if value != value or value in (math.inf, -math.inf):
        raise ValueError(
            f"{name} must be finite, got {value!r}; return 0.0 for an attempt that cannot be judged"
        )
    if abs(value) > MAX_REWARD:
        raise ValueError(
            f"{name} must be from {-MAX_REWARD:.0f} to {MAX_REWARD:.0f}, got {short_repr(value)}; "
            "divide all rewards by the same number, 0 to 1 is usual"
        )
    return float(value)


def check_text(name: str, value: object, fix: str = "") -> str:
    """`value`, a string. Raises TypeError unless it is one; `fix` says what to give instead."""
    if not isinstance(value, str):
        advice = f"; {fix}" if fix else ""
        raise TypeError(f"{name} must be a string, got {short_repr(value)}{advice}")
    return value


def check_template(name: str, template: object, slots: tuple[str, ...]) -> None:
    """Raise TypeError or ValueError unless a template has each of its {slots} and no other one."""
    text = rest = check_text(name, template)
    for slot in slots:
        if "{" + slot + "}" not in text:
            raise ValueError(f"{name} must contain {{{slot}}}; got {short_repr(text)}")
        rest = rest.replace("{" + slot + "}", "")
    if "{" in rest or "}" in rest:
        allowed = ", ".join("{" + slot + "}" for slot in slots)
        raise ValueError(f"{name} may contain no braces but {allowed}; got {short_repr(text)}")


def is_message(value: object) -> bool:
    """Is it a message of a chat, with a role and a content that are strings?"""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Raise TypeError unless `value` is of one of `kinds`, which are `what` in words."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, got {short_repr(value)}")


def unknown_keywords(owner: str, given: Iterable[str], function: Callable) -> None:
    """Raise ValueError when `given` holds a keyword that `function` does not take."""
    unknown_names(owner, given, [p for p in inspect.signature(function).parameters if p != "self"])


def unknown_names(owner: str, given: Iterable[str], known: list[str]) -> None:
    """Raise ValueError when `given` holds a name that is not `known`, with the nearest one."""
    for name in given:
        if name not in known:
            hint = did_you_mean(str(name), known)
            names = ", ".join(known)
            raise ValueError(f"{owner} has no {short_repr(name)}; it has {names}.{hint}")


def did_you_mean(value: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(value[:MAX_REPR], list(known), 1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


# -- a task, a model, a tokenizer -----------------------------------------------------------------


def check_task(task: object, methods: tuple[str, ...] = ("problems", "judge")) -> None:
    """Raise TypeError unless `task` has the methods of a task, or those that are needed."""
    for method in methods:
        if not callable(getattr(task, method, None)):
            raise TypeError(
                f"task must have a method {method}(), got {short_repr(task)}; lab.load_task and "
                "lab.task_from_function make one"
            )


def check_model(model: Any, tokenizer: object) -> None:
    """Check that these are a model and a tokenizer of transformers that go together.

    Raises TypeError where they are not, in this order; ValueError for a model on the device "meta",
    which has no weights, and for a tokenizer with a text's token for which the model's input
    embedding has no row. More rows than tokens are usual, they are padding. Special tokens may lie
    beyond, as the image's of a model for text alone; `check_prompts` sees to those that a template
    uses.
    """
    both = "model, tokenizer = lab.load_model(...) gives both"
    if not callable(getattr(model, "parameters", None)) or not hasattr(model, "config"):
        raise TypeError(
            "model must be a causal language model of transformers, got "
            f"{short_repr(model)}; {both}"
        )
    if not callable(getattr(tokenizer, "apply_chat_template", None)):
        raise TypeError(
            "tokenizer must be the model's tokenizer of transformers, got "
            f"{short_repr(tokenizer)}; {both}"
        )
    # of several devices some may be "meta": accelerate fetches those weights when they are needed
    if {p.device.type for p in model.parameters()} == {"meta"}:
        raise ValueError(
            f"model must have weights, got {short_repr(model)} on the device 'meta', which holds "
            "none; load it on 'cpu', 'cuda' or 'mps'"
        )
    added = getattr(tokenizer, "added_tokens_decoder", {})
    texts = [i for i, token in added.items() if not token.special]
    largest = max([getattr(tokenizer, "vocab_size", 0) - 1, *texts])
    check_rows(model, largest, "its tokens go")


def check_prompts(prompts: list[list[int]], model: PreTrainedModel) -> list[list[int]]:
    """The prompts, as token ids.

    Raises ValueError for a token for which the model's input embedding has no row.
    """
    largest = max(map(max, filter(None, prompts)), default=-1)
    check_rows(model, largest, "the tokens of a prompt, as its chat template writes it, go")
    return prompts


def check_rows(model: Any, largest: int, what: str) -> None:
    if not hasattr(model, "get_input_embeddings"):  # what stands in for a model may have none
        return
    rows = model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise ValueError(
            f"tokenizer must be the model's own: {what} up to number {largest}, and the model's "
            f"input embedding has {rows} rows, for 0 to {rows - 1}. Load both from the same place; "
            "where you added tokens, use model.resize_token_embeddings(len(tokenizer))"
        )


def check_trainable(model: PreTrainedModel) -> None:
    """Raise ValueError for a model that has no trainable weight, or one in half precision."""
    import torch

    trainable = [p.dtype for p in model.parameters() if p.requires_grad]
    half = {str(dtype) for dtype in trainable if dtype not in (torch.float32, torch.float64)}
    if half:
        raise ValueError(
            f"trainable weights must be float32, these are {', '.join(half)}: small updates vanish "
            "in half precision. Use model.float() and, on a GPU, bf16=True"
        )
    if not trainable:
        raise ValueError(
            "no weight of the model is trainable; call model.requires_grad_(True), or add an "
            "adapter"
        )


def check_weights(model: PreTrainedModel) -> None:
    """Raise ValueError for weights that are not finite; the message names the first of them."""
    weights = (*model.named_parameters(), *model.named_buffers())
    bad = [name for name, t in weights if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(
            "the weights of the model must be finite numbers; nan or infinite ones are in "
            f"{', '.join(bad[:5])}{more}. Load it again, from a checkpoint before they were: a "
            "learning rate that is too high makes such weights, and so does a damaged file"
        )


# -- messages -------------------------------------------------------------------------------------


def short_repr(value: object) -> str:
    """A value in a message: its repr on one line, cut where it is long.

    Of a tensor, an array or a model, whose reprs are pages long, what it is.
    """
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", None):
        return f"{kind} of shape {tuple(value.shape)}, {value.dtype}"
    if callable(getattr(value, "parameters", None)) or hasattr(value, "apply_chat_template"):
        return f"a {kind}"
    try:
        text = printable(repr(value))
    except Exception as error:  # a repr of somebody else's, or of a number with too many digits
        return f"{kind} without a repr ({type(error).__name__})"
    plain = isinstance(value, (str, int, float, list, tuple, dict, set, type(None)))
    named = "" if plain or kind in text else f" ({kind})"
    if len(text) > MAX_REPR:
        text = f"{text[:MAX_REPR]}... ({len(text)} characters)"
    return text + named


shown = short_repr  # the name it had before, for one version


def printable(text: str) -> str:
    """A text on a line of a terminal.

    What moves the cursor, colours, turns the direction or cannot be seen is written as its code.
    """
    return "".join(c if c.isprintable() else escaped(c) for c in text)


def escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line outside of this package from which it was called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level - 1)
