"""Text from files and arguments, made safe for a terminal."""


def printable(text: str) -> str:
    """The text with every character written out that could move the cursor or change the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
