"""A history as an event file of TensorBoard: the same bytes each time, since no clock goes into it."""

import io
import math

import pandas as pd

from odm.errors import OdmError

NAME = "events.out.tfevents.0"
"""Of a file in a training's own folder, by which TensorBoard knows it."""


def encoded(history: pd.DataFrame) -> bytes:
    """Each column as scalars by step; what has no value in a row has no point there.

    Columns of layers become a group, `agreement.head` the tag `agreement/head`. Wall times are 0, for a history has
    none. OdmError where TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise OdmError("tensorboard: not installed; `pip install 'odm-sr[tensorboard]'` brings it") from None
    file = io.BytesIO()
    records = RecordWriter(file)
    records.write(Event(file_version="brain.Event:2").SerializeToString())
    for row in history.reset_index().to_dict("records"):
        step = int(row.pop("step"))
        values = [
            Summary.Value(tag=str(column).replace(".", "/", 1), simple_value=value)
            for column, value in row.items()
            if not math.isnan(value)
        ]
        records.write(Event(step=step, summary=Summary(value=values)).SerializeToString())
    return file.getvalue()
