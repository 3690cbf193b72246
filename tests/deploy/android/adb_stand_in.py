"""Answers as Android's `adb` does, for devices that are folders.

The folder is `$ADB_STAND_IN`; its file `devices` says for each serial number the state and the
faults. A device's shell is this machine's, with a few programs of Android's (`bin`) and
`tool.py` in place of the native benchmark tool. It starts hundreds of times: no site packages,
and no import that takes milliseconds (hence marshal).
"""

import marshal
import os
import sys

HOME = os.environ["ADB_STAND_IN"]
TOOL = f"{sys.executable} -SE {os.path.dirname(os.path.abspath(__file__))}/tool.py"


def fail(words):
    print(words, file=sys.stderr)
    sys.exit(1)


def devices():
    with open(f"{HOME}/devices", "rb") as file:
        return marshal.load(file)  # noqa: S302 - the tests wrote it


class Device:
    def __init__(self, serial):
        self.serial, self.known = serial, devices()
        state = self.known.get(serial, {}).get("state")
        if state is None:
            fail(f"adb: device '{serial}' not found")
        if state == "unauthorized":
            fail("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set")
        if state != "device":
            fail(f"error: device {state}")
        self.faults = self.known[serial]["faults"]
        self.root = f"{HOME}/{serial}"
        # A cable that comes loose: gone from then on.
        if self.count() > self.faults.get("lost_after", 10**9):
            fail(self.faults["lost_words"])

    def count(self):
        """How many commands this device got, this one included."""
        with open(f"{self.root}/commands", "a+", encoding="utf-8") as file:
            file.write(".")
            return file.tell()

    def local(self, text):
        for folder in ("/data/local/tmp", "/sys/devices"):
            text = text.replace(folder, self.root + folder)
        return text

    def shell(self, command):
        if self.faults.get("lost_in_tool") and "--graph" in command:
            self.known[self.serial]["state"] = "offline"
            with open(f"{HOME}/devices.new", "wb") as file:
                marshal.dump(self.known, file)
            os.replace(f"{HOME}/devices.new", f"{HOME}/devices")  # another device may read it
            print("STARTING!")
            sys.exit(255)
        words = self.local(command).split(" ")
        for index, word in enumerate(words[:-1]):
            if word.endswith("/benchmark_model") and words[index + 1].startswith("--"):
                words[index] = f"{TOOL} {word}"
        command = " ".join(words)
        if self.faults.get("old_shell"):  # before Android 7 the status is not handed on
            command = f"({command}); exit 0"
        path = f"{self.root}/bin:/usr/bin:/bin"
        environment = {"PATH": path, "ADB_STAND_IN": HOME, "DEVICE": self.root}
        os.execve("/bin/sh", ["sh", "-c", command], environment)  # noqa: S606

    def push(self, source, target):
        if source.endswith(self.faults.get("full", "\0")):
            fail(
                f"adb: error: failed to copy '{source}' to '{target}': remote couldn't create "
                "file: No space left on device"
            )
        with open(source, "rb") as file, open(self.local(target), "wb") as copy:
            copy.write(file.read(10 if self.faults.get("truncates") else -1))
        print(f"{source}: 1 file pushed, 0 skipped.")


def main(verb, *arguments):
    if verb == "devices":
        print("List of devices attached")
        for serial, device in devices().items():
            print(f"{serial}\t{device['state']}")
        print()
    elif verb == "-s":
        serial, verb, *arguments = arguments
        getattr(Device(serial), verb)(*arguments)
    elif verb != "start-server":
        fail("adb: more than one device/emulator")


main(*sys.argv[1:])
