"""Stopping rules and the parameters kept, of every model on its own."""

import math
import pickle

import pytest
import torch
from toys import DOUBLE

from skae._engine.monitor import Monitor


def flat_at(epoch, models=1):
    """Parameters that tell their epoch."""
    flat = torch.full((models, 3), float(epoch), dtype=DOUBLE)
    return flat if models > 1 else flat[0]


def watch(losses, validation=None, tol=0.0, patience=2):
    """A monitor that has seen these losses of one model, until it stopped."""
    monitor = Monitor(1, tol, patience)
    for epoch, loss in enumerate(losses):
        checked = None if validation is None else [validation[epoch]]
        monitor.record([loss], checked, flat_at(epoch))
        if not monitor.active:
            break
    return monitor


def test_falling_loss_does_not_stop():
    monitor = watch([5.0, 4.0, 3.0, 2.0, 1.0])
    assert monitor.reasons == [None]
    assert monitor.best == [1.0]
    assert monitor.loss_curves == [[5.0, 4.0, 3.0, 2.0, 1.0]]


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_patience_counts_epochs_without_improvement_in_a_row(patience):
    monitor = watch([1.0] * 20, patience=patience)
    assert monitor.reasons == ["converged"]
    assert len(monitor.loss_curves[0]) == 1 + patience


def test_improvement_starts_the_count_again():
    monitor = watch([5, 5, 4, 4, 3, 3, 3], patience=2)
    assert len(monitor.loss_curves[0]) == 7
    assert monitor.reasons == ["converged"]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tol_is_relative_to_the_best_loss(scale, sign):
    """A fall of 2 % an epoch beats a tol of 1 %, one of 0.5 % does not; losses may be negative."""
    step = 0.02 if sign > 0 else -0.02
    fast = [sign * scale * (1 - step) ** i for i in range(8)]
    slow = [sign * scale * (1 - step / 4) ** i for i in range(8)]
    assert watch(fast, tol=0.01).reasons == [None]
    assert watch(slow, tol=0.01).reasons == ["converged"]


def test_without_tol_nothing_converges():
    assert watch([1.0] * 50, tol=None).reasons == [None]


def test_zero_loss_converges():
    assert watch([1.0, 0.0, 0.0, 0.0], tol=1e-4).reasons == ["converged"]


def test_last_parameters_are_kept_without_validation():
    monitor = watch([3.0, 1.0, 2.0, 2.0])
    assert monitor.reasons == ["converged"]
    assert monitor.chosen(flat_at(99)).tolist() == [3.0] * 3


def test_best_parameters_are_kept_under_validation_and_watched():
    monitor = watch([4.0, 3.0, 2.0, 1.0, 0.5], validation=[4.0, 2.0, 2.5, 3.0, 9.0])
    assert monitor.reasons == ["converged"]
    assert monitor.best == [2.0]
    assert monitor.validation_curves == [[4.0, 2.0, 2.5, 3.0]]
    assert monitor.chosen(flat_at(99)).tolist() == [1.0] * 3


def test_best_parameters_are_kept_also_where_the_gain_is_below_tol():
    monitor = watch([1.0] * 3, validation=[1.0, 0.999, 0.998], tol=0.1, patience=5)
    assert monitor.chosen(flat_at(99)).tolist() == [2.0] * 3


def test_kept_parameters_do_not_alias_the_live_ones():
    live, monitor = flat_at(0), Monitor(1, 0.0, 5)
    monitor.record([1.0], [1.0], live)
    live.fill_(7.0)
    monitor.record([2.0], [2.0], live)
    chosen = monitor.chosen(live)
    assert chosen.tolist() == [0.0] * 3
    chosen.fill_(5.0)
    assert monitor.chosen(live).tolist() == [0.0] * 3
    assert live.tolist() == [7.0] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_is_divergence(bad):
    monitor = watch([3.0, bad, 2.0])
    assert monitor.reasons == ["diverged"]
    assert len(monitor.loss_curves[0]) == 2


def test_validation_loss_that_is_not_finite_is_divergence():
    monitor = watch([3.0, 2.0, 1.0], validation=[3.0, math.nan, 1.0])
    assert monitor.reasons == ["diverged"]
    assert monitor.chosen(flat_at(99)).tolist() == [0.0] * 3


def test_every_model_stops_on_its_own_and_keeps_its_own_parameters():
    monitor, flat = Monitor(4, 0.0, 2), None
    curves = zip([5, 4, 3, 2, 1], [1] * 5, [3, math.nan, 1, 1, 1], [2, 2, 1, 1, 1], strict=True)
    for epoch, losses in enumerate(curves):
        flat = flat_at(epoch, 4)
        monitor.record(list(losses), None, flat)
    assert monitor.reasons == [None, "converged", "diverged", "converged"]
    assert [len(c) for c in monitor.loss_curves] == [5, 3, 2, 5]
    assert monitor.active == [0]
    monitor.stop_all("max_iter", flat)
    assert monitor.reasons == ["max_iter", "converged", "diverged", "converged"]
    assert monitor.chosen(flat_at(99, 4))[:, 0].tolist() == [4.0, 2.0, 1.0, 4.0]


def test_validation_keeps_every_models_own_best():
    monitor = Monitor(2, 0.0, 10)
    for epoch, validation in enumerate([[3.0, 1.0], [1.0, 2.0], [2.0, 3.0]]):
        monitor.record([1.0, 1.0], validation, flat_at(epoch, 2))
    assert monitor.chosen(flat_at(99, 2))[:, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("validated", [False, True])
def test_restored_monitor_goes_on_as_if_never_saved(validated):
    losses = [5.0, 4.0, 4.5, 4.2, 4.1, 4.0]
    whole, first, second = (Monitor(1, 0.0, 4) for _ in range(3))
    for epoch, loss in enumerate(losses):
        checked = [loss] if validated else None
        whole.record([loss], checked, flat_at(epoch))
        if epoch < 3:
            first.record([loss], checked, flat_at(epoch))
        if epoch == 3:
            second.restore(pickle.loads(pickle.dumps(first.state())))
        if epoch >= 3:
            second.record([loss], checked, flat_at(epoch))
    assert second.loss_curves == whole.loss_curves
    assert second.validation_curves == whole.validation_curves
    assert second.reasons == whole.reasons == ["converged"]
    assert torch.equal(second.chosen(flat_at(9)), whole.chosen(flat_at(9)))


def test_what_has_converged_may_go_on_with_new_patience():
    stopped = watch([1.0] * 5, patience=3)
    again = Monitor(1, 0.0, 3)
    again.restore(stopped.state())
    again.record([1.0], None, flat_at(5))
    assert again.reasons == [None]


def test_saved_state_is_a_copy():
    monitor = watch([3.0, 2.0])
    state = monitor.state()
    monitor.record([1.0], None, flat_at(2))
    assert state["loss_curves"] == [[3.0, 2.0]]


def test_no_epoch_counts_before_the_objective_has_settled():
    """Lower losses from before are no measure of later ones."""
    monitor = Monitor(1, 0.0, 2)
    for epoch, loss in enumerate([1.0, 1.0, 1.0, 5.0, 4.0, 4.0, 4.0]):
        monitor.record([loss], None, flat_at(epoch), settled=epoch >= 3)
    assert monitor.best == [4.0]
    assert monitor.reasons == ["converged"]
    assert len(monitor.loss_curves[0]) == 7


def test_held_out_losses_from_before_it_has_settled_are_not_the_best():
    monitor = Monitor(1, 0.0, 2)
    for epoch, loss in enumerate([1.0, 2.0, 2.0, 2.0, 5.0, 4.0, 6.0, 6.0]):
        monitor.record([9.0], [loss], flat_at(epoch), settled=epoch >= 4)
        assert bool(monitor.active) == (epoch < 7)
        assert monitor.improved == [epoch in (4, 5)]
    assert monitor.best == [4.0]
    assert monitor.chosen(flat_at(9)).tolist() == flat_at(5).tolist()
    assert len(monitor.validation_curves[0]) == 8


@pytest.mark.parametrize("shift", [0.0, 100.0, -10.0])
def test_relative_changes_are_from_the_origin(shift):
    monitor = Monitor(1, 0.1, 2, origin=shift)
    for epoch, loss in enumerate([10.0, 8.0, 7.0, 6.4, 6.2]):
        monitor.record([loss + shift], None, flat_at(epoch))
    assert monitor.waited == [2]
    assert monitor.reasons == ["converged"]


def test_a_model_stops_where_its_gradient_vanishes():
    monitor = Monitor(2, 0.0, 10, gradient_tol=0.1)
    for epoch, norms in enumerate([[1.0, 1.0], [0.5, 0.1], [0.2, 0.0]]):
        monitor.record([3.0 - epoch] * 2, None, flat_at(epoch, 2), gradient=norms)
    assert monitor.reasons == [None, "gradient"]
    assert monitor.chosen(flat_at(9, 2))[:, 0].tolist() == [9.0, 1.0]


def test_without_gradients_none_vanishes():
    monitor = Monitor(1, 0.0, 10, gradient_tol=1e9)
    monitor.record([1.0], None, flat_at(0))
    assert monitor.reasons == [None]
