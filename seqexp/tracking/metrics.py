"""Metrics over steps in ``metrics.jsonl`` and TensorBoard, under the same names."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from seqexp.files import write_atomically
from seqexp.tracking.run_folder import GRADIENT_FLOW, read_metrics

log = logging.getLogger(__name__)


class MetricsLog:
    """Write metrics to ``metrics.jsonl`` and TensorBoard.

    Training continues if a log cannot be written: the first failure is logged and kept in `failure`, and all
    later writes are skipped.
    """

    def __init__(
        self, jsonl: Path, tensorboard: Path, after_step: int | None = None, validated: bool = True
    ) -> None:
        """Open the files; with `after_step`, remove the rows of later steps from both first.

        If that step was not completely `validated`, remove the metrics of its validation as well.
        """
        if after_step is not None:
            for file in (jsonl, jsonl.with_name(GRADIENT_FLOW)):
                _keep_until(file, after_step, validated)
        self.failure: str | None = None
        self._jsonl = jsonl
        self._file = open(jsonl, "a", encoding="utf-8")  # noqa: SIM115
        self._events = EventFileWriter(str(tensorboard))
        if after_step is not None and validated:
            self._forget_after(after_step)
        elif after_step is not None:
            self._forget_after(after_step - 1)
            for row in read_metrics(jsonl):  # keep the training metrics of that step
                if row["step"] == after_step:
                    self._show(after_step, {key: value for key, value in row.items() if key != "step"})

    def cut_back(self, step: int) -> None:
        """Remove the rows of all steps after `step`, when training returns to it."""
        self._file.close()
        self._try(lambda: self._rewrite(step))
        self._forget_after(step)

    def _rewrite(self, step: int) -> None:
        for file in (self._jsonl, self._jsonl.with_name(GRADIENT_FLOW)):
            _keep_until(file, step)
        self._file = open(self._jsonl, "a", encoding="utf-8")  # noqa: SIM115

    def _forget_after(self, step: int) -> None:
        """Make TensorBoard discard the events of later steps."""
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), step + 1)

    def _try(self, action: Callable[[], None]) -> None:
        if self.failure:
            return
        try:
            action()
        except OSError as error:
            self.failure = f"{error.strerror or error}"
            log.warning("metrics cannot be written (%s); training continues without them", self.failure)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        row = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._try(lambda: self._append(self._file, {"step": step, **row}))
        self._show(step, metrics)

    def _show(self, step: int, metrics: dict[str, Any]) -> None:
        """Add the numbers to TensorBoard."""
        values = [
            Summary.Value(tag=tag, simple_value=math.nan if value is None else value)
            for tag, value in metrics.items()
        ]
        self._add(Event(summary=Summary(value=values)), step)

    def gradient_flow(self, step: int, norms: dict[str, list[float]]) -> None:
        """Append gradient norms per time step to ``gradient_flow.jsonl``."""

        def append() -> None:
            with self._jsonl.with_name(GRADIENT_FLOW).open("a", encoding="utf-8") as file:
                self._append(file, {"step": step, **norms})

        self._try(append)

    @staticmethod
    def _append(file: TextIO, row: dict[str, Any]) -> None:
        file.write(json.dumps(row) + "\n")
        file.flush()

    def text(self, tag: str, text: str, step: int) -> None:
        """Add text to TensorBoard's text page, as a code block."""
        quoted = "\n".join("    " + line for line in text.splitlines())
        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[quoted.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = create_summary_metadata(display_name=tag, description="")
        value = Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)
        self._add(Event(summary=Summary(value=[value])), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Add a PNG to TensorBoard's images page."""
        value = Summary.Value(tag=tag, image=Summary.Image(encoded_image_string=png))
        self._add(Event(summary=Summary(value=[value])), step)

    def settings(self, values: dict[str, Any]) -> None:
        """Add the settings of a sweep's job to TensorBoard's HParams page."""
        start = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = str(value)
        self._hparams(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))

    def conclude(self, best: dict[str, Any], step: int) -> None:
        """Add the best checkpoint's metrics to the HParams page as ``best/<name>``; mark the job's end."""
        values = [
            Summary.Value(tag=f"best/{name}", simple_value=value)
            for name, value in best.items()
            if isinstance(value, int | float)
        ]
        self._add(Event(summary=Summary(value=values)), step)
        end = SessionEndInfo(status=Status.STATUS_SUCCESS, end_time_secs=time.time())
        self._hparams(hparams.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))

    def _hparams(self, tag: str, data: HParamsPluginData) -> None:
        metadata = hparams.create_summary_metadata(data)
        value = Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)
        self._add(Event(summary=Summary(value=[value])), 0)

    def _add(self, event: Event, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        self._try(lambda: self._events.add_event(event))

    def flush(self) -> None:
        self._try(self._events.flush)

    def close(self) -> None:
        self._try(self._file.close)
        self._try(self._events.close)


def _keep_until(jsonl: Path, step: int, validated: bool = True) -> None:
    if not jsonl.is_file():
        return
    rows = [row for row in read_metrics(jsonl) if row["step"] <= step]
    if not validated:
        rows = [row for row in rows if row["step"] < step or any(key.startswith("train/") for key in row)]
    write_atomically(jsonl, "".join(json.dumps(row) + "\n" for row in rows).encode())
