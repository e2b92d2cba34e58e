"""Text made safe for a terminal and short enough for one line."""

from collections.abc import Sequence


def printable(text: str) -> str:
    """Return `text` with control characters and line breaks of all kinds escaped, so that it fits on one line.

    The name of a file may contain them, terminal escape codes too.
    """
    clean = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in clean)


def _escaped(code: int) -> str:
    """Return a character as Python writes it in a string: ``\\x0a``, ``\\u2028`` or ``\\U000e0001``."""
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(text: str, width: int) -> str:
    """Return the last `width` characters of `text`, which tell most about a path, with control characters escaped."""
    clean = printable(text)
    return clean if len(clean) <= width else "…" + clean[len(clean) - width + 1 :]


def shell_lines(parts: Sequence[str], room: int, indent: str) -> list[str]:
    """Join the parts of a command to lines that a shell reads as one.

    Args:
        parts: parts that are not broken, such as an option with its value; not empty.
        room: characters of a line, without the backslash at its end; a longer part has a line of its own.
        indent: start of each line but the first.
    """
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) > room:
            lines[-1] += " \\"
            lines.append(f"{indent}{part}")
        else:
            lines[-1] += f" {part}"
    return lines


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return ``1 image`` or ``1,234 images``; `several` is needed where the plural is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
