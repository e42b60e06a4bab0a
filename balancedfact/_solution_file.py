"""Solutions as files: one ``.npz`` of plain arrays, with a header of numbers and texts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import numpy as np

from balancedfact._arrays import read_arrays
from balancedfact._certificate import Certificate
from balancedfact._files import write_arrays
from balancedfact._new_rows import Offsets, RowFit
from balancedfact._objective import Objective
from balancedfact._status import Status
from balancedfact._validate import as_array, as_depth, as_layers, as_number, as_path

_FORMAT = "balancedfact solution 1"


def write_fields(path: str | os.PathLike[str], fields: dict[str, Any], multiply: bool) -> None:
    """Write the fields of a solution; `multiply` says whether its layers are matrices that multiply."""
    certificate, objective = fields["certificate"], fields["objective"]
    header = {
        "format": _FORMAT,
        "depth": len(fields["layers"]),
        "multiply": multiply,
        "value": fields["value"],
        "status": fields["status"].name,
        "message": fields["message"],
        "method": fields["method"],
        "precision": fields["precision"],
        "certificate": certificate.to_dict(),
        "objective": None if objective is None else asdict(objective),
    }
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), "dual": certificate.dual}
    arrays |= {"direction": certificate.direction, "weighted_dual": certificate.weighted_dual}
    arrays |= {f"layer_{k}": layer for k, layer in enumerate(fields["layers"], start=1)}
    if fields["offsets"] is not None:
        arrays |= {f"offset_{name}": np.asarray(values) for name, values in fields["offsets"]._asdict().items()}
    for name in ("row_labels", "col_labels"):
        if fields[name] is not None:
            arrays[name] = np.array(json.dumps(fields[name]))
    if fields["row_fit"] is not None:
        arrays["row_fit"] = np.array(fields["row_fit"])
    arrays |= {f"history_{name}": np.asarray(values) for name, values in fields["history"].items()}
    write_arrays(path, arrays)


def _objective(kind: Any, penalty: Any = 0.0, offset_penalty: Any = None, depth: Any = 2) -> Objective:
    """The objective that a file names, if it is one."""
    if kind not in ("flat", "norm", "sharpness"):
        raise ValueError(f"kind is {kind!r}; expected 'flat', 'norm' or 'sharpness'")
    ridge = None if offset_penalty is None else as_number(offset_penalty, "offset_penalty", above=0.0)
    return Objective(kind, as_number(penalty, "penalty", least=0.0), ridge, as_depth(depth))


def read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields that `write_fields` wrote; a `ValueError` names a file that holds none."""
    try:
        arrays = read_arrays(as_path(path))
        header = json.loads(str(arrays["header"]))
        if header["format"] != _FORMAT:
            raise KeyError("format")
        layers = [as_array(arrays[f"layer_{k}"], f"layer_{k}") for k in range(1, header["depth"] + 1)]
        offsets = None
        if "offset_mean" in arrays:
            offsets = Offsets(float(arrays["offset_mean"]), arrays["offset_rows"], arrays["offset_cols"])
        said = header.get("objective")
        weighted = arrays.get("weighted_dual", np.empty(0))  # files of earlier versions have none
        return {
            "layers": as_layers(layers) if header.get("multiply", True) else layers,
            "value": header["value"],
            "status": Status[header["status"]],
            "message": header["message"],
            "certificate": Certificate(
                dual=arrays["dual"], direction=arrays["direction"], weighted_dual=weighted, **header["certificate"]
            ),
            "history": {name[8:]: values for name, values in arrays.items() if name.startswith("history_")},
            "method": header["method"],
            "offsets": offsets,
            "row_labels": json.loads(str(arrays["row_labels"])) if "row_labels" in arrays else None,
            "col_labels": json.loads(str(arrays["col_labels"])) if "col_labels" in arrays else None,
            "row_fit": RowFit(*map(float, arrays["row_fit"])) if "row_fit" in arrays else None,
            "precision": float(header.get("precision", 0.0)),
            "objective": None if said is None else _objective(**said),
        }
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"path is {path!r}; expected a file that Solution.save wrote") from error
