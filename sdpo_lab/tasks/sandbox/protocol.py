"""What goes between a sandbox and its server: values, messages, and their limits.

Standard library only. The parent imports it as a part of the package, `server.py` as a bare file.
"""

import os
import struct

#: How a child ended, the first byte of an answer.
EXITED, SIGNALLED, TIMEOUT, FLOOD = b"exit"
MAX_REPORT = 256 * 1024  #: bytes that are read of a child's report
MAX_MESSAGE = 300  #: characters of an exception's message
MAX_DEPTH, MAX_ITEMS, MAX_CHARACTERS = 32, 10_000, 60_000  #: of one value
MAX_HASHED = 2_000  #: keys of one dict or set
#: Of an int; below the 4300 digits that Python prints, so that its repr never raises.
MAX_BITS = 13_000


class Unsupported(TypeError):
    """A value of a type that does not travel."""


class OutputLimit(ValueError):
    """A value that is too deep, too long or too large to travel."""


def pack(value: object) -> object:
    """Plain data as JSON-able data from which `unpack` makes an equal value of the same types, nan,
    -0.0 and lone surrogates included.

    Raises Unsupported for any type but the exact None, bool, int, float, str, list, tuple, dict and
    set; OutputLimit beyond the limits above.
    """
    return _pack(value, 0, [MAX_ITEMS, MAX_CHARACTERS])


def _pack(value: object, depth: int, left: list[int]) -> object:
    """`left`: items and characters that there may still be."""
    kind = type(value)
    left[0] -= 1
    if left[0] < 0:
        raise OutputLimit(f"the value has more than {MAX_ITEMS} items")
    if depth > MAX_DEPTH:
        raise OutputLimit(f"the value is nested deeper than {MAX_DEPTH}")
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        if value.bit_length() > MAX_BITS:
            raise OutputLimit(
                f"the value holds an int of {value.bit_length()} bits, more than {MAX_BITS}"
            )
        return value if value.bit_length() < 53 else {"i": hex(value)}
    if kind is str:
        left[1] -= len(value)
        if left[1] < 0:
            raise OutputLimit(f"the value has more than {MAX_CHARACTERS} characters")
        try:
            value.encode()
            return value
        except UnicodeEncodeError:  # JSON would make one character of two surrogates
            return {"s": value.encode("utf-8", "surrogatepass").hex()}
    if kind not in (list, tuple, dict, set):
        raise Unsupported(
            f"a value of type {kind.__name__[:80]} is not plain data "
            "(None, bool, int, float, str, list, tuple, dict, set)"
        )
    if len(value) > left[0] or (kind in (dict, set) and len(value) > MAX_HASHED):
        raise OutputLimit(f"the value holds a {kind.__name__} of length {len(value)}")
    if kind is dict:
        pairs = [[_pack(x, depth + 1, left) for x in pair] for pair in value.items()]
        return {"d": pairs}
    items = [_pack(v, depth + 1, left) for v in value]
    return items if kind is list else {"t" if kind is tuple else "e": items}


def unpack(data: object) -> object:
    """The value that `pack` packed.

    Raises ValueError or TypeError for anything `pack` would not have made of exact builtin types.
    """
    return _unpack(data, 0, [MAX_ITEMS])


def _unpack(data: object, depth: int, left: list[int]) -> object:
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise ValueError("too many items or too deep")
    if type(data) is list:
        return [_unpack(v, depth + 1, left) for v in data]
    if type(data) is not dict:
        if type(data) is int and data.bit_length() > MAX_BITS:
            raise ValueError("an int that is too large")
        return data
    ((tag, inner),) = data.items()
    if tag == "i" and len(inner) <= MAX_BITS // 4 + 4:
        return int(inner, 16)
    if tag == "s":
        return bytes.fromhex(inner).decode("utf-8", "surrogatepass")
    if tag in ("d", "e") and len(inner) > MAX_HASHED:
        raise ValueError("too many keys")  # all of one hash, they would cost the reader seconds
    if tag == "d":
        return {_unpack(k, depth + 1, left): _unpack(v, depth + 1, left) for k, v in inner}
    if tag in ("t", "e"):
        return {"t": tuple, "e": set}[tag](_unpack(v, depth + 1, left) for v in inner)
    raise ValueError(f"no value is tagged {tag!r}")


def read_exactly(read, n: int) -> bytes:
    """`n` bytes from `read(most)`. Raises EOFError when they end before."""
    data = b""
    while len(data) < n:
        more = read(min(n - len(data), 1 << 16))
        if not more:
            raise EOFError
        data += more
    return data


def read_message(read) -> bytes:
    """One message; its length of four bytes goes before it."""
    return read_exactly(read, struct.unpack("<I", read_exactly(read, 4))[0])


def message(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
