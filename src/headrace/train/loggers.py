"""The loggers of a run by name: each writes into the run's folder and goes on where an earlier call of the run left off."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from headrace.errors import RecipeError, suggestion
from headrace.files import write_error, write_json, write_text
from headrace.train.run import LOGGER_IDS

LOGGERS = {
    "tensorboard": "TensorBoardLogger",
    "csv": "CSVLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "comet": "CometLogger",
}

# Read once, as Lightning does: MLflow sets it itself when it is used.
_MLFLOW_SERVER = os.environ.get("MLFLOW_TRACKING_URI")


def check_loggers(names: str | Sequence[str]) -> None:
    """Refuse a logger that there is not.

    Raises:
        RecipeError: Offers the nearest name.
    """
    known = [*LOGGERS, "none"]
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            raise RecipeError(f"there is no logger named {name!r}", where="logger", next=suggestion(name, known))


def build_loggers(names: str | Sequence[str], folder: Path, *, step: int = 0, is_validated: bool = True) -> list[Any]:
    """Return loggers by name, which write into the run's folder.

    Args:
        names: Of LOGGERS, or `none`.
        folder: The run's.
        step: The last step whose state is kept. What an earlier call has logged after it is left out, where the logger
            can do so: these steps are taken and logged again.
        is_validated: Whether a validation after that step is kept, too.

    Raises:
        RecipeError: There is no such logger, or its package is not installed.
    """
    check_loggers(names)
    found: list[Any] = []
    for name in [names] if isinstance(names, str) else names:
        if name == "none":
            continue
        try:
            if name == "csv":
                found.append(MetricsFile(folder / "csv", step=step, is_validated=is_validated))
            elif name == "tensorboard":
                found.append(
                    lightning.pytorch.loggers.TensorBoardLogger(
                        folder, name="tensorboard", version="", default_hp_metric=False, purge_step=step + 1
                    )
                )
            else:
                found.append(_service(name, folder))
        except ModuleNotFoundError as error:
            raise RecipeError(
                f"the logger {name!r} needs a package that is not installed: {error}",
                where="logger",
                next="pip install it",
            ) from error
    return found


def close_loggers(loggers: Sequence[Any]) -> None:
    """End what would otherwise stay open in this process and take what its next run logs."""
    for one in loggers:
        if isinstance(one, lightning.pytorch.loggers.WandbLogger):
            import wandb

            wandb.finish()
        elif isinstance(one, lightning.pytorch.loggers.CometLogger):
            one.experiment.end()


def _service(name: str, folder: Path) -> Any:
    """Return the logger of a service, under the id that the run has there."""
    ids = _ids(folder)
    if name != "mlflow":  # its id is given by the service
        ids.setdefault(name, secrets.token_hex(16))
    kind = getattr(lightning.pytorch.loggers, LOGGERS[name])
    made = kind(**_places(name, folder.absolute(), ids.get(name)))
    if name == "mlflow":
        ids[name] = made.version
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(folder / LOGGER_IDS, ids)
    return made


def _places(name: str, folder: Path, id: str | None) -> dict[str, Any]:
    """Return name, folder and id of a run as the logger of a service takes them."""
    run_name = "/".join(folder.parts[-2:])  # reviews/seed-13: the last alone may be that of many
    if name == "wandb":
        return {"name": run_name, "save_dir": str(folder), "id": id}
    if name == "comet":
        return {"name": run_name, "offline_directory": str(folder / "comet"), "experiment_key": id}
    # Without a server Lightning would take a folder of files, which MLflow 3 refuses.
    return {"run_name": run_name, "tracking_uri": _MLFLOW_SERVER or f"sqlite:///{folder / 'mlflow.db'}", "run_id": id}


def _ids(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / LOGGER_IDS).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


class MetricsFile(Logger):
    """Writes `metrics.csv` as Lightning's CSVLogger does; that one deletes what is there, this one goes on with it.

    Args:
        folder: Where the file stands.
        step: Rows of later steps are left out.
        is_validated: Whether the validation after that step is kept.
    """

    def __init__(self, folder: Path, *, step: int, is_validated: bool) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._waiting: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._begin(step, is_validated)

    @rank_zero_only
    def _begin(self, step: int, is_validated: bool) -> None:
        def is_kept(row: Mapping[str, str]) -> bool:
            is_validation = any(value for name, value in row.items() if name.startswith("valid/"))
            return int(row["step"]) <= (step if is_validated or not is_validation else step - 1)

        if self.path.is_file():
            rows = self._rows()
            self._write([row for row in rows if is_kept(row)], list(rows[0]) if rows else [])

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """None: there is one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's recipe.yaml has them all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Take a row; `save` writes it."""
        self._waiting.append({**{name: float(value) for name, value in metrics.items()}, "step": step or 0})

    @rank_zero_only
    def save(self) -> None:
        """Append the rows that wait; with a new column the file is written anew."""
        if not self._waiting:
            return
        columns = sorted({*self._columns, *(name for row in self._waiting for name in row)})
        if columns != self._columns:
            before = self._rows() if self.path.is_file() else []
            self._write([*before, *self._waiting], columns)
        else:
            self._append()
        self._waiting = []

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits."""
        self.save()

    def _rows(self) -> list[dict[str, str]]:
        text = self.path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]  # a process that was killed may have left half a line
        return list(csv.DictReader(io.StringIO(whole, newline="")))

    def _append(self) -> None:
        before = self.path.stat().st_size
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(_lines(self._waiting, self._columns))
        except OSError as error:
            os.truncate(self.path, before)  # these rows wait for the next time
            raise write_error(self.path, error) from error

    def _write(self, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
        write_text(self.path, _lines([dict(zip(columns, columns, strict=True)), *rows], columns))
        self._columns = columns


def _lines(rows: Sequence[Mapping[str, Any]], columns: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()
