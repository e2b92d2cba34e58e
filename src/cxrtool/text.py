"""Text made safe for a terminal and short enough for one line."""


def printable(text: str) -> str:
    """Return `text` with control characters escaped, since a file name may contain terminal escape codes."""
    clean = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in clean)


def shortened(text: str, width: int) -> str:
    """Return the last `width` characters of `text`, which tell most about a path, with control characters escaped."""
    clean = printable(text)
    return clean if len(clean) <= width else "…" + clean[len(clean) - width + 1 :]
