"""Callbacks for scikit-learn >= 1.9: early stopping on any metric, and snapshots to go on from.

They are set on an estimator by ``set_callbacks`` and follow scikit-learn's protocol, so that any
estimator that tells of its epochs or iterations takes them. Older versions of scikit-learn have no
callbacks: there the module can be imported, but making one raises ImportError.
"""

from skae.callbacks._early_stopping import EarlyStopping
from skae.callbacks._snapshot import Snapshot

__all__ = ["EarlyStopping", "Snapshot"]
