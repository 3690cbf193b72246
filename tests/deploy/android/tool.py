"""Prints what the native benchmark tool prints, in the form and with the fault that are asked
for, without running anything. Imports nothing that takes long."""
# ruff: noqa: E501 - the tool's lines

import marshal
import os
import sys
import time

DEVICE = os.environ["DEVICE"]
with open(os.environ["ADB_STAND_IN"] + "/devices", "rb") as listed:
    FAULTS = marshal.load(listed)[os.path.basename(DEVICE)]["faults"]  # noqa: S302

USAGE = """usage: benchmark_model <flags>
Flags:
\t--num_runs=50\tint32\toptional\texpected number of runs
\t--graph=\tstring\toptional\tgraph file name
"""
FLAGS = {
    "tflite": ("enable_op_profiling", "use_xnnpack", "use_gpu", "use_nnapi"),
    "litert": ("use_profiler", "use_gpu"),
}
LOADED = """STARTING!
Log parameter values verbosely: [0]
Graph: [{graph}]
INFO: Initialized TensorFlow Lite runtime.
Loaded model {graph}
"""
NEW = """The input model file size (MB): 0.46
Initialized session in 4.521ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=20 first=9000 curr=7000 min=6900 max=9000 avg=7.5e+03 std=500

Running benchmark for at least {runs} iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count={runs} first={us} curr={us} min={min} max={max} avg={us} std=12 p5={min} median={median} p95={max}

Inference timings in us: Init: 4521, First inference: 9000, Warmup (avg): 7.5e+03, Inference (avg): {us}
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Memory footprint delta from the start of the tool (MB): init=4.21 overall=6.1
Overall peak memory footprint (MB) via periodic monitoring: 12.5
"""
PROFILE = """Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t   87.754\t    4.000\t 80.000%\t 80.000%\t     0.000\t        1\t[conv/Relu6]:0
\t       DEPTHWISE_CONV_2D\t   53.628\t    1.000\t 20.000%\t100.000%\t     0.000\t        1\t[dw/Relu6]:1

============================== Top by Computation Time ==============================
"""
APPLIED = {
    "xnnpack": "Explicitly applied XNNPACK delegate, and the model graph will be completely "
    "executed by the delegate.",
    "gpu": "INFO: Replacing 60 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, "
    "yielding 3 partitions for subgraph 0.\nExplicitly applied GPU delegate, and the model "
    "graph will be partially executed by the delegate w/ 1 delegate kernels.",
    "nnapi": "Explicitly applied NNAPI delegate, and the model graph will be partially executed "
    "by the delegate w/ 1 delegate kernels.",
}


def main(path, *arguments):
    if FAULTS.get("tool") == "wrong_abi":
        print(f"/system/bin/sh: {path}: not executable: 64-bit ELF file")
        return 126
    if not os.access(path, os.X_OK):
        print(f"/system/bin/sh: {path}: can't execute: Permission denied")
        return 126
    flags = dict(argument[2:].split("=", 1) for argument in arguments if "=" in argument)
    form = FAULTS.get("form", "tflite")
    if "--help" in arguments:
        print(USAGE + "".join(f"\t--{flag}=false\tbool\toptional\t\n" for flag in FLAGS[form]))
        return 1
    with open(flags["graph"], "rb") as file:
        assert file.read(8)[4:] == b"TFL3"
    with open(os.path.join(DEVICE, "runs"), "a", encoding="utf-8") as log:
        log.write(" ".join([os.environ.get("CORES", "any"), *arguments]) + "\n")
    backend = next((name for name in ("gpu", "nnapi") if flags.get(f"use_{name}")), "")
    if not backend and flags.get("use_xnnpack") == "true":
        backend = "xnnpack"
    print(LOADED.format(graph=flags["graph"]), end="", flush=True)
    fault = FAULTS.get("tool", {}).get(backend)
    if fault == "hangs":
        with open(os.path.join(DEVICE, "hanging"), "w", encoding="utf-8") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    if fault == "crashes":
        print("F/libc: about to die", flush=True)
        os.kill(os.getpid(), 11)
    if fault == "refuses":
        print("ERROR: Failed to apply GPU delegate.\nBenchmarking failed.")
        return 1
    if fault == "falls_back":
        print(f"Though {backend.upper()} delegate is explicitly applied, the model graph will "
              "not be executed by the delegate.")  # fmt: skip
    elif backend and fault != "says_nothing":
        print(APPLIED[backend])
    if fault == "breaks_off":
        return 0
    if FAULTS.get("warms"):
        with open(os.path.join(DEVICE, "thermal"), "w", encoding="utf-8") as file:
            file.write(str(FAULTS["warms"]))
    us = 5000 * int(flags["num_threads"])
    values = {"us": us, "min": us - 100, "max": us + 300, "median": us - 10}
    print(NEW.format(runs=flags["num_runs"], **values))
    if flags.get("enable_op_profiling") or flags.get("use_profiler"):
        print(PROFILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
