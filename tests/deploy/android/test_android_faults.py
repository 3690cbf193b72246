"""What a sweep makes of tools that fail, and of devices that go or are full."""

import pytest
from phones import ended, native_program

from bignas_tf.deploy.android.results import Results


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("crashes", "crashed", "signal 11 (SIGSEGV); last words: F/libc: about to die"),
        ("refuses", "unsupported", "ERROR: Failed to apply GPU delegate."),
        ("falls_back", "fell_back", "the gpu delegate took nothing; 5.000 ms are not its own"),
        ("says_nothing", "unconfirmed", "does not say that the gpu delegate ran"),
        ("breaks_off", "unreadable", "no figures; last words: Explicitly applied GPU"),
    ],
)
def test_a_configuration_that_fails_is_a_row_and_the_sweep_goes_on(
    fault, status, message, phones, measure
):
    phones.add("A1", tool={"gpu": fault})
    rows, problems, said = measure(backends=("gpu", "xnnpack"))
    assert problems == []
    assert [row["status"] for row in rows] == [status, "ok"]
    assert message in rows[0]["message"]
    assert bool(rows[0]["avg_ms"]) == (status == "unconfirmed")
    assert any(status in line for line in said)
    assert phones.left("A1") == []


def test_a_device_without_any_figures_is_a_problem(phones, measure):
    phones.add("A1", tool={"gpu": "crashes"})
    for _ in range(2):  # where it is all in the CSV already, too
        _, (problem,), _ = measure(backends=("gpu",))
        assert problem.endswith("(A1): no measurement has figures: 1 crashed")


def test_what_failed_is_measured_again_on_request_only(phones, measure):
    phones.add("A1", tool={"gpu": "crashes"})
    assert [row["status"] for row in measure(backends=("gpu",))[0]] == ["crashed"]
    phones.change("A1")
    assert [row["status"] for row in measure(backends=("gpu",))[0]] == ["crashed"]
    rows, _, _ = measure(backends=("gpu",), retry=("crashed",))
    assert [row["status"] for row in rows] == ["ok"]


def test_a_tool_that_hangs_is_ended_on_the_device(phones, measure):
    phones.add("A1", tool={"gpu": "hangs"})
    rows, problems, _ = measure(backends=("gpu", "xnnpack"), seconds=3.0)
    assert [row["status"] for row in rows] == ["timed_out", "ok"]
    assert rows[0]["message"] == "no answer after 3 s"
    assert problems == []
    assert ended(phones, "A1")


def test_a_lost_device_ends_alone(phones, measure):
    phones.add("A1", lost_in_tool=True)
    phones.add("B2")
    rows, [problem], said = measure(threads=(1, 2))
    assert [row["serial"] for row in rows] == ["B2"] * 2
    assert "device A1 is offline: plug it in again" in problem
    assert any("could not be removed" in line and "A1" in line for line in said)
    assert phones.left("B2") == []
    phones.change("A1")
    phones.add("C3")
    rows, problems, _ = measure(threads=(1, 2))
    assert (len(rows), problems) == (6, [])


@pytest.mark.parametrize(
    ("after", "words", "message"),
    [
        (1, "adb: device 'A1' not found", "is gone"),
        (3, "error: closed", "is gone"),
        (7, "", "is gone (connection closed)"),
        (8, "error: device unauthorized.", "unlock it and accept"),
        (9, "error: protocol fault (couldn't read status): Success", "is gone"),
    ],
)
def test_a_device_may_go_at_any_command(after, words, message, phones, measure):
    phones.add("A1", lost_after=after, lost_words=words)
    rows, [problem], _ = measure(threads=(1, 2))
    assert message in problem
    assert rows == []


@pytest.mark.parametrize(
    ("after", "thermal_after"),
    [
        (10, ""),  # lost when asked how warm it is now
        (11, "0"),  # lost with the profiler on
    ],
)
def test_a_device_lost_after_a_measurement_keeps_it(
    after, thermal_after, phones, measure, tmp_path
):
    phones.add("A1", lost_after=after, lost_words="error: device offline")
    plan = {"threads": (1, 2), "profiles": tmp_path / "profiles"}
    [row], [problem], _ = measure(**plan)
    assert "device A1 is offline: plug it in again" in problem
    assert (row["status"], row["median_ms"], row["thermal_before"]) == ("ok", "4.99", "0")
    assert (row["thermal_after"], row["profile"]) == (thermal_after, "")
    phones.change("A1")
    rows, problems, _ = measure(**plan)
    assert problems == []
    assert {**rows[0], "profile": ""} == row
    assert all((tmp_path / "profiles" / row["profile"]).is_file() for row in rows)
    timed = [line for line in phones.runs("A1") if "profiling" not in line]
    assert ["num_threads=1" in line for line in timed] == [True, False]


def test_a_device_that_is_lost_before_it_begins_does_not_stop_the_others(phones, measure):
    phones.add("A1", lost_after=1, lost_words="adb: device 'A1' not found")
    phones.add("B2")
    rows, [problem], _ = measure(threads=(1, 2, 4))
    assert "A1" in problem and "is gone" in problem
    assert [(row["serial"], row["status"]) for row in rows] == [("B2", "ok")] * 3


def test_a_tool_for_other_processors_is_refused(phones, measure, tmp_path):
    phones.add("A1", properties={"ro.product.cpu.abilist": "x86_64"})
    phones.add("B2", tool="wrong_abi")
    rows, problems, _ = measure()
    assert rows == []
    assert any("A1) runs x86_64; the tool" in p and "is for arm64-v8a" in p for p in problems)
    assert any("B2) cannot run" in p and "not executable: 64-bit ELF file" in p for p in problems)
    assert phones.left("B2") == phones.left("A1") == []
    rows, problems, _ = measure(tool=native_program(tmp_path / "other", "x86_64"))
    assert [row["serial"] for row in rows] == ["A1"]


def test_a_full_device_is_said_to_be_full(phones, measure, files):
    phones.add("A1", full="s.tflite")
    rows, problems, _ = measure(models=files)
    assert [(row["file"], row["status"]) for row in rows] == [
        ("s.tflite", "no_space"),
        ("m.tflite", "ok"),
    ]
    assert problems == []
    phones.change("A1", full="benchmark_model")
    _, [problem], _ = measure(threads=(2,))
    assert "no space left on device A1" in problem
    phones.change("A1", truncates=True)
    _, [problem], _ = measure(threads=(2,))
    assert "benchmark_model: 10 of 120 bytes" in problem
    assert phones.left("A1") == []


def test_a_shell_that_hands_no_status_on_tells_of_a_crash_all_the_same(phones, measure):
    phones.add("A1", tool={"xnnpack": "crashes"}, old_shell=True)
    rows, _, _ = measure()
    assert rows[0]["status"] == "crashed"


def test_a_result_that_cannot_be_written_ends_the_sweep_clean(phones, measure, monkeypatch):
    phones.add("A1")

    def full(self, row):
        raise OSError(28, "No space left on device", "phones.csv")

    monkeypatch.setattr(Results, "add", full)
    with pytest.raises(OSError, match="No space left"):
        measure()
    assert phones.left("A1") == []
