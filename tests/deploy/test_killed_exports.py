"""What an export leaves that is killed, and what comes after it."""

import contextlib
import json
import os

import pytest

from bignas_tf.deploy.formats import export
from bignas_tf.deploy.runner import open_model
from bignas_tf.deploy.sidecar import sidecar_path
from bignas_tf.deploy.tflite import convert

# TensorFlow 2.21's variables under NumPy 2.4, when Keras saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NOBODY = 2**22 + 1  # above the largest number that a process has


@pytest.fixture
def exports(model, photographs, converted_before):
    """Writes `model` in the format that the suffix of a path names."""

    def write(path, macs, **options):
        options |= {"verification_images": photographs, "metadata": {"macs": macs}}
        if path.suffix == ".tflite":
            return convert(model, path, **options)
        return export(model, path, path.suffix[1:], **options)

    return write


@pytest.fixture
def stopped_before(monkeypatch):
    """Ends what goes on inside at the moment when a file takes its place."""
    rename = os.replace

    @contextlib.contextmanager
    def stop(place):
        def replace(source, target):
            if target == place:
                raise KeyboardInterrupt
            rename(source, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", replace)
            yield

    return stop


@pytest.mark.parametrize("name", ["a.tflite", "a.keras"])
def test_between_two_renames_no_file_is_described_by_the_json_of_another(
    name, exports, stopped_before, tmp_path
):
    output = tmp_path / name
    sidecar = sidecar_path(output)
    with stopped_before(output):
        exports(output, macs=1)
    assert os.listdir(tmp_path) == [sidecar.name]
    exports(output, macs=1, overwrite=True)
    assert open_model(output).metadata["macs"] == 1
    # As a file whose new JSON is there and whose new content is not.
    output.write_bytes(output.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=f"{sidecar.name} describes another file.*: {output}"):
        open_model(output)
    exports(output, macs=2, overwrite=True)
    assert open_model(output).metadata["macs"] == 2
    with stopped_before(output):
        exports(output, macs=3, overwrite=True)
    assert json.loads(sidecar.read_text())["macs"] == 3


@pytest.mark.parametrize("name", ["a.tflite", "a.keras"])
def test_an_export_removes_what_a_killed_one_of_the_same_name_left(name, exports, tmp_path):
    (tmp_path / f".{name}.{NOBODY}.tmp").write_bytes(b"half a file")
    (tmp_path / f".{name}.finetuned.{NOBODY}.tmp").mkdir()
    (tmp_path / f".{name}.{NOBODY}.tmp2").touch()
    (tmp_path / f".other.{name}.{NOBODY}.tmp").touch()
    output = tmp_path / name
    exports(output, macs=1)
    assert sorted(os.listdir(tmp_path)) == sorted([
        name, sidecar_path(output).name, f".{name}.{NOBODY}.tmp2", f".other.{name}.{NOBODY}.tmp"
    ])  # fmt: skip
