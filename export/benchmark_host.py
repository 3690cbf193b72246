r"""Times TFLite files on this machine, each in a process of its own, taking turns.

Example:
  python export/benchmark_host.py --model=child.tflite,child_int8.tflite \
    --threads=1 --csv=latency.csv

Let nothing else run meanwhile. The CSV holds the processor, the load, the versions and the
date in every row.
"""

from pathlib import Path

from absl import flags

from bignas_tf.deploy.latency import measure, table, write_csv
from bignas_tf.deploy.script import run_script
from bignas_tf.files import check_output

_MODEL = flags.DEFINE_list("model", None, "TFLite files, separated by commas.", required=True)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the interpreter.", lower_bound=1)
_WARMUP = flags.DEFINE_integer(
    "warmup", 5, "Untimed invocations at the start of each round.", lower_bound=0
)
_RUNS = flags.DEFINE_integer("runs", 20, "Timed invocations per round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns that each file gets.", lower_bound=1)
_DELEGATE = flags.DEFINE_enum(
    "delegate", "xnnpack", ["xnnpack", "none"], "none runs LiteRT's own kernels."
)
_CSV = flags.DEFINE_string("csv", None, "CSV to write.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing CSV.")


def main() -> None:
    """Times the files, prints a table, and writes the CSV if one was asked for."""
    if _CSV.value:
        check_output(Path(_CSV.value), _OVERWRITE.value)
    latencies = measure(
        _MODEL.value,
        threads=_THREADS.value,
        warmup=_WARMUP.value,
        runs=_RUNS.value,
        rounds=_ROUNDS.value,
        delegate=_DELEGATE.value,
    )
    print(table(latencies))
    if _CSV.value:
        write_csv(latencies, _CSV.value, overwrite=_OVERWRITE.value)


if __name__ == "__main__":
    run_script(main)
