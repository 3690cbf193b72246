"""A device of the tests' own, on loopback: it speaks the protocol of Android's `adbd`.

The real `adb` connects to it. Files land in a folder, the shell is this machine's with a few
programs of Android's, and in place of the native benchmark tool runs `litert_tool.py`.

Reference:
    Android's packages/modules/adb: protocol.txt, SERVICES.TXT, SYNC.TXT.
"""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name.encode(), "little")
    for name in ("CNXN", "AUTH", "OPEN", "OKAY", "CLSE", "WRTE")
)
VERSION, CHUNK = 0x01000001, 64 * 1024  # from this version on messages need no checksum
BANNER = b"device::ro.product.name=phone;ro.product.model=Phone_7;features=shell_v2,cmd"
TOKEN, PUBLIC_KEY = 1, 3  # kinds of AUTH
STDOUT, EXIT = 1, 3  # packets of shell protocol 2
TOOL = f"{sys.executable} {Path(__file__).with_name('litert_tool.py')}"


class Adbd:
    """A device that listens.

    Args:
        root: its folder, with `phones.userland`.
        authorized: whether it lets the computer in.
        full: a name's end whose files do not fit any more.
        unplugged_by: words in a command at which the cable is pulled.
    """

    def __init__(self, root, *, authorized=True, full="\0", unplugged_by="\0"):
        self.root = root
        self.authorized = authorized
        self.full = full
        self.unplugged_by = unplugged_by
        self.commands = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.connection = None
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()
        self.unplug()
        if self.connection:
            self.connection.thread.join(10)

    def unplug(self):
        if self.connection and self.connection.thread.is_alive():
            with contextlib.suppress(OSError):
                self.connection.socket.shutdown(socket.SHUT_RDWR)

    def accept(self):
        while True:
            try:
                connected, _ = self.listener.accept()
            except OSError:
                return
            self.connection = Connection(self, connected)
            self.connection.thread.start()

    def run(self, command):
        """Starts a command of the shell."""
        self.commands.append(command)
        if self.unplugged_by in command:
            self.listener.close()
            self.unplug()
        command = self.local(command)
        words = command.split(" ")
        for index, word in enumerate(words[:-1]):
            if word.endswith("/benchmark_model") and words[index + 1].startswith("--"):
                words[index] = f"{TOOL} {word}"
        path = f"{self.root}/bin:/usr/bin:/bin"
        return subprocess.Popen(  # noqa: S603 - the commands of our own sweep
            ["/bin/sh", "-c", " ".join(words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "DEVICE": str(self.root)},
        )

    def local(self, text):
        for folder in ("/data/local/tmp", "/sys/devices"):
            text = text.replace(folder, f"{self.root}{folder}")
        return text


class Connection:
    """A computer at the other end."""

    def __init__(self, device, connected):
        self.device = device
        self.socket = connected
        self.lock = threading.Lock()
        self.streams = {}
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def receive(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def send(self, command, first, second, data=b""):
        head = struct.pack(
            "<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF
        )
        with self.lock:
            self.socket.sendall(head + data)

    def serve(self):
        try:
            while True:
                command, first, second, length, _, _ = struct.unpack("<6I", self.receive(24))
                self.answer(command, first, second, self.receive(length))
        except OSError:
            pass  # the other end went
        finally:
            self.socket.close()
            for stream in list(self.streams.values()):
                stream.end()

    def answer(self, command, first, second, data):
        if command == CNXN and self.device.authorized:
            self.send(CNXN, VERSION, CHUNK, BANNER)
        elif command in (CNXN, AUTH):
            if first != PUBLIC_KEY:  # a signature: none is known, and nobody accepts the key
                self.send(AUTH, TOKEN, 0, bytes(20))
        elif command == OPEN:
            stream = self.streams[first] = Stream(self, first)
            self.send(OKAY, stream.number, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
        elif first not in self.streams:
            if command == WRTE:
                self.send(CLSE, 0, first)
        elif command == WRTE:
            self.streams[first].put(data)
            self.send(OKAY, second, first)
        elif command == OKAY:
            self.streams[first].ready.release()
        elif command == CLSE:
            self.streams.pop(first).end()


class Stream:
    """One service asked for."""

    def __init__(self, connection, theirs):
        self.connection = connection
        self.theirs = theirs
        self.number = theirs + 1000
        self.ready = threading.Semaphore(1)  # the other end takes one message at a time
        self.come = threading.Condition()
        self.buffer = b""
        self.ended = False

    def put(self, data):
        with self.come:
            self.buffer += data
            self.come.notify()

    def end(self):
        with self.come:
            self.ended = True
            self.come.notify()
        self.ready.release()

    def read(self, count):
        with self.come:
            self.come.wait_for(lambda: len(self.buffer) >= count or self.ended)
            if len(self.buffer) < count:
                raise ConnectionError
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            return data

    def write(self, data):
        for start in range(0, len(data), CHUNK):
            self.ready.acquire()
            if self.ended:
                raise ConnectionError
            self.connection.send(WRTE, self.number, self.theirs, data[start : start + CHUNK])

    def serve(self, service):
        name, _, argument = service.partition(":")
        try:
            if name.split(",")[0] == "shell":
                self.shell(argument, "v2" in name.split(","))
            elif name == "sync":
                self.sync()
            self.ready.acquire()
            self.connection.send(CLSE, self.number, self.theirs)
            self.connection.streams.pop(self.theirs, None)
        except OSError:
            pass  # the other end went

    def shell(self, command, second):
        with self.connection.device.run(command) as process:
            while text := os.read(process.stdout.fileno(), 4096):
                self.write(struct.pack("<BI", STDOUT, len(text)) + text if second else text)
            status = process.wait()
        if second:
            self.write(struct.pack("<BIB", EXIT, 1, status % 256))

    def sync(self):
        while True:
            verb, length = struct.unpack("<4sI", self.read(8))
            if verb == b"QUIT":
                return
            path = self.read(length).decode()
            if verb == b"STAT":
                self.write(b"STAT" + struct.pack("<3I", *self.stat(path)))
            elif verb == b"SEND":
                self.store(path.rpartition(",")[0])
            elif verb == b"LIST":
                for name in os.listdir(self.connection.device.local(path)):
                    entry = struct.pack("<4I", *self.stat(f"{path}/{name}"), len(name))
                    self.write(b"DENT" + entry + name.encode())
                self.write(b"DONE" + bytes(16))
            elif verb == b"RECV":
                self.fetch(path)
            else:
                raise ConnectionError(verb)

    def stat(self, path):
        try:
            found = os.stat(self.connection.device.local(path))
        except FileNotFoundError:
            return 0, 0, 0
        return found.st_mode, found.st_size, int(found.st_mtime)

    def store(self, path):
        device = self.connection.device
        content = b""
        while True:
            verb, length = struct.unpack("<4sI", self.read(8))
            if verb == b"DONE":
                break
            content += self.read(length)
        if path.endswith(device.full):
            words = b"write failed: No space left on device"
            self.write(b"FAIL" + struct.pack("<I", len(words)) + words)
            return
        Path(device.local(path)).write_bytes(content)
        self.write(b"OKAY" + bytes(4))

    def fetch(self, path):
        content = Path(self.connection.device.local(path)).read_bytes()
        for start in range(0, len(content), CHUNK):
            part = content[start : start + CHUNK]
            self.write(b"DATA" + struct.pack("<I", len(part)) + part)
        self.write(b"DONE" + bytes(4))
