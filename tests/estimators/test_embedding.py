"""Embeddings: the lecture's J and its descent, what each term does, and what is refused."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.base import clone
from sklearn.datasets import make_swiss_roll
from sklearn.neighbors import kneighbors_graph
from torch import nn

from skae import Autoencoder, EmbeddingAutoencoder
from skae.estimators.embedding import EmbeddingObjective
from skae.losses import BinaryCrossEntropy, SquaredError
from skae.objective import Forward, Rows
from skae.pairs import PAIR_LOSSES
from skae.testing import check_objective


def quick(**changed):
    """An embedding that trains in a few milliseconds."""
    return EmbeddingAutoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "random_state": 0} | changed
    )  # fmt: skip


def same_weights(a, b, rtol):
    for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_allclose(p, q, rtol=rtol, atol=rtol)


@pytest.fixture(scope="module")
def ten():
    """Ten rows of three features."""
    return np.random.default_rng(1).normal(size=(10, 3))


# ---- the contract


@pytest.mark.parametrize("embedding", PAIR_LOSSES)
@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy()])
def test_objective_keeps_the_contract(embedding, loss):
    check_objective(
        EmbeddingObjective(loss=loss, embedding=embedding, margin=0.4, gamma=0.7, beta=0.3)
    )


def test_objective_keeps_the_contract_where_terms_are_zero():
    check_objective(EmbeddingObjective(loss=SquaredError(), gamma=0.0))
    check_objective(EmbeddingObjective(loss=SquaredError(), code_activation="tanh", beta=0.1))


def test_a_batch_without_weight_adds_no_penalty():
    objective = EmbeddingObjective(loss=SquaredError(), beta=0.3)
    h, none = torch.rand(6, 2).double(), Rows(weight=torch.zeros(6).double())
    assert float(objective.penalty(Forward(h, h, h, h, h, none), {})) == 0


# ---- the lecture's J and its loop

LAMBDA, BETA, GAMMA, RHO, L, R, EPS = 0.3, 0.2, 0.7, 0.1, 0.8, 2.0, 3.0

PHI = {
    "distance": lambda d2: np.sqrt(d2),
    "squared_distance": lambda d2: d2,
    "heat": lambda d2: np.exp(-d2 / R),
    "epsilon": lambda d2: (d2 <= EPS) * 1.0,
}
CASES = [("mds", "distance"), ("mds", "squared_distance"), ("laplacian", "heat"),
         ("laplacian", "epsilon"), ("margin", "epsilon"), ("contrastive", "epsilon")]  # fmt: skip


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def printed(embedding, h_i, h_j, phi):
    """L(h_i, h_j, phi_ij), and its gradient in h_i."""
    e = h_i - h_j
    d = np.sqrt(e @ e)
    if embedding == "laplacian":
        return d**2 * phi, 2 * e * phi
    if embedding == "mds":
        return (d - phi) ** 2, 2 * (d - phi) * e / d
    if phi == 1:
        return d**2, 2 * e
    if embedding == "margin":
        return max(0, L - d**2), -2 * e * (d**2 < L)
    return max(0, L - d) ** 2, -2 * max(0, L - d) * e / d


def lectures_J(embedding, affinity, X, W1, b1, W2, b2):
    """J_em and its gradients, by the lecture's sums over rows, features and pairs i <= j."""
    n = len(X)
    H = sigmoid(X @ W1 + b1)
    error = H @ W2 + b2 - X
    rho_hat = H.mean(0)
    J = GAMMA * (error**2).sum() + LAMBDA / 2 * ((W1**2).sum() + (W2**2).sum())
    J += BETA * (RHO * np.log(RHO / rho_hat) + (1 - RHO) * np.log((1 - RHO) / (1 - rho_hat))).sum()
    dH = 2 * GAMMA * error @ W2.T + BETA / n * (-RHO / rho_hat + (1 - RHO) / (1 - rho_hat))
    for i in range(n):
        for j in range(i, n):
            if i == j:
                continue  # a row with itself: no loss, whatever its code
            phi = PHI[affinity](((X[i] - X[j]) ** 2).sum())
            value, slope = printed(embedding, H[i], H[j], phi)
            J += value
            dH[i] += slope
            dH[j] -= slope
    dA = dH * H * (1 - H)
    return J, (X.T @ dA + LAMBDA * W1, dA.sum(0),
               2 * GAMMA * H.T @ error + LAMBDA * W2, 2 * GAMMA * error.sum(0))  # fmt: skip


def in_our_units(X, **changed):
    """The lecture's numbers for a single layer, and a starting point."""
    n, d = X.shape
    return quick(
        hidden_layer_sizes=(), activation="logistic", margin=L, r=R, eps=EPS, rho=RHO,
        gamma=2 * d * GAMMA / n, beta=2 * BETA / n**2, alpha=2 * LAMBDA / n**2,
        solver="sgd", momentum=0.0, nesterovs_momentum=False, batch_size=n, **changed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def start(ten):
    return in_our_units(ten, max_iter=1, learning_rate_init=1e-300).fit(ten)


@pytest.mark.parametrize(("embedding", "affinity"), CASES)
def test_J_is_the_lectures(ten, start, embedding, affinity):
    model = in_our_units(ten, embedding=embedding, affinity=affinity, initialize_from=start)
    J, _ = lectures_J(embedding, affinity, ten, *layers(start))
    assert model.fit(ten).loss_curve_[0] == pytest.approx(2 / len(ten) ** 2 * J, rel=1e-12)


def layers(model):
    (W1, W2), (b1, b2) = model.coefs_, model.intercepts_
    return W1, b1, W2, b2


@pytest.mark.parametrize(("embedding", "affinity"), CASES)
def test_three_steps_are_three_of_the_lectures_loop(ten, start, embedding, affinity):
    step, parameters = 0.002, layers(start)
    for _ in range(3):
        _, gradients = lectures_J(embedding, affinity, ten, *parameters)
        parameters = [p - step * g for p, g in zip(parameters, gradients, strict=True)]
    model = in_our_units(
        ten, embedding=embedding, affinity=affinity, initialize_from=start, max_iter=3,
        learning_rate_init=step * len(ten) ** 2 / 2,
    ).fit(ten)  # fmt: skip
    for got, expected, before in zip(layers(model), parameters, layers(start), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)
        assert not np.allclose(got, before, rtol=1e-3)


# ---- terms drop at zero


def term(model, X, phi):
    """The mean over pairs of MDS's loss."""
    return ((cdist(*2 * [model.transform(X)]) - phi) ** 2).mean()


def first_loss(X, **changed):
    """J at the starting weights."""
    return quick(max_iter=1, batch_size=len(X), **changed).fit(X).loss_curve_[0]


def test_each_term_drops_at_zero(X):
    untrained = quick(learning_rate_init=1e-300, solver="sgd", max_iter=1, batch_size=len(X))
    model = untrained.set_params(code_activation="logistic").fit(X)
    pairs = term(model, X, cdist(X, X))
    error = model.reconstruction_error(X).mean()
    rho_hat = model.transform(X).mean(0)
    kl = (0.05 * np.log(0.05 / rho_hat) + 0.95 * np.log(0.95 / (1 - rho_hat))).sum()
    weights = sum((W**2).sum() for W in model.coefs_)
    for gamma, beta, alpha in [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5), (2, 3, 4)]:
        first = first_loss(X, gamma=gamma, beta=beta, alpha=alpha, code_activation="logistic",
                           initialize_from=model)  # fmt: skip
        expected = pairs + gamma * error + beta * kl + alpha / 2 * weights
        assert first == pytest.approx(expected)


def test_without_reconstruction_the_decoder_is_not_trained(X):
    early, late = quick(gamma=0.0, max_iter=1).fit(X), quick(gamma=0.0, max_iter=20).fit(X)
    same = [np.array_equal(p, q) for p, q in zip(early.coefs_, late.coefs_, strict=True)]
    assert same == [False, False, True, True]


def test_without_pairs_it_is_the_plain_autoencoder(X):
    """One row, or no affinities at all: the term is 0."""
    none = sp.csr_matrix((len(X), len(X)))
    model = quick(embedding="laplacian", affinity="precomputed", hidden_layer_sizes=(4,))
    plain = Autoencoder(n_components=2, hidden_layer_sizes=(4,), max_iter=3, tol=None,
                        random_state=0).fit(X)  # fmt: skip
    same_weights(model.fit(X, affinity_matrix=none), plain, rtol=0)
    assert quick().fit(X[:1]).loss_curve_[0] == pytest.approx(
        clone(plain).fit(X[:1]).loss_curve_[0]
    )


# ---- what an embedding does


@pytest.fixture(scope="module")
def roll():
    """A swiss roll, and the lengths of shortest paths along it."""
    X, _ = make_swiss_roll(300, random_state=0)
    graph = kneighbors_graph(X, 5, mode="distance")  # six would leap from one turn to the next
    return X, shortest_path(graph, directed=False)


def test_mds_distances_are_the_geodesics_of_a_swiss_roll(roll):
    X, geodesics = roll
    model = EmbeddingAutoencoder(
        n_components=2, affinity="geodesic", n_neighbors=5, activation="tanh", gamma=0.1,
        solver="lbfgs", max_iter=200, tol=None, random_state=0,
    ).fit(X)  # fmt: skip
    distances = pdist(model.transform(X))
    geodesics = squareform(geodesics, checks=False)
    assert np.corrcoef(distances, geodesics)[0, 1] > 0.95
    assert np.corrcoef(pdist(X), geodesics)[0, 1] < 0.8


def test_laplacian_with_reconstruction_does_not_collapse(X):
    """Where without it all codes go to one point."""
    changed = {"embedding": "laplacian", "solver": "lbfgs", "max_iter": 300}
    alone = quick(gamma=0.0, **changed).fit(X).transform(X).std(0).max()
    assert alone < 1e-3 * quick(gamma=1.0, **changed).fit(X).transform(X).std(0).max()


@pytest.mark.parametrize("embedding", ["margin", "contrastive"])
def test_distinct_rows_separate_by_the_margin(ten, embedding):
    """Also from nearly coincident codes, where the hinge of squared distances hardly pushes."""
    model = quick(
        embedding=embedding, eps=1e-3, gamma=0.0, margin=0.25, n_components=6, solver="lbfgs",
        hidden_layer_sizes=(30,), activation="tanh", max_iter=300,
    )  # fmt: skip
    start = clone(model).set_params(max_iter=1, solver="sgd", learning_rate_init=1e-300).fit(ten)
    last = start.encoder_[-1]
    with torch.no_grad():
        last.weight.mul_(1e-3)
    assert pdist(start.transform(ten)).max() < 0.02
    apart = 0.5 if embedding == "margin" else 0.25  # a squared distance, a distance
    codes = model.set_params(initialize_from=start).fit(ten).transform(ten)
    assert pdist(codes).min() > 0.95 * apart


def test_margin_draws_equal_rows_together(ten):
    X = np.vstack([ten, ten + 1e-4])
    model = quick(embedding="margin", eps=1e-3, gamma=0.0, solver="lbfgs", max_iter=200,
                  n_components=6, hidden_layer_sizes=(30,)).fit(X)  # fmt: skip
    codes = model.transform(X)
    assert np.linalg.norm(codes[:10] - codes[10:], axis=1).max() < 0.01
    assert pdist(codes[:10]).min() > 0.9


def test_sparsity_draws_mean_activations_to_rho(X):
    def activity(beta):
        model = quick(beta=beta, rho=0.2, code_activation="logistic", solver="lbfgs", max_iter=100)
        return model.fit(X).transform(X).mean(0)

    assert np.abs(activity(1e4) - 0.2).max() < 0.01 < np.abs(activity(0.0) - 0.2).max()


# ---- weights and batches


@pytest.mark.parametrize(
    ("embedding", "affinity"), [*CASES, ("mds", "precomputed"), ("laplacian", "callable")]
)
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_integer_weights_are_repeated_rows(ten, embedding, affinity, solver):
    w = np.array([0, 1, 2, 3, 1, 1, 0, 2, 1, 4])
    again = np.repeat(ten, w, axis=0)
    phi = (lambda Z: np.exp(-cdist(Z, Z))) if affinity == "callable" else affinity
    model = quick(embedding=embedding, affinity=phi, r=R, eps=EPS, solver=solver,
                  learning_rate_init=1e-2, beta=0.1, code_activation="logistic")  # fmt: skip
    known = [{"affinity_matrix": cdist(Z, Z)} if affinity == "precomputed" else {}
             for Z in (ten, again)]  # fmt: skip
    weighted = clone(model).fit(ten, sample_weight=w, **known[0])
    same_weights(weighted, clone(model).fit(again, **known[1]), rtol=1e-7)


def near(X):
    """A sparse matrix of similarities."""
    graph = kneighbors_graph(X, 3)
    return graph.maximum(graph.T)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("embedding", ["mds", "laplacian", "margin"])
def test_batches_have_on_average_the_loss_of_all_pairs(X, embedding, weighted):
    """Of a graph exactly, but for pairs with phi = 0; of a matrix but for (1 - 1/b) / (1 - 1/n)."""
    n, b = len(X), 12
    w = np.linspace(0.2, 1.8, n) if weighted else None
    model = quick(embedding=embedding, n_neighbors=5, gamma=0.0, solver="sgd", max_iter=1,
                  affinity="auto" if embedding == "mds" else "knn",
                  learning_rate_init=1e-300)  # fmt: skip
    whole = clone(model).set_params(batch_size=n).fit(X, sample_weight=w).loss_
    curve = clone(model).set_params(batch_size=b, max_iter=400).fit(X, sample_weight=w).loss_curve_
    factor = (1 - 1 / b) / (1 - 1 / n)
    if embedding == "laplacian":
        factor = 1
    elif embedding == "margin":  # between the two
        factor = np.mean(curve) / whole
        assert (1 - 1 / b) / (1 - 1 / n) < factor < 1.02
    error = np.std(curve) / np.sqrt(len(curve))
    assert abs(np.mean(curve) - factor * whole) < 4 * error


def test_neighbours_along_have_no_weight_in_the_reconstruction(X):
    """With phi of next to nothing: what is left is the plain autoencoder's loss."""
    model = quick(embedding="laplacian", affinity="precomputed", batch_size=12, solver="sgd",
                  learning_rate_init=1e-300, alpha=0.1)  # fmt: skip
    w = np.linspace(0.2, 1.8, len(X))
    fitted = model.fit(X, sample_weight=w, affinity_matrix=1e-12 * near(X))
    weights = sum((W**2).sum() for W in fitted.coefs_)
    expected = -fitted.score(X, sample_weight=w) + 0.05 * weights
    np.testing.assert_allclose(fitted.loss_curve_, expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [12, 60])
def test_neighbours_are_drawn_together_and_rows_still_reconstructed(X, batch_size):
    edges = near(X).tocoo()

    def fitted(gamma):
        return quick(embedding="laplacian", affinity="knn", n_neighbors=3, gamma=gamma,
                     max_iter=300, learning_rate_init=0.01, hidden_layer_sizes=(),
                     activation="identity", batch_size=batch_size).fit(X)  # fmt: skip

    def apart(model):
        Z = model.transform(X)
        return ((Z[edges.row] - Z[edges.col]) ** 2).sum(1).mean()

    assert apart(fitted(1e-2)) < 0.2 * apart(fitted(1e6))
    assert -fitted(1e-2).score(X) < 0.1 * X.var(0).mean()


@pytest.mark.parametrize("affinity", ["distance", "geodesic", "precomputed"])
@pytest.mark.parametrize("changed", [{"batch_size": 16}, {"early_stopping": True}, {}])
def test_a_matrix_is_the_affinity_it_holds(X, affinity, changed, monkeypatch):
    """The same training, whether phi is named, given, or computed batch by batch."""
    named = {"affinity": "distance" if affinity == "precomputed" else affinity, "n_neighbors": 30}
    model = quick(**named | changed).fit(X)
    graph = kneighbors_graph(X, 30, mode="distance")
    phi = shortest_path(graph, directed=False) if affinity == "geodesic" else cdist(X, X)
    given = quick(affinity="precomputed", **changed).fit(X, affinity_matrix=phi)
    monkeypatch.setattr("skae.affinities._DENSE_ROWS", 0)
    lazy = quick(**named | changed).fit(X)
    same_weights(model, given, rtol=1e-8)
    same_weights(model, lazy, rtol=1e-8)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_graph_given_is_the_graph_found(X, early_stopping):
    changed = {"embedding": "margin", "batch_size": 16, "early_stopping": early_stopping}
    found = quick(affinity="knn", n_neighbors=3, **changed).fit(X)
    given = quick(affinity="precomputed", **changed).fit(X, affinity_matrix=near(X))
    same_weights(found, given, rtol=0)
    called = quick(affinity=near, **changed).fit(X)
    same_weights(found, called, rtol=0)
    assert called.affinity_ == "callable"


def test_sparse_rows_are_the_dense_ones(X):
    for affinity in ("distance", "geodesic"):
        model = quick(affinity=affinity, batch_size=16)
        same_weights(clone(model).fit(sp.csr_matrix(X)), model.fit(X), rtol=1e-9)


def test_partial_fit_goes_on_with_the_pairs_of_its_rows(X):
    model = quick(embedding="margin", affinity="knn", n_neighbors=3, batch_size=16)
    for rows in (X[:30], X[30:]):
        model.partial_fit(rows)
    with pytest.warns(UserWarning, match=r"n_neighbors=3 .*: 0 are used"):
        model.partial_fit(X[:1])
    assert model.n_iter_ == 3


def test_fit_of_2k_epochs_is_two_of_k(X):
    model = quick(embedding="laplacian", affinity="knn", n_neighbors=3, batch_size=16)
    once = clone(model).set_params(max_iter=6).fit(X)
    twice = clone(model).set_params(warm_start=True).fit(X).fit(X)
    same_weights(once, twice, rtol=0)


# ---- numbers from the data, stopping


def test_numbers_in_use_can_be_seen(X):
    d2 = cdist(X, X, "sqeuclidean")
    median = np.median(np.sqrt(d2[np.triu_indices(len(X), 1)])) ** 2
    heat = quick(embedding="laplacian").fit(X)
    assert (heat.affinity_, heat.affinity_numbers_) == ("heat", {"r": pytest.approx(median)})
    assert quick(embedding="laplacian", r=3.0).fit(X).affinity_numbers_ == {"r": 3.0}
    assert set(quick(embedding="margin").fit(X).affinity_numbers_) == {"eps"}
    assert quick(affinity="geodesic").fit(X).affinity_numbers_ == {"n_neighbors": 10}
    assert quick().fit(X).affinity_numbers_ == {}


@pytest.mark.parametrize("changed", [{"solver": "lbfgs"}, {"learning_rate_init": 0.03}])
def test_training_stops_where_the_gradient_vanishes(X, changed):
    model = quick(max_iter=3000, tol=1e-3, n_iter_no_change=10**6, batch_size=len(X), **changed)
    stopped = model.fit(X)
    assert stopped.stop_reason_ == "gradient"
    assert stopped.n_iter_ < 3000
    assert clone(model).set_params(tol=None, max_iter=5).fit(X).stop_reason_ == "max_iter"


def test_training_stops_where_the_loss_settles(X):
    model = quick(max_iter=3000, tol=0.3, n_iter_no_change=2, batch_size=len(X))
    assert model.fit(X).stop_reason_ == "converged"


def test_a_batch_has_no_say_on_the_gradient(X):
    model = quick(max_iter=5, tol=1e6, n_iter_no_change=10, batch_size=16)
    assert model.fit(X).stop_reason_ == "max_iter"
    assert model.set_params(batch_size=60).fit(X).stop_reason_ == "gradient"


# ---- refusals


@pytest.mark.parametrize(
    ("embedding", "affinity", "reason"),
    [
        ("laplacian", "distance", "far rows would be drawn together most"),
        ("laplacian", "geodesic", "Use 'heat', 'epsilon' or 'knn'"),
        ("mds", "heat", "not with a similarity"),
        ("mds", "knn", "Use 'distance'"),
        ("margin", "heat", "attracts where phi is 1"),
        ("contrastive", "distance", "Use 'epsilon' or 'knn'"),
    ],
)
def test_affinities_that_make_no_sense_are_refused(X, embedding, affinity, reason):
    message = rf"embedding='{embedding}' cannot use affinity='{affinity}': .*{reason}"
    with pytest.raises(ValueError, match=message):
        quick(embedding=embedding, affinity=affinity).fit(X)


def test_matrices_that_make_no_sense_are_refused(X):
    n = len(X)
    margin = quick(embedding="margin", affinity="precomputed")
    with pytest.raises(ValueError, match="0 and 1 only for a margin"):
        margin.fit(X, affinity_matrix=np.full((n, n), 0.5))
    with pytest.raises(ValueError, match=r"affinity_matrix is sparse"):
        quick(affinity="precomputed").fit(X, affinity_matrix=near(X))
    with pytest.raises(ValueError, match=r"The matrix of affinity must be of shape \(60, 60\)"):
        quick(affinity=lambda X: np.eye(3)).fit(X)


def test_a_matrix_belongs_to_precomputed(X):
    with pytest.raises(ValueError, match=r"affinity='precomputed' needs fit\(X, affinity_matrix"):
        quick(affinity="precomputed").fit(X)
    with pytest.raises(ValueError, match="partial_fit takes none"):
        quick(affinity="precomputed").partial_fit(X)
    with pytest.raises(ValueError, match="affinity_matrix is given, but affinity='distance'"):
        quick().fit(X, affinity_matrix=cdist(X, X))


@pytest.mark.parametrize("changed", [{}, {"code_activation": "relu"}, {"hidden_layer_sizes": ()}])
def test_sparsity_of_an_unbounded_code_is_refused(X, changed):
    message = r"beta=0\.1 compares .* activations have no bounds, .*'tanh', or beta=0\."
    with pytest.raises(ValueError, match=message):
        quick(beta=0.1, **changed).fit(X)


def test_sparsity_of_a_module_of_ones_own_takes_the_activation_that_it_ends_with(X):
    linear = nn.Linear(X.shape[1], 2).double()
    model = quick(beta=1e4, rho=0.2, solver="lbfgs", max_iter=100)
    with pytest.raises(ValueError, match=r"'tanh', whichever your encoder ends with, or beta=0"):
        clone(model).set_params(encoder=linear).fit(X)
    with pytest.raises(ValueError, match=r"needs codes in \[0, 1\], but encoder gives"):
        clone(model).set_params(encoder=linear, code_activation="logistic").fit(X)
    for name, end, low in (("logistic", nn.Sigmoid(), 0), ("tanh", nn.Tanh(), -1)):
        own = nn.Sequential(linear, end)
        codes = clone(model).set_params(encoder=own, code_activation=name).fit(X).transform(X)
        np.testing.assert_allclose((codes.mean(0) - low) / (1 - low), 0.2, atol=0.01)


def test_a_refusal_leaves_the_estimator_as_it_was(X):
    model = quick().fit(X)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="symmetric"):
        model.set_params(affinity="precomputed").fit(X, affinity_matrix=np.triu(cdist(X, X)))
    assert vars(model) == before | {"affinity": "precomputed"}
