import copy
import json
import pickle
import zipfile
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancedfact.solution import Certificate, Offsets, Solution, Status


def example(depth=2, **changes):
    rng = np.random.default_rng(depth)
    widths = [*[4, 2, 5, 3, 2][:depth], 3]
    fields = {
        "layers": [rng.standard_normal((out, into)) for into, out in pairwise(widths)],
        "value": 12.345678901234567,
        "status": Status.OPTIMAL,
        "message": "The gap closed: ‖Σ yᵢAᵢ‖ ≤ 1.",
        "certificate": Certificate(
            1e-15,
            12.3,
            3.7e-9,
            rng.standard_normal(6),
            2e-9,
            5e-16,
            -1e-3,
            2e-10,
            rng.standard_normal((2, 3, 3)),
            "Weak duality.",
            12.3456789,
            3e-15,
            4e-13,
            5e6,
            0.1,
            0.2,
        ),
        "history": {"gap": np.array([1.0, 1e-3, np.nan]), "seconds": np.array([0.1, 0.2, 0.3]), "rank": np.array([3, 2, 2])},
        "method": "interior point",
    }
    return Solution(**fields | changes)


UNCHECKED = "(not checked: read from a file without its data) "


def assert_same(found, expected):
    assert found.message.startswith(UNCHECKED)  # a file may say anything
    found = replace(found, message=found.message.removeprefix(UNCHECKED))
    assert len(found.layers) == len(expected.layers)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (found.value, found.status, found.message, found.method) == (
        expected.value,
        expected.status,
        expected.message,
        expected.method,
    )
    np.testing.assert_array_equal(found.certificate.dual, expected.certificate.dual)
    np.testing.assert_array_equal(found.certificate.direction, expected.certificate.direction)
    ours, theirs = found.certificate.to_dict(), expected.certificate.to_dict()
    assert ours.keys() == theirs.keys()
    for name, number in theirs.items():
        assert ours[name] == number or (np.isnan(ours[name]) and np.isnan(number))
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_array_equal(found.history[name], values)
        assert found.history[name].dtype == values.dtype


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_saved_solution_is_read_back_exactly(depth, tmp_path):
    solution = example(depth)
    solution.save(tmp_path / "solution.npz")
    assert_same(Solution.load(tmp_path / "solution.npz"), solution)


@pytest.mark.parametrize("status", Status)
def test_every_verdict_and_missing_number_is_read_back(status, tmp_path):
    solution = example(status=status, history={}, certificate=Certificate(0.0, lower_bound=np.inf), method="")
    solution.save(tmp_path / "solution.npz")
    assert_same(Solution.load(tmp_path / "solution.npz"), solution)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 5e-324, np.finfo(float).max, np.float64(0.1)])
def test_every_value_is_read_back(value, tmp_path):
    example(value=value).save(tmp_path / "solution.npz")
    found = Solution.load(tmp_path / "solution.npz").value
    assert found == value or (np.isnan(found) and np.isnan(value))
    assert isinstance(found, float)


def test_the_file_is_written_under_the_name_given_and_nothing_is_left_beside_it(tmp_path):
    for name in ("plain", "with.dot", "ending.npz"):
        example().save(str(tmp_path / name))
        assert_same(Solution.load(str(tmp_path / name)), example())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ending.npz", "plain", "with.dot"]


def test_saving_again_replaces_the_file(tmp_path):
    path = tmp_path / "solution.npz"
    example(5).save(path)
    example(2).save(path)
    assert_same(Solution.load(path), example(2))


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "solution.npz"
    example().save(path)
    with pytest.raises(TypeError):
        example(value=object()).save(path)
    broken = example(history={"gap": np.array([{"not": "a number"}], dtype=object)})
    with pytest.raises(ValueError, match=r"^history_gap has dtype object"):
        broken.save(path)
    assert_same(Solution.load(path), example())
    assert [found.name for found in tmp_path.iterdir()] == ["solution.npz"]


def test_the_file_holds_no_pickles(tmp_path):
    path = tmp_path / "solution.npz"
    example().save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
        assert json.loads(str(file["header"]))["status"] == "OPTIMAL"


class Dangerous:
    loaded = False

    def __reduce__(self):
        return (setattr, (Dangerous, "loaded", True))


def test_a_file_with_pickles_is_refused_and_nothing_in_it_runs(tmp_path):
    path = tmp_path / "solution.npz"
    example().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["layer_1"] = np.array([[Dangerous()]], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"^path is .*solution\.npz"):
        Solution.load(path)
    assert not Dangerous.loaded


def resaved(path, **changes):
    """The example, saved with some of its arrays or header entries changed; None removes an array."""
    example().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"])) | changes.pop("header", {})
    arrays |= {"header": np.array(json.dumps(header))} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


CHANGES = {
    "no header": {"header_array": None},
    "another format": {"header": {"format": "balancedfact solution 99"}},
    "unknown status": {"header": {"status": "PERFECT"}},
    "no layers": {"header": {"depth": 0}},
    "more layers than saved": {"header": {"depth": 3}},
    "depth that is no number": {"header": {"depth": "2"}},
    "unknown certificate entry": {"header": {"certificate": {"feasibility": 0.0, "trust": 1.0}}},
    "certificate that is no mapping": {"header": {"certificate": [0.0]}},
    "missing layer": {"layer_2": None},
    "missing dual": {"dual": None},
    "layers that do not multiply": {"layer_1": np.ones((7, 7))},
    "layer of one dimension": {"layer_1": np.ones(4)},
    "layer with NaN": {"layer_1": np.full((2, 4), np.nan)},
    "complex layer": {"layer_1": np.ones((2, 4), complex)},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_no_solution_is_refused_by_its_path(changes, tmp_path):
    path = tmp_path / "changed.npz"
    if "header_array" in changes:
        example().save(path)
        with np.load(path) as file:
            np.savez(path, **{name: file[name] for name in file.files if name != "header"})
    else:
        resaved(path, **{key: value.copy() if isinstance(value, dict) else value for key, value in changes.items()})
    with pytest.raises(ValueError, match=r"^path is .*changed\.npz.*; expected a file that Solution\.save wrote$"):
        Solution.load(path)


GARBAGE = {
    "empty": b"",
    "text": b"rows,cols\n1,2\n",
    "bytes": bytes(range(256)) * 10,
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04eval\x94.",
    "start of a zip file": b"PK\x03\x04" + bytes(100),
    "start of an npy file": b"\x93NUMPY\x01\x00",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_by_its_path(content, tmp_path):
    path = tmp_path / "garbage.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^path is .*garbage\.npz"):
        Solution.load(path)


def test_other_archives_and_folders_are_refused_by_their_path(tmp_path):
    np.save(tmp_path / "array.npy", np.ones((2, 2)))
    np.savez(tmp_path / "arrays.npz", layer_1=np.ones((2, 2)))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("header", "{}")
    (tmp_path / "folder").mkdir()
    for name in ("array.npy", "arrays.npz", "text.zip", "folder"):
        with pytest.raises(ValueError, match=rf"^path is .*{name}"):
            Solution.load(tmp_path / name)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        Solution.load(tmp_path / "nowhere.npz")


@given(st.data())
def test_a_truncated_or_damaged_file_is_refused_or_read_correctly(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "damaged.npz"
    example().save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="truncated"):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="length")])
        with pytest.raises(ValueError, match=r"^path is .*damaged\.npz"):
            Solution.load(path)
        return
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(content)
    try:
        found = Solution.load(path)
    except ValueError as refusal:
        found = str(refusal)
    if isinstance(found, str):
        assert found.startswith("path is ")
    else:
        assert_same(found, example())


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_matrix_is_the_product_with_the_first_layer_applied_first(depth):
    solution = example(depth)
    expected = np.eye(4)
    for layer in solution.layers:
        expected = layer @ expected
    np.testing.assert_allclose(solution.matrix, expected, atol=1e-14)


def test_the_pair_multiplies_to_the_matrix():
    solution = example(2)
    L, R = solution.pair
    assert (L.shape, R.shape) == ((3, 2), (4, 2))
    np.testing.assert_array_equal(L @ R.T, solution.matrix)


@pytest.mark.parametrize("depth", [1, 3])
def test_only_two_layers_are_a_pair(depth):
    with pytest.raises(ValueError, match=rf"^the solution has {depth} layers; pair is defined for 2$"):
        _ = example(depth).pair


def test_only_proof_and_second_order_evidence_are_ok():
    assert [status for status in Status if status.ok] == [Status.OPTIMAL, Status.STATIONARY]


def test_a_solution_prints_its_verdict_message_shape_and_numbers():
    text = repr(example(3))
    for part in ("optimal", "interior point", "The gap closed", "3 x 5 x 2 x 4", "12.3456789", "12.3", "3.7e-09", "1.0e-15"):
        assert part in text
    assert "array(" not in text
    assert text.count("\n") <= 4


def test_a_certificate_prints_its_numbers_and_not_its_dual_vector():
    text = repr(example().certificate)
    for part in ("feasibility=1e-15", "lower_bound=12.3", "gap=3.7e-09", "stationarity=2e-09", "balance=5e-16"):
        assert part in text
    assert "dual" not in text
    assert repr(Certificate(0.5, curvature=-2.0)) == "Certificate(feasibility=0.5, curvature=-2)"


def test_the_numbers_of_a_certificate_are_a_report():
    report = example().certificate.to_dict()
    assert report == {
        "feasibility": 1e-15,
        "lower_bound": 12.3,
        "gap": 3.7e-9,
        "stationarity": 2e-9,
        "balance": 5e-16,
        "curvature": -1e-3,
        "fibre_gap": 2e-10,
        "proof": "Weak duality.",
        "value": 12.3456789,
        "worst_datum": 3e-15,
        "rounding": 4e-13,
        "excluded_norm": 5e6,
        "injectivity": 0.1,
        "injectivity_above": 0.2,
    }


def test_a_solution_cannot_be_changed_by_assignment():
    with pytest.raises(AttributeError):
        example().value = 0.0
    with pytest.raises(AttributeError):
        example().certificate.gap = 0.0


# A solution as an object


def test_solutions_are_equal_by_value_and_can_be_hashed():
    one, same = example(), example()
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same}) == 1
    assert one != example(value=1.0)
    assert one != example(layers=[2 * layer for layer in one.layers])
    assert one != example(history={})
    assert one != "a solution"
    assert one.certificate == same.certificate
    assert one.certificate != Certificate(0.0)
    assert Certificate(np.nan) == Certificate(np.nan)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_and_pickles_are_equal(copied):
    for solution in (example(), example(3, offsets=Offsets(1.0, np.ones(3), np.zeros(4)))):
        assert copied(solution) == solution


def test_a_saved_solution_equals_the_one_that_was_saved(tmp_path):
    solution = example(3)
    solution.save(tmp_path / "solution.npz")
    assert Solution.load(tmp_path / "solution.npz") == replace(solution, message=UNCHECKED + solution.message)


@pytest.mark.parametrize("shapes", [[(7,)], [()], [(3, 2), (5, 5)], [(2, 2, 2)], [(4,), (3, 3)]])
def test_points_of_any_manifold_print_and_are_saved(shapes, tmp_path):
    point = [np.full(shape, 2.0) for shape in shapes]
    solution = example(layers=point)
    assert "arrays of shapes" in repr(solution)
    assert "arrays of shapes" in solution._repr_html_()
    assert solution.to_dict()["rank"] is None
    solution.save(tmp_path / "solution.npz")
    assert Solution.load(tmp_path / "solution.npz") == replace(solution, message=UNCHECKED + solution.message)
    for name in ("matrix", "pair", "rank", "singular_values"):
        with pytest.raises(ValueError, match="arrays of shapes"):
            getattr(solution, name)


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
@pytest.mark.parametrize(("shape", "k", "rank"), [((6, 4), 3, 2), ((4, 6), 5, 2), ((3, 3), 7, 3), ((5, 4), 1, 0)])
def test_the_rank_is_that_of_the_matrix(shape, k, rank, scale, rng):
    L, R = rng.standard_normal((shape[0], rank)), rng.standard_normal((shape[1], rank))
    mix = rng.standard_normal((rank, k))
    layers = [scale * (np.linalg.pinv(mix) @ R.T) if rank <= k else None, L @ mix]
    solution = example(layers=layers)
    assert solution.rank == rank
    np.testing.assert_allclose(
        solution.singular_values[: min(k, *shape)],
        np.linalg.svd(layers[1] @ layers[0], compute_uv=False)[: min(k, *shape)],
        atol=1e-13 * scale * (np.linalg.norm(L) * np.linalg.norm(R) + 1e-300),
    )


def test_the_rank_counts_at_the_precision_of_the_data():
    layers = [np.diag([1.0, 1e-5, 1e-9]), np.eye(3)]
    assert example(layers=layers).rank == 3
    assert example(layers=layers, precision=1e-7).rank == 2


def test_a_report_holds_plain_numbers():
    report = example().to_dict()
    assert json.loads(json.dumps(report)) == report
    assert (report["status"], report["proved"], report["ok"]) == ("optimal", True, True)
    assert report["shapes"] == [[2, 4], [3, 2]]


def test_what_a_notebook_shows_is_escaped():
    shown = example(message="<script>alert(1)</script>", method="<b>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown.count("<rect") == 2
    assert "not proved" in example(status=Status.GAP_OPEN)._repr_html_()
    assert "evidence" in example(status=Status.STATIONARY)._repr_html_()
    assert "<svg" not in example(layers=[np.zeros((2, 4)), np.zeros((3, 2))])._repr_html_()
