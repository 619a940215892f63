"""NetworkPredictor: the scikit-learn shell of networks that are trained on labels."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._engine.batches import Source, make_source
from skae._engine.monitor import Monitor
from skae._engine.plan import make_plan
from skae._engine.rng import Draws, Streams
from skae._engine.start import fresh_values, moments, place
from skae._engine.train import FULL_BATCH, Result, refuse_constraints, refuse_noise, train
from skae.estimators._build import module_values, unwrapped
from skae.estimators._compat import CallbackSupportMixin
from skae.estimators._estimator import estimator
from skae.estimators._export import mlp_of_predictor, plain_parts, scaled_first
from skae.estimators._inference import HoldsModules, in_chunks
from skae.estimators._input import Data, read_data, read_weight
from skae.estimators._outputs import Outputs
from skae.estimators._progress import Progress, Subtasks
from skae.estimators._training import TrainingParameters
from skae.modules import Wrapped, infer, wrap
from skae.networks import Dense, Network, dense_of
from skae.objective import Objective, Rows


class Layers(NamedTuple):
    """A network to start from."""

    encoder: nn.Module
    head: nn.Module | Dense  # as a stack, it gets fresh weights
    keeps_weights: bool = True  # of the encoder


class Task(NamedTuple):
    """What there is to train: a network on labelled rows, and its values so far."""

    network: Network
    objective: Objective
    source: Source
    rows: Rows
    validation: tuple[Source, Rows] | None
    streams: Streams
    values: dict[str, Tensor]  # of all parameters
    unit: float  # what the loss is measured in
    results: list[Result]

    def fitted(self, monitor: Monitor, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """The attributes of an estimator that has trained so far."""
        encoder, head = self.network.modules(self.network.exported(values))
        monitors = [*(result.monitor for result in self.results), monitor]
        losses = [loss for each in monitors for loss in each.loss_curves[0]]
        checked = [loss for each in monitors for loss in each.validation_curves[0]]
        return {
            "encoder_": encoder,
            "head_": head,
            "loss_curve_": losses,
            "validation_loss_curve_": checked or None,
            "n_iter_": len(losses),
            "loss_": losses[-1] if losses else math.nan,
            "best_loss_": _finite(monitor.best[0]),
            "stop_reason_": monitor.reasons[0] or "running",
            "engine_": make_plan(self.network, self.objective),
            "_n_trained": self.source.n,
        }


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.nan


class FittedPredictor(HoldsModules):
    """The trained network at work."""

    encoder_: nn.Module
    head_: nn.Module
    _outputs: Any
    precision: str | None
    device: Any
    _allows_nan = False  # `read_data` asks
    _modules = ("encoder_", "head_")

    def _read_input(self, X: Any, device: Any, *, reset: bool = False) -> Data:
        """Validated rows, as the network sees them."""
        return read_data(self, X, reset=reset, precision=self.precision, device=device)

    def _raw(self, X: Any) -> np.ndarray:
        """The outputs for X, of shape (n_samples, width)."""
        check_is_fitted(self)
        data = self._read_input(X, next(self.head_.parameters()).device)
        parts = (self.encoder_, self.head_)

        def widest() -> int:
            sizes = [p.shape[0] for part in parts for p in part.parameters() if p.ndim]
            return max(data.source.d, *sizes)

        def outputs(x: Tensor, out: Tensor | None) -> Tensor:
            return infer(self.head_, infer(self.encoder_, x), out)

        raw = in_chunks(data.source, outputs, self._outputs.width, widest)
        return raw.to(data.dtype).cpu().numpy()

    def _front(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and shift of X in front of the network; None where there is neither."""
        return None

    def to_torch(self):
        """Copy the network as a plain ``torch.nn.Sequential``.

        Linear scalers in front of it are merged into its first layer.

        Returns
        -------
        module : torch.nn.Sequential
            From X to the outputs: numbers, or the logits (or margins) that `decision_function`
            gives, with a column for one output. In inference mode, and independent of this
            estimator; its parameters can be trained further.

        Raises
        ------
        ValueError
            If a step in front of the network is more than a scaler.
        """
        check_is_fitted(self)
        parts = [*plain_parts(self.encoder_), *plain_parts(self.head_)]
        front = self._front()
        if front is not None:
            parts[0] = scaled_first(parts[0], *front)
        return nn.Sequential(*parts).eval()

    def to_mlp(self, **mlp_params):
        """Start a multi-layer perceptron of scikit-learn from the trained weights.

        It predicts what this estimator does; `fit`, which has ``warm_start=True``, and
        `partial_fit` go on from these weights. Dropout, max-norm and weights of rows or classes are
        not part of it.

        Parameters
        ----------
        **mlp_params : dict
            Parameters of the MLP, instead of what they would be.

        Returns
        -------
        mlp : MLPClassifier or MLPRegressor
            With its own copy of the weights.

        Raises
        ------
        ValueError
            If an MLP cannot be this network: all its hidden layers have one activation, identity,
            logistic, tanh or relu; its loss is the cross-entropy or the squared error; and nothing
            but linear scalers stands in front.

        See Also
        --------
        Autoencoder.to_mlp : What becomes of the parameters.
        """
        check_is_fitted(self)
        return mlp_of_predictor(self, mlp_params)


@estimator
class NetworkPredictor(FittedPredictor, TrainingParameters, CallbackSupportMixin, BaseEstimator):
    """A network under a head of outputs, which back-propagation trains on labels.

    Parameters
    ----------
    max_norm : float, default=None
        Largest norm of the weights into a hidden unit, in the units of X; beyond it they are
        scaled down after every step (Srivastava et al., 2014, section 5.1, where 2 to 4 goes
        with dropout). Pretrained weights may have larger norms from the start, which the first
        step would cut: look at theirs. None sets no limit.

    unfreeze_epochs : int, default=0
        Epochs that the head is trained alone before anything else, then the head and the topmost
        layer below it, and so on down; `max_iter` epochs of all layers follow (Makhzani and Frey,
        2014, section 4.5). Each stage has an optimiser and a schedule of its own. 0 trains all
        layers at once.

    Attributes
    ----------
    encoder_, head_ : torch.nn.Module
        The trained network: the layers that began as encoders, and those that end in the outputs.

    loss_curve_ : list of float
        Mean training loss of every epoch, weight decay included.

    validation_loss_curve_ : list of float or None
        Loss of the held-out rows after every epoch, under `early_stopping`.

    loss_, best_loss_ : float
        The last training loss; the lowest of the curve that stopping watched.

    n_iter_ : int
        Number of epochs.

    stop_reason_ : str
        "converged", "max_iter", "callback", "interrupted", or "no_progress": lbfgs or cg found no
        further descent, as they do at the floating-point precision of the loss.

    engine_ : Plan
        Which path trained the network ("fused" or "autograd"), and why.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has them.
    """

    max_norm: float | None = None
    unfreeze_epochs: int = 0

    _parameter_constraints = {
        **TrainingParameters._parameter_constraints,
        "max_norm": [Interval(Real, 0, None, closed="neither"), None],
        "unfreeze_epochs": [Interval(Integral, 0, None, closed="left")],
    }

    # ---- what an estimator says of its labels

    def _read_labels(self, y: Any, unlabeled: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels of the rows that have one, validated, and which rows these are."""
        raise NotImplementedError

    def _outputs_for(self, y: np.ndarray) -> Outputs:
        """What the network is to put out for labels such as y."""
        raise NotImplementedError

    def _strata(self, y: np.ndarray, outputs: Outputs) -> Tensor | None:
        """Groups of rows of which each is to be held out in equal parts; None without."""
        return None

    def _row_weight(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        """What the rows of these labels count."""
        return weight

    def _check_early(self, y: np.ndarray) -> None:
        """Raise, before anything is trained, for what training on these labels would refuse."""
        if self.solver in FULL_BATCH:
            refuse_noise(self._supervised_objective(self._outputs_for(y)), None, self.solver)
        refuse_constraints(self.max_norm, self.solver)
        self._row_weight(y, None)
        if self.early_stopping:
            self._held_out(len(y))

    def _supervised_objective(self, outputs: Outputs) -> Objective:
        return Objective(
            loss=outputs.loss, alpha=float(self.alpha), dropout=float(self.dropout),
            input_dropout=float(self.input_dropout),
        )  # fmt: skip

    # ---- training

    def _tune(
        self, X: Any, y: np.ndarray, sample_weight: Any, data: Data, layers: Layers,
        outputs: Outputs, seed: int, tasks: Subtasks,
    ) -> None:  # fmt: skip
        """Train the network on these rows, all of which have labels, and keep it."""
        task = self._task(y, sample_weight, data, layers, outputs, seed)
        phases = list(self._phases(task.network))
        now, ends = task, []
        progress = Progress(
            self, X, sample_weight, sum(epochs for _, epochs in phases),
            lambda epoch: now.fitted(epoch.monitor, now.values | epoch.parameters())
            | {"_outputs": outputs},
            tells_callbacks=True, y=y, within=tasks.context,
        )  # fmt: skip
        for i, (network, epochs) in enumerate(phases):
            now = task._replace(network=network)
            result = self._train(now, epochs, progress, is_last=i == len(phases) - 1)
            task.values.update(result.parameters)
            ends.append((result.monitor.best[0], now.fitted(result.monitor, task.values)))
            if result.monitor.reasons[0] in ("callback", "interrupted"):
                break
            task.results.append(result)
        lowest, best = min(ends, key=itemgetter(0))
        kept = ends[-1][1]
        if task.validation is not None:  # by which the end of another phase may be the best
            kept = kept | {name: best[name] for name in self._modules}
        self.__dict__ |= kept | {"best_loss_": _finite(lowest), "_outputs": outputs}
        progress.finish()

    def _task(
        self, y: np.ndarray, sample_weight: Any, data: Data, layers: Layers, outputs: Outputs,
        seed: int,
    ) -> Task:  # fmt: skip
        source, streams = data.source, Streams([seed], data.source.device)
        weight = read_weight(self._row_weight(y, sample_weight), data)
        target = make_source(outputs.targets(y), source.dtype, source.device)
        of_x, of_y = moments(source, weight, False), moments(target, weight, False)
        objective = self._supervised_objective(outputs)
        encoder = unwrapped(wrap("encoder", layers.encoder, source.dtype, source.device))
        head: Any = layers.head
        head = head if isinstance(head, Dense) else dense_of("decoder", head)
        network = Network(encoder, head)
        if self.solver != "sgd":
            network = place(network, objective.loss, of_x, source.dtype, source.device, of_y)
        draws = streams.draws("init", source.dtype)
        values = _starting_values(network, layers, draws, source)
        if isinstance(layers.head, Dense):
            last = head.layers[-1]
            gain = network.decoder.layers[-1].bias_gain  # type: ignore[union-attr]
            values[last.bias] = objective.loss.start(of_y.mean).to(values[last.bias]) / gain
        strata = self._strata(y, outputs)
        strata = None if strata is None else strata.to(source.device)
        rows = Rows(weight=weight, target=target.X, y=strata)
        source, rows, validation = self._hold_out(source, rows, streams)
        rows = dataclasses.replace(rows, y=None)
        unit = objective.loss.unit(of_y.scale)
        return Task(network, objective, source, rows, validation, streams, values, unit, [])

    def _subtasks(self, X: Any) -> Subtasks:
        """What callbacks are told of: a fit that comes before, and then the epochs."""
        return Subtasks(self, X, None if self.unfreeze_epochs else 1 + self.max_iter)

    def _phases(self, network: Network) -> Iterator[tuple[Network, int]]:
        """Networks of which ever fewer layers are frozen, and the epochs of each."""
        if self.unfreeze_epochs:
            for frozen in range(_depth(network), 0, -1):
                yield _with_frozen(network, frozen), int(self.unfreeze_epochs)
        yield network, int(self.max_iter)

    def _train(self, task: Task, epochs: int, progress: Progress, *, is_last: bool) -> Result:
        network, source = task.network, task.source
        training = self._training_numbers(source.n, task.unit, epochs)
        training = dataclasses.replace(training, max_norm=self.max_norm)
        if not is_last:
            training = dataclasses.replace(training, tol=None)
        names = network.weight_shapes() | network.bias_shapes()
        result = train(
            network, task.objective, source, training, task.streams,
            {name: task.values[name] for name in names},
            rows=task.rows, validation=task.validation, on_epoch=progress.on_epoch,
        )  # fmt: skip
        self._check_end(result, epochs, partial=not is_last)
        return result

    def _order(self, rows: Rows, n: int, draws: Draws) -> Tensor:
        """The order that held-out rows are the first of: equal parts of each of `_strata`."""
        order = super()._order(rows, n, draws)
        if rows.y is None:
            return order
        place = torch.empty(n, dtype=torch.float64, device=order.device)
        strata = rows.y[order]
        for stratum in strata.unique():
            mine = (strata == stratum).nonzero().squeeze(-1)
            place[mine] = (torch.arange(len(mine)).to(place) + 0.5) / len(mine)
        return order[place.argsort(stable=True)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _starting_values(
    network: Network, layers: Layers, draws: Draws, source: Source
) -> dict[str, Tensor]:
    """The modules' weights, and fresh ones where there are none to keep."""
    values: dict[str, Tensor] = {}
    kept = (layers.keeps_weights, not isinstance(layers.head, Dense))
    for stack, module, keeps in zip(network.stacks, layers[:2], kept, strict=True):
        if isinstance(stack, Wrapped):
            values |= dict(stack.initial(draws))
        elif keeps:
            values |= module_values(stack, module, source)  # type: ignore[arg-type]
        else:
            values |= fresh_values(stack, draws)  # type: ignore[arg-type]
    return values


def _depth(network: Network) -> int:
    """Number of the encoder's layers: of a module of another kind, its parts with parameters."""
    encoder = network.encoder
    return len(_parts(encoder)) if isinstance(encoder, Wrapped) else len(encoder.layers)


def _parts(encoder: Wrapped) -> list[tuple[str, nn.Module]]:
    children = encoder.working.named_children()
    return [(name, part) for name, part in children if next(part.parameters(), None) is not None]


def _with_frozen(network: Network, frozen: int) -> Network:
    """The same network with this many of the lowest layers as they are."""
    encoder: Any = network.encoder
    if isinstance(encoder, Dense):
        return dataclasses.replace(network, encoder=dataclasses.replace(encoder, frozen=frozen))
    held: Wrapped = copy.deepcopy(encoder)
    names = {name for name, _ in _parts(held)[:frozen]}
    for name in names:
        held.working.get_submodule(name).requires_grad_(False)
    still = frozenset(name for name in held.in_training if name.partition(".")[0] not in names)
    return dataclasses.replace(network, encoder=dataclasses.replace(held, in_training=still))
