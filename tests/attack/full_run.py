"""The attack on verdicts at full size, in batches that are kept: what is there already is not run again.

    python -m tests.attack.full_run 100000 --seed 131 --out FOLDER

One process. Every batch leaves a file; every wrong answer is in it with the Python that makes it again. One answer in a
hundred is judged in 60 digits, whatever the quick enclosure says of it. The last line sums up all batches of the folder.
"""

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np

from .judge import deserves, judge, shrink
from .problems import draw

_BATCH = 250
_BY_BOTH = 100


def batch(seed, start, count):
    """The record of the problems from `start` on."""
    verdicts, deserved, lost, wrong, slowest = Counter(), 0, [], [], (0.0, start)
    began = time.process_time()
    for index in range(start, start + count):
        case, before = draw(seed, index), time.process_time()
        mistake, name = judge(case, by_both=index % _BY_BOTH == 0)
        slowest = max(slowest, (time.process_time() - before, index))
        verdicts[name] += 1
        if deserves(case):
            deserved += 1
            if name != "OPTIMAL":
                lost.append(index)
        if mistake is not None:
            small = case if "takes more" in mistake else shrink(case, mistake)
            wrong.append({"wrong": mistake, "seed": seed, "index": index, "script": small.script()})
    seconds = time.process_time() - began
    return {
        "start": start,
        "count": count,
        "verdicts": verdicts,
        "deserved": deserved,
        "lost": lost,
        "wrong": wrong,
        "slowest": slowest,
        "seconds": seconds,
    }


def summary(records):
    """All batches in a line, and whether the promises were kept."""
    verdicts = sum((Counter(each["verdicts"]) for each in records), Counter())
    wrong = Counter(each["wrong"] for record in records for each in record["wrong"])
    deserved, lost = (sum(each) for each in zip(*[(r["deserved"], len(r["lost"])) for r in records], strict=True))
    seconds, slowest = sum(each["seconds"] for each in records), max(each["slowest"] for each in records)
    return (
        f"{sum(verdicts.values())} solves: {dict(verdicts)}; wrong: {dict(wrong)}; {lost} of {deserved} deserved OPTIMAL lost "
        f"({lost / max(deserved, 1):.2%}); slowest, judge included, {slowest[0]:.1f} s (index {slowest[1]}); {seconds:.0f} s"
    ), not wrong and lost <= 0.02 * deserved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    records = []
    for start in range(0, chosen.count, _BATCH):
        count = min(_BATCH, chosen.count - start)
        path = chosen.out / f"{chosen.seed}-{start}-{count}.json"
        if not path.exists():
            record = batch(chosen.seed, start, count)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(record, default=np.ndarray.tolist))
            os.replace(partial, path)
        records.append(json.loads(path.read_text()))
        line, kept = summary(records)
        print(line, flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
