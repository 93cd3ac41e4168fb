"""Early stopping and Optuna within each arm: thin wrappers that hold one of Ray's own for every arm.

A loss weighted by one rebalancing says nothing about a loss weighted by another, so trials of different arms never
meet in one of Ray's schedulers or searchers.
"""

import pickle
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from platform.config import Range, SweepConfig
from platform.search import EPOCH, FAILURE, LOSS, planned_trial


class AshaWithinArms(FIFOScheduler):
    """Asynchronous successive halving among the trials of one arm, by validation loss (Li et al. 2020).

    Ray does not keep rungs: when a sweep is resumed they start empty, and fewer of the trials left are stopped.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._epochs = epochs
        self._grace_epochs = grace_epochs
        self._reduction_factor = reduction_factor
        self._of_arm: dict[str, AsyncHyperBandScheduler] = {}

    def _asha(self, trial: Trial) -> AsyncHyperBandScheduler:
        arm = trial.config["trial"]["arm"]
        if arm not in self._of_arm:
            self._of_arm[arm] = AsyncHyperBandScheduler(
                time_attr=EPOCH,
                metric=LOSS,
                mode="min",
                max_t=self._epochs,
                grace_period=self._grace_epochs,
                reduction_factor=self._reduction_factor,
            )
        return self._of_arm[arm]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._asha(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result.get(EPOCH, 0) >= self._epochs:
            return str(TrialScheduler.CONTINUE)  # it ends by itself; there is nothing left to save
        return str(self._asha(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._asha(trial).on_trial_complete(tune_controller, trial, result)


class OptunaWithinArms(Searcher):
    """One Optuna study (TPE) an arm, all with the same seed and the same number of trials; arms take turns.

    Run it with as many samples as trials an arm times arms, and always with `max_concurrent_trials`: a study learns
    only from trials that have ended.
    """

    def __init__(self, config: SweepConfig) -> None:
        import optuna  # an extra of this project: only a search by Optuna needs it

        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        space = {name: _distribution(values) for name, values in config.search.values().items()}
        self._studies = {arm: OptunaSearch(space, metric=LOSS, mode="min", seed=config.seed) for arm in config.arms}
        self._suggested = dict.fromkeys(config.arms, 0)
        self._arm_of: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        arm = min(self._suggested, key=self._suggested.__getitem__)
        self._suggested[arm] += 1
        self._arm_of[trial_id] = arm
        hyperparameters = self._studies[arm].suggest(trial_id) or {}
        return {"trial": planned_trial(self._config, arm, self._suggested[arm], hyperparameters).as_dict()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if LOSS in result:
            step = {LOSS: result[LOSS], "training_iteration": result[EPOCH]}
            self._studies[self._arm_of[trial_id]].on_trial_result(trial_id, step)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or result is None or FAILURE in result
        # A trial that was stopped early counts as pruned at its last epoch, not as one whose final loss is known.
        ended = result is not None and LOSS in result and result[EPOCH] >= self._config.epochs
        final = {LOSS: result[LOSS]} if result is not None and ended and not failed else None
        self._studies[self._arm_of[trial_id]].on_trial_complete(trial_id, final, error=failed)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


def _distribution(values: list[Any] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, Range):
        return FloatDistribution(values.low, values.high, log=values.log)
    return CategoricalDistribution(values)
