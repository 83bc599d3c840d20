"""The lines that a sweep prints while it runs: one for each report and for each end of a trial."""

from typing import Any


def tell_progress(total: int) -> Any:
    """A Tune callback. It prints one line for each report of a trial and for its end. Tune pickles it with
    the sweep's state.
    """
    from ray.tune import Callback

    class Tell(Callback):
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            given = trial.config["trial"]
            label = (
                " ".join(f"{k}={v}" for k, v in given.items() if k not in ("name", "arm", "values", "seed"))
                or given["arm"]
            )
            said = result.get("error") or f"{result['value']:.4f} after {result['rounds']:.3g} rounds"
            print(f"trial {given['name']} ({label}, seed {given['seed']}): {said}", flush=True)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._count("ended", trials, trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self._count("failed", trials, trial)

        def _count(self, how: str, trials: list[Any], trial: Any) -> None:
            over = {t.trial_id for t in trials if t.is_finished()} | {trial.trial_id}
            print(f"trial {trial.config['trial']['name']} {how}; {len(over)} of {total}", flush=True)

    return Tell()
