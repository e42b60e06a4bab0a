"""The imputer in scikit-learn's own check, in pipelines and searches."""

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", minversion="1.6")

from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from balancedfact.estimators import FlatImputer  # noqa: E402

RNG = np.random.default_rng(0)
FULL = RNG.standard_normal((40, 2)) @ RNG.standard_normal((2, 9)) + RNG.standard_normal(9)
HOLES = np.where(RNG.random(FULL.shape) < 0.75, FULL + 0.05 * RNG.standard_normal(FULL.shape), np.nan)


@pytest.mark.few(4)
@parametrize_with_checks([FlatImputer(penalty=0.1, random_state=0)])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([FlatImputer(), FlatImputer(penalty=0.1, offset_penalty=None)])
def test_check_estimator_in_other_settings(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_it_imputes_better_than_the_mean():
    found = FlatImputer(random_state=0).fit_transform(HOLES)
    hidden = np.isnan(HOLES)
    error = np.sqrt(np.mean((found - FULL)[hidden] ** 2))
    means = np.broadcast_to(np.nanmean(HOLES, axis=0), FULL.shape)
    assert error < 0.5 * np.sqrt(np.mean((means - FULL)[hidden] ** 2))
    np.testing.assert_array_equal(found[~hidden], HOLES[~hidden])


def test_new_rows_are_those_of_the_solution():
    imputer = FlatImputer(penalty=1.0, random_state=0).fit(HOLES[:30])
    new = HOLES[30:]
    np.testing.assert_allclose(imputer.transform(new), np.where(np.isnan(new), imputer.solution_.transform(new), new))


@pytest.mark.slow
def test_pipeline_and_grid_search():
    y = FULL @ np.arange(9.0)
    pipeline = make_pipeline(FlatImputer(tol=1e-3, random_state=0), Ridge(1e-3))
    search = GridSearchCV(pipeline, {"flatimputer__penalty": [0.3, 3e4]}, cv=2).fit(HOLES, y)
    assert search.best_params_["flatimputer__penalty"] == 0.3
    alone = GridSearchCV(FlatImputer(tol=1e-3, random_state=0), {"penalty": [0.3, 3e4]}, cv=2).fit(HOLES)
    assert alone.best_params_["penalty"] == 0.3


@pytest.mark.slow
def test_names_and_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(HOLES, columns=[f"x{k}" for k in range(9)])
    imputer = FlatImputer(penalty=1.0, random_state=0).set_output(transform="pandas").fit(frame)
    assert imputer.get_feature_names_out().tolist() == list(frame.columns)
    out = imputer.transform(frame)
    assert list(out.columns) == list(frame.columns)
    assert not out.isna().any().any()


@pytest.mark.parametrize(("options", "match"), [({"penalty": "best"}, "penalty is 'best'"), ({"penalty": -1.0}, "at least 0")])
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        FlatImputer(**options).fit(HOLES)


def test_a_score_needs_something_that_was_seen():
    model = FlatImputer(penalty=1.0).fit([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"X has shape \(1, 2\) and no entry that was seen"):
        model.score([[np.nan, np.nan]])
