r"""Times TFLite files on this machine, each in a process of its own, taking turns.

Example:
  python export/benchmark_host.py --model=child.tflite,child_int8.tflite \
    --threads=1 --csv=latency.csv --profile=profiles

Rounds continue until the median of every file is known to --spread (half the width of its 95 %
interval), for --seconds at most; files that are not are named. Let nothing else run meanwhile.
A file that crashes or hangs is left out, named at the end, and the exit status is 1.
The CSV holds the processor, the load, the versions and the date in every row.
"""

from pathlib import Path

from absl import flags

from bignas_tf.deploy.latency import TimingError, host_conditions, measure, table, write_csv
from bignas_tf.deploy.latency.process import LIMIT
from bignas_tf.deploy.latency.profile import profile_outputs, write_profiles
from bignas_tf.deploy.script import run_script
from bignas_tf.files import check_output

_MODEL = flags.DEFINE_list("model", None, "TFLite files, separated by commas.", required=True)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the interpreter.", lower_bound=1)
_WARMUP = flags.DEFINE_integer(
    "warmup", 5, "Untimed invocations at the start of each round.", lower_bound=0
)
_RUNS = flags.DEFINE_integer("runs", 20, "Timed invocations per round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer(
    "rounds", None, "Turns that each file gets, instead of --spread.", lower_bound=1
)
_SPREAD = flags.DEFINE_float("spread", 0.02, "Of the median, relative.", 0.0, 1.0)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "Limit with --spread.", lower_bound=0.0)
_LIMIT = flags.DEFINE_float("limit", LIMIT, "Seconds of a file's loading or one turn.")
_DELEGATE = flags.DEFINE_enum(
    "delegate", "xnnpack", ["xnnpack", "none"], "none runs LiteRT's own kernels."
)
_CSV = flags.DEFINE_string("csv", None, "CSV to write.")
_PROFILE = flags.DEFINE_string(
    "profile", None, "Folder for a CSV of the operators of each file, by LiteRT's profiler."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing CSV.")


def main() -> None:
    """Times the files, prints a table, and writes the CSV if one was asked for."""
    if _CSV.value:
        check_output(Path(_CSV.value), _OVERWRITE.value)
    if _PROFILE.value:
        profile_outputs(_MODEL.value, Path(_PROFILE.value))
    failure = None
    conditions = host_conditions()  # before the measurement, which is load too
    try:
        latencies = measure(
            _MODEL.value,
            threads=_THREADS.value,
            warmup=_WARMUP.value,
            runs=_RUNS.value,
            rounds=_ROUNDS.value or 1,
            spread=None if _ROUNDS.value else _SPREAD.value,
            seconds=_SECONDS.value,
            limit=_LIMIT.value,
            delegate=_DELEGATE.value,
        )
    except TimingError as error:
        if not error.latencies:
            raise
        latencies, failure = error.latencies, error
    print(table(latencies))
    if _CSV.value:
        write_csv(latencies, _CSV.value, conditions, overwrite=_OVERWRITE.value)
    if _PROFILE.value:
        profiles = write_profiles(
            [latency.path for latency in latencies],
            Path(_PROFILE.value),
            threads=_THREADS.value,
            delegate=_DELEGATE.value,
        )
        print("\n".join(profiles))
    if failure:
        raise failure


if __name__ == "__main__":
    run_script(main)
