"""`recipes/download.sh` against a server in this process that can be cut off, and can be told what to answer."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "recipes/download.sh"
BASH, CURL = shutil.which("bash"), shutil.which("curl")
pytestmark = pytest.mark.skipif(BASH is None or CURL is None, reason="bash or curl is not there")

REVIEWS, META = "reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"
NOISE = random.Random(0).randbytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges if it may; `asked` notes the name and the range of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {REVIEWS: gzip.compress(NOISE, mtime=0), META: gzip.compress(b"{}\n", mtime=0)}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, wanted = self.path.rsplit("/", 1)[-1], self.headers["Range"]
        self.server.asked.append((name, wanted))
        if name not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[name]
        start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and self.server.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def download(out: Path, server: Server | None, dataset: str = "beauty-2014") -> subprocess.CompletedProcess[str]:
    words = [SCRIPT, "--dataset", dataset, "--out", out, *(["--base", server.address] if server else [])]
    # A proxy that the machine may have does not know this server.
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run([BASH, *map(str, words)], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of the data set go."""
    place = tmp_path / "beauty-2014"
    place.mkdir()
    return place


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What stands on standard error besides the log."""
    return [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]


def fault(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert done.returncode == code
    (line,) = errors(done)
    return line.removeprefix("download.sh: error: ")


def test_fetches_records_and_holds_a_second_run_against_the_record(
    tmp_path: Path, folder: Path, server: Server
) -> None:
    done = download(tmp_path, server)
    assert (done.returncode, errors(done)) == (0, [])
    assert f"idgr prep amazon {folder}/{REVIEWS} --meta {folder}/{META} -o" in done.stdout
    assert {path.name for path in folder.iterdir()} == {REVIEWS, META, "downloads.tsv"}
    lines = [line.split("\t") for line in (folder / "downloads.tsv").read_text().splitlines()]
    for (name, size, digest, url, _), wanted in zip(lines, (REVIEWS, META), strict=True):
        body = server.files[wanted]
        assert (folder / wanted).read_bytes() == body
        assert (name, int(size), digest) == (wanted, len(body), hashlib.sha256(body).hexdigest())
        assert url == f"{server.address}/{wanted}"
    server.asked.clear()
    again = download(tmp_path, server)
    assert (again.returncode, server.asked) == (0, [])
    assert again.stderr.count("is there and whole") == 2


@pytest.mark.parametrize("held", [1_000, "all"])
def test_goes_on_where_it_was_cut(held: int | str, tmp_path: Path, folder: Path, server: Server) -> None:
    body = server.files[REVIEWS]
    begun = len(body) if held == "all" else int(held)
    (folder / f"{REVIEWS}.part").write_bytes(body[:begun])
    done = download(tmp_path, server)
    assert (done.returncode, errors(done)) == (0, [])
    assert (folder / REVIEWS).read_bytes() == body
    assert server.asked[0] == (REVIEWS, f"bytes={begun}-")
    assert not list(folder.glob("*.part"))


def test_begins_anew_where_the_server_cannot_go_on(tmp_path: Path, folder: Path, server: Server) -> None:
    server.ranges = False
    (folder / f"{REVIEWS}.part").write_bytes(b"something else")
    done = download(tmp_path, server)
    assert (done.returncode, errors(done)) == (0, [])
    assert (folder / REVIEWS).read_bytes() == server.files[REVIEWS]


def test_what_does_not_go_on_from_what_is_there_is_refused(tmp_path: Path, folder: Path, server: Server) -> None:
    (folder / f"{REVIEWS}.part").write_bytes(b"x" * 1_000)
    assert "is damaged" in fault(download(tmp_path, server))
    assert not (folder / REVIEWS).exists()


def test_a_file_that_changed_is_refused(tmp_path: Path, folder: Path, server: Server) -> None:
    assert download(tmp_path, server).returncode == 0
    (folder / META).write_bytes(b"changed")
    assert f"{META} is not what" in fault(download(tmp_path, server))
    (folder / META).unlink()
    server.files[META] = gzip.compress(b"[]\n", mtime=0)
    assert "has changed" in fault(download(tmp_path, server))
    assert not (folder / META).exists()


def test_a_file_without_a_record_is_left_alone(tmp_path: Path, folder: Path, server: Server) -> None:
    (folder / REVIEWS).write_bytes(b"mine")
    assert "without a record" in fault(download(tmp_path, server))
    assert (folder / REVIEWS).read_bytes() == b"mine"


def test_a_missing_file_is_told_in_one_line(tmp_path: Path, folder: Path, server: Server) -> None:
    del server.files[META]
    message = fault(download(tmp_path, server))
    assert message.startswith(f"{server.address}/{META}: the server answers 404; ")
    assert (folder / REVIEWS).exists()
    assert not (folder / META).exists()


def test_an_unknown_data_set_is_refused(tmp_path: Path) -> None:
    assert "unknown data set beauty-1914" in fault(download(tmp_path / "raw", None, "beauty-1914"), code=2)
    assert not (tmp_path / "raw").exists()


def test_yelp_is_fetched_by_hand(tmp_path: Path, server: Server) -> None:
    done = download(tmp_path, server, "yelp")
    assert (done.returncode, server.asked) == (0, [])
    assert "idgr prep yelp" in done.stdout


def test_the_table_has_two_files_for_each_of_amazons_and_no_name_twice() -> None:
    rows = [line.split("\t") for line in SCRIPT.with_name("dumps.tsv").read_text().splitlines() if line[0] != "#"]
    files = {name: [url.rsplit("/", 1)[-1] for other, url in rows if other == name] for name, _ in rows}
    for name, found in files.items():
        if re.search(r"-20\d\d$", name):
            reviews, meta = found
            assert meta.startswith("meta_")
            assert reviews.startswith("reviews_") or not reviews.startswith("meta_")
    assert {"beauty-2014", "sports-2014", "toys-2014", "all-beauty-2018", "all-beauty-2023", "ml-1m", "yelp"} <= set(
        files
    )
    assert all(len(set(found)) == len(found) for found in files.values()), "files of a set lie in one folder"
