"""The notebooks run from the first cell to the last, in small settings."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "quickstart": "EPOCHS = 1\nFINE_ROUNDS = 0",
    "slicing_children": None,
    "search_and_fronts": "EPOCHS = 1\nEVALUATIONS = 10",
    "tflite_and_latency": None,
}


def test_every_notebook_is_run_by_the_tests():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == SMALL.keys()


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_stored_without_outputs_and_runs(name, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == (SMALL[name] is not None)
    for cell in parameters:
        cell.source = SMALL[name]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
