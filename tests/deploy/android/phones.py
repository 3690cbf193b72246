"""Devices for `adb_stand_in.py`, and files to measure on them."""

import csv
import marshal
import os
import struct
import sys
import time
from pathlib import Path

PROPERTIES = {
    "ro.product.manufacturer": "Maker",
    "ro.product.model": "Phone 7",
    "ro.soc.manufacturer": "Chips",
    "ro.soc.model": "C100",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "maker/phone/7:14/ABC/1:user/release-keys",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}
MACHINES = {"arm64-v8a": 183, "x86_64": 62}
# Each time it is asked, a warm device is one step cooler.
THERMAL = """#!/bin/sh
case $1 in
thermalservice)
  t=$(cat $DEVICE/thermal)
  echo "IsStatusOverride: false"
  echo "Thermal Status: $t"
  [ $t -gt 0 ] && echo $((t - 1)) > $DEVICE/thermal ;;
battery) printf 'Current Battery Service state:\\n  level: 90\\n  temperature: 285\\n' ;;
esac
"""
TASKSET = '#!/bin/sh\nexport CORES=$1\nshift\nexec "$@"\n'


def userland(root, properties=()):
    """The programs and files of Android that a sweep asks for."""
    values = PROPERTIES | dict(properties)
    lines = "\n".join(f"[{name}]: [{value}]" for name, value in values.items())
    program(root / "bin" / "getprop", f"#!/bin/sh\ncat <<'EOF'\n{lines}\nEOF\n")
    program(root / "bin" / "dumpsys", THERMAL)
    program(root / "bin" / "taskset", TASKSET)
    (root / "data/local/tmp").mkdir(parents=True)
    (root / "thermal").write_text("0")
    for core, governor in enumerate(("schedutil", "schedutil", "performance")):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(governor + "\n")


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Phones:
    """A folder of devices, and the program that stands in for adb."""

    def __init__(self, home):
        self.home = home
        self.listed = {}
        script = Path(__file__).with_name("adb_stand_in.py")
        self.adb = home / "adb"
        program(self.adb, f'#!/bin/sh\nexec {sys.executable} -SE {script} "$@"\n')
        self.write()

    def add(self, serial, state="device", properties=(), **faults):
        self.listed[serial] = {"state": state, "faults": faults}
        userland(self.home / serial, properties)
        self.write()

    def change(self, serial, **faults):
        self.listed[serial]["faults"] = faults
        self.write()

    def write(self):
        (self.home / "devices").write_bytes(marshal.dumps(self.listed))

    def left(self, serial):
        """What lies in the folder that files are pushed to."""
        return os.listdir(self.home / serial / "data/local/tmp")

    def runs(self, serial):
        """The tool's command lines, the cores before them."""
        log = self.home / serial / "runs"
        return log.read_text().splitlines() if log.exists() else []


def native_program(path, abi="arm64-v8a"):
    """A file with the head of a program for Android."""
    path.write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", MACHINES[abi]) + bytes(100))
    return path


def model_file(path):
    """A file that looks like TFLite to whoever does not run it."""
    path.write_bytes(b"\x1c\0\0\0TFL3" + path.name.encode())
    return path


def rows_of(path):
    """The rows of a CSV file, if it is there."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def ended(phones, serial):
    """Whether the tool that hung on a device is gone, or goes within some seconds."""
    number = int((phones.home / serial / "hanging").read_text())
    for _ in range(50):
        try:
            os.kill(number, 0)
            if open(f"/proc/{number}/stat").read().split()[2] == "Z":
                return True  # its parent died before it
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False
