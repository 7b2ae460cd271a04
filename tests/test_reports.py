"""`seqexp report`: whole, and harmless whatever a folder holds."""

import json
import os
import re
import shutil
import statistics
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran
from run_folders import (
    PNG,
    RUN,
    SWEEP,
    agrees,
    by_hand,
    copy_run,
    crash,
    make_run,
    markdown_rows,
    no_crash,
    read,
    said_shortly,
    strict_json,
    write,
)

Main = Callable[..., Ran]


# The page


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.inside.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.inside or "th" in self.inside:
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]

    def row(self, name: str) -> list[str]:
        (row,) = [row for row in self.cells if row[0] == name]
        return row[1:]


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "nav", "a", "div",
    "table", "thead", "tbody", "tr", "th", "td", "strong", "pre", "figure", "img", "figcaption", "details",
    "summary", "footer", "br",
}  # fmt: skip


def page_of(file: Path) -> Page:
    """The page, which is checked to be harmless and to need nothing from elsewhere."""
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.inside == [], "every tag is closed"
    assert {tag for tag, _ in page.tags} <= ALLOWED
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if "src" in attributes:
            assert tag == "img"
            assert str(attributes["src"]).startswith("data:image/png;base64,")
        if "href" in attributes:
            assert str(attributes["href"])[:1] == "#"
            assert str(attributes["href"])[1:] in ids, "the link leads somewhere"
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    (style,) = re.findall("<style>(.*?)</style>", text, re.S)
    assert not re.search(r"url\(|@import|http", style)
    return page


def report(run_main: Main, target: Path, *words: Any) -> tuple[Page, str]:
    """The page and the Markdown about a folder."""
    ran = run_main("report", target, *words)
    assert ran.code == 0, ran.err[-800:]
    return page_of(target / "report.html"), (target / "report.md").read_text(encoding="utf-8")


def check_markdown(text: str, folder: Path) -> list[Path]:
    """The pictures of a page in Markdown; it holds no HTML, and every link names a file that is there."""
    import markdown_it

    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert not [token.content for token in tokens if token.type == "html_block"]
    inline = [child for token in tokens for child in token.children or ()]
    assert not [child.content for child in inline if child.type == "html_inline"]
    assert not [child.attrs for child in inline if child.type == "link_open"]
    from urllib.parse import unquote

    pictures = [folder / unquote(str(child.attrs["src"])) for child in inline if child.type == "image"]
    for picture in pictures:
        assert picture.is_file(), picture
    meant = [token for token in tokens if token.type == "inline" and token.content.startswith("![")]
    assert len(meant) == len(pictures), [token.content for token in meant]
    return pictures


def test_a_page_about_a_run(run_main: Main, tiny_run: Path, book: Path) -> None:
    run = copy_run(tiny_run, Path("outputs/train/tiny/one"))
    page, markdown = report(run_main, run)
    manifest, result = read(run / "manifest.json"), read(run / "result.json")
    sha = manifest["corpus"]["files"][0]["sha256"]
    samples = (run / "samples/step_00000010.txt").read_text(encoding="utf-8").rstrip("\n")
    for text in (page.text, markdown):
        assert manifest["command_line"] in text
        assert sha in text
        assert manifest["versions"]["torch"] in text
        assert samples in text
        assert "step 10" in text
    assert page.row("optimizer.lr") == [
        f"{yaml.safe_load((run / 'config.yaml').read_text())['optimizer']['lr']}"
    ]
    assert page.row("best val/loss")[0].startswith(f"{result['monitor']['best']:.4g} at step ")
    assert page.row("parameters") == [f"{manifest['parameters']['total']:,}"]
    assert page.row("git_commit") or manifest["git_commit"] is None
    pictures = check_markdown(markdown, run)
    assert [file.name for file in pictures] == ["loss.png"]
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(images) == 1
    markdown_rows(markdown)


def test_a_page_about_a_translator(run_main: Main, nmt_run: Path) -> None:
    """Translations and pictures of attention are on it."""
    run = copy_run(nmt_run, Path("outputs/train/tiny/one"))
    page, markdown = report(run_main, run)
    last = sorted((run / "samples").glob("step_*.txt"))[-1].read_text(encoding="utf-8")
    assert last.rstrip("\n") in page.text
    assert last.rstrip("\n") in markdown
    steps = sorted({file.name.split("_")[1] for file in (run / "samples").glob("step_*.png")})
    drawn = list((run / "samples").glob(f"step_{steps[-1]}*.png"))
    assert drawn, "the run has pictures of attention"
    pictures = check_markdown(markdown, run)
    assert {file.read_bytes() for file in pictures} >= {file.read_bytes() for file in drawn}
    captions = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert len([caption for caption in captions if "attention" in str(caption)]) == len(drawn)
    bleu = read(run / "result.json")["metrics"]["val/bleu"]
    assert page.row("val/bleu") == [f"{bleu:.4g} (0–100)"]


def test_a_page_about_a_sweep(run_main: Main, sweep: Path) -> None:
    page, markdown = report(run_main, sweep)
    truth = by_hand(sweep)
    rows = [row for row in page.cells if row[0] in ("rnn", "lstm") and len(row) == 7]
    assert len(rows) == 4
    for row in rows:
        losses = truth[row[0], int(row[1])]["val/loss"]
        agrees(row[3], statistics.mean(losses), statistics.stdev(losses))
    command = read(sweep / "sweep.json")["calls"][0]["command_line"]
    assert command in page.text
    assert command in markdown
    best = min(sweep.glob("*_*"), key=lambda job: read(job / "result.json")["monitor"]["best"])
    assert best.name in page.row("best val/loss")[0]
    for job in sweep.glob("*_*"):
        words = page.row(job.name)
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert words[-1] == (
            f"model={config['model']['name']} data.seq_len={config['data']['seq_len']} seed={config['seed']}"
        )
    assert page.row("seed")[-1] == str(yaml.safe_load((best / "config.yaml").read_text())["seed"])
    assert len(check_markdown(markdown, sweep)) == len([1 for tag, _ in page.tags if tag == "img"]) == 5
    markdown_rows(markdown)


def test_failures_are_on_the_page(run_main: Main) -> None:
    make_run(SWEEP / "0_aa")
    told = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nValueError: ```no``` <luck>\n'
    make_run(SWEEP / "1_bb", status="failed", error=told)
    make_run(SWEEP / "2_cc", status="running")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 3}]})
    page, markdown = report(run_main, SWEEP)
    assert told in page.text
    assert told in markdown
    assert {"1_bb", "2_cc"} <= {text.strip() for text in page.texts}
    assert "killed" in page.text
    make_run(RUN, status="failed", error=told)
    page, markdown = report(run_main, RUN)
    assert told in page.text
    check_markdown(markdown, RUN)


def test_units_and_directions_are_on_the_page(run_main: Main) -> None:
    """As the result has them; of a metric that nobody declared, and of an old run, neither."""
    for details in (True, False):
        run = make_run(
            RUN.with_name(str(details)), losses=(1.0,), details=details,
            more={"val/accuracy": 0.5, "val/entropy": 0.25},
        )  # fmt: skip
        judged = {**read(run / "result.json"), "split": "val"}
        write(Path("outputs/eval/hand") / run.name / "result.json", judged)
        page, markdown = report(run_main, run)
        unit = {name: f"unit of {name}" if details else "" for name in judged["metrics"]}
        words = ("lower is better", "higher is better", "") if details else ("", "", "")
        better = dict(zip(("val/loss", "val/accuracy", "val/entropy"), words, strict=True))
        shown = {row[0]: row[2:] for row in page.cells if len(row) == 4 and row[0] in better}
        assert shown == {name: [unit[name], better[name]] for name in judged["metrics"]}
        facts = {row[0]: row[1] for row in page.cells if len(row) == 2}
        assert facts["best val/loss"] == "1 at step 10" + (" (unit of val/loss)" if details else "")
        assert facts["val/accuracy"] == "0.5" + (" (unit of val/accuracy)" if details else "")
        assert ("unit of val/accuracy" in markdown) == details


def test_evaluations_are_on_the_page(run_main: Main, tiny_run: Path) -> None:
    run = shutil.copytree(tiny_run, Path("outputs/train/tiny/one"))
    assert run_main("eval", f"run={run}", "device=cpu", "device.threads=1").code == 0
    (file,) = Path("outputs/eval").glob("*/*/result.json")
    page, markdown = report(run_main, run)
    (title,) = {text for text in page.texts if file.parent.name in text}
    assert title.startswith("val, checkpoint best")
    shown = {row[0]: row[1] for row in page.cells if len(row) > 1}
    for name, value in read(file)["metrics"].items():
        assert float(shown[name].replace(",", "")) == pytest.approx(value, rel=1e-3)
    assert file.parent.name in markdown.replace("\\_", "_")
    # By another way to the same folder.
    ran = run_main("report", "--json", Path("outputs") / ".." / run)
    assert strict_json(ran.out)["evaluations"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "x", None, [], True])
def test_evaluations_that_went_wrong(run_main: Main, value: Any) -> None:
    make_run(RUN)
    write(
        Path("outputs/eval/hand/two/result.json"),
        {"run": str(RUN.absolute()), "split": "test", "metrics": {"test/loss": value}},
    )
    no_crash(run_main("report", RUN))


def test_json_of_a_page(run_main: Main, sweep: Path) -> None:
    make_run(RUN)
    for target in (RUN, sweep, sweep / next(sweep.glob("0_*")).name):
        values = strict_json(run_main("report", "--json", target).out)
        assert values["status"] == "finished"
        assert values["commands"]


def test_json_writes_nothing(run_main: Main, sweep: Path) -> None:
    """As --help says."""
    before = sorted(Path().rglob("*"))
    for target in (sweep, next(sweep.glob("0_*"))):
        assert run_main("report", "--json", target).code == 0
    assert sorted(Path().rglob("*")) == before


def test_where_the_page_goes(run_main: Main) -> None:
    make_run(RUN)
    assert run_main("report", RUN, "--output", "pages/hand in.html").code == 0
    page_of(Path("pages/hand in.html"))
    assert run_main("report", RUN, "--output", "pages/hand in.md").code == 0
    assert check_markdown(Path("pages/hand in.md").read_text(), Path("pages"))
    assert not (RUN / "report.html").exists()


def test_links_from_markdown_survive_odd_folders(run_main: Main) -> None:
    run = make_run(Path("outputs/train/my run (2) #1 %41/one"))
    assert run_main("report", run, "--output", "page.md").code == 0
    assert len(check_markdown(Path("page.md").read_text(), Path())) == 1


@pytest.mark.parametrize(
    "target", ["page.pdf", "page", "folder.html", "/dev/null/page.html", "/proc/page.html", ".md"]
)
def test_places_where_no_page_can_go(run_main: Main, target: str) -> None:
    make_run(RUN)
    Path("folder.html").mkdir()
    said_shortly(run_main("report", RUN, "--output", target))


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "RUN|SWEEP"), (["nowhere"], "nowhere"), (["."], "not the folder"), (["latest", "--pdf"], "--pdf")],
)
def test_mistakes_of_report(run_main: Main, words: list[str], told: str) -> None:
    assert told in said_shortly(run_main("report", *words))


def test_an_evaluation_is_no_run(run_main: Main) -> None:
    run = make_run(Path("outputs/eval/hand/two"), command="eval")
    said_shortly(run_main("report", run))
    said_shortly(run_main("compare", run))


def test_a_folder_that_cannot_be_written(run_main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of someone else's folder the page can still be written elsewhere."""
    run = make_run(SWEEP / "0_aa")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 1}]})
    shutil.rmtree(run / "plots")
    theirs = SWEEP.absolute()
    mkdir, mkstemp = os.mkdir, __import__("tempfile").mkstemp

    def refuse(path: Any, *more: Any, **options: Any) -> Any:
        if Path(path).absolute().is_relative_to(theirs):
            raise PermissionError(13, "Permission denied", str(path))
        return mkdir(path, *more, **options)

    def refuse_file(*more: Any, **options: Any) -> Any:
        if Path(options["dir"]).absolute().is_relative_to(theirs):
            raise PermissionError(13, "Permission denied", str(options["dir"]))
        return mkstemp(*more, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr("tempfile.mkstemp", refuse_file)
    said_shortly(run_main("report", run))
    for target in (run, SWEEP):
        ran = run_main("report", target, "--output", "page.html")
        assert ran.code == 0, crash(ran) or ran.err
        page_of(Path("page.html"))
    no_crash(run_main("compare", SWEEP))


# Strangers


EVIL = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'><svg onload=alert(1)>",
    "</pre></td></table>", "{{ 7 * 7 }}{% raw %}", "${oc.env:HOME}", "<!--", "]]>", "&lt;b&gt;",
    "</title></style><script>",
    "![x](http://evil/x.png)", "[x](javascript:alert(1))", "[x](http://evil)", "a\r# heading\r\r<b>",
    "x\n\n<iframe src=//evil>\n\n",
    "|---|", "```\n<b>\n```", "<http://evil>",
]  # fmt: skip


def strange_sweep(word: str) -> None:
    """A sweep with `word` wherever a stranger can leave one."""
    safe = re.sub(r"[/\x00]", "_", word).encode()[:100].decode(errors="ignore")
    for job, status in (("0_aa", "finished"), ("1_bb", "finished"), ("2_cc", "failed")):
        run = make_run(
            SWEEP / job, status=status, error=word, name=word, model__name=word, data__name=word,
            generation__stop=f"{word}{job}", words=[f"generation.stop={word}{job}"],
        )  # fmt: skip
        manifest = {
            "command_line": word, "git_commit": word, "python": word, "device": word,
            "versions": {word: word},
            "corpus": {"name": word, word: word, "stand_in": word, "parts": {word: {word: word}}},
            "sweep": {"words": [f"generation.stop={word}{job}"]}, "resumed": [{"command_line": word}],
        }  # fmt: skip
        write(run / "manifest.json", manifest)
        write(run / "samples/step_00000010.txt", word)
        for place in (run / "samples/step_00000010", run / "plots/"):
            (place.parent / f"{place.name}{safe}.png").parent.mkdir(exist_ok=True)
            file = Path(f"{place}_{safe}.png") if place.name.startswith("step") else place / f"{safe}.png"
            file.write_bytes(PNG)
        result = Path(f"outputs/eval/{job}/one/result.json")
        write(
            result,
            {
                "run": str(run.absolute()),
                "split": word,
                "checkpoint": word,
                "metrics": {word: word, "a": {word: 1}},
            },
        )
    call = {"command_line": word, "method": word, "launcher": word, "jobs": 3, "swept": ["generation.stop"]}
    write(SWEEP / "sweep.json", {"calls": [call]})
    lines = [
        {"job": i, "words": [f"generation.stop={word}"], "run": f"{i}_{c}{c}"} for i, c in enumerate("abc")
    ]
    write(SWEEP / "jobs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def plain_shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test that asks: the tags of pages about harmless words."""
    return {}


@pytest.mark.parametrize("word", EVIL)
def test_words_of_strangers_stay_words(run_main: Main, plain_shapes: dict[str, Any], word: str) -> None:
    """A page has the same tags whatever the words in the files are, and shows the words."""
    job = SWEEP / "0_aa"
    if not plain_shapes:
        strange_sweep("harmless")
        plain_shapes["job"] = report(run_main, job)[0].shape
        shutil.rmtree("outputs")
    strange_sweep(word)
    page, _ = report(run_main, job)
    assert page.shape == plain_shapes["job"]
    assert word.replace("\r", "\n").strip() in page.text.replace("\r", "\n")


@pytest.mark.parametrize("word", EVIL)
def test_words_of_strangers_stay_words_in_markdown(run_main: Main, word: str) -> None:
    """No HTML comes of them, no link, no picture from elsewhere, and the tables stay whole."""
    strange_sweep(word)
    job = SWEEP / "0_aa"
    _, markdown = report(run_main, job)
    assert len(check_markdown(markdown, job)) == 3
    markdown_rows(re.sub(r"^(`{3,})$.*?^\1$", "", markdown, flags=re.M | re.S))


@pytest.mark.parametrize("word", [EVIL[0], EVIL[1], "![x](http://evil/x.png)", "a\r# heading\r\r<b>"])
def test_words_of_strangers_on_the_page_of_a_sweep(run_main: Main, word: str) -> None:
    strange_sweep(word)
    page, markdown = report(run_main, SWEEP)
    assert word.replace("\r", "\n").strip() in page.text.replace("\r", "\n")
    check_markdown(markdown, SWEEP)


def test_only_pictures_are_embedded(run_main: Main) -> None:
    make_run(RUN)
    write(RUN / "plots/script.png", "<svg onload=alert(1)>")
    write(RUN / "plots/picture.svg", "<svg/>")
    (RUN / "plots/large.png").write_bytes(PNG + bytes(6_000_000))
    (RUN / "plots/empty.png").touch()
    (RUN / "plots/folder.png").mkdir()
    write(RUN / "samples/step_1_fake.png", "GIF89a")
    page, markdown = report(run_main, RUN)
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == ["loss"]
    assert [file.name for file in check_markdown(markdown, RUN)] == ["loss.png"]


SECRET = "the secret of another folder"


@pytest.mark.parametrize(
    "name",
    ["samples/step_00000001.txt", "samples", "plots", "plots/secret.png", "config.yaml", "status.json",
     "manifest.json", "metrics.jsonl", "result.json"],
)  # fmt: skip
def test_nothing_is_read_through_a_link(run_main: Main, name: str) -> None:
    """A stranger's folder may hold links to what is yours."""
    outside = make_run(
        Path("private/one"), name=SECRET, status="failed", error=SECRET, data__name=SECRET, model__name=SECRET
    )
    write(outside / "samples/step_00000001.txt", SECRET)
    write(outside / "manifest.json", {"command_line": SECRET, "versions": {"torch": SECRET}})
    write(outside / "metrics.jsonl", '{"step": 77777777, "val/loss": 1.0}\n')
    write(outside / "result.json", {"metrics": {"val/secret": 77777777}})
    secret = outside / "plots/secret.png"
    secret.write_bytes(PNG)
    make_run(RUN)
    shutil.rmtree(RUN / name) if (RUN / name).is_dir() else (RUN / name).unlink(missing_ok=True)
    (RUN / name).parent.mkdir(exist_ok=True)
    (RUN / name).symlink_to((outside / name).absolute())
    before = sorted(file.name for file in outside.rglob("*"))
    for words in (("report", RUN), ("report", "--json", RUN), ("runs",), ("runs", "show", RUN)):
        ran = run_main(*words)
        no_crash(ran)
        assert SECRET not in ran.out
        assert "77777777" not in ran.out
        assert "77,777,777" not in ran.out
    for file in (RUN / "report.html", RUN / "report.md"):
        if file.exists():
            text = file.read_text()
            assert SECRET not in text
            assert "secret" not in text.replace(str(Path.cwd()), "")
            assert "77,777,777" not in text
    assert sorted(file.name for file in outside.rglob("*")) == before, "and nothing is written there"


def test_a_page_is_not_written_through_a_link(run_main: Main) -> None:
    make_run(RUN)
    write(Path("precious.html"), "mine")
    (RUN / "report.html").symlink_to(Path("precious.html").absolute())
    assert run_main("report", RUN).code == 0
    assert Path("precious.html").read_text() == "mine"


def test_pictures_are_not_written_through_a_link(run_main: Main) -> None:
    Path("outside").mkdir()
    make_run(SWEEP / "0_aa")
    write(SWEEP / "sweep.json", {"calls": [{"jobs": 1}]})
    (SWEEP / "compare").symlink_to(Path("outside").absolute())
    no_crash(run_main("compare", SWEEP))
    no_crash(run_main("report", SWEEP))
    assert not list(Path("outside").iterdir())


@pytest.mark.parametrize("what", ["sample", "error", "setting", "settings", "pictures", "command", "metrics"])
def test_a_page_stays_a_page(run_main: Main, what: str) -> None:
    """However much a folder holds, the page is a few dozen megabytes at most."""
    make_run(RUN, status="failed", error="x" * 30_000_000 if what == "error" else "broken")
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    if what == "sample":
        write(RUN / "samples/step_1.txt", "x" * 30_000_000)
    elif what == "setting":
        write(RUN / "config.yaml", json.dumps({**config, "long": "x" * 5_000_000}))
    elif what == "settings":
        write(RUN / "config.yaml", json.dumps({**config, "many": {f"k{i}": i for i in range(20_000)}}))
    elif what == "pictures":
        for i in range(30):
            (RUN / f"plots/{i}.png").write_bytes(PNG + bytes(3_000_000))
    elif what == "command":
        write(RUN / "manifest.json", {"command_line": "x" * 5_000_000, "versions": {"a": "x" * 5_000_000}})
    elif what == "metrics":
        row = json.dumps({"step": 1, **{f"val/{i}": 1.0 for i in range(20_000)}})
        write(RUN / "metrics.jsonl", row + "\n")
        write(RUN / "result.json", {"metrics": {f"val/{i}": 1.0 for i in range(20_000)}})
    assert run_main("report", RUN).code == 0
    limit = 50_000_000 if what == "pictures" else 3_000_000
    assert (RUN / "report.html").stat().st_size < limit
