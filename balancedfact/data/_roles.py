"""The roles that the names in a header give to the columns below them."""

from __future__ import annotations

import re

_ROWS = """
    user row unit customer client person member reviewer rater reader viewer listener subject student patient participant
    respondent player account visitor worker annotator judge borrower shopper buyer state country region city county firm
    company store shop station sensor household individual panelist source src head author name u i
"""
_COLUMNS = """
    item column col movie film product book isbn asin song track artist album article game anime show series joke restaurant
    business venue place recipe dish beer wine hotel question exercise feature variable gene drug target dst destination tail
    attribute sku good brand content video post page j
"""
_VALUES = """
    rating value val score star stars grade mark mean count counts play plays playcount listencount listens clicks purchases
    quantity qty amount outcome measurement response preference label strength entry data observation v y
"""
_TIMES = "timestamp time date datetime year month week day quarter period unixtime ts hour"
_WEIGHTS = "weight weights wt w confidence"
_INDEX = "unnamed0 index id rownames rownumber rownum level0 nr no"

_WORDS = {
    word: role
    for role, words in (
        ("value", _VALUES),
        ("weight", _WEIGHTS),
        ("time", _TIMES),
        ("row", _ROWS),
        ("column", _COLUMNS),
        ("index", _INDEX),
    )
    for word in words.split()
}
_ENDINGS = ("id", "ids", "name", "code", "key", "number", "no", "title", "idx", "index", "s")


def normal(name: str) -> str:
    """The name in small letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def role(name: str) -> str | None:
    """``"row"``, ``"column"``, ``"value"``, ``"weight"``, ``"time"``, ``"index"``, or ``None`` for a name that says nothing."""
    word = normal(name)
    if not word:
        return "index"
    if word in _WORDS:
        return _WORDS[word]
    if re.fullmatch(r"unnamed[0-9]+(level[0-9]+)?", word):
        return "index"
    for ending in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and _WORDS.get(stem) in ("row", "column", "value"):
            return _WORDS[stem]
    if re.fullmatch(r".+[a-z0-9](timestamp|time|date)", word) or re.fullmatch(r".*[_ ](at|on)", name.lower()):
        return "time"
    return None


def is_key(name: str) -> bool:
    """Tell whether the name is that of a key, such as ``movieId``."""
    return normal(name).endswith(("id", "key", "code"))
