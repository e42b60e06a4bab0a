"""Layouts in which tables of numbers come, and what each must end in: the matrix that was meant, or a refusal.

`docs/guide/tables.md` shows them; `tests/data/test_layouts.py` checks every one and that page.
"""

from __future__ import annotations

from typing import NamedTuple

# What every layout of ratings below means: rows by columns, None where nothing was seen.
RATINGS = {("1", "10"): 4.0, ("1", "30"): 3.5, ("2", "10"): 5.0, ("2", "20"): 2.0, ("3", "20"): 1.0, ("3", "30"): 4.5}
FILMS = {("ann", "Ran"): 4.0, ("bob", "Ran"): 5.0, ("bob", "Alien"): 2.0, ("cid", "Alien"): 1.0}
MATRIX = {("0", "0"): 4.0, ("0", "2"): 3.5, ("1", "0"): 5.0, ("1", "1"): 2.0, ("2", "1"): 1.0, ("2", "2"): 4.5}


class Layout(NamedTuple):
    """One layout: its name, the file, and the entries that it means or the option that its refusal must name."""

    name: str
    file: str
    text: str | bytes
    means: dict[tuple[str, str], float] | str


def _lines(pattern: str, separator: str = "\n", data: dict[tuple[str, str], float] = RATINGS) -> str:
    out = []
    for k, ((row, col), value) in enumerate(data.items()):
        stamp = 964982703 + k
        comma = f"{value:.1f}".replace(".", ",")
        out.append(pattern.format(r=row, c=col, v=value, k=k, one=k + 1, stamp=stamp, comma=comma))
    return separator.join(out) + separator


def _renamed(rows: dict[str, str], cols: dict[str, str]) -> dict[tuple[str, str], float]:
    return {(rows.get(row, row), cols.get(col, col)): value for (row, col), value in RATINGS.items()}


_WIDE = "4,,3.5\n5,2,\n,1,4.5\n"
_MANY = [(u, i, (u * 7 + i * 3) % 5 + 1) for u in range(1, 30) for i in range(u % 3 + 1, 60, 3)]
_MEANT = {(str(u), str(i)): float(v) for u, i, v in _MANY}
_TRIPLETS, _EITHER = "--columns", "--columns 1,2,3 (which are the rows, columns and values of entries) or --format matrix"

LAYOUTS = [
    Layout("MovieLens with time stamps", "a.csv", "userId,movieId,rating,timestamp\n" + _lines("{r},{c},{v},{stamp}"), RATINGS),
    Layout("data frame saved with its index", "a.csv", ",userId,movieId,rating\n" + _lines("{k},{r},{c},{v}"), RATINGS),
    Layout(
        "the index as pandas reads it back", "a.csv", "Unnamed: 0,userId,movieId,rating\n" + _lines("{k},{r},{c},{v}"), RATINGS
    ),
    Layout("identifiers written 4.0", "a.csv", "userId,movieId,rating\n" + _lines("{r}.0,{c}.0,{v}"), RATINGS),
    Layout(
        "negative identifiers",
        "a.csv",
        "userId,movieId,rating\n" + _lines("-{r},{c},{v}"),
        {(f"-{row}", col): value for (row, col), value in RATINGS.items()},
    ),
    Layout("value first", "a.csv", "rating,userId,movieId\n" + _lines("{v},{r},{c}"), RATINGS),
    Layout("value first, no header", "a.csv", _lines("{v},{r},{c}"), "--columns 2,3,1"),
    Layout("index column, no header", "a.csv", _lines("{k},{r},{c},{v}"), "--columns"),
    Layout("triplets, no header, sorted", "a.csv", _lines("{r},{c},{v}"), RATINGS),
    Layout(
        "triplets, no header, integers", "a.csv", "1,10,4\n1,20,3\n2,10,5\n", {("1", "10"): 4, ("1", "20"): 3, ("2", "10"): 5}
    ),
    Layout("three columns of integers", "a.csv", "3,4,5\n4,4,2\n3,1,1\n", _EITHER),
    Layout("many triplets of integers, unsorted", "a.csv", "".join(f"{u},{i},{v}\n" for u, i, v in _MANY[::-1]), _MEANT),
    Layout("MovieLens 100k, tabs, no header", "u.data", _lines("{r}\t{c}\t{v}\t{stamp}"), RATINGS),
    Layout("MovieLens 1M, double colons", "ratings.dat", _lines("{r}::{c}::{v}::{stamp}"), RATINGS),
    Layout("semicolons and decimal commas", "a.csv", "user;item;rating\n" + _lines("{r};{c};{comma}"), RATINGS),
    Layout("semicolons, decimal commas, matrix", "a.csv", "4,0;;3,5\n5,0;2,0;\n;1,0;4,5\n", MATRIX),
    Layout(
        "semicolons and quotes (BookCrossing)",
        "a.csv",
        '"User-ID";"ISBN";"Book-Rating"\n' + _lines('"{r}";"{c}";"{v}"'),
        RATINGS,
    ),
    Layout(
        "thousands points and decimal commas", "a.csv", "user;item;rating\n1;10;1.234,5\n1;20;2,5\n", "line 2 has '1.234,5'"
    ),
    Layout("gzip", "a.csv.gz", "userId,movieId,rating\n" + _lines("{r},{c},{v}"), RATINGS),
    Layout("byte order mark and CRLF", "a.csv", "\ufeffuserId,movieId,rating\r\n" + _lines("{r},{c},{v}", "\r\n"), RATINGS),
    Layout("tabs with a header", "a.tsv", "user\titem\trating\n" + _lines("{r}\t{c}\t{v}"), RATINGS),
    Layout("white space with a header", "a.txt", "user item rating\n" + _lines("{r} {c} {v}"), RATINGS),
    Layout("vertical bars", "a.txt", "user|item|rating\n" + _lines("{r}|{c}|{v}"), RATINGS),
    Layout(
        "text identifiers with commas and quotes",
        "a.csv",
        'user,film,rating\n"O\'Neil, ""Tip""","Good, the Bad",4\n"O\'Neil, ""Tip""",Ran,2\n',
        {('O\'Neil, "Tip"', "Good, the Bad"): 4.0, ('O\'Neil, "Tip"', "Ran"): 2.0},
    ),
    Layout("text identifiers, no header", "a.csv", _lines("{r},{c},{v}", data=FILMS), FILMS),
    Layout("text identifiers, other names", "a.csv", "critic,picture,verdict\n" + _lines("{r},{c},{v}", data=FILMS), FILMS),
    Layout(
        "identifiers with leading zeros",
        "a.csv",
        "customer,product,quantity\n007,1,2\n7,1,3\n7,2,4\n",
        {("007", "1"): 2.0, ("7", "1"): 3.0, ("7", "2"): 4.0},
    ),
    Layout(
        "very large identifiers",
        "a.csv",
        "user,item,rating\n" + _lines("{r}00000000,{c},{v}"),
        _renamed({str(k): f"{k}00000000" for k in (1, 2, 3)}, {}),
    ),
    Layout("ratings joined with titles", "a.csv", "userId,movieId,rating,title\n" + _lines("{r},{c},{v},Ran"), RATINGS),
    Layout("duplicates", "a.csv", "user,item,rating\n" + _lines("{r},{c},{v}") + "1,10,4.0\n", RATINGS),
    Layout(
        "implicit: all ones",
        "a.csv",
        "user,item,count\n1,10,1\n1,20,1\n2,10,1\n",
        {("1", "10"): 1, ("1", "20"): 1, ("2", "10"): 1},
    ),
    Layout("implicit: pairs without a value", "a.csv", "user,item\n1,10\n2,20\n2,10\n", "no column of values"),
    Layout("implicit: three columns of 0 and 1", "a.csv", "0,1,1\n1,1,0\n1,0,1\n", _EITHER),
    Layout("value and weight", "a.csv", "user,item,rating,weight\n1,10,4,1\n1,20,3,2\n2,10,5,1\n", _TRIPLETS),
    Layout(
        "panel: unit, time, outcome",
        "a.csv",
        "state,year,sales\n1,10,4\n1,20,3\n2,10,5\n",
        {("1", "10"): 4, ("1", "20"): 3, ("2", "10"): 5},
    ),
    Layout("names that say nothing", "a.csv", "a,b,c\n3,4,5\n4,4,2\n3,1,1\n", _EITHER),
    Layout("several values", "a.csv", "user,item,stars,score\n1,10,4,8\n1,20,3,6\n2,10,5,9\n", _TRIPLETS),
    Layout("matrix", "a.csv", _WIDE, MATRIX),
    Layout(
        "matrix of reals, three columns",
        "a.csv",
        "0.5,0.25,\n1.5,,2.5\n",
        {("0", "0"): 0.5, ("0", "1"): 0.25, ("1", "0"): 1.5, ("1", "2"): 2.5},
    ),
    Layout("matrix with labels", "a.csv", "user,10,20,30\n1,4,,3.5\n2,5,2,\n3,,1,4.5\n", RATINGS),
    Layout("matrix with titles", "a.csv", ",Ran,Alien\nann,4,\nbob,5,2\ncid,,1\n", FILMS),
    Layout(
        "matrix with numbered titles",
        "a.csv",
        "name,Ran,300\nann,4,\nbob,5,2\n",
        {("ann", "Ran"): 4, ("bob", "Ran"): 5, ("bob", "300"): 2},
    ),
    Layout("matrix whose first column numbers the rows", "a.csv", "a,b,c,d\n1,4,,3.5\n2,5,2,\n3,,1,4.5\n", "--columns a"),
    Layout(
        "matrix, years above countries",
        "a.csv",
        "land,1990,1991\nFR,4,\nGB,5,2\n",
        {("FR", "1990"): 4, ("GB", "1990"): 5, ("GB", "1991"): 2},
    ),
    Layout("numbered columns, or a row called land", "a.csv", "land,1,2\nFR,4,\nGB,5,2\n", "--header yes or --header no"),
    Layout("numbers above a matrix, no index", "a.csv", "0,1,2\n4.0,,3.5\n5.0,2.5,\n,1.5,4.5\n", "--header yes or --header no"),
    Layout("thousands with underscores", "a.csv", "user,item,rating\n1,10,1_000\n1,20,3\n", "line 2 has '1_000'"),
    Layout("labels that occur twice", "a.csv", "user,10,20\n1,4,\n1,5,2\n", "--columns none"),
    Layout("a value that is missing", "a.csv", "user,item,rating\n1,10,\n1,20,3\n", "line 2 has the value ''"),
    Layout("lines of unequal length", "a.csv", "user,item,rating\n1,10,4\n1,20\n", "line 3 has 2 fields"),
    Layout("not text", "a.csv", b"user,item,rating\n1,10,\xff\n", "not UTF-8"),
]
