"""Small tables as Parquet, and the one error for a file that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from calib_ebm.durable import replacing
from calib_ebm.errors import InputError

Floats = NDArray[np.float64]
Numbers = Sequence[int] | Sequence[float] | Tensor | NDArray[Any]

# Every column that a run folder's tables may have, with the type it is kept in.
TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "split": pa.string(),
    "label": pa.int64(),
    "fold": pa.int64(),
    "logits": pa.list_(pa.float64()),
    "probs": pa.list_(pa.float64()),
    "kind": pa.string(),
    "energy": pa.float64(),
    "true_energy": pa.float64(),
    "text": pa.string(),
    "text_pair": pa.string(),
}


def broken(path: Path, why: str) -> InputError:
    """The error for a file that is there and cannot be used."""
    return InputError(
        f"{path} cannot be used: {why}.",
        "the file as `train` or `evaluate` wrote it",
        "Restore it, or delete it and run the command that is in run.json again.",
    )


def to_floats(values: Numbers) -> Floats:
    """A tensor (of any device and precision), array or list as float64."""
    if isinstance(values, Tensor):
        return np.asarray(values.detach().cpu().double().numpy())
    return np.asarray(values, dtype=np.float64)


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
    """Write columns of equal length; two-dimensional arrays become lists."""
    arrays = {
        name: pa.array(
            values.tolist() if isinstance(values, np.ndarray) else list(values), type=TYPES[name]
        )
        for name, values in columns.items()
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(arrays), temporary)


def read_columns(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Read the named columns as lists; an `optional` one that is not there is all None.

    Raises:
        InputError: the file is not Parquet, lacks a column, or one has another type or a gap.
    """
    try:
        table = pq.read_table(path)
        lacking = [name for name in names if name not in table.column_names]
        if lacking:
            raise broken(path, f"it has no column {lacking[0]!r}")
        columns = {name: table.column(name).cast(TYPES[name]) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise broken(path, f"it is not the Parquet table it should be ({error})") from error
    for name, column in columns.items():
        if column.null_count:
            raise broken(path, f"its column {name!r} has empty cells")
    read = {name: column.to_pylist() for name, column in columns.items()}
    for name in optional:
        read[name] = _optional(path, table, name)
    return read


def _optional(path: Path, table: pa.Table, name: str) -> list[Any]:
    if name not in table.column_names:
        return [None] * table.num_rows
    try:
        return list(table.column(name).cast(TYPES[name]).to_pylist())
    except pa.ArrowException as error:
        raise broken(path, f"its column {name!r} holds no numbers ({error})") from error


def to_matrix(rows: Sequence[Sequence[float | None]], path: Path) -> Floats:
    """Rows of equal length as an N by C array.

    Raises:
        InputError: no rows, rows of unequal length, fewer than one class, or an empty cell.
    """
    if len({len(row) for row in rows}) != 1 or len(rows[0]) < 1:
        raise broken(path, "it is empty, or its rows differ in the number of classes")
    matrix = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise broken(path, "a row holds a value that is not finite")
    return matrix
