"""What the package does, on data that scikit-learn ships: run it with ``make demo``.

Codes for a classifier, a search for their width, detection from one class, and the conditions
under which an autoencoder can compress at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

from skae import Autoencoder, ReconstructionOutlierDetector

LINEAR_CLASSIFIER = LogisticRegression(max_iter=1000)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 x 8 pixels in [0, 16], and which digit each is."""
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


def autoencoder(n_components: int | None = None, max_iter: int = 60, **parameters) -> Autoencoder:
    """The defaults but for small batches and a fixed number of epochs."""
    return Autoencoder(
        n_components=n_components,
        max_iter=max_iter,
        batch_size=32,
        tol=None,
        random_state=0,
        **parameters,
    )


def classification(
    sizes: Iterable[int] = (4, 8, 16), wide: int = 128, max_iter: int = 60, folds: int = 5
) -> dict[str, list[np.ndarray]]:
    """Accuracies over the folds of logistic regression and of an SVM, for every input to them."""
    X, y = digits()
    inputs: dict[str, list] = {"64 raw pixels": []}
    for k in sizes:
        inputs[f"{k} principal components"] = [PCA(k, random_state=0)]
        inputs[f"{k} code units"] = [autoencoder(k, max_iter)]
    wide_code = autoencoder(wide, max_iter, hidden_layer_sizes=(), dropout=0.3)
    inputs[f"{wide} code units, dropout 0.3"] = [wide_code]
    cv = StratifiedKFold(folds, shuffle=True, random_state=0)
    with TemporaryDirectory() as memory:  # both classifiers take the same fitted code
        return {
            name: [
                cross_val_score(
                    make_pipeline(MinMaxScaler(), *steps, classifier, memory=memory), X, y, cv=cv
                )
                for classifier in (LINEAR_CLASSIFIER, SVC())
            ]
            for name, steps in inputs.items()
        }


def search(
    sizes: Sequence[int] = (4, 8, 16, 32), max_iter: int = 60, folds: int = 3
) -> tuple[GridSearchCV, GridSearchCV]:
    """The width of the code, searched without labels and for a classifier behind it."""
    X, y = digits()
    grid = {"autoencoder__n_components": list(sizes)}
    cv = KFold(folds, shuffle=True, random_state=0)
    steps = MinMaxScaler(), autoencoder(max_iter=max_iter)
    unlabelled = GridSearchCV(make_pipeline(*steps), grid, cv=cv).fit(X)
    labelled = GridSearchCV(make_pipeline(*steps, LINEAR_CLASSIFIER), grid, cv=cv).fit(X, y)
    return unlabelled, labelled


def detectors(max_iter: int = 100) -> dict:
    """Three reconstructions, and a detector that needs none."""
    estimators = {
        "PCA(6)": PCA(6),
        "Autoencoder(), as it comes": Autoencoder(tol=None, random_state=0),
        "64 code units, input_dropout 0.5": autoencoder(
            64, max_iter, hidden_layer_sizes=(), activation="tanh", input_dropout=0.5
        ),
    }
    return {"IsolationForest": IsolationForest(contamination=0.05, random_state=0)} | {
        name: ReconstructionOutlierDetector(estimator=estimator, contamination=0.05)
        for name, estimator in estimators.items()
    }


def detection(seeds: Iterable[int] = range(5), max_iter: int = 100) -> dict[str, np.ndarray]:
    """Per detector and split: AUROC, share flagged of held-out benign and of malignant tumours."""
    X, y = load_breast_cancer(return_X_y=True)
    benign, malignant = X[y == 1], X[y == 0]
    results: dict[str, list] = {name: [] for name in detectors()}
    for seed in seeds:
        train, held_out = train_test_split(benign, test_size=0.5, random_state=seed)
        is_benign = np.r_[np.ones(len(held_out)), np.zeros(len(malignant))]
        for name, detector in detectors(max_iter).items():
            model = make_pipeline(StandardScaler(), detector).fit(train)
            scores = model.score_samples(np.r_[held_out, malignant])
            flagged = [np.mean(model.predict(rows) == -1) for rows in (held_out, malignant)]
            results[name].append([roc_auc_score(is_benign, scores), *flagged])
    return {name: np.array(rows) for name, rows in results.items()}


def variance_kept(model, X: np.ndarray, X_new: np.ndarray) -> float:
    """The share of the variance of `X_new` that a model trained on X reconstructs."""
    X_hat = model.fit(X).inverse_transform(model.transform(X_new))
    return r2_score(X_new, X_hat, multioutput="variance_weighted")


def correlation(n_components: int = 16, max_iter: int = 60) -> dict[str, tuple[float, float]]:
    """Variance kept by PCA and an autoencoder, of digits and of digits without correlation."""
    X, _ = digits()
    permuted = np.random.default_rng(0).permuted(X, axis=0)  # each column on its own
    kept = {}
    for name, table in {"digits": X, "each column permuted": permuted}.items():
        train, new = train_test_split(table, random_state=0)
        kept[name] = (
            variance_kept(PCA(n_components, random_state=0), train, new),
            variance_kept(autoencoder(n_components, max_iter), train, new),
        )
    return kept


def output_ranges(n_components: int = 16, max_iter: int = 60) -> dict[str, tuple[float, str]]:
    """For X and 1000 + 50 X: variance kept with a linear output, and what a sigmoid one says."""
    X, _ = digits()
    results = {}
    for name, table in {"X": X, "1000 + 50 X": 1000 + 50 * X}.items():
        kept = variance_kept(autoencoder(n_components, max_iter), table, table)
        try:
            autoencoder(n_components, max_iter, output_activation="logistic").fit(table)
            message = "accepted"
        except ValueError as error:
            message = str(error)
        results[name] = kept, message
    return results


def show(title: str, *rows: Iterable[str]) -> None:
    """Print a table: the first row is its header, the first column flush left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    print(f"\n{title}\n")
    for first, *rest in zip(*columns, strict=True):
        cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
        print("  " + "   ".join(cells).rstrip())


def mean_and_spread(values: np.ndarray) -> str:
    return f"{np.mean(values):.3f} +- {np.std(values):.3f}"


def show_classification() -> None:
    show(
        "(a) Digits: accuracy on held-out rows, mean and spread over 5 folds",
        ("input of the classifier", "logistic regression", "SVM"),
        *((name, *map(mean_and_spread, both)) for name, both in classification().items()),
    )


def show_search() -> None:
    searches = search()
    sizes = searches[0].param_grid["autoencoder__n_components"]
    scores, accuracies = (s.cv_results_["mean_test_score"] for s in searches)
    show(
        "(b) Digits: GridSearchCV over autoencoder__n_components, 3 folds",
        ("code units", "score without labels", "accuracy of logistic regression"),
        *(
            (str(k), f"{score:.4f}", f"{accuracy:.3f}")
            for k, score, accuracy in zip(sizes, scores, accuracies, strict=True)
        ),
        ("chosen", *(str(s.best_params_["autoencoder__n_components"]) for s in searches)),
    )
    print("\n  Without labels the score is minus the squared error, so the widest code wins.")


def show_detection() -> None:
    show(
        "(c) Breast cancer: trained on half of the benign tumours at contamination=0.05, 5 splits",
        ("detector", "AUROC", "held-out benign flagged", "malignant flagged"),
        *(
            (name, mean_and_spread(r[:, 0]), f"{r[:, 1].mean():.1%}", f"{r[:, 2].mean():.1%}")
            for name, r in detection().items()
        ),
    )


def show_conditions() -> None:
    show(
        "(d) Compression needs correlated features: variance kept of new rows, 16 units for 64",
        ("data", "PCA", "Autoencoder"),
        *((name, *(f"{share:.3f}" for share in kept)) for name, kept in correlation().items()),
    )
    ranges = output_ranges()
    show(
        "    A linear output takes any offset and scale: variance kept of the training rows",
        ("data", "Autoencoder"),
        *((name, f"{kept:.4f}") for name, (kept, _) in ranges.items()),
    )
    print("\n    A sigmoid output refuses both:\n")
    for name, (_, message) in ranges.items():
        print(f"  {name}: {message}")


def main() -> None:
    began = time.perf_counter()
    show_classification()
    show_search()
    show_detection()
    show_conditions()
    print(f"\n{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
