"""Runs a plan on one device."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bignas_tf.deploy.android import tool
from bignas_tf.deploy.android.adb import AdbError, Answer, Device, NoSpace, Stopped, TimedOut
from bignas_tf.deploy.android.cooling import cool_down, reference_of
from bignas_tf.deploy.android.device import Information, State, read_information, read_state
from bignas_tf.deploy.android.output import TIMED, Outcome, outcome
from bignas_tf.deploy.android.plan import Plan, Pushed
from bignas_tf.deploy.android.progress import Progress
from bignas_tf.deploy.android.results import COLUMNS, Results, key_of
from bignas_tf.deploy.latency.operator_times import parse_profile, write_profile

_FOLDER = "/data/local/tmp"  # the only one where a program may be put and run
_CLEANING = 20.0  # seconds


class DeviceSweep:
    """A plan on one device.

    Args:
        device: which.
        plan: what to measure.
        results: where the rows go.
        progress: what is told.
    """

    def __init__(self, device: Device, plan: Plan, results: Results, progress: Progress) -> None:
        self.device = device
        self.plan = plan
        self.results = results
        self.progress = progress
        self.name = device.serial
        self.folder = f"{_FOLDER}/bignas_{os.getpid()}_{time.time_ns() % 10**9}"
        self.known: frozenset[str] = frozenset()
        self.on_device: set[str] = set()
        self._keys: dict[tuple[Pushed, tool.Configuration], tuple[str, ...]] = {}

    def failure(self) -> str | None:
        """After `run`: what is wrong if no measurement of the plan has figures."""
        statuses = [self.results.row(key)["status"] for key in self._keys.values()]
        if any(status in TIMED for status in statuses):
            return None
        counts = collections.Counter(statuses).most_common()
        told = ", ".join(f"{count} {status}" for status, count in counts)
        return f"{self.name}: no measurement has figures: {told}"

    def run(self) -> None:
        """Measures what is missing and removes what it pushed.

        Raises:
            AdbError: if the device cannot go on.
            Stopped: if the user wants to end.
            OSError: if a result cannot be written.
            ValueError: if the CSV does not tell how warm the device may be.
        """
        information = read_information(self.device, hash_serial=self.plan.hash_serial)
        self.name = f"{information.device} ({information.serial})"
        self._keys = {
            each: key_of(self._columns(information, *each)) for each in self.plan.measurements
        }
        missing = [each for each, key in self._keys.items() if not self._is_done(key)]
        self.progress.begin(self.name, len(missing))
        if not missing:
            self.progress.say(f"{self.name}: nothing is missing")
            return
        if self.plan.abi not in information.abis:
            raise AdbError(
                f"{self.name} runs {', '.join(information.abis)}; the tool "
                f"{self.plan.tool.path} is for {self.plan.abi}"
            )
        # Of an earlier call, too: a device that is still hot from it would else pass for cool.
        measured = self.results.first(device=information.device, serial=information.serial)
        reference = reference_of(measured) if measured else None
        try:
            self._prepare()
            for file, configuration in missing:
                state, cool = self._cool_down(reference)
                reference = reference or state
                key = self._keys[file, configuration]
                if self.results.has(key):
                    self._add_profile(file, configuration, self.results.row(key))
                else:
                    columns = self._columns(information, file, configuration)
                    before = _conditions(state, reference, cool)
                    self._measure(file, configuration, {**columns, **before})
        finally:
            self._clean()

    def _cool_down(self, reference: State | None) -> tuple[State, bool]:
        """The device's state, and whether it is cool; waits if there is a reference."""
        if reference is None:
            return read_state(self.device), True
        return cool_down(lambda: read_state(self.device), reference, self.plan.cooling, self._sleep)

    def _is_done(self, key: tuple[str, ...]) -> bool:
        """Whether a measurement is there, and its profile where one is wanted."""
        if not self.results.has(key):
            return False
        row, folder = self.results.row(key), self.plan.profiles
        if folder is None or row["status"] not in TIMED:
            return True
        return bool(row["profile"]) and (Path(folder) / row["profile"]).is_file()

    def _add_profile(
        self, file: Pushed, configuration: tool.Configuration, row: Mapping[str, str]
    ) -> None:
        """Makes up for a profile that an earlier sweep has not."""
        profile = self._profile(file, configuration)
        self.results.add({**row, "profile": profile})
        told = "profiled" if profile else "no profile"
        self.progress.done(self.name, f"{file.path.name}, {configuration}: {told}")

    def _prepare(self) -> None:
        """Pushes the tool and asks what flags it has."""
        made = self.device.shell(f"mkdir -p {self.folder}")
        if made.status:
            raise AdbError(f"{self.name}: cannot make {self.folder}: {made.output.strip()}")
        self.device.push(self.plan.tool.path, self._tool)
        self.device.shell(f"chmod 755 {self._tool}")
        usage = self._tool_run(f"{self._tool} --help")
        found = outcome(usage.status, usage.output, self.plan.configurations[0])
        if found.status == "wrong_abi":
            raise AdbError(
                f"{self.name} cannot run {self.plan.tool.path} ({found.message}); the "
                f"tool must be for {self.plan.abi}"
            )
        self.known = tool.known_flags(usage.output)

    def _measure(
        self, file: Pushed, configuration: tool.Configuration, known: Mapping[str, str]
    ) -> None:
        """Runs one configuration of one file; failures become rows too.

        Args:
            file: which.
            configuration: how.
            known: the columns that are known before.
        """
        found = self._outcome(file, configuration)
        row = {
            **dict.fromkeys(COLUMNS, ""),
            **known,
            **_texts(dataclasses.asdict(found.figures)),
            **_texts(
                {
                    "status": found.status,
                    "message": " ".join(found.message.split()),
                    "delegated": found.delegation.extent,
                    "delegated_nodes": found.delegation.nodes,
                    "nodes": found.delegation.of_nodes,
                    "partitions": found.delegation.partitions,
                    "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
                        timespec="seconds"
                    ),
                }
            ),
        }
        self.results.add(row)  # now: whatever is asked of the device next may find it gone
        after = read_state(self.device)
        row |= _texts({"thermal_after": after.thermal, "celsius_after": after.celsius})
        self.results.add(row)
        if self.plan.profiles is not None and found.status in TIMED:
            self.results.add({**row, "profile": self._profile(file, configuration)})
        figure = found.figures.median_ms or found.figures.avg_ms
        told = f"{figure:.3f} ms" if figure is not None else ""
        if found.status != "ok":
            told = f"{told} {found.status}: {found.message}".strip()
        self.progress.done(self.name, f"{file.path.name}, {configuration}: {told}")

    def _outcome(self, file: Pushed, configuration: tool.Configuration) -> Outcome:
        """What became of the timed run."""
        lacking = tool.missing_switch(configuration, self.known)
        if lacking:
            return Outcome("unsupported", f"the tool has no {lacking}")
        try:
            self._push(file)
            answer = self._tool_run(self._command(file, configuration))
        except NoSpace as error:
            return Outcome("no_space", str(error))
        except TimedOut as error:
            self._end_tool()
            return Outcome("timed_out", str(error))
        return outcome(answer.status, answer.output, configuration)

    def _push(self, file: Pushed) -> None:
        """Pushes a file that is not there yet, all of it or nothing."""
        if file.sha256 in self.on_device:
            return
        try:
            self.device.push(file.path, self._remote(file))
        except NoSpace:
            self.device.shell(f"rm -f {self._remote(file)}")
            raise
        self.on_device.add(file.sha256)

    def _profile(self, file: Pushed, configuration: tool.Configuration) -> str:
        """Runs with the profiler on: the name of the operators' CSV; empty if that fails."""
        try:
            self._push(file)
            profiled = self._tool_run(self._command(file, configuration, profile=True))
        except (NoSpace, TimedOut) as error:  # figures that are there stay
            self._end_tool()
            self.progress.say(f"{self.name}: no profile of {file.path.name}: {error}")
            return ""
        return self._write_profile(profiled.output, file, configuration)

    def _write_profile(self, text: str, file: Pushed, configuration: tool.Configuration) -> str:
        operators = parse_profile(text)
        if not operators or self.plan.profiles is None:
            self.progress.say(f"{self.name}: the tool printed no profile of {file.path.name}")
            return ""
        safe = "".join(letter if letter.isalnum() else "_" for letter in self.name)
        name = f"{safe}_{file.path.stem}_{file.sha256[:8]}_{configuration.slug}.csv"
        write_profile(operators, self.plan.profiles / name)
        return name

    def _tool_run(self, command: str) -> Answer:
        """Runs the tool, its process number in a file so that it can be ended."""
        number = f"{self.folder}/pid"
        return self.device.shell(
            f"sh -c 'echo $$ > {number}; exec {command}'; s=$?; rm -f {number}; exit $s",
            seconds=self.plan.seconds,
        )

    def _command(
        self, file: Pushed, configuration: tool.Configuration, *, profile: bool = False
    ) -> str:
        return tool.command(
            self._tool,
            self._remote(file),
            configuration,
            warmup=self.plan.warmup,
            runs=self.plan.runs,
            known=self.known,
            profile=profile,
        )

    @property
    def _tool(self) -> str:
        return f"{self.folder}/benchmark_model"

    def _remote(self, file: Pushed) -> str:
        return f"{self.folder}/{file.sha256[:16]}.tflite"

    def _end_tool(self) -> None:
        """Ends the tool if it still runs: closing the connection alone does not."""
        number = f"{self.folder}/pid"
        self.device.shell(
            f"[ -f {number} ] && kill -9 $(cat {number}); rm -f {number}; true",
            seconds=_CLEANING,
            stoppable=False,
        )

    def _clean(self) -> None:
        """Removes what was pushed; if that fails, says what is left."""
        try:
            self._end_tool()
            removed = self.device.shell(f"rm -rf {self.folder}", seconds=_CLEANING, stoppable=False)
            if removed.status == 0:
                return
            reason = removed.output.strip()
        except AdbError as error:
            reason = str(error)
        self.progress.say(f"{self.name}: {self.folder} could not be removed ({reason})")

    def _sleep(self, seconds: float) -> None:
        if self.device.adb.stop.wait(seconds):
            raise Stopped

    def _columns(
        self, information: Information, file: Pushed, configuration: tool.Configuration
    ) -> dict[str, str]:
        """What is known before a measurement."""
        return _texts(
            {
                "file": file.path.name,
                "backend": configuration.backend,
                "threads": configuration.threads,
                "cores": configuration.cores or "any",
                "device": information.device,
                "soc": information.soc,
                "android": information.android,
                "abi": self.plan.abi,
                "warmup": self.plan.warmup,
                "runs_asked": self.plan.runs,
                "serial": information.serial,
                "build": information.build,
                "tool_sha256": self.plan.tool.sha256,
                "file_sha256": file.sha256,
                "file_bytes": file.bytes,
            }
        )


def _conditions(state: State, reference: State, cool: bool) -> dict[str, str]:
    """The columns on how warm a device is before a measurement."""
    return _texts(
        {
            "governor": state.governor,
            "thermal_before": state.thermal,
            "celsius_before": state.celsius,
            "thermal_reference": reference.thermal,
            "celsius_reference": reference.celsius,
            "cooled": "yes" if cool else "no",
        }
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }
