"""Run the notebook of the lesson from top to bottom on a demo set, and keep its outputs.

    python tests/helpers/run_lesson.py

It needs nbclient and ipykernel.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOK = PROJECT / "tools" / "lesson.ipynb"
ON_AISTUDIO = "/home/aistudio/work/palm_cls"  # where the notebook expects the project, unless it is above it
PATIENCE = 3600  # seconds for a cell, on a machine that is busy with other things


def read_notebook():
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def run(directory, data):
    """The notebook with the outputs of a run in a directory that knows of no project; raises CellExecutionError.

    data: directory of the images, as the notebook's outputs should name it: relative to `directory`.
    """
    from nbclient import NotebookClient

    notebook = read_notebook()
    sources = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        cell.source = cell.source.replace(ON_AISTUDIO, str(PROJECT))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        resources={"metadata": {"path": str(directory)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env={**environment, "PALM_DATA": str(data)})
    for cell, source in zip(notebook.cells, sources):
        cell.source = source
        for output in cell.get("outputs", []):
            if output.output_type == "stream":  # notices name files in full
                output.text = output.text.replace(f"{Path(directory).resolve()}{os.sep}", "")
    return notebook


def main():
    import nbformat

    sys.path.insert(0, str(PROJECT))
    from palm_cls.data.data_root import DEMO_MARK, DEMO_TEXT
    from palm_cls.data.demo_set import write_demo_set

    with tempfile.TemporaryDirectory() as directory:
        write_demo_set(Path(directory, "demo"))
        Path(directory, "demo", DEMO_MARK).write_text(DEMO_TEXT, encoding="utf-8")
        notebook = run(directory, "demo")
    notebook.metadata = read_notebook().metadata  # no version of Python in it
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    main()
