"""An ensemble of denoisers of scaled rows, and its score; networks of it trained in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skae._engine.batches import Drawn, Scaled, Source
from skae._engine.rng import Streams
from skae._engine.start import moments, place, starting_values
from skae._engine.train import Training, stacked_parameters, train
from skae.estimators._scaling import View
from skae.modules import DenseModule, chained, infer
from skae.networks import Dense, Network
from skae.objective import Objective, Rows, stack

_CELLS = 2**21  # of the widest layer, scored at a time
_EXACT = 1e-12  # in variances of a feature: a smaller error is rounding


class Member(NamedTuple):
    """A denoiser, and what of the training data it was made from."""

    denoiser: Any  # a torch module or a kernel denoiser
    view: int  # of the features: its place in the ensemble's views
    columns: Tensor  # (q,) the features that it sees
    rows: np.ndarray  # the training rows that it saw

    def __call__(self, x: Tensor) -> Tensor:
        """Reconstructions, (n, q), of its features of rows of shape (n, d) in its view."""
        seen = x[:, self.columns]
        if isinstance(self.denoiser, DenseModule):
            return infer(self.denoiser, seen)
        return self.denoiser(seen)

    @property
    def is_network(self) -> bool:
        """Whether it was trained."""
        return isinstance(self.denoiser, DenseModule)

    @property
    def widest(self) -> int:
        """The largest number of cells that a row comes to on the way."""
        stored = self.denoiser
        stored = stored.parameters() if isinstance(stored, DenseModule) else [stored.prototypes]
        return max(p.shape[0] for p in stored)


class Ensemble:
    """Denoisers whose errors are averaged as logarithms.

    With e_k(x) the mean squared error of member k over the features of x that it sees and that
    are not missing, and m_k its median over the training rows, the score of a row is
    ``-mean_k log(e_k(x) / m_k)``: the geometric mean, which no single member's scale decides.

    What leaves the range of the training rows is shown to the members at the end of the range,
    and counts with its whole distance, so that a wild value is an error of its own feature and not
    of all.
    """

    def __init__(self, views: Sequence[View], members: Sequence[Member], units: Sequence[float]):
        self.views, self.members = list(views), list(members)
        self.exact = [_EXACT * unit**2 for unit in units]  # of every view
        self.log_medians = torch.zeros(len(self.members), dtype=torch.float64)

    @property
    def widest(self) -> int:
        """The largest number of cells that a row comes to on the way."""
        return max(len(self.views[0].low), *(member.widest for member in self.members))

    def seen(self, X: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Rows in every view that a member has, as they are and as they are shown."""
        used = {member.view for member in self.members}
        each = [view.forward(X) if i in used else X for i, view in enumerate(self.views)]
        return [(x, view.within(x)) for x, view in zip(each, self.views, strict=True)]

    def squares(self, X: Tensor, are_known: bool = False) -> Iterator[Tensor]:
        """Squared errors of every member in turn, (n, q) in its view; NaN where X is.

        With `are_known` they are training rows, which are shown to networks in the range of the
        others. (A kernel denoiser has to recognise a row that it stores.)
        """
        views = self.seen(X)
        of_networks = views[0]
        if are_known:
            x, _ = views[0]
            of_networks = x, self.views[0].without_one_row().within(x)
        for member in self.members:
            x, seen = of_networks if member.is_network else views[member.view]
            yield member(seen).sub_(x[:, member.columns]).square_()

    def log_errors(self, X: Tensor, are_known: bool = False) -> Tensor:
        """log(e_k / m_k) of all members, (n, n_members); NaN where a member sees no value."""
        both = zip(self.members, self.squares(X, are_known), strict=True)
        logs = [self._log(member, squares) for member, squares in both]
        return torch.stack(logs, -1) - self.log_medians

    def _log(self, member: Member, squares: Tensor) -> Tensor:
        return torch.log(squares.nanmean(-1) + self.exact[member.view])

    def scores(self, X: Tensor) -> Tensor:
        """Scores of shape (n,)."""
        return -self.log_errors(X).nanmean(-1)

    def cells(self, X: Tensor) -> Tensor:
        """Errors by feature, (n, d): their mean over the observed ones is exp(-score).

        A feature's share in them is the mean of its shares in the members' errors.
        """
        share, logs = torch.zeros_like(X), []
        for member, squares in zip(self.members, self.squares(X), strict=True):
            logs.append(self._log(member, squares))
            exact = self.exact[member.view]
            squares = squares.nan_to_num(nan=0.0) + exact * squares.isfinite()
            own = squares / squares.sum(-1, keepdim=True).clamp(min=exact)
            share.index_add_(-1, member.columns, own)
        share /= share.sum(-1, keepdim=True)
        mean = (torch.stack(logs, -1) - self.log_medians).nanmean(-1, keepdim=True)
        observed = X.isfinite()
        cells = mean.exp() * share * observed.sum(-1, keepdim=True)
        return cells.masked_fill(~observed, torch.nan)

    def reconstructions(self, X: Tensor) -> Tensor:
        """The mean of the members' reconstructions of each feature, (n, d) in the units of X."""
        views = self.seen(X)
        total, count = torch.zeros_like(X), torch.zeros(X.shape[1], dtype=X.dtype)
        for member in self.members:
            full = views[member.view][1].clone()
            full[:, member.columns] = member(full)
            made = self.views[member.view].inverse(full)
            total[:, member.columns] += made[:, member.columns]
            count[member.columns] += 1
        return total / count


def in_parts(source: Source, function: Callable[[Tensor], Tensor], widest: int) -> np.ndarray:
    """``function(X)`` of all rows, a bounded number at a time."""
    with torch.no_grad():
        rows = max(1, _CELLS // widest)
        return torch.cat([function(x) for _, x in source.chunks(rows)]).numpy()


class Design(NamedTuple):
    """How networks are made and trained."""

    hidden: tuple[int, ...]
    activation: str
    n_steps: int
    batch_size: int
    learning_rate_init: float
    dtype: torch.dtype


def train_networks(
    design: Design, objectives: Sequence[Objective], source: Scaled, rows: Tensor,
    columns: Tensor, known: Rows, seeds: Sequence[int],
) -> list[DenseModule]:  # fmt: skip
    """M networks, trained in one pass on its leading axis.

    Each has an objective, a seed, and rows and columns of its own, of shapes (M, n) and (M, q).
    """
    dtype, drawn = design.dtype, Drawn(source, rows, columns)
    objective = stack(objectives, dtype)
    m = moments(drawn, known.weight, bounds=False)
    network = place(_network(design, drawn.d), objective.loss, m, dtype, "cpu")
    starts = []
    for seed in seeds:
        draws = Streams([seed]).draws("init", dtype)
        starts.append(starting_values(network, objective, m, design.hidden[-1], draws))
    steps = math.ceil(drawn.n / design.batch_size)  # of an epoch
    training = Training(
        learning_rate_init=design.learning_rate_init, learning_rate="linear", tol=None,
        batch_size=design.batch_size, max_iter=max(1, round(design.n_steps / steps)),
        unit=objective.loss.unit(m.scale),
    )  # fmt: skip
    result = train(
        network, objective, drawn, training, Streams(seeds), stacked_parameters(starts),
        rows=known, models=len(seeds),
    )  # fmt: skip
    _check(result.monitor, design)
    exported = network.exported(result.parameters)
    each = ({name: p[k] for name, p in exported.items()} for k in range(len(seeds)))
    return [chained(network.modules(own)).requires_grad_(False) for own in each]  # type: ignore[misc]


def _network(design: Design, d: int) -> Network:
    if not design.hidden:
        raise ValueError("hidden_layer_sizes=() leaves a linear map. Give one width at least.")
    encoder = Dense("encoder", (d, *design.hidden), design.activation, design.activation)
    return Network(encoder, Dense("decoder", (design.hidden[-1], d), "identity", "identity"))


def _check(monitor: Any, design: Design) -> None:
    for curve, reason in zip(monitor.loss_curves, monitor.reasons, strict=True):
        if reason == "diverged":
            raise ValueError(
                f"Training diverged: the loss of a member is {curve[-1]}. Lower "
                f"learning_rate_init (now {design.learning_rate_init}), or set scale='standard'."
            )
