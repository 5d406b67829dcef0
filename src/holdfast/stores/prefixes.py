"""Ranges of names by prefix, in the order of their UTF-8 bytes, which is the order of every store.

Used by the stores on SQLite and on servers to ask for all names that begin with a text. Pure; it never raises.
"""

__all__ = ["end_of"]


def end_of(prefix: str) -> str | None:
    """The least text above every text that begins with `prefix`; None if there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        if (point := ord(prefix[index])) < 0x10FFFF:
            # 0xD800 to 0xDFFF are not characters: the next one after U+D7FF is U+E000.
            return prefix[:index] + chr(0xE000 if point == 0xD7FF else point + 1)
    return None
