"""Keys and labels: the texts that say which stream, row or request is meant.

A key is joined from parts and split again; a label is a text that a caller chose in order to find a transaction by it.
Both come before everything else in the flow. They fail with `Invalid`.
"""

import re
from collections.abc import Iterable

from holdfast.errors import Invalid

KEY_BYTES_MAX = 700
"""The limit on a joined key, in UTF-8 bytes: with a type's name before it, a key fits an index of every engine."""


_PLAIN = re.compile(rf"[\x21-\x24\x26-\x2e\x30-\x7e]{{1,{KEY_BYTES_MAX // 4}}}")
"""A key that needs no escaping."""


def join_key(parts: Iterable[object], name: str = "key") -> str:
    """Join key parts with `/`, after escaping `%` and `/` in each. Raises Invalid on an empty part, on a NUL
    (not every store can hold it), and over KEY_BYTES_MAX."""
    texts = [str(part) for part in parts]
    if len(texts) == 1 and _PLAIN.fullmatch(texts[0]):
        return texts[0]
    if not all(texts):
        raise Invalid(f"{name}: a key may not be empty", errors=[("$", "empty key")])
    key = "/".join(
        text.replace("%", "%25").replace("/", "%2F") if "%" in text or "/" in text else text for text in texts
    )
    if "\0" in key or (len(key) > KEY_BYTES_MAX // 4 and len(key.encode()) > KEY_BYTES_MAX):
        reason = "may not contain a NUL character" if "\0" in key else f"may not be longer than {KEY_BYTES_MAX} bytes"
        raise Invalid(f"{name}: a key {reason}", errors=[("$", f"key {reason}")])
    return key


def split_key(key: str) -> list[str]:
    """The parts that `join_key` joined."""
    return [part.replace("%2F", "/").replace("%25", "%") for part in key.split("/")]


LABEL_CHARACTERS_MAX = 200
_LABEL = re.compile(rf"[\x21-\x7e](?:[\x20-\x7e]{{0,{LABEL_CHARACTERS_MAX - 2}}}[\x21-\x7e])?")


def label(text: str, name: str) -> str:
    """An idempotency key or a correlation label: empty, or 1 to 200 printable ASCII characters. Raises Invalid."""
    if text and not _LABEL.fullmatch(text):
        reason = f"not 1 to {LABEL_CHARACTERS_MAX} printable ASCII characters"
        raise Invalid(f"{name}: {reason}", errors=[(name, reason)])
    return text
