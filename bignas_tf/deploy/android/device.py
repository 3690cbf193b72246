"""What a latency on an Android device depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import re

from bignas_tf.deploy.android.adb import AdbError, Device

_PROPERTY = re.compile(r"^\[(.+?)\]: \[(.*)\]$", re.MULTILINE)
_GOVERNORS = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_STATE = (
    f"for f in {_GOVERNORS}; do [ -r $f ] && echo governor=$(cat $f); done;"
    " dumpsys thermalservice 2>/dev/null | grep 'Thermal Status:';"
    " dumpsys battery 2>/dev/null | grep 'temperature:'; true"
)


@dataclasses.dataclass(frozen=True)
class Information:
    """What does not change during a sweep.

    Attributes:
        device: str, manufacturer and model.
        serial: str, or its hash.
        soc: str, system on a chip.
        android: str, version and API level.
        build: str, fingerprint.
        abis: tuple of str, the instruction sets that it runs, the preferred one first.
    """

    device: str
    serial: str
    soc: str
    android: str
    build: str
    abis: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class State:
    """What does change.

    Attributes:
        governor: str, of the processors' frequencies; several joined by `+`.
        thermal: int, Android's thermal status: 0 is not throttled; None before
            Android 10.
        celsius: float, the battery's temperature; None if it is not told.
    """

    governor: str
    thermal: int | None
    celsius: float | None


def read_information(device: Device, *, hash_serial: bool = False) -> Information:
    """Asks a device what it is.

    Args:
        device: which.
        hash_serial: bool, gives 12 characters of the serial number's SHA-256 instead of it.

    Raises:
        AdbError: if it cannot be reached or does not tell its instruction sets.
    """
    properties = dict(_PROPERTY.findall(device.shell("getprop").output))

    def first(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "")

    maker, model = first("ro.product.manufacturer"), first("ro.product.model")
    abis = first("ro.product.cpu.abilist", "ro.product.cpu.abi")
    if not abis:
        raise AdbError(f"device {device.serial} does not tell its instruction sets (getprop)")
    soc = (first("ro.soc.manufacturer"), first("ro.soc.model", "ro.board.platform", "ro.hardware"))
    level = first("ro.build.version.sdk")
    serial = device.serial
    if hash_serial:
        serial = hashlib.sha256(serial.encode()).hexdigest()[:12]
    return Information(
        device=model if model.lower().startswith(maker.lower()) else f"{maker} {model}",
        serial=serial,
        soc=" ".join(filter(None, soc)),
        android=f"{first('ro.build.version.release')} (API {level})",
        build=first("ro.build.fingerprint", "ro.build.display.id"),
        abis=tuple(abis.split(",")),
    )


def read_state(device: Device) -> State:
    """Asks a device for its governor and how warm it is.

    Raises:
        AdbError: if it cannot be reached.
    """
    output = device.shell(_STATE).output
    thermal = re.search(r"Thermal Status: (\d+)", output)
    tenths = re.search(r"temperature: (\d+)", output)
    return State(
        governor="+".join(dict.fromkeys(re.findall(r"^governor=(\S+)", output, re.MULTILINE))),
        thermal=int(thermal[1]) if thermal else None,
        celsius=int(tenths[1]) / 10 if tenths else None,
    )
