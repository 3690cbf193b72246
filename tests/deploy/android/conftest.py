import pytest
from phones import Phones, model_file, native_program


@pytest.fixture
def phones(tmp_path, monkeypatch):
    home = tmp_path / "phones"
    home.mkdir()
    monkeypatch.setenv("ADB_STAND_IN", str(home))
    return Phones(home)


@pytest.fixture
def files(tmp_path):
    return [model_file(tmp_path / name) for name in ("s.tflite", "m.tflite")]


@pytest.fixture
def tool(tmp_path):
    return native_program(tmp_path / "benchmark_model")
