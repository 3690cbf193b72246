import pytest
from phones import Phones, model_file, native_program, rows_of

from bignas_tf.deploy.android.adb import Adb, usable
from bignas_tf.deploy.android.cooling import Cooling
from bignas_tf.deploy.android.plan import Plan, model_files, tool_file
from bignas_tf.deploy.android.progress import Progress
from bignas_tf.deploy.android.results import Results
from bignas_tf.deploy.android.sweep import sweep
from bignas_tf.deploy.android.tool import configurations


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


@pytest.fixture
def measure(phones, files, tool, tmp_path):
    """Runs a sweep in this process: its rows, its problems and what it said."""

    def run(backends=("xnnpack",), threads=(1,), cores=("any",), models=files[:1], **plan):
        program, abi = tool_file(plan.pop("tool", tool))
        retry = plan.pop("retry", ())
        plan = Plan(
            tool=program,
            abi=abi,
            files=model_files(models),
            configurations=tuple(configurations(backends, threads, cores)),
            **{"cooling": Cooling(pause=0), "warmup": 3, **plan},
        )
        said = []
        devices, _ = usable(Adb(str(phones.adb)))
        results = Results(tmp_path / "phones.csv", retry)
        problems = sweep(devices, plan, results, Progress(said.append))
        return rows_of(tmp_path / "phones.csv"), problems, said

    return run
