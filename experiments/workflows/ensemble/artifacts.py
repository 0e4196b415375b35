"""Records an ensemble as an MLflow run."""

from __future__ import annotations

from collections.abc import Sequence

from darkroom.lightning_modules.metrics.thresholds import choose_thresholds

from ...config.experiment import Experiment
from ...evaluation.calibration import calibrate
from ...evaluation.thresholds import at_thresholds
from ...tracking.prediction_artifacts import record_predictions, record_temperatures, record_thresholds
from ...tracking.run import RunRecord
from ...training.artifacts import record_conditions, record_figures, record_predictor
from .blending import Blend
from .members import SPLITS, EnsembleMember, common_params
from .report import Report, write


def describe(
    record: RunRecord, experiment: Experiment, members: Sequence[EnsembleMember], method: str, metric: str
) -> None:
    """Tells of whom the ensemble is, and as its params what the members have in common."""
    ids = [member.run.run_id for member in members]
    record.set_tags({"members": ",".join(ids)})
    sizes = [member.num_parameters for member in members]
    own: dict[str, object] = {
        "name": experiment.name,
        "num_parameters": sizes[0] if method == "soup" else sum(sizes),
        "ensemble.method": method,
        "ensemble.members": " ".join(run_id[:8] for run_id in ids),
    }
    if method == "greedy":
        own["ensemble.metric"] = metric
    record.log_params({**common_params([member.params for member in members]), **own})


def record_ensemble(record: RunRecord, experiment: Experiment, blend: Blend, report: Report) -> None:
    """What any run leaves behind, of the ensemble; validation's metrics stand as `best/...`."""
    data, predictions = experiment.data, blend.predictions
    metrics, thresholds = dict(blend.metrics), None
    if data.task == "multilabel":
        chosen = choose_thresholds(predictions["val"].probabilities, predictions["val"].targets)
        thresholds = [float(value) for value in chosen]
        metrics |= at_thresholds(predictions["test"], thresholds, "test")
    calibration = calibrate(predictions["val"], predictions["test"])
    metrics |= calibration.metrics
    record.log_metrics({name.replace("val/", "best/"): value for name, value in metrics.items()})
    record.log_metrics({f"gain/{report.metric}": report.gain})
    with record.artifacts() as folder:
        record_conditions(record, folder, data)
        for split in SPLITS:
            record_predictions(folder, split, predictions[split], data, thresholds)
        if thresholds is not None:
            record_thresholds(folder, thresholds, data.class_names)
        record_temperatures(folder, calibration.temperatures, data.class_names)
        record_figures(folder, data, "test", predictions["test"], {}, None, thresholds, calibration)
        write(report, folder / "tables" / "members.csv")
        write(report, folder / "ensemble.md")
    record_predictor(record, data, blend.predictor, thresholds)
