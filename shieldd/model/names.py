r"""File names for people and JSON: bytes in, text that can forge nothing out.

Apart from `event.py` so that the command line can escape a name without loading numpy (0.1 to 0.3 s).
"""

from __future__ import annotations

import base64
import shlex


def printable(name: bytes) -> str:
    r"""A name for people and JSON: UTF-8 with `\xNN` for control characters, stray bytes, and the backslash as `\\`.

    Bidirectional and other format controls are escaped too, as `\u{…}`: no name can forge a line of output.
    """
    out: list[str] = []
    for char in name.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif char == "\\":
            out.append("\\\\")
        elif code < 0x20 or 0x7F <= code < 0xA0:
            out.append(f"\\x{code:02x}")
        elif not char.isprintable():
            out.append(f"\\u{{{code:x}}}")
        else:
            out.append(char)
    return "".join(out)


def shell_word(name: bytes) -> str:
    r"""A name as one word that a POSIX-like shell takes literally, `$'…'` (bash, zsh, ksh) where it needs bytes."""
    shown = printable(name)
    if shown.encode("utf-8", "surrogatepass") == name:
        return shlex.quote(shown)
    plain = (chr(x) if 0x20 <= x < 0x7F and x not in b"'\\" else f"\\x{x:02x}" for x in name)
    return f"$'{''.join(plain)}'"


def path_json(name: bytes, key: str = "path") -> dict[str, str]:
    """A path for JSON: printable, and `<key>_b64` beside it where printing lost anything."""
    shown = printable(name)
    if shown.encode("utf-8", "surrogatepass") == name:
        return {key: shown}
    return {key: shown, f"{key}_b64": base64.b64encode(name).decode()}
