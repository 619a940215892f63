"""What outputs stand for: labels to targets and back."""

import numpy as np
import pytest

from skae.estimators._outputs import (
    ClassOutputs,
    class_outputs,
    number_outputs,
    read_labels,
    read_numbers,
)
from skae.label_losses import LABEL_LOSSES

RNG = np.random.default_rng(0)
LINKS = list(LABEL_LOSSES)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]], ids=len)
def test_targets_are_predicted_back(link, classes):
    if link == "softmax" and len(classes) == 2:
        pytest.skip("two classes have one output")
    outputs = ClassOutputs(np.array(classes), link)
    y = RNG.choice(classes, 20)
    targets = outputs.targets(y)
    assert targets.shape == (20, outputs.width)
    low = -1 if outputs.loss.link == "margin" else 0
    assert set(np.unique(targets)) == {low, 1}
    raw = 2.0 * targets - (1 + low)
    np.testing.assert_array_equal(outputs.predictions(raw), y)


@pytest.mark.parametrize("link", ["softmax", "logistic"])
def test_probabilities_add_up_and_agree_with_predictions(link):
    outputs = ClassOutputs(np.arange(4), link)
    raw = RNG.normal(size=(50, 4))
    p = outputs.probabilities(raw)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(p.argmax(axis=1), outputs.predictions(raw))


def test_certain_rejection_by_all_classes_is_no_knowledge():
    outputs = ClassOutputs(np.arange(3), "logistic")
    np.testing.assert_allclose(outputs.probabilities(np.full((1, 3), -1e4)), 1 / 3)


def test_two_classes_have_one_output_and_two_probabilities():
    outputs = class_outputs(np.array(["no", "yes", "no"]))
    assert (outputs.width, outputs.link) == (1, "logistic")
    p = outputs.probabilities(np.array([[0.0], [3.0]]))
    np.testing.assert_allclose(p[0], [0.5, 0.5])
    assert p[1, 1] > 0.9
    assert outputs.decision(np.array([[0.0], [3.0]])).shape == (2,)


def test_multilabel_outputs_are_decided_on_their_own():
    y = np.array([[1, 0, 1], [0, 0, 0]])
    outputs = class_outputs(y)
    assert (outputs.width, outputs.link) == (3, "logistic")
    np.testing.assert_array_equal(outputs.predictions(2 * outputs.targets(y) - 1), y)
    assert not np.allclose(outputs.probabilities(RNG.normal(size=(5, 3))).sum(axis=1), 1)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="only one class"):
        class_outputs(np.zeros(5))


def test_numbers_keep_ys_shape():
    for y in (RNG.normal(size=6), RNG.normal(size=(6, 1)), RNG.normal(size=(6, 3))):
        outputs = number_outputs(y)
        np.testing.assert_array_equal(outputs.predictions(outputs.targets(y)), y)


@pytest.mark.parametrize("mark", [-1, "?"])
def test_marked_labels_are_unknown(mark):
    y = np.array([0, 1, mark, 1], dtype=object if isinstance(mark, str) else int)
    labels, known = read_labels(object(), y, mark)
    assert labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(known, [True, True, False, True])
    assert read_labels(object(), np.array([0, 1, -1]), None)[1].all()


def test_nan_marks_unknown_numbers_only_when_asked():
    y = np.array([1.0, np.nan, 2.0])
    numbers, known = read_numbers(object(), y, np.nan)
    assert numbers.tolist() == [1, 2]
    np.testing.assert_array_equal(known, [True, False, True])
    with pytest.raises(ValueError, match="NaN"):
        read_numbers(object(), y, None)


def test_nothing_labelled_is_refused():
    with pytest.raises(ValueError, match="nothing to learn"):
        read_labels(object(), np.array([-1, -1]), -1)


@pytest.mark.parametrize("read", [read_labels, read_numbers])
def test_missing_y_is_refused(read):
    with pytest.raises(ValueError, match="requires y"):
        read(object(), None, None)


def test_several_outputs_of_more_classes_are_refused():
    with pytest.raises(ValueError, match=r"multiclass-multioutput.*MultiOutputClassifier"):
        read_labels(object(), np.array([[0, 2], [1, 1], [2, 0]]), None)


def test_missing_labels_of_any_kind_can_be_the_mark():
    pd = pytest.importorskip("pandas")
    y = np.array(["a", np.nan, "b", None], dtype=object)
    for mark in (np.nan, None, pd.NA):
        labels, known = read_labels(object(), y, np.nan if mark is None else mark)
        assert labels.tolist() == ["a", "b"]
        np.testing.assert_array_equal(known, [True, False, True, False])
    integers = pd.Series([0, pd.NA, 1], dtype="Int64")
    assert read_labels(object(), integers, pd.NA)[0].tolist() == [0, 1]


def test_mark_of_another_kind_than_the_labels_is_refused():
    for y, mark in ((np.array([0, -1, 1]), "-1"), (np.array(["a", "b"]), -1)):
        with pytest.raises(ValueError, match="cannot occur in y"):
            read_labels(object(), y, mark)


def test_numbers_may_be_marked_by_a_number():
    numbers, known = read_numbers(object(), np.array([3.0, -1.0, 2.0]), -1)
    assert numbers.tolist() == [3, 2]
    np.testing.assert_array_equal(known, [True, False, True])


def test_labels_of_mixed_kinds_are_refused():
    with pytest.raises(ValueError, match="strings and other labels"):
        read_labels(object(), np.array([0, "b", 2], dtype=object), None)


def test_strings_are_no_numbers():
    with pytest.raises(ValueError, match="y must be numbers"):
        read_numbers(object(), np.array(["1", "2"]), None)
