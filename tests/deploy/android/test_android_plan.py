import struct

import pytest

from bignas_tf.deploy.android.cooling import Cooling, cool_down, is_cool
from bignas_tf.deploy.android.device import State
from bignas_tf.deploy.android.plan import Plan, model_files, tool_file
from bignas_tf.deploy.android.progress import Progress
from bignas_tf.deploy.android.results import COLUMNS, Results
from bignas_tf.deploy.android.tool import configurations, tool_abi


def test_gpu_and_nnapi_take_one_number_of_threads():
    found = configurations(["xnnpack", "gpu"], [1, 4], ["any", "F0"])
    assert [str(each) for each in found] == [
        "xnnpack 1 thread",
        "xnnpack 1 thread cores f0",
        "xnnpack 4 threads",
        "xnnpack 4 threads cores f0",
        "gpu 1 thread",
        "gpu 1 thread cores f0",
    ]
    assert found[3].slug == "xnnpack_t4_f0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["tpu"], [1], ["any"]), "`backends` must be of cpu, xnnpack, gpu, nnapi. Received: tpu"),
        ((["gpu"], [0], ["any"]), "`threads` must be at least 1. Received: 0"),
        ((["gpu"], [1], ["0xf0"]), "`cores` must be hexadecimal masks or 'any'. Received: 0xf0"),
        ((["gpu"], [1], ["00"]), "`cores`"),
        ((["gpu"], [1], ["f0; reboot"]), "`cores`"),
        (([], [1], ["any"]), "must have a value each"),
    ],
)
def test_wrong_configurations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        configurations(*arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4 an app", "not the Android app"),
        (b"#!/bin/sh\n" + bytes(20), r"must be an Android program \(ELF\)"),
        (b"\x7fELF", r"must be an Android program \(ELF\)"),
        (b"\x7fELF" + bytes(14) + struct.pack("<H", 8), "of ELF machine 8"),
    ],
)
def test_a_tool_that_is_no_program_for_android_is_refused(content, message, tmp_path):
    path = tmp_path / "tool"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tool_abi(path)
    with pytest.raises(ValueError, match="must be a file"):
        tool_abi(tmp_path / "missing")


def test_the_tool_tells_its_instruction_set(tool):
    assert tool_abi(tool) == "arm64-v8a"


def test_files_that_are_no_models_or_equal_are_refused(files, tool, tmp_path):
    for paths in ([], [tool], [tmp_path / "missing.tflite"]):
        with pytest.raises(ValueError, match="`model` must"):
            model_files(paths)
    twin = tmp_path / "twin.tflite"
    twin.write_bytes(files[0].read_bytes())
    with pytest.raises(ValueError, match=r"must be different files. Received: .*s.tflite and"):
        model_files([files[0], twin])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 0}, "`runs` must be at least 1. Received: 0"),
        ({"warmup": -1}, "`warmup`"),
        ({"seconds": 0.0}, "`seconds` must be a number above 0. Received: 0.0"),
    ],
)
def test_wrong_plans_are_refused(changes, message, files, tool):
    program, abi = tool_file(tool)
    each = tuple(configurations(["cpu"], [1], ["any"]))
    with pytest.raises(ValueError, match=message):
        Plan(program, abi, model_files(files), each, **changes)


@pytest.mark.parametrize("pause", [-1, float("inf")])
def test_a_pause_that_is_no_time_is_refused(pause):
    with pytest.raises(ValueError, match=f"`pause` must be a number of at .* Received: {pause}"):
        Cooling(pause=pause)


@pytest.mark.parametrize(
    ("state", "cool"),
    [
        (State("", 0, 30.9), True),
        (State("", 0, 31.1), False),
        (State("", 1, 30.0), False),
        (State("", None, None), True),
        (State("", None, 35.0), False),
    ],
)
def test_a_device_is_cool_when_it_is_as_at_first(state, cool):
    assert is_cool(state, State("", 0, 30.0), 1.0) is cool
    assert is_cool(state, State("", None, None), 1.0)


def test_cooling_pauses_then_asks_until_it_is_cool():
    states = [State("", 2, None), State("", 1, None), State("", 0, None)]
    slept = []
    found, cool = cool_down(
        lambda: states.pop(0), State("", 0, None), Cooling(pause=7.0), slept.append
    )
    assert (found.thermal, cool, slept) == (0, True, [7.0, 5.0, 5.0])
    hot = State("", 3, None)
    found, cool = cool_down(
        lambda: hot, State("", 0, None), Cooling(pause=1.0, limit=0.0), slept.append
    )
    assert (found, cool) == (hot, False)


def test_the_time_left_is_that_of_the_slowest_device():
    now, said = [0.0], []
    progress = Progress(said.append, lambda: now[0])
    progress.begin("slow", 3)
    progress.begin("fast", 2)
    now[0] = 100.0
    progress.done("slow", "a")
    progress.done("fast", "a")
    assert progress.seconds_left() == 200.0
    assert said == ["[1/5] slow: a; about 3 min left", "[2/5] fast: a; about 3 min left"]
    progress.end("slow")  # lost
    assert progress.seconds_left() == 100.0
    now[0] = 150.0
    progress.done("fast", "b")
    assert said[-1] == "[3/3] fast: b"


def test_rows_survive_and_another_csv_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    row = {name: f"{name}, quoted" for name in COLUMNS}
    Results(path).add(row)
    other = row | {"threads": "9"}
    Results(path).add(other)
    assert path.read_text().count("\n") == 3
    assert path.read_text().startswith("file,backend,threads,cores,status,median_ms,avg_ms")
    path.write_text(path.read_text() + "broken,row\n")
    with pytest.raises(ValueError, match="`csv` must be new or of an earlier sweep .* length"):
        Results(path)
    path.write_text("something,else\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        Results(path)
