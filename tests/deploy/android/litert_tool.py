"""Runs a TFLite file with LiteRT and prints what the native benchmark tool would print."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from bignas_tf.deploy.interpreter import load_interpreter
from bignas_tf.deploy.latency.orders import peak_rss_mb, random_input
from bignas_tf.deploy.latency.worker import timed

USAGE = "usage: benchmark_model <flags>\nFlags:\n" + "".join(
    f"\t--{name}=\t\toptional\t\n"
    for name in (
        "num_runs", "warmup_runs", "num_threads", "graph", "use_xnnpack", "use_gpu",
        "enable_op_profiling", "report_peak_memory_footprint",
    )
)  # fmt: skip
PROFILE = """Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t [node type]\t [first]\t [avg ms]\t [%]\t [cdf%]\t [mem KB]\t[times called]\t[Name]"""


def statistics(nanoseconds):
    us = np.asarray(nanoseconds) / 1e3
    p5, median, p95 = np.percentile(us, [5, 50, 95])
    return (
        f"count={len(us)} first={us[0]:.0f} curr={us[-1]:.0f} min={us.min():.0f} "
        f"max={us.max():.0f} avg={us.mean():.6g} std={us.std():.0f} p5={p5:.0f} "
        f"median={median:.0f} p95={p95:.0f}\n"
    )


def main(*arguments):
    if "--help" in arguments:
        print(USAGE)
        return 1
    flags = dict(argument[2:].split("=", 1) for argument in arguments)
    print(f"STARTING!\nGraph: [{flags['graph']}]", flush=True)
    if flags.get("use_gpu") == "true":
        print("ERROR: GPU delegate is not supported here.\nERROR: Failed to apply GPU delegate.")
        return 1
    fast = flags.get("use_xnnpack") != "false"
    threads = int(flags["num_threads"])
    start = time.perf_counter_ns()
    interpreter = load_interpreter(flags["graph"], threads, delegate="xnnpack" if fast else "none")
    init = (time.perf_counter_ns() - start) // 1000
    if fast:
        print("Explicitly applied XNNPACK delegate, and the model graph will be completely "
              "executed by the delegate.")  # fmt: skip
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], random_input(interpreter))
    warm = timed(interpreter, 0, int(flags["warmup_runs"]))
    print(statistics(warm))
    Path(os.environ["DEVICE"], "measuring").write_text("now")
    runs = timed(interpreter, 0, int(flags["num_runs"]))
    print(statistics(runs))
    print(
        f"Inference timings in us: Init: {init}, First inference: {warm[0] // 1000}, "
        f"Warmup (avg): {np.mean(warm) / 1e3:.6g}, Inference (avg): {np.mean(runs) / 1e3:.6g}"
    )
    if flags.get("report_peak_memory_footprint") == "true":
        peak = peak_rss_mb()
        print(f"Overall peak memory footprint (MB) via periodic monitoring: {peak:.4f}")
    if flags.get("enable_op_profiling") == "true":
        from bignas_tf.deploy.latency.profiler import profile

        found = profile(flags["graph"], threads, "xnnpack" if fast else "none", 3, 20)
        print(PROFILE)
        for kind, name, ms in found["operators"]:
            print(f"\t {kind}\t 0.0\t {ms:.3f}\t 0.000%\t 0.000%\t 0.000\t 1\t{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[2:]))
