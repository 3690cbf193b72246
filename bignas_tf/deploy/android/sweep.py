"""Runs a plan on devices, a thread each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from bignas_tf.deploy.android.adb import AdbError, Device, Stopped
from bignas_tf.deploy.android.device_sweep import DeviceSweep
from bignas_tf.deploy.android.plan import Plan
from bignas_tf.deploy.android.progress import Progress
from bignas_tf.deploy.android.results import Results


def sweep(
    devices: Sequence[Device], plan: Plan, results: Results, progress: Progress | None = None
) -> list[str]:
    """Runs a plan on devices, all at once.

    Args:
        devices: of one `Adb`.
        plan: what to measure.
        results: where the rows go; what is there is not measured again.
        progress: what is told; printed by default.

    Returns:
        One line for each device that did not get to its end, or none of whose measurements has
        figures.

    Raises:
        KeyboardInterrupt: after the devices are cleaned up.
        OSError: if a result cannot be written.
    """
    progress = progress or Progress()
    if plan.profiles is not None:
        Path(plan.profiles).mkdir(parents=True, exist_ok=True)
    stop = devices[0].adb.stop
    problems: list[str] = []
    broken: list[BaseException] = []

    def work(device: Device, finished: threading.Event) -> None:
        one = DeviceSweep(device, plan, results, progress)
        try:
            one.run()
            failure = one.failure()
            if failure:
                problems.append(failure)
        except AdbError as error:
            problems.append(f"{one.name}: {error}")
            progress.say(f"{one.name} ends here: {error}")
        except Stopped:
            pass
        except BaseException as error:  # noqa: B036 - raised again in the main thread
            broken.append(error)
            stop.set()
        finally:
            progress.end(one.name)
            finished.set()

    # Not Thread.join: Ctrl-C in it makes Python 3.11 take a running thread for an ended one.
    ends = [threading.Event() for _ in devices]
    for device, finished in zip(devices, ends, strict=True):
        threading.Thread(target=work, args=(device, finished)).start()
    try:
        _wait(ends)
    except KeyboardInterrupt:
        stop.set()
        progress.say("ending: removing what was pushed")
        _wait(ends)
        raise
    if broken:
        raise broken[0]
    return problems


def _wait(ends: Sequence[threading.Event]) -> None:
    for finished in ends:
        while not finished.wait(0.2):  # with a time limit, so that Ctrl-C comes through
            pass
