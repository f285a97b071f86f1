"""Checks whose message names the value, what is allowed, and the nearest thing there is; and texts that are safe in a message."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterable
from typing import Any

MOST = 160  #: characters of a value in a message
#: A reward lies between minus this and this: far beyond, a gradient in float32 is not finite.
MOST_REWARD = 1e6
#: The largest number of a range without an upper end: what torch and JSON's readers can hold.
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


def check_choice(name: str, value: object, allowed: Iterable) -> Any:
    """The one of `allowed` that `value` is. Raises ValueError, with the nearest one, when it is none."""
    allowed = list(allowed)
    if (
        isinstance(value, (str, numbers.Number))
        and isinstance(value, bool) == isinstance(allowed[0], bool)
        and value in allowed
    ):
        return allowed[allowed.index(value)]
    near = (
        difflib.get_close_matches(value[:MOST], [str(a) for a in allowed], 1, cutoff=0.5)
        if isinstance(value, str)
        else []
    )
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{name} must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.{hint}"
    )


def check_range(name: str, value: object, kind: type, low: float, high: float = math.inf) -> Any:
    """`value` as a Python int (or float). Raises TypeError unless it is one, ValueError unless low <= value <= high and finite; an int, where `high`
    is infinite, below 2**63."""
    between = f"from {low} to {high}" if high < math.inf else f"from {low} upwards"
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if kind is int else numbers.Real
    ):
        raise TypeError(
            f"{name} must be {'a whole number' if kind is int else 'a number'} {between}; got {shown(value)}"
        )
    if not low <= value <= high or value == math.inf:
        raise ValueError(f"{name} must be {between}; got {shown(value)}")
    if (
        isinstance(value, numbers.Rational) and value > LARGEST[kind]
    ):  # Python's whole numbers have no end
        raise ValueError(f"{name} must be from {low} to {LARGEST[kind]}; got {shown(value)}")
    return kind(value)


def check_reward(name: str, value: object) -> float:
    """`value` as a float. Raises TypeError unless it is an int or a float, ValueError unless it is finite and from -MOST_REWARD to MOST_REWARD."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {shown(value)} ({type(value).__name__})")
    if value != value or value in (math.inf, -math.inf):
        raise ValueError(
            f"{name} must be finite, got {value!r}; return 0.0 for an attempt that cannot be judged"
        )
    if abs(value) > MOST_REWARD:
        raise ValueError(
            f"{name} must be from {-MOST_REWARD:.0f} to {MOST_REWARD:.0f}, got {shown(value)}; divide all rewards by the same number, 0 to 1 is usual"
        )
    return float(value)


def check_text(name: str, value: object, fix: str = "") -> str:
    """`value`, a string. Raises TypeError unless it is one; `fix` says what to give instead."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {shown(value)}{fix and '; ' + fix}")
    return value


def check_template(name: str, template: object, slots: tuple[str, ...]) -> None:
    """A template must be a string with each of its {slots} and no other brace."""
    rest = check_text(name, template)
    for slot in slots:
        if "{" + slot + "}" not in template:
            raise ValueError(f"{name} must contain {{{slot}}}; got {shown(template)}")
        rest = rest.replace("{" + slot + "}", "")
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"{name} may contain no braces but {', '.join('{' + s + '}' for s in slots)}; got {shown(template)}"
        )


def check_kind(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Raise TypeError unless `value` is of one of `kinds`, which are `what` in words."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, got {shown(value)}")


def check_task(task: object, methods: tuple[str, ...] = ("problems", "judge")) -> None:
    """Raise TypeError unless `task` has the methods of a task, or those of them that are needed."""
    for method in methods:
        if not callable(getattr(task, method, None)):
            raise TypeError(
                f"task must have a method {method}(), got {shown(task)}; lab.load_task and lab.task_from_function make one"
            )


def check_model(model: object, tokenizer: object) -> None:
    """Raise TypeError unless these are a model and a tokenizer of transformers, in this order; ValueError for a model on the device "meta", which has no
    weights, and for a tokenizer with a text's token for which the model's input embedding has no row.

    More rows than tokens are usual, they are padding. Special tokens may lie beyond, as the image's of a model for text alone; `check_prompts` sees to those
    that a template uses.
    """
    if not callable(getattr(model, "parameters", None)) or not hasattr(model, "config"):
        raise TypeError(
            f"model must be a causal language model of transformers, got {shown(model)}; model, tokenizer = lab.load_model(...) gives both"
        )
    if not callable(getattr(tokenizer, "apply_chat_template", None)):
        raise TypeError(
            f"tokenizer must be the model's tokenizer of transformers, got {shown(tokenizer)}; model, tokenizer = lab.load_model(...) gives both"
        )
    devices = {p.device.type for p in model.parameters()}
    if devices == {"meta"}:  # some of them there: accelerate fetches those when they are needed
        raise ValueError(
            f"model must have weights, got {shown(model)} on the device 'meta', which holds none; load it on 'cpu', 'cuda' or 'mps'"
        )
    added = [
        i
        for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items()
        if not token.special
    ]
    check_rows(model, max([getattr(tokenizer, "vocab_size", 0) - 1, *added]), "its tokens go")


def check_prompts(prompts: list[list[int]], model: Any) -> list[list[int]]:
    """The prompts, as token ids. Raises ValueError for a token for which the model's input embedding has no row."""
    check_rows(
        model,
        max(map(max, filter(None, prompts)), default=-1),
        "the tokens of a prompt, as its chat template writes it, go",
    )
    return prompts


def check_rows(model: Any, largest: int, what: str) -> None:
    rows = (
        model.get_input_embeddings().weight.shape[0]
        if hasattr(model, "get_input_embeddings")
        else math.inf
    )  # what stands in for one may have none
    if largest >= rows:
        raise ValueError(
            f"tokenizer must be the model's own: {what} up to number {largest}, and the model's input embedding has {rows} rows, for 0 to {rows - 1}. "
            "Load both from the same place; where you added tokens, use model.resize_token_embeddings(len(tokenizer))"
        )


def check_weights(model: Any) -> None:
    """Raise ValueError for a model with weights that are not finite, and names the first of them."""
    bad = [
        name
        for name, t in (*model.named_parameters(), *model.named_buffers())
        if t.is_floating_point() and not t.isfinite().all()
    ]
    if bad:
        raise ValueError(
            f"the weights of the model must be finite numbers; nan or infinite ones are in {', '.join(bad[:5])}{f' and {len(bad) - 5} more' * (len(bad) > 5)}. "
            "Load it again, from a checkpoint before they were: a learning rate that is too high makes such weights, and so does a damaged file"
        )


def check_tensors(**tensors: Any) -> None:
    """Raise TypeError unless all are torch tensors of floating-point numbers, ValueError unless their shapes go together: the last dimension is
    the same, those before it broadcast."""
    first = next(iter(tensors))
    for name, t in tensors.items():
        if not getattr(t, "is_floating_point", lambda: False)():
            raise TypeError(
                f"{name} must be a torch tensor of floating-point numbers, got {shown(t)}"
            )
        pairs = list(zip(reversed(t.shape), reversed(tensors[first].shape)))
        if (
            not pairs
            or pairs[0][0] != pairs[0][1]
            or not all(a == b or 1 in (a, b) for a, b in pairs)
        ):
            raise ValueError(
                f"{name} must have the shape of {first}, of at least one dimension; got {shown(t)} and {shown(tensors[first])}"
            )


def check_ids(name: str, ids: Any, logits: Any) -> None:
    """Raise TypeError unless `ids` (...) is a torch tensor of int64, ValueError unless it has a token for each row of `logits` (..., V)."""
    if str(getattr(ids, "dtype", "")) != "torch.int64":
        raise TypeError(
            f"{name} must be a torch tensor of int64, the ids of tokens; got {shown(ids)}"
        )
    if ids.shape != logits.shape[:-1]:
        raise ValueError(
            f"{name} must have the shape {tuple(logits.shape[:-1])}, one token for each row of the logits; got {shown(ids)}"
        )


def checked(*tensors: str, ids: str = "", **allowed: tuple) -> Callable:
    """A decorator that checks arguments by name: `tensors` as `check_tensors`, `ids` as `check_ids` against the first of them, and every other
    one as (kind, lowest, highest) of `check_range`, which may also be None where that is the default, or as the choices of `check_choice`."""

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            if tensors:
                check_tensors(**{name: given[name] for name in tensors})
            if ids:
                check_ids(ids, given[ids], given[tensors[0]])
            for name in allowed.keys() & given.keys():
                if given[name] is not None or signature.parameters[name].default is not None:
                    check = (
                        check_range
                        if isinstance(allowed[name][0], type)
                        else lambda name, value, *choices: check_choice(name, value, choices)
                    )
                    given[name] = check(name, given[name], *allowed[name])
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def unknown_keywords(owner: str, given: Iterable[str], function: Callable) -> None:
    """Raise ValueError when `given` holds a keyword that `function` does not take."""
    unknown_names(owner, given, [p for p in inspect.signature(function).parameters if p != "self"])


def unknown_names(owner: str, given: Iterable[str], known: list[str]) -> None:
    """Raise ValueError when `given` holds a name that is not `known`, with the nearest one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{owner} has no {shown(name)}; it has {', '.join(known)}.{hint}")


def shown(value: object) -> str:
    """A value in a message: its repr on one line, cut where it is long; of a tensor, an array or a model what it is."""
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0):
        return f"{kind} of shape {tuple(value.shape)}, {value.dtype}"
    if callable(getattr(value, "parameters", None)) or hasattr(
        value, "apply_chat_template"
    ):  # their reprs are pages long
        return f"a {kind}"
    try:
        text = printable(repr(value))
    except Exception as error:  # a repr of somebody else's, or of a number with too many digits
        return f"{kind} without a repr ({type(error).__name__})"
    named = (
        ""
        if isinstance(value, (str, int, float, list, tuple, dict, set, type(None))) or kind in text
        else f" ({kind})"
    )
    return (text if len(text) <= MOST else f"{text[:MOST]}... ({len(text)} characters)") + named


def printable(text: str) -> str:
    """A text on a line of a terminal: what moves the cursor, colours, turns the direction or cannot be seen is written as its code."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
