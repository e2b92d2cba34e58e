"""Text that fits a line and that a terminal need not obey."""


def printable(text: str) -> str:
    """`text` with control characters shown: a file name may hold escape codes that a terminal must not obey."""
    clean = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in clean)


def shortened(text: str, width: int) -> str:
    """The end of `text` in at most `width` characters, control characters shown; of a path the end tells most."""
    clean = printable(text)
    return clean if len(clean) <= width else "…" + clean[len(clean) - width + 1 :]
