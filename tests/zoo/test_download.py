"""Weights from a web server or a hub: resumed, checked, and refused if they are others."""

import hashlib
import http.server
import re
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from bignas_tf import zoo
from bignas_tf.zoo import download
from bignas_tf.zoo.trained import weights_file

ROOT = Path(__file__).resolve().parents[2]
CONTENT = np.random.default_rng(0).bytes(300_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content`, drops connections after `server.most` bytes, knows ranges or not."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if not self.path.endswith("/m.weights.h5"):
            self.send_error(404)
        elif start and start >= len(server.content):
            self.send_error(416)
        else:
            body = server.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: server.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.content, found.most, found.ranges, found.asked = CONTENT, None, True, []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.url = f"http://127.0.0.1:{found.server_port}/m.weights.h5"
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path / "models" / "bignas_tf" / HASH[:16]


def test_a_file_is_downloaded_once(server, cache):
    for _ in range(2):
        path = download.fetch(f"{server.url}#sha256={HASH}")
        assert path == cache / "m.weights.h5"
        assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert {file.name for file in cache.iterdir()} == {"m.weights.h5", ".lock"}


def test_a_hash_may_be_written_in_capitals(server, cache):
    path = download.fetch(f"{server.url}#sha256={HASH.upper()}")
    assert path == cache / "m.weights.h5"


def test_a_download_goes_on_where_the_connection_broke_off(server):
    server.most = 120_000
    assert download.fetch(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=120000-", "bytes=240000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server, cache):
    cache.mkdir(parents=True)
    (cache / "m.weights.h5.part").write_bytes(CONTENT[:1000])
    assert download.fetch(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT
    (cache / "m.weights.h5").rename(cache / "m.weights.h5.part")
    assert download.fetch(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", "bytes=300000-"]


def test_a_server_that_knows_no_ranges_is_asked_for_everything_again(server, cache):
    cache.mkdir(parents=True)
    (cache / "m.weights.h5.part").write_bytes(b"of no use")
    server.ranges = False
    assert download.fetch(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT
    assert server.asked == ["bytes=9-"]


def test_a_server_that_never_gets_further_is_given_up(server, cache):
    server.ranges, server.most = False, 1000
    with pytest.raises(ConnectionError, match="broke off.*put the file at"):
        download.fetch(f"{server.url}#sha256={HASH}")
    assert server.asked == [None, "bytes=1000-"]


def test_another_file_than_that_of_the_hash_is_refused_and_not_kept(server, cache):
    server.content = b"other" + CONTENT[5:]
    with pytest.raises(ValueError, match=f"must be a file with the SHA-256 {HASH}"):
        download.fetch(f"{server.url}#sha256={HASH}")
    assert {file.name for file in cache.iterdir()} == {".lock"}
    (cache / "m.weights.h5").write_bytes(server.content)
    with pytest.raises(ValueError, match=f"{re.escape(str(cache))}.* is another and is not read"):
        download.fetch(f"{server.url}#sha256={HASH}")


@pytest.mark.parametrize("missing", ["file", "server"])
def test_what_is_not_there_has_an_answer_that_says_where_to_put_it(server, cache, missing):
    url = server.url.replace("/m.", "/none/n.")
    if missing == "server":
        server.shutdown()
        server.server_close()
    with pytest.raises(ConnectionError) as refused:
        download.fetch(f"{url}#sha256={HASH}")
    place = re.search(r"put the file at (\S+)\. Received: ", str(refused.value))[1]
    with open(place, "wb") as file:
        file.write(CONTENT)
    assert download.fetch(f"{url}#sha256={HASH}").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/m.weights.h5",
        f"https://example.com/m.weights.h5#md5={HASH}",
        f"https://example.com/m.weights.h5#sha256={HASH[:-1]}",
        f"https:///m.weights.h5#sha256={HASH}",
        f"hf://owner/m.weights.h5#sha256={HASH}",
    ],
)
def test_an_address_without_a_hash_or_a_file_is_refused(address):
    with pytest.raises(ValueError, match=r"`weights` must be https.*#sha256=HASH.* Received: 'h"):
        download.fetch(address)


@pytest.mark.parametrize("scheme", download.ADDRESSES)
def test_every_scheme_is_named_wherever_addresses_are_described(scheme):
    with pytest.raises(ValueError, match=f"{scheme}://.*#sha256=HASH"):
        download.fetch("https://example.com/m.weights.h5")
    for builder in (zoo.from_spec, zoo.BigNASCifarS, zoo.BigNASModelS, download.fetch):
        assert f"{scheme}://" in builder.__doc__
    for page in ("docs/zoo.md", "SECURITY.md"):
        assert f"{scheme}://" in (ROOT / page).read_text()


def test_a_model_is_built_with_downloaded_weights_of_any_network(server, built):
    path = weights_file("bignascifar_s", "cifar10")
    server.content = path.read_bytes()
    weights = f"{server.url}#sha256={download.sha256_of(path)}"
    model = zoo.from_spec(zoo.get_spec("bignascifar_s"), weights=weights)
    expected = built("bignascifar_s").get_weights()
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"`weights` must be .* \(.weights.h5\)"):
        zoo.BigNASCifarS(weights=weights.replace(".weights.h5", ".pkl"))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub, which holds one file."""

    def hf_hub_download(repo_id, filename, *, revision=None):
        calls.append((repo_id, filename, revision))
        if not found:
            raise FileNotFoundError("no connection")
        return str(found[0])

    calls, found = [], []
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = hf_hub_download
    module.__spec__ = types.SimpleNamespace(name="huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls, found


def test_a_file_of_the_hub_is_fetched_by_its_library_and_checked(hub, tmp_path):
    calls, found = hub
    address = f"hf://owner/name@v%2F1/folder/m.weights.h5#sha256={HASH}"
    with pytest.raises(ConnectionError, match="hf://owner/name .no connection.; .* put the file"):
        download.fetch(address)
    found.append(tmp_path / "blob")
    found[0].write_bytes(CONTENT)
    assert download.fetch(address) == found[0]
    download.fetch(f"hf://owner/name/m.weights.h5#sha256={HASH}")
    assert calls[1:] == [
        ("owner/name", "folder/m.weights.h5", "v/1"),
        ("owner/name", "m.weights.h5", None),
    ]
    found[0].write_bytes(b"another")
    with pytest.raises(ValueError, match="must be a file with the SHA-256"):
        download.fetch(address)


def test_without_its_library_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"checkout of .*: pip install '\.\[hf\]'"):
        download.fetch(f"hf://owner/name/m.weights.h5#sha256={HASH}")
