"""What must hold on a CUDA device; skipped where there is none."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skae import Autoencoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

X = (load_digits().data / 16).astype(np.float32)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_training_on_the_gpu_reaches_the_loss_of_the_cpu(solver):
    fits = {
        device: Autoencoder(solver=solver, max_iter=30, tol=None, random_state=0, device=device)
        for device in ("cpu", "cuda")
    }
    losses = [fit.fit(X).loss_ for fit in fits.values()]
    np.testing.assert_allclose(*losses, rtol=0.05)


def test_results_are_numpy_arrays_on_the_cpu():
    model = Autoencoder(max_iter=2, random_state=0, device="cuda").fit(X)
    assert next(model.encoder_.parameters()).is_cuda
    assert isinstance(model.transform(X), np.ndarray)
    np.testing.assert_allclose(model.reconstruct(X), model.to("cpu").reconstruct(X), atol=1e-4)


def test_pickles_hold_cpu_tensors():
    model = Autoencoder(max_iter=2, random_state=0, device="cuda").fit(X)
    loaded = pickle.loads(pickle.dumps(model))
    assert not next(loaded.encoder_.parameters()).is_cuda
    np.testing.assert_allclose(loaded.transform(X), model.transform(X), atol=1e-4)


def test_resume_is_bit_exact_on_the_gpu():
    options = {"dropout": 0.2, "tol": None, "random_state": 0, "device": "cuda"}
    whole = Autoencoder(max_iter=6, **options).fit(X)
    parts = Autoencoder(max_iter=3, warm_start=True, **options).fit(X).fit(X)
    assert whole.loss_curve_ == parts.loss_curve_
