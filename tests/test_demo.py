"""The facts that `make demo` shows, at small settings."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

path = Path(__file__).parents[1] / "examples" / "demo.py"
spec = importlib.util.spec_from_file_location("demo", path)
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)


def test_few_code_units_serve_a_classifier_better_than_as_many_principal_components():
    accuracies = demo.classification(sizes=[4], wide=32, max_iter=20, folds=2)
    assert list(accuracies) == [
        "64 raw pixels",
        "4 principal components",
        "4 code units",
        "32 code units, dropout 0.3",
    ]
    means = {name: np.mean(both, axis=1) for name, both in accuracies.items()}
    assert all(mean.min() > 0.5 for mean in means.values())
    assert (means["4 code units"] > means["4 principal components"]).all()


def test_searches_reach_into_the_pipeline_with_and_without_labels():
    unlabelled, labelled = demo.search(sizes=(2, 16), max_iter=15, folds=2)
    assert unlabelled.best_params_ == {"autoencoder__n_components": 16}
    assert labelled.best_params_ == {"autoencoder__n_components": 16}
    narrow, wide = unlabelled.cv_results_["mean_test_score"]
    assert narrow < wide < 0


def test_detectors_rank_malignant_tumours_above_benign_ones():
    results = demo.detection(seeds=[0], max_iter=50)
    assert len(results) == 4
    for auroc, benign_flagged, malignant_flagged in np.concatenate(list(results.values())):
        assert auroc > 0.8
        assert benign_flagged < malignant_flagged


def test_permuted_columns_leave_little_to_compress():
    kept = demo.correlation(max_iter=30)
    assert min(kept["digits"]) > max(kept["each column permuted"]) + 0.2


@pytest.fixture(scope="module")
def ranges():
    return demo.output_ranges(max_iter=20)


def test_a_linear_output_keeps_as_much_of_data_of_any_offset_and_scale(ranges):
    (plain, _), (moved, _) = ranges.values()
    assert plain > 0.5
    assert moved == pytest.approx(plain, rel=0.01)


def test_a_sigmoid_output_refuses_data_beyond_0_to_1(ranges):
    for (_, message), highest in zip(ranges.values(), ("16", "1800"), strict=True):
        assert "needs X in [0, 1]" in message
        assert f"reaches {highest}." in message


def test_tables_are_aligned(capsys):
    demo.show("Title", ("name", "x"), ("long name", "10.5"), ("short", "2"))
    assert capsys.readouterr().out == (
        "\nTitle\n\n  name           x\n  long name   10.5\n  short          2\n"
    )
