"""The notebooks: run to their end in a kernel of their own, and kept without what they showed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from calib_ebm.report.files import read_energies

nbformat = pytest.importorskip("nbformat", reason="of the extra notebooks")
nbclient = pytest.importorskip("nbclient", reason="of the extra notebooks")

HERE = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def with_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a browser: the tests' own choice for matplotlib would show none."""
    monkeypatch.delenv("MPLBACKEND", raising=False)


def executed(name: str) -> Any:
    notebook = nbformat.read(HERE / name, as_version=4)
    where = {"metadata": {"path": str(HERE)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()
    return notebook


def said(notebook: Any) -> str:
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "\n".join(out["text"] for out in outputs if out["output_type"] == "stream")


def figures(notebook: Any) -> int:
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return sum("image/png" in out.get("data", {}) for out in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_has_no_outputs_and_nothing_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    assert all(cell.get("execution_count") is None for cell in notebook.cells)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert notebook.metadata["language_info"] == {"name": "python"}


def test_there_are_some() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"methods", "one_run"}


def test_a_run_is_read_again_to_its_own_figures(
    undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = undisturbed.last_path
    monkeypatch.setenv("CALIB_EBM_RUN", str(folder))
    notebook = executed("one_run.ipynb")
    text, metrics = said(notebook), json.loads((folder / "metrics.json").read_text())
    for name in ("cal/ece", "cal/true", "nll", "brier"):
        value, low, high = (metrics[f"test/{name}{end}"] for end in ("", "/low", "/high"))
        assert f"{name:16} {value:.3f} [{low:.3f}, {high:.3f}]" in text
    after = (metrics[f"test_calibrated/{name}"] for name in ("cal/ece", "nll"))
    assert "{:20} ECE {:.3f}   NLL {:.3f}".format("temperature", *after) in text
    # Reliability, labels, energies; and where they are known, the true ones beside them.
    assert figures(notebook) == 3 + (read_energies(folder).true_data_N is not None)
    assert "most like the data" in text


def test_a_run_that_is_none_ends_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIB_EBM_RUN", str(tmp_path))
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="is no run folder"):
        executed("one_run.ipynb")


def test_methods_are_compared_from_the_tables_of_the_repository() -> None:
    notebook = executed("methods.ipynb")
    text = said(notebook)
    assert "cola, 1043 texts" in text and "sst2, 872 texts" in text
    assert "sst2  sharp_hidden-k1    cal/ece -0.037" in text
    assert figures(notebook) == 1
