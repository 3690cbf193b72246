import pytest

from bignas_tf.deploy.android.output import Delegation, outcome, read_delegation, read_figures
from bignas_tf.deploy.android.tool import Configuration, command, known_flags
from bignas_tf.deploy.latency.operator_times import by_kind, parse_profile

# Lines of the tools of several years; numbers are made up.
OLDEST = """STARTING!
Num runs: [50]
Loaded model /data/local/tmp/model.tflite
resolved reporter
Initialized session in 38.467ms
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=6 first=90123 curr=83235 min=81000 max=90123 avg=83235.2 std=3100

Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=79000 curr=79500 min=78000 max=84000 avg=79760.9 std=900

Average inference timings in us: Warmup: 83235.2, Init: 38467, no stats: 79760.9
"""
OLD = OLDEST.replace("no stats", "Inference")
LATER = """INFO: Initialized session in 17.187ms.
count=1 curr=3512391

count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Peak memory footprint (MB): init=4.92969 overall=138.809
"""  # noqa: E501
NEW = """I tflite  : count=3 first=400000 curr=190000 min=190000 max=400000 avg=211669 std=9
I tflite  : count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533
I tflite  : Inference timings in us: Init: 92318, First inference: 187533, Warmup (avg): 211669, Inference (avg): 145528
I tflite  : Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
I tflite  : Overall peak memory footprint (MB) via periodic monitoring: 81.25
"""  # noqa: E501
LITERT = """INFO: [benchmark_litert_model.h:74]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:75] Model initialization: 8.14 ms
INFO: [benchmark_litert_model.h:76] Warmup (first):       3.30 ms
INFO: [benchmark_litert_model.h:78] Warmup (avg):         2.51 ms (200 runs)
INFO: [benchmark_litert_model.h:80] Inference (avg):      12.34 ms (50 runs)
INFO: [benchmark_litert_model.h:84] Inference (min):      12.01 ms
INFO: [benchmark_litert_model.h:86] Inference (max):      13.50 ms
INFO: [benchmark_litert_model.h:88] Inference (std):      0.21
INFO: [benchmark_litert_model.h:95] Throughput:           1.12 MB/s
INFO: [benchmark_litert_model.h:110] Overall footprint:    14.00 MB
INFO: [benchmark_litert_model.h:115] Peak memory:          15.50 MB
"""


@pytest.mark.parametrize("text", [OLDEST, OLD])
def test_the_oldest_forms_are_read(text):
    figures = read_figures(text)
    assert (figures.runs, figures.avg_ms, figures.std_ms) == (50, pytest.approx(79.7609), 0.9)
    assert (figures.min_ms, figures.max_ms) == (78.0, 84.0)
    assert (figures.init_ms, figures.warmup_ms) == pytest.approx((38.467, 83.2352))
    assert figures.median_ms is figures.first_ms is figures.peak_memory_mb is None


def test_a_form_with_exponents_and_one_warm_up_run_is_read():
    figures = read_figures(LATER)
    assert (figures.runs, figures.avg_ms) == (50, 2950.34)
    assert (figures.first_ms, figures.warmup_ms) == (3512.391, 3512.39)
    assert figures.peak_memory_mb == 138.809


def test_the_form_with_percentiles_is_read():
    figures = read_figures(NEW)
    assert (figures.runs, figures.p5_ms, figures.median_ms) == (25, 140.545, 141.253)
    assert (figures.p95_ms, figures.init_ms, figures.first_ms) == (187.533, 92.318, 187.533)
    assert figures.peak_memory_mb == 81.25


def test_the_form_of_litert_is_read_and_finer_lines_win():
    figures = read_figures(LITERT)
    assert (figures.runs, figures.avg_ms, figures.min_ms, figures.max_ms) == (
        50, 12.34, 12.01, 13.5,
    )  # fmt: skip
    assert (figures.std_ms, figures.init_ms, figures.first_ms) == (0.21, 8.14, 3.3)
    assert (figures.warmup_ms, figures.peak_memory_mb) == (2.51, 15.5)
    counts = (
        "count=200 first=3300 curr=2500 min=2400 max=3300 avg=2510 std=9\n"
        "count=50 first=12300 curr=12300 min=12011 max=13499 avg=12341 std=210 "
        "p5=12020 median=12330 p95=13400\n"
    )
    figures = read_figures(counts + LITERT)
    assert (figures.avg_ms, figures.median_ms, figures.p95_ms) == (12.341, 12.33, 13.4)
    assert (figures.init_ms, figures.runs) == (8.14, 50)


def test_a_single_timed_run_is_read():
    text = "count=1 curr=900\ncount=1 curr=700\n" + NEW.splitlines()[2]
    figures = read_figures(text)
    assert (figures.avg_ms, figures.min_ms, figures.max_ms, figures.runs) == (0.7, 0.7, 0.7, 1)


@pytest.mark.parametrize(
    "text", ["", "STARTING!\n", NEW.splitlines()[0], "\n".join(NEW.splitlines()[:2])]
)
def test_what_breaks_off_before_the_end_has_no_figures(text):
    assert read_figures(text).avg_ms is None
    assert outcome(0, text, Configuration("xnnpack", 1)).status == "unreadable"


GPU = "INFO: Replacing {} node(s) with delegate (TfLiteGpuDelegateV2) node, yielding {} partitions"


@pytest.mark.parametrize(
    ("text", "backend", "expected"),
    [
        (GPU.format("31 out of 31", 1), "gpu", Delegation("all", 31, 31, 1)),
        (GPU.format("60 out of 64", 5), "gpu", Delegation("part", 60, 64, 5)),
        (GPU.format("60", 5) + ".", "gpu", Delegation("part", 60, None, 5)),
        (GPU.format("0 out of 64", 0), "gpu", Delegation("none", 0, 64, 0)),
        (GPU.format("60 out of 64", 5), "nnapi", Delegation()),
        (
            "INFO: Replacing 9 out of 9 node(s) with delegate (LITERT_CL) node, yielding 1 "
            "partitions for subgraph 0.",
            "gpu",
            Delegation("all", 9, 9, 1),
        ),
        (
            "Explicitly applied NNAPI delegate, and the model graph will be completely executed "
            "by the delegate.",
            "nnapi",
            Delegation("all"),
        ),
        (
            "Applied GPU delegate, and the model graph will be partially executed by the "
            "delegate w/ 2 delegate kernels.",
            "gpu",
            Delegation("part"),
        ),
        (
            "Though NNAPI delegate is explicitly applied, the model graph will not be executed "
            "by the delegate.",
            "nnapi",
            Delegation("none"),
        ),
        ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.", "gpu", Delegation()),
        ("No operations will run on the GPU, and all 64 on the CPU", "gpu", Delegation("none")),
    ],
)
def test_what_a_delegate_took_is_read(text, backend, expected):
    assert read_delegation(text, backend) == expected


@pytest.mark.parametrize(
    ("status", "text", "backend", "expected"),
    [
        (0, NEW, "cpu", "ok"),
        (0, NEW, "gpu", "unconfirmed"),
        (0, NEW + GPU.format("31 out of 31", 1), "gpu", "ok"),
        (0, "GPU acceleration is unsupported on this platform.\n" + NEW, "gpu", "fell_back"),
        (0, "NNAPI acceleration is unsupported on this platform.\n" + NEW, "cpu", "ok"),
        (0, "WARN: Unconsumed cmdline flags: --use_nnapi=true\n" + NEW, "nnapi", "unsupported"),
        (1, "ERROR: Failed to apply GPU delegate.", "gpu", "unsupported"),
        (1, "ERROR: Disallowed CPU fallback detected.", "gpu", "unsupported"),
        (1, "Failed to load model /data/local/tmp/a.tflite", "cpu", "failed"),
        (134, "Abort message: 'CHECK failed'", "cpu", "crashed"),
        (126, "sh: /data/x: not executable: 32-bit ELF file", "cpu", "wrong_abi"),
        (126, "sh: /data/x: Exec format error", "cpu", "wrong_abi"),
        (1, 'CANNOT LINK EXECUTABLE "x": library "libc.so" not found', "cpu", "wrong_abi"),
        (1, "write failed: No space left on device", "cpu", "no_space"),
    ],
)
def test_what_became_of_a_run(status, text, backend, expected):
    found = outcome(status, text, Configuration(backend, 1))
    assert found.status == expected
    assert bool(found.message) == (expected != "ok")
    assert (found.figures.avg_ms is not None) == (expected in ("ok", "unconfirmed"))


def test_a_signal_is_named_with_the_last_words():
    text = "Loaded model\nabout to die\nSegmentation fault \n\n"
    found = outcome(139, text, Configuration("cpu", 1))
    assert found.message == "signal 11 (SIGSEGV); last words: about to die"
    assert outcome(128 + 70, "", Configuration("cpu", 1)).message == "signal 70; last words: none"


def test_the_command_line_has_the_flags_of_the_tool():
    pinned = Configuration("gpu", 4, "f0")
    assert command("/d/tool", "/d/a.tflite", pinned, warmup=1, runs=9) == (
        "taskset f0 /d/tool --graph=/d/a.tflite --num_threads=4 --warmup_runs=1 --num_runs=9 "
        "--use_gpu=true --report_peak_memory_footprint=true"
    )
    known = known_flags("Flags:\n\t--num_runs=50\tint32\n\t--use_profiler=false\tbool\n")
    assert known == {"num_runs", "use_profiler"}
    words = command("t", "f", Configuration("xnnpack", 1), warmup=0, runs=1, known=known)
    assert "use_xnnpack" not in words
    words = command(
        "t", "f", Configuration("xnnpack", 1), warmup=0, runs=1, known=known, profile=True
    )
    assert words.endswith("--use_profiler=true")


OLD_PROFILE = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t            0.000\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

============================== Top by Computation Time ==============================
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.066\t   87.754\t   60.957\t  2.066%\t  2.066%\t     0.000\t        1\t[Conv2d_0/Relu6]:0
\t TfLiteXNNPackDelegate 2\t           61.033\t   53.628\t   49.870\t  1.691%\t  3.757%\t     0.000\t        1\t[a, b]:1

============================== Top by Computation Time ==============================
\t                 CONV_2D\t            0.066\t   87.754\t   99.957\t  2.066%\t  2.066%\t     0.000\t        1\t[Conv2d_0/Relu6]:0
"""  # noqa: E501
LITERT_PROFILE = """===================================== Run Order =====================================
                      [node type]   [first]  [avg ms]      [%]    [cdf%]  [mem KB] [times called]  [Name]
  Delegate/Mean (ND) Reduce2            0.001    0.250   0.845%   0.845%    0.000       3   [Delegate]:6
  Delegate/Fully Connected (NC, F32) GEMM  0.001 0.750 99.155% 100.000%    0.000       3   [Delegate]:7

Number of nodes executed: 2
"""  # noqa: E501


def test_profiles_of_old_and_new_tools_are_read():
    found = parse_profile(OLD_PROFILE)
    assert [(op.kind, op.name, op.ms) for op in found] == [
        ("CONV_2D", "[Conv2d_0/Relu6]:0", 60.957),
        ("TfLiteXNNPackDelegate 2", "[a, b]:1", 49.87),
    ]
    found = parse_profile(LITERT_PROFILE)
    assert [(op.kind, op.ms) for op in found] == [
        ("Delegate/Mean (ND) Reduce2", 0.25),
        ("Delegate/Fully Connected (NC, F32) GEMM", 0.75),
    ]
    assert list(by_kind(found).values()) == [0.75, 0.25]
    assert parse_profile("no table") == []
