r"""Times TFLite files on Android devices with TensorFlow Lite's or LiteRT's native tool.

Example:
  python export/benchmark_android.py --model=child.tflite,child_int8.tflite \
    --benchmark_model=benchmark_model --backends=xnnpack,gpu --threads=1,4 --csv=phones.csv

Needs adb, devices with USB debugging on, and the native benchmark_model for their instruction
set (docs/android.md says where it comes from). On each device: pushes the files, runs every
combination of file, backend, threads and cores, cooling down between them, and removes what
it pushed, also after an error or Ctrl-C. The CSV is written after each measurement; started
again with the same CSV, only what is missing is measured. A combination that fails becomes a
row whose status says why; a device that is lost ends alone.
"""

import signal
from pathlib import Path

from absl import flags

from bignas_tf.deploy.android.adb import Adb, AdbError, usable
from bignas_tf.deploy.android.cooling import Cooling
from bignas_tf.deploy.android.output import STATUSES
from bignas_tf.deploy.android.plan import Plan, model_files, tool_file
from bignas_tf.deploy.android.results import Results
from bignas_tf.deploy.android.sweep import sweep
from bignas_tf.deploy.android.tool import BACKENDS, configurations
from bignas_tf.deploy.script import INTERRUPTED, run_script, stop
from bignas_tf.files import check_output, only_writer

_MODEL = flags.DEFINE_list("model", None, "TFLite files, separated by commas.", required=True)
_TOOL = flags.DEFINE_string(
    "benchmark_model", None, "The native tool, for the devices' instruction set.", required=True
)
_CSV = flags.DEFINE_string("csv", None, "CSV to write or to continue.", required=True)
_BACKENDS = flags.DEFINE_list(
    "backends", ["xnnpack"], f"Of {', '.join(BACKENDS)}; cpu is LiteRT's own kernels."
)
_THREADS = flags.DEFINE_list("threads", ["1"], "Numbers of threads; GPU and NNAPI use the first.")
_CORES = flags.DEFINE_list(
    "cores", ["any"], "Hexadecimal core masks for taskset, such as f0 for cores 4 to 7; or any."
)
_WARMUP = flags.DEFINE_integer("warmup", 10, "Untimed runs of each measurement.", lower_bound=0)
_RUNS = flags.DEFINE_integer(
    "runs", 50, "Timed runs; the tool runs for at least a second.", lower_bound=1
)
_SECONDS = flags.DEFINE_float("seconds", 300.0, "Limit of one run of the tool.")
_PAUSE = flags.DEFINE_float("pause", 5.0, "Seconds between measurements.", lower_bound=0.0)
_COOL_LIMIT = flags.DEFINE_float(
    "cool_limit", 300.0, "Longest wait, in seconds, until a device is cool again.", lower_bound=0.0
)
_COOL_MARGIN = flags.DEFINE_float(
    "cool_margin",
    1.0,
    "Degrees Celsius that its battery may be warmer than before its first measurement in the CSV.",
    lower_bound=0.0,
)
_PROFILES = flags.DEFINE_string(
    "profiles", None, "Folder for a CSV of the operators' times of each measurement."
)
_SERIALS = flags.DEFINE_list("serials", [], "Devices (see `adb devices`); all by default.")
_HASH_SERIAL = flags.DEFINE_bool("hash_serial", False, "Write a hash instead of serial numbers.")
_RETRY = flags.DEFINE_bool("retry", False, "Measure again what is not ok in an earlier sweep.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and the devices, and end.")
_ADB = flags.DEFINE_string("adb", "adb", "The adb program.")


def main() -> None:
    """Measures on all devices."""
    plan = _plan()
    if _DRY_RUN.value:
        print(plan.text())
        _print_devices()
        return
    with only_writer(Path(_CSV.value), "written", _lock(), "csv"):
        _sweep(plan)


def _lock() -> Path:
    """Beside the CSV, which each measurement replaces; in a folder that exists."""
    path = Path(_CSV.value)
    check_output(path, overwrite=True)
    return path.with_name(f".{path.name}.lock")


def _sweep(plan: Plan) -> None:
    again = [status for status in STATUSES if status != "ok"] if _RETRY.value else []
    results = Results(_CSV.value, again)
    devices, left_out = usable(Adb(_ADB.value), _SERIALS.value)
    for device in left_out:
        print(f"left out: {device.serial} is {device.problem}")
    print(plan.text())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        problems = sweep(devices, plan, results)
    except KeyboardInterrupt:
        stop(f"interrupted; {_CSV.value} holds what was measured", INTERRUPTED)
    print(f"written to {_CSV.value}")
    if problems:
        raise AdbError("; ".join(problems))


def _plan() -> Plan:
    tool, abi = tool_file(_TOOL.value)
    try:
        threads = [int(count) for count in _THREADS.value]
    except ValueError:
        raise ValueError(f"`threads` must be numbers. Received: {_THREADS.value}") from None
    return Plan(
        tool=tool,
        abi=abi,
        files=model_files(_MODEL.value),
        configurations=tuple(configurations(_BACKENDS.value, threads, _CORES.value)),
        warmup=_WARMUP.value,
        runs=_RUNS.value,
        seconds=_SECONDS.value,
        cooling=Cooling(_PAUSE.value, _COOL_LIMIT.value, _COOL_MARGIN.value),
        profiles=Path(_PROFILES.value) if _PROFILES.value else None,
        hash_serial=_HASH_SERIAL.value,
    )


def _print_devices() -> None:
    """What a sweep would run on; a dry run needs none."""
    try:
        devices, left_out = usable(Adb(_ADB.value), _SERIALS.value)
    except AdbError as error:
        print(f"no device to run on: {error}")
        return
    for device in devices:
        print(f"device {device.serial}")
    for listed in left_out:
        print(f"left out: {listed.serial} is {listed.problem}")


if __name__ == "__main__":
    run_script(main)
