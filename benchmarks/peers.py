"""One table of all peers: what this package takes for the same task, and who wins.

Reads the files in ``benchmarks/results`` that the other scripts wrote. A row compares one peer with the contender of this
package on its task; accuracies are those each reached. Ratios above one are in favour of this package. Where a peer is faster
at the accuracy asked for, the lines below the table say what it would take to change that.

``python benchmarks/peers.py``.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from harness import RESULTS


class Task(NamedTuple):
    """Peers against `ours` in one file: the accuracy is a row's `key`, and must be at most `asked`.

    `time` is what is compared, and `remedy` what is to be said where a peer wins.
    """

    file: str
    title: str
    ours: str
    peers: list[str]
    key: str
    asked: float
    time: str = "seconds"
    remedy: str = ""


SENSING = ["cvxpy CLARABEL", "cvxpy SCS", "cvxpy SCS eps 1e-9"]
SOFT = ["SciPy, soft-impute ALS", "cmfrec, ALS", "fancyimpute SoftImpute"]
ALS = (
    "The peers are given a rank and return no bound. The time here is for finding the rank, which takes singular vectors of "
    "the dual matrix at every penalty of the path, and for the certificate; a path that starts nearer to its end would save "
    "part of it."
)
CLOSED = (
    "The rows on random starts measure a search. For this task a closed form exists, and `balanced_approximation` uses it "
    "unless it is told to search: see the rows on the closed form."
)

TASKS = [
    Task("sensing", "flat minimum of Gaussian sensing, 60 x 60, m = 600", "balancedfact", SENSING, "feasibility", 1e-8),
    Task("soft_impute_200", "noisy completion, 200 x 150", "balancedfact, norm_minimum", SOFT, "excess", 1e-4,
         remedy=ALS),
    Task("soft_impute_2000", "noisy completion, 2000 x 1500", "balancedfact, norm_minimum", SOFT, "excess", 1e-4, remedy=ALS),
    Task("soft_impute_20000", "noisy completion, 20000 x 10000, five million entries", "balancedfact, norm_minimum", SOFT[:2],
         "excess", 1e-3, remedy=ALS),
    *[
        Task(file, f"exact completion, {shape}", "balancedfact", ["pymanopt fixed rank", "pymanopt fixed rank, compiled loop"],
             "hidden_error", 1e-6, remedy="The peer is told the rank, stops at 1e-6 and proves nothing; with the loop of this "
             "package in place of its own. Stopping at 1e-6 without a certificate would make up for it.")
        for file, shape in [("completion", "2000 x 1500, rank 5"), ("completion_large", "5000 x 5000, rank 10")]
    ],
    Task("rank_one", "rank-one sensing, 1000 x 1000, rank 5, m = 100,000", "balancedfact", ["pymanopt fixed rank"],
         "error", 1e-6, remedy="The peer is told the rank, stops at 1e-6 and proves nothing. Most of the time here goes "
         "into products of order $md^2$: two second moments for the rescalings, the rescaled vectors, and the dual matrix, at "
         "every bound of its norm. A flat solution needs the former; fewer bounds would save half of the rest."),
    *[
        Task("manifolds", f"balanced approximation from random starts, {shape}", f"{shape}, balancedfact",
             [f"{shape}, {name}" for name in (
                 "Stiefel product, trust regions", "Stiefel product, conjugate gradients", "fixed rank, conjugate gradients",
                 "numpy svd", "scipy svds")],
             "worst_error", 1e-9, "per_start", CLOSED)
        for shape in ("200 x 150", "2000 x 1500")
    ],
    *[
        Task("manifolds_closed", f"balanced approximation, closed form, {shape}", f"{shape}, balancedfact",
             [f"{shape}, numpy svd", f"{shape}, scipy svds"], "worst_error", 1e-9, "per_start",
             "The result is the same decomposition; what is left is the check of the input and the certificate of the value.")
        for shape in ("200 x 150", "2000 x 1500")
    ],
    Task("curvature_trace", "trace of the Hessian, ten 60 x 60 layers, m = 600", "balancedfact, one evaluation",
         ["PyTorch Hutchinson, float64", "PyTorch Hutchinson, float32", "PyTorch Hutchinson, float64, batched",
          "PyTorch Hutchinson, float32, batched"], "error", 2e-2),
    Task("curvature_sharpness", "sharpness of a regression network, width 64, ten layers", "balancedfact",
         ["PyHessian, float64", "PyHessian, float32", "curvlinops, eigsh"], "error", 1e-6),
    Task("dynamics", "a step of gradient descent, regression, d = 5, ten layers", "regression, one run",
         ["regression, NumPy loop", "regression, JAX loop"], "loss", float("inf"), "microseconds_per_step"),
    Task("dynamics", "a step of SGD with label noise, 60 x 60, five layers", "label noise, double",
         ["label noise, NumPy double"], "loss", float("inf"), "microseconds_per_step"),
]  # fmt: skip


def contenders(task: Task) -> list[dict[str, Any]]:
    """The row of this package and those of the peers; nothing where the task was not run."""
    path = RESULTS / f"{task.file}.json"
    if not path.exists():
        return []
    found = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    return [found[name] for name in (task.ours, *task.peers) if name in found] if task.ours in found else []


def rows(task: Task) -> list[str]:
    """Those of one task: this package, which names the task, and below it the peers."""
    ours, *peers = contenders(task) or [{}]
    if not peers:
        return []
    asked = "" if task.asked == float("inf") else f" ({task.key.replace('_', ' ')} at most {task.asked:g})"
    return [f"| **{task.title}**{asked} | | {figures(task, ours)} | | |", *(row(task, ours, peer) for peer in peers)]


def row(task: Task, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    name = peer["name"].removeprefix(task.ours.partition("balancedfact")[0])
    if "failed" in peer:
        return f"| {name} | {peer['failed']} | | | | | |"
    time, memory = peer[task.time] / ours[task.time], peer["peak_MB"] / ours["peak_MB"]
    words = verdict(task, time, memory, peer)
    cells = [name, words, figures(task, peer), f"{time:.3g}", f"{memory:.2g}"]
    return f"| {' | '.join(cells)} |"


def fastest(task: Task) -> str:
    """One line for a task: the verdict on the fastest of the peers that reach the accuracy."""
    ours, *peers = contenders(task)
    arrived = [peer for peer in peers if "failed" not in peer and peer[task.key] <= task.asked]
    if not arrived:
        return f"| {task.title} | no peer reaches the accuracy | {seconds(task, ours)} | | |"
    peer = min(arrived, key=lambda each: each[task.time])
    words = verdict(task, peer[task.time] / ours[task.time], 1.0, peer)
    name = peer["name"].removeprefix(task.ours.partition("balancedfact")[0])
    return f"| {task.title} | {words} | {seconds(task, ours)} | {seconds(task, peer)} | {name} |"


def seconds(task: Task, row: dict[str, Any]) -> str:
    return f"{row[task.time] * (1e-6 if task.time.startswith('micro') else 1.0):.2g}"


def figures(task: Task, row: dict[str, Any]) -> str:
    return f"{seconds(task, row)} | {row['peak_MB']:.0f} | {row[task.key]:.1e}"


def verdict(task: Task, time: float, memory: float, peer: dict[str, Any]) -> str:
    if not peer[task.key] <= task.asked:
        return "the peer does not reach the accuracy"
    words = []
    if time < 0.95:
        words.append("**the peer is faster**")
    else:
        words.append("even" if time < 1.05 else "faster here")
    if memory < 0.8:
        words.append("the peer needs less memory")
    return "; ".join(words)


def remedies() -> list[str]:
    """For every task on which a peer is faster, what it would take to change that."""
    lost = [task for task in TASKS if any("**the peer is faster**" in line for line in rows(task))]
    return [f"- {task.title}: {task.remedy}" for task in lost]


if __name__ == "__main__":
    lines = [line for task in TASKS for line in rows(task)]
    head = [
        "| **task**, and its peers | verdict | seconds | MB | reached | time ratio | memory ratio |",
        "|---|---|" + "---:|" * 5,
    ]
    text = "\n".join([*head, *lines, "", "Where a peer is faster:", "", *remedies()]) + "\n"
    (RESULTS / "peers.md").write_text(text)
    short = ["| task | verdict | s, here | s, peer | fastest peer that arrives |", "|---|---|---:|---:|---|"]
    (RESULTS / "peers_fastest.md").write_text(
        "\n".join([*short, *(fastest(task) for task in TASKS if len(contenders(task)) > 1)]) + "\n"
    )
    print(text)
