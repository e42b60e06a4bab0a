"""What a file says cannot take over the terminal."""

from balancedfact.commands._printable import printable


def test_escapes_are_written_out():
    assert printable("a\x1b[31mb\x07\u202e") == "a\\x1b[31mb\\x07\\u202e"
    assert printable("Amélie 東京 :)") == "Amélie 東京 :)"
