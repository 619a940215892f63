"""The same autoencoder, d - width - d, trained by skae and by its peers.

Every function trains one network: a ReLU hidden layer, a linear output, squared error, Adam with
its usual constants, the rows in a new order every epoch, no penalty and no early stopping. All
start from the weights that skae draws for the seed. Only the call that trains is timed. The quality
of all is one number, computed alike: the mean squared error over the cells of the training data,
after training.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from torch import nn

from skae import Autoencoder


@dataclass(frozen=True)
class Task:
    """What to train, and for how long."""

    X: np.ndarray  # (n, d) float32
    width: int  # of the hidden layer
    batch_size: int
    epochs: int
    learning_rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return self.epochs * math.ceil(len(self.X) / self.batch_size)


class Fitted(NamedTuple):
    """A trained model, the seconds it took, and its mean squared error on the training data."""

    model: Any
    seconds: float
    loss: float


Competitor = Callable[[Task, int], Fitted]


def skae_float32(task: Task, seed: int) -> Fitted:
    """This package."""
    model = _autoencoder(task, seed)
    seconds = _timed(model.fit, task.X)
    return Fitted(model, seconds, _loss(task.X, model.reconstruct(task.X)))


def skae_bfloat16(task: Task, seed: int) -> Fitted:
    """This package, multiplying matrices in bfloat16."""
    model = _autoencoder(task, seed).set_params(precision="bfloat16")
    seconds = _timed(model.fit, task.X)
    return Fitted(model, seconds, _loss(task.X, model.reconstruct(task.X)))


def sklearn_mlp(task: Task, seed: int) -> Fitted:
    """scikit-learn's MLPRegressor, fitted to its own input."""
    model = MLPRegressor(
        hidden_layer_sizes=(task.width,),
        alpha=0.0,
        learning_rate_init=task.learning_rate,
        batch_size=task.batch_size,
        max_iter=1,
        tol=0.0,
        n_iter_no_change=task.epochs + 1,
        warm_start=True,  # from the weights that are put in place below
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # all epochs are wanted
        model.fit(task.X, task.X).set_params(max_iter=task.epochs)
        model.coefs_, model.intercepts_ = _start(task, seed)
        seconds = _timed(model.fit, task.X, task.X)
    return Fitted(model, seconds, _loss(task.X, model.predict(task.X)))


def torch_loop(task: Task, seed: int) -> Fitted:
    """The loop that most people write, with rows taken by a permutation.

    That is quicker than a DataLoader over a TensorDataset, which collates row by row.
    """
    model = _network(task, seed)
    seconds = _timed(_loop, model, task)
    return Fitted(model, seconds, _loss(task.X, _predicted(model, task.X)))


def torch_loop_autocast(task: Task, seed: int) -> Fitted:
    """The same loop under torch's own mixed precision, bfloat16."""
    model = _network(task, seed)
    # Its cache of cast weights would outlive the steps that change them.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        seconds = _timed(_loop, model, task)
    return Fitted(model, seconds, _loss(task.X, _predicted(model, task.X)))


def _loop(model: nn.Module, task: Task) -> None:
    X = torch.from_numpy(task.X)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    for _ in range(task.epochs):
        for index in torch.randperm(len(X)).split(task.batch_size):
            x = X[index]
            loss = nn.functional.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def torch_loop_tuned(task: Task, seed: int) -> Fitted:
    """The loop of someone who tunes: Adam in one kernel, rows shuffled once an epoch."""
    model = _network(task, seed)
    seconds = _timed(_tuned_loop, model, task)
    return Fitted(model, seconds, _loss(task.X, _predicted(model, task.X)))


def _tuned_loop(model: nn.Module, task: Task) -> None:
    X = torch.from_numpy(task.X)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    for _ in range(task.epochs):
        for x in X[torch.randperm(len(X))].split(task.batch_size):
            loss = nn.functional.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def skorch_regressor(task: Task, seed: int) -> Fitted:
    """skorch's NeuralNetRegressor, without its validation split."""
    from skorch import NeuralNetRegressor

    model = NeuralNetRegressor(
        _network(task, seed),
        criterion=nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=task.learning_rate,
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    seconds = _timed(model.fit, task.X, task.X)
    return Fitted(model, seconds, _loss(task.X, model.predict(task.X)))


def pyod_autoencoder(task: Task, seed: int) -> Fitted:
    """PyOD's AutoEncoder with its additions off: scaling, batch norm, dropout, weight decay.

    It leaves out an epoch's last rows where they do not fill a batch: it gets the epochs that make
    as many steps as the others take. Its fit ends with one pass that scores the training data.
    """
    from pyod.models.auto_encoder import AutoEncoder

    class Started(AutoEncoder):
        def build_model(self) -> None:
            super().build_model()
            _put(self.model, *_start(task, seed))

    model = Started(
        preprocessing=False,
        batch_norm=False,
        dropout_rate=0.0,
        optimizer_params={"weight_decay": 0.0},
        hidden_neuron_list=[task.width],
        hidden_activation_name="relu",
        lr=task.learning_rate,
        epoch_num=round(task.steps / (len(task.X) // task.batch_size)),
        batch_size=task.batch_size,
        device=torch.device("cpu"),
        random_state=seed,
        verbose=0,
    )
    seconds = _timed(model.fit, task.X)
    return Fitted(model, seconds, _loss(task.X, _predicted(model.model, task.X)))


COMPETITORS: dict[str, Competitor] = {
    "skae": skae_float32,
    "skae, bfloat16": skae_bfloat16,
    "scikit-learn MLPRegressor": sklearn_mlp,
    "torch loop": torch_loop,
    "torch loop, tuned": torch_loop_tuned,
    "torch loop, autocast": torch_loop_autocast,
    "skorch": skorch_regressor,
    "PyOD": pyod_autoencoder,
}


def _autoencoder(task: Task, seed: int) -> Autoencoder:
    return Autoencoder(
        n_components=task.width,
        hidden_layer_sizes=(),
        activation="relu",
        learning_rate_init=task.learning_rate,
        batch_size=task.batch_size,
        max_iter=task.epochs,
        tol=None,
        random_state=seed,
    )


def _start(task: Task, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights and biases that skae starts from, as scikit-learn's MLP has them."""
    # Steps that are lost in rounding leave them where they are.
    model = _autoencoder(task, seed).set_params(max_iter=1, learning_rate_init=1e-30).fit(task.X)
    return [np.ascontiguousarray(W) for W in model.coefs_], [b.copy() for b in model.intercepts_]


def _network(task: Task, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    d = task.X.shape[1]
    network = nn.Sequential(nn.Linear(d, task.width), nn.ReLU(), nn.Linear(task.width, d))
    _put(network, *_start(task, seed))
    return network


def _put(network: nn.Module, coefs: list[np.ndarray], intercepts: list[np.ndarray]) -> None:
    """Give the linear layers these weights and biases."""
    linears = [part for part in network.modules() if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for linear, W, b in zip(linears, coefs, intercepts, strict=True):
            linear.weight.copy_(torch.from_numpy(W.T))
            linear.bias.copy_(torch.from_numpy(b))


def _predicted(network: nn.Module, X: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(X)).numpy()


def _loss(X: np.ndarray, X_hat: np.ndarray) -> float:
    return float(np.mean((X_hat.astype(np.float64) - X) ** 2))


def _timed(function: Callable[..., Any], *args: Any) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began
