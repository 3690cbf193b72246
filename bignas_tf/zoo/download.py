"""Weights from elsewhere: downloaded once, resumed, used only if their hash is the given one."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from bignas_tf.checks import require
from bignas_tf.optional import require_package

# By scheme, what an address looks like before its hash.
ADDRESSES = {
    "https": "https://HOST/PATH",
    "http": "http://HOST/PATH",
    "hf": "hf://OWNER/REPOSITORY[@REVISION]/PATH",
}
_TIMEOUT = 30  # seconds without a byte
_ALLOWED = (
    f"{' or '.join(ADDRESSES.values())}, followed by #sha256=HASH, the hash of 64 hexadecimal "
    "digits"
)


def is_remote(weights: str) -> bool:
    """Whether `weights` is an address and not a path."""
    return urlsplit(weights).scheme in ADDRESSES


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(weights: str) -> Path:
    """The file at an address, from the cache if it is there.

    The cache is `models/bignas_tf` in `$KERAS_HOME`, by default `~/.keras`. A download that
    broke off goes on where it stopped, if the server can do that.

    Args:
        weights: `https://HOST/PATH#sha256=HASH` (or `http://`) or, with the package
            huggingface_hub, `hf://OWNER/REPOSITORY[@REVISION]/PATH#sha256=HASH`.

    Returns:
        The path of the file, which has that hash.

    Raises:
        ValueError: for another address, or a file with another hash.
        ConnectionError: if it cannot be downloaded; the message says where to put the file.
        ModuleNotFoundError: without huggingface_hub, if it is needed.
    """
    address = urlsplit(weights)
    found = re.fullmatch("sha256=([0-9a-fA-F]{64})", address.fragment)
    name = Path(unquote(address.path)).name
    folders = address.path.strip("/").count("/")
    ok = found and address.netloc and name and folders >= (1 if address.scheme == "hf" else 0)
    require(bool(ok), "weights", _ALLOWED, weights)
    expected = found[1].lower()  # type: ignore[index]
    place = _cache() / expected[:16] / name
    if place.is_file():
        _verify(place, expected, weights)
        return place
    if address.scheme == "hf":
        path = _from_hub(address, place, weights)
        _verify(path, expected, weights)
        return path
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place.parent):
        if not place.is_file():  # another process may have been faster
            part = place.with_name(f"{name}.part")
            _download(address._replace(fragment="").geturl(), part, place, weights)
            try:
                _verify(part, expected, weights)
            except ValueError:
                part.unlink()
                raise
            os.replace(part, place)
    return place


def _cache() -> Path:
    """Where Keras keeps what it downloads, in a folder of our own."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "models" / "bignas_tf"


def _verify(path: Path, expected: str, weights: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"`weights` must be a file with the SHA-256 {expected}; {path} is another and is not "
            f"read. Received: {weights!r}, {found}"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process downloads into a folder, where the system has file locks."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on Windows
        yield
        return
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, part: Path, place: Path, weights: str) -> None:
    """Completes `part`, as often as the connection breaks off after some progress."""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _get(url, part, before):
                return
            reason: object = "the connection broke off"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is no more of it; the hash tells whether it is whole
            reason = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        if not part.exists() or part.stat().st_size <= before:
            raise _unreachable(url, reason, place, weights)


def _get(url: str, part: Path, before: int) -> bool:
    """Adds to `part` what the server gives, and tells whether that was all it has announced."""
    from tqdm import tqdm

    headers = {"Range": f"bytes={before}-"} if before else {}
    # The scheme is https or http.
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
        resumed = response.status == http.client.PARTIAL_CONTENT
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm.wrapattr(response, "read", total=response.length, desc=part.stem) as body,
        ):
            shutil.copyfileobj(body, file)
        return not response.length  # what is still missing; None where nothing was announced


def _from_hub(address: SplitResult, place: Path, weights: str) -> Path:
    """A file of Hugging Face's hub, in that library's own cache."""
    repository, _, path = address.path.strip("/").partition("/")
    require_package("huggingface_hub", "hf", "`weights` from hf://")
    from huggingface_hub import hf_hub_download

    name, _, revision = unquote(repository).partition("@")
    repository = f"{address.netloc}/{name}"
    try:
        return Path(hf_hub_download(repository, unquote(path), revision=revision or None))
    except (OSError, ValueError) as error:
        raise _unreachable(f"hf://{repository}", error, place, weights) from error


def _unreachable(source: str, reason: object, place: Path, weights: str) -> ConnectionError:
    return ConnectionError(
        f"`weights` cannot be downloaded from {source} ({reason}); without a connection put the "
        f"file at {place}. Received: {weights!r}"
    )
