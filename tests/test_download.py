"""Downloads, from a local server: once, checked, tried again, never needed where files are."""

import functools
import hashlib
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Ran, make_book

from seqexp.config.data import TextDataConfig
from seqexp.data import download as download_module
from seqexp.data.sources import Corpus
from seqexp.data.text import find_corpus
from seqexp.errors import UserError

Main = Callable[..., Ran]


def text_of(corpus: Corpus) -> str:
    return "".join(piece for document in corpus.documents for piece in document.pieces())


class Server(http.server.ThreadingHTTPServer):
    """A local server of the current folder that counts what is asked of it."""

    asked = 0


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked += 1
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, str]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "public").mkdir()
    (tmp_path / "public/input.txt").write_text(make_book(8000), encoding="utf-8")
    handler = functools.partial(Handler, directory=str(tmp_path / "public"))
    with Server(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving, f"http://127.0.0.1:{serving.server_port}/input.txt"
        serving.shutdown()
        thread.join()


BOOK_HASH = hashlib.sha256(make_book(8000).encode()).hexdigest()


def test_download_once(run_main: Main, server: tuple[Server, str], own_cache: Path) -> None:
    serving, url = server
    words = ("train", "data=shakespeare", f"data.url={url}", f"data.sha256={BOOK_HASH}", *TINY)
    words += ("trainer.max_steps=1", "trainer.sample_tokens=0", "name=fetched")
    ran = run_main(*words)
    assert ran.code == 0, ran.err
    assert serving.asked == 1
    assert "100%" in ran.err  # progress
    assert run_main(*words).code == 0
    assert serving.asked == 1
    (file,) = (own_cache / "downloads").iterdir()
    assert file.read_text(encoding="utf-8") == make_book(8000)
    file.write_text("damaged")
    assert run_main(*words).code == 0
    assert serving.asked == 2
    assert file.read_text(encoding="utf-8") == make_book(8000)
    manifests = [json.loads(f.read_text()) for f in Path("outputs/train/fetched").glob("*/manifest.json")]
    assert {manifest["corpus"]["origin"] for manifest in manifests} == {url}
    assert {manifest["corpus"]["stand_in"] for manifest in manifests} == {None}


def fetch(url: str, sha256: str = BOOK_HASH) -> Corpus:
    return find_corpus(TextDataConfig(name="shakespeare", url=url, sha256=sha256))


def test_downloads_that_fail(
    server: tuple[Server, str], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "RETRIES", 0)  # no seconds of waiting between tries
    _, url = server
    with pytest.raises(UserError, match=r"is not the file expected.*data\.path="):
        fetch(url, "0" * 64)
    missing = url.replace("input.txt", "output.txt")
    with pytest.raises(UserError, match=r"output\.txt could not be downloaded \(404\).*data\.path="):
        fetch(missing)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/input.txt"
        with pytest.raises(UserError, match=r"no connection.*data\.path="):
            fetch(nowhere)
    assert [file for file in own_cache.glob("downloads/*") if file.stat().st_size] == []
    assert text_of(fetch(url)) == make_book(8000)


def test_a_download_is_tried_again(server: tuple[Server, str]) -> None:
    serving, url = server
    with pytest.raises(UserError, match="404"):
        fetch(url + ".gone")
    assert serving.asked == 1 + download_module.RETRIES


def test_own_files_are_preferred_to_a_download(server: tuple[Server, str]) -> None:
    serving, url = server
    file = Path("data/shakespeare/input.txt")
    file.parent.mkdir(parents=True)
    file.write_text("my own copy", encoding="utf-8")
    assert text_of(fetch(url)) == "my own copy"
    assert serving.asked == 0


# Data sets of several files


@pytest.fixture
def labelled_server(server: tuple[Server, str], tmp_path: Path) -> tuple[Server, list[str]]:
    """A server of a training and a test file, and the words that name them."""
    words = []
    for name in ("train.csv", "test.csv"):
        rows = "".join(f"{'good' if n % 2 else 'bad'} {n},{'yes' if n % 2 else 'no'}\n" for n in range(40))
        text = f"text,category\n{rows}"
        (tmp_path / "public" / name).write_text(text, encoding="utf-8")
        words.append(f"{name}:{hashlib.sha256(text.encode()).hexdigest()}")
    folder = server[1].rpartition("/")[0]
    return server[0], [f"data.url={folder}/", f"++data.sha256={{{','.join(words)}}}"]


def test_a_data_set_of_two_files_is_downloaded(
    run_main: Main, labelled_server: tuple[Server, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEQEXP_DATA", raising=False)
    serving, where = labelled_server
    words = ["train", "data=banking77", *where, "model=fasttext_bag", "trainer.max_steps=1", "device=cpu",
             "name=fetched"]  # fmt: skip
    for _ in range(2):
        ran = run_main(*words)
        assert ran.code == 0, ran.err
    assert serving.asked == 2
    manifest = json.loads(next(Path("outputs/train/fetched").glob("*/manifest.json")).read_text())
    assert manifest["corpus"]["origin"] == where[0].removeprefix("data.url=")
    ran = run_main("eval", "run=latest", "split=test")
    assert ran.code == 0, ran.err


def test_a_data_set_that_cannot_be_downloaded(
    run_main: Main,
    labelled_server: tuple[Server, list[str]],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SEQEXP_DATA", raising=False)
    monkeypatch.setattr(download_module, "RETRIES", 0)
    ran = run_main("train", "data=banking77", labelled_server[1][0] + "nowhere/")
    assert ran.code == 2
    assert "could not be downloaded (404)" in ran.err
    assert "put the files of github.com/PolyAI-LDN" in ran.err
    assert "into data/banking77/" in ran.err
    ran = run_main("train", "data=banking77", labelled_server[1][0])  # the files are not those of banking77
    assert ran.code == 2
    assert "is not the file expected" in ran.err
