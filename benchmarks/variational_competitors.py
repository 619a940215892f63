"""The same variational autoencoder trained by skae and by its peers.

Every function trains one network: ReLU hidden layers, a Gaussian code with one draw for each row
(or S, of the importance-weighted bound), the divergence in closed form, Adam with its usual
constants, the rows in a new order every epoch, no early stopping. All start from the weights that
skae draws for the seed. Only the call that trains is timed. The quality of all is one number,
computed alike: the negative bound on the training data after training, in nats, with the same
draws.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skae import Autoencoder, ImportanceWeightedAutoencoder, VariationalAutoencoder

_DRAWS = 16  # of every row, in the bound that is compared
LEARNED = "gaussian, learned"


@dataclass(frozen=True)
class Task:
    """What to train, and for how long."""

    X: np.ndarray  # (n, d) float32
    likelihood: str  # "bernoulli", "gaussian" of variance 1, or "gaussian, learned"
    width: int  # of the hidden layer on either side
    code: int
    batch_size: int
    epochs: int
    samples: int = 1  # of the importance-weighted bound
    learning_rate: float = 1e-3

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return self.epochs * math.ceil(len(self.X) / self.batch_size)


class Fitted(NamedTuple):
    """The seconds of training, and the negative bound on the training data in nats."""

    seconds: float
    bound: float


Competitor = Callable[[Task, int], Fitted]


class Vae(nn.Module):
    """The model as most people write it."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, task: Task):
        super().__init__()
        self.encoder, self.decoder, self.samples = encoder, decoder, task.samples
        self.is_bernoulli = task.likelihood == "bernoulli"
        self.log_variance = nn.Parameter(torch.zeros(()), task.likelihood == LEARNED)

    def forward(self, x: Tensor) -> Tensor:
        """The negative bound, mean over rows."""
        mean, log_var = self.encoder(x).chunk(2, -1)
        if self.samples > 1:
            return self.importance_weighted(x, mean, log_var)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()
        return (self.nll(self.decoder(z), x, "sum") + kl) / len(x)

    def importance_weighted(self, x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """That of S codes, shape (S, n, k)."""
        epsilon = torch.randn(self.samples, *mean.shape)
        z = mean + torch.exp(0.5 * log_var) * epsilon
        raw = self.decoder(z)
        log_ratio = 0.5 * (epsilon.square() + log_var - z.square()).sum(-1)
        log_w = log_ratio - self.nll(raw, x.expand_as(raw), "none").sum(-1)
        return math.log(self.samples) - torch.logsumexp(log_w, 0).mean()

    def nll(self, raw: Tensor, x: Tensor, reduction: str) -> Tensor:
        """-log p(x | z)."""
        if self.is_bernoulli:
            return F.binary_cross_entropy_with_logits(raw, x, reduction=reduction)
        halves = 0.5 * F.mse_loss(raw, x, reduction=reduction)
        if not self.log_variance.requires_grad:
            return halves
        share = x.numel() if reduction == "sum" else 1
        return halves * torch.exp(-self.log_variance) + 0.5 * share * self.log_variance


def skae_model(task: Task, seed: int) -> Fitted:
    """This package."""
    model = _estimator(task, seed)
    seconds = _timed(model.fit, task.X)
    return Fitted(seconds, _bound(task, model.encoder_, model.decoder_, _variance(task, model)))


def plain_autoencoder(task: Task, seed: int) -> Fitted:
    """This package's `Autoencoder` with the same layers, for what randomness costs."""
    loss = "binary_cross_entropy" if task.likelihood == "bernoulli" else "squared_error"
    model = Autoencoder(loss=loss, code_activation="identity", **_shared(task, seed))
    return Fitted(_timed(model.fit, task.X), math.nan)


def torch_loop(task: Task, seed: int) -> Fitted:
    """The loop that most people write, with rows taken by a permutation."""
    return _looped(_loop, task, seed)


def torch_loop_tuned(task: Task, seed: int) -> Fitted:
    """The loop of someone who tunes: Adam in one kernel, rows shuffled once an epoch."""
    return _looped(_tuned_loop, task, seed)


def _loop(model: Vae, task: Task) -> None:
    X = torch.from_numpy(task.X)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate)
    for _ in range(task.epochs):
        for index in torch.randperm(len(X)).split(task.batch_size):
            loss = model(X[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _tuned_loop(model: Vae, task: Task) -> None:
    X = torch.from_numpy(task.X)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.learning_rate, fused=True)
    for _ in range(task.epochs):
        for x in X[torch.randperm(len(X))].split(task.batch_size):
            loss = model(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _looped(loop: Callable[[Vae, Task], None], task: Task, seed: int) -> Fitted:
    torch.manual_seed(seed)
    model = Vae(*_start(task, seed), task)
    seconds = _timed(loop, model, task)
    variance = float(model.log_variance.exp())
    return Fitted(seconds, _bound(task, model.encoder, model.decoder, variance))


def pythae_vae(task: Task, seed: int) -> Fitted:
    """pythae's VAE and trainer; its loss of a fixed variance is that of variance 1.

    Its logger is quietened and its progress bar off; it copies the model after every epoch that is
    better, and saves the last copy.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, layers: nn.Module):
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.layers(x).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self, layers: nn.Module):
            super().__init__()
            self.layers = layers

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z))

    logging.getLogger("pythae").setLevel(logging.ERROR)
    is_bernoulli = task.likelihood == "bernoulli"
    encoder, decoder = _start(task, seed)
    ended = nn.Sequential(decoder, nn.Sigmoid()) if is_bernoulli else decoder
    config = VAEConfig(
        input_dim=(task.X.shape[1],), latent_dim=task.code,
        reconstruction_loss="bce" if is_bernoulli else "mse",
    )  # fmt: skip
    model = VAE(config, Encoder(encoder), Decoder(ended))
    X = torch.from_numpy(task.X)
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder, num_epochs=task.epochs, learning_rate=task.learning_rate,
            per_device_train_batch_size=task.batch_size, optimizer_cls="Adam", no_cuda=True,
            seed=seed,
        )  # fmt: skip
        trainer = BaseTrainer(model, BaseDataset(X, torch.ones(len(X))), training_config=training)
        seconds = _timed(trainer.train)
    return Fitted(seconds, _bound(task, encoder, decoder, 1.0))


COMPETITORS: dict[str, Competitor] = {
    "skae": skae_model,
    "torch loop": torch_loop,
    "torch loop, tuned": torch_loop_tuned,
    "pythae": pythae_vae,
    "plain autoencoder": plain_autoencoder,
}


def _shared(task: Task, seed: int) -> dict[str, Any]:
    return {
        "n_components": task.code,
        "hidden_layer_sizes": (task.width,),
        "activation": "relu",
        "learning_rate_init": task.learning_rate,
        "batch_size": task.batch_size,
        "max_iter": task.epochs,
        "tol": None,
        "random_state": seed,
    }


def _estimator(task: Task, seed: int) -> Any:
    name, _, learned = task.likelihood.partition(", ")
    given = _shared(task, seed) | {"likelihood": name}
    if name == "gaussian":
        given["variance"] = "shared" if learned else 1.0
    if task.samples == 1:
        return VariationalAutoencoder(**given)
    return ImportanceWeightedAutoencoder(n_importance_samples=task.samples, **given)


def _variance(task: Task, model: Any) -> float:
    return 1.0 if task.likelihood == "bernoulli" else float(model.noise_variance_)


def _start(task: Task, seed: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder as skae starts from them."""
    # Steps that are lost in rounding leave the weights where they are.
    model = _estimator(task, seed).set_params(max_iter=1, learning_rate_init=1e-30).fit(task.X)
    return copy.deepcopy(model.encoder_), copy.deepcopy(model.decoder_)


def _bound(task: Task, encoder: nn.Module, decoder: nn.Module, variance: float) -> float:
    """The negative bound of the training data, of draws that are the same for all."""
    X, generator = torch.from_numpy(task.X), torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean, log_var = encoder(X).chunk(2, -1)
        log_w = []
        for _ in range(_DRAWS * task.samples):
            epsilon = torch.randn(mean.shape, generator=generator)
            z = mean + torch.exp(0.5 * log_var) * epsilon
            log_ratio = 0.5 * (epsilon.square() + log_var - z.square()).sum(-1)
            log_w.append(log_ratio + _log_p(task, decoder(z), X, variance))
        sets = torch.stack(log_w).unflatten(0, (_DRAWS, task.samples))
        return math.log(task.samples) - float(torch.logsumexp(sets, 1).mean())


def _log_p(task: Task, raw: Tensor, X: Tensor, variance: float) -> Tensor:
    """log p(x | z) of every row, constants included."""
    if task.likelihood == "bernoulli":
        return -F.binary_cross_entropy_with_logits(raw, X, reduction="none").sum(-1)
    constant = 0.5 * X.shape[1] * math.log(2 * math.pi * variance)
    return -(raw - X).square().sum(-1) / (2 * variance) - constant


def _timed(function: Callable[..., Any], *args: Any) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began
