"""The command line: exit codes, one-sentence errors, JSON, pins, and help that teaches."""

import asyncio
import http.server
import importlib
import inspect
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from holdfast import Client, start
from holdfast.cli import verbs
from holdfast.cli.app import VERBS, call, home_of
from holdfast.core.explain.overview import RecordList
from holdfast.core.explain.status import RecordStatus
from holdfast.errors import Misuse
from holdfast.host.target import load_target, shutdown_order
from shop.contracts import Checkout, Item, Restock
from shop.services import shop

TARGET = "shop.services:shop"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb explains itself and shows how it is called."""
    assert call([verb, "--help"]) == 0
    assert f"holdfast {verb} " in capsys.readouterr().out.split("xample", 1)[1]


def verb_modules() -> set[str]:
    """The modules that define a verb."""
    return {path.stem for path in Path(verbs.__path__[0]).glob("*.py")} - {"__init__"}


def test_every_verb_has_a_module_and_a_sentence() -> None:
    """Every module in `cli.verbs` is a verb of its name, and the list of verbs says the first sentence of its help."""
    assert verb_modules() == {verb.replace("-", "_") for verb in VERBS}
    for verb, sentence in VERBS.items():
        module, _, name = home_of(verb).partition(":")
        said = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
        assert " ".join(said.partition("\n\n")[0].split()) == sentence, verb


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["check-config", "absent:shop"], "cannot import 'absent'"),
        (["check-config", "shop.services:shopp"], "has no system or service 'shopp'; there are: stock_service"),
        (["check-config", "shop"], "write MODULE:NAME"),
        (["check-config", "--config", "absent.toml"], "cannot read 'absent.toml'"),
        (["run", TARGET, "--host", "0.0.0.0"], "not loopback"),
        (["run", TARGET, "--service", "stok"], "has no service 'stok'"),
        (["run", TARGET, "--service", "stock"], "services.order.url is not set"),
        (["run", TARGET, "--service", "stock", "--processes"], "give one of the two"),
        (["run", TARGET, "--state", "x"], "--state is for --processes"),
        (["run", TARGET, "--store", "db2:x"], "names no known store"),
        (["run", TARGET, "--store", "mysql:x"], "write mysql://"),
        (["trail", "x"], "no service is named"),
        (["trail", "x", "--url", "stock"], "write SERVICE=URL"),
        (["events", "stock"], "services.stock.url is not set"),
        (["backup", "stock", "--to", "x", "--store", "memory:"], "only sqlite: stores"),
        (["backup", "stock", "--to", "x"], "does not exist"),
        (["migrate-store", "stock"], "only tables on a database server"),
        (["backup", "stock", "--to", "x", "--store", "mysql://u:s3cret@h/d"], "mysql://u:***@h/d"),
    ],
)
def test_bad_usage_is_one_sentence(tokens: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is exit code 2 and one line on standard error, never a traceback (G10)."""
    assert call(tokens) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("tokens", [["runn"], ["run"], ["sagas", "--status", "lost"], ["version", "--jsn"]])
def test_unknown_words_are_bad_usage(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown verb, flag or value, and a missing one, are exit code 2."""
    assert call(tokens) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_check_config_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A good configuration is exit code 0, with the services and without the secret."""
    Path("holdfast.toml").write_text('secret = "sixteen-characters-or-more"\n[services.stock]\nstore = "memory:"\n')
    assert call(["check-config", TARGET, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["services"] == list(shop.services) and "sixteen-characters" not in out
    Path("holdfast.toml").write_text('[services.stok]\nstore = "memory:"\n')
    assert call(["check-config", TARGET]) == 2
    assert "services.stok" in capsys.readouterr().err


PINNED = """
from pathlib import Path
from holdfast import Contract, Event, Service, System
contract = Contract("note", pin=Path("pins.json"))
@contract.event
class Noted(Event):
    text: str
notes = System([Service(contract)])
"""


def test_contracts_are_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was pinned may not change under its stored name: the build is refused, naming the message."""
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("first_notes.py").write_text(PINNED)
    assert call(["check-config", "first_notes:notes"]) == 2
    assert "cannot read its pin file" in capsys.readouterr().err
    assert call(["contract", "first_notes:notes", "--write", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": ["pins.json"]}
    assert call(["contract", "first_notes:notes"]) == 0
    assert "note.noted.v1" in capsys.readouterr().out
    Path("changed_notes.py").write_text(PINNED.replace("text: str", "text: int"))
    with pytest.raises(Misuse, match=r"note\.noted\.v1: its schema is not the pinned one"):
        load_target("changed_notes:notes")
    Path("gone_notes.py").write_text(PINNED.replace("class Noted", "class Other"))
    assert call(["run", "gone_notes:notes"]) == 2
    assert "note.noted.v1 is pinned" in capsys.readouterr().err


def test_the_sender_ends_first() -> None:
    """Services that send commands end before those that answer, so that each drains while it is heard."""
    assert shutdown_order(shop)[0] == "order"


async def test_backup_copies_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`holdfast backup` writes a store that opens and holds every record; a file that exists is not written over."""
    async with start(shop, store=f"sqlite:{tmp_path}/data/") as running:
        await Client.of(running).run(Restock("tea", 5))
        tokens = ["backup", "stock", "--store", f"sqlite:{tmp_path}/data/", "--to", "copy.sqlite", "--json"]
        assert await asyncio.to_thread(call, tokens) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == Path("copy.sqlite").stat().st_size
    assert await asyncio.to_thread(call, tokens) == 1
    assert "copy.sqlite" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    Path("copy.sqlite").rename(tmp_path / "other" / "stock.sqlite")
    async with start(shop.services["stock"], store=f"sqlite:{tmp_path}/other/") as running:
        page = await running.nodes["stock"].store.read(0, 10)
        assert [record.type for record in page.records] == ["stock.restocked.v1"]


@pytest.fixture
def answers() -> Iterator[tuple[str, dict[str, object]]]:
    """(URL, path -> answer) of a service's HTTP face; a path that is not there is a problem+json 404."""
    found: dict[str, object] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = found.get(parts.path)
            if callable(body):
                body = body({name: values[0] for name, values in parse_qs(parts.query).items()})
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(msgspec.json.encode(body or {"detail": "there is no such thing"}))

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", found
    server.shutdown()
    server.server_close()


async def checkout() -> dict[str, list[RecordStatus]]:
    """Every service's records of one checkout as `/ops/trail` shows them."""
    async with start(shop, store="memory:") as running:
        client = Client.of(running)
        await client.run(Restock("tea", 5))
        outcome = await client.send(Checkout("o1", "c1", (Item("tea", 2, 300),), "4242"))
        await asyncio.sleep(0.05)
        found = {name: await node.records_of(tx=outcome.tx) for name, node in running.nodes.items()}
    return {
        name: [RecordStatus.of(name, r, msgspec.json.decode(r.data)) for r in records]
        for name, records in found.items()
    }


def test_trail_merges_services(answers: tuple[str, dict[str, object]], capsys: pytest.CaptureFixture[str]) -> None:
    """One tree from all services, exit 0 when settled; a service that is silent is named, exit 1 (G7)."""
    url, found = answers
    records = asyncio.run(checkout())
    tx = records["order"][0].tx
    for name, rows in records.items():
        found[f"/{name}/ops/trail"] = lambda query, rows=rows: RecordList(
            tuple(rows) if query == {"tx": tx} else (), complete=True
        )
    urls = [part for name in records for part in ("--url", f"{name}={url}/{name}")]
    assert call(["trail", tx, *urls]) == 0
    text = capsys.readouterr().out
    assert "settled" in text and all(f"{name}@" in text for name in records)
    assert call(["trail", tx, *urls, "--url", "gone=http://127.0.0.1:1", "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert list(value["silent"]) == ["gone"] and value["records"] == sum(map(len, records.values()))
    assert call(["trail", "nobody", *urls]) == 1
    assert "no service knows 'nobody'" in capsys.readouterr().err


def test_sagas_are_listed(answers: tuple[str, dict[str, object]], capsys: pytest.CaptureFixture[str]) -> None:
    """Open sagas of all services; a stuck one, or a silent service, is exit code 1."""
    url, found = answers
    rows = [{"id": "CheckoutSaga/o1", "status": "running", "cause": ""}]
    found["/ops/sagas"] = {"items": rows, "next": ""}
    assert call(["sagas", "--url", f"order={url}"]) == 0
    assert "order  CheckoutSaga/o1  running" in capsys.readouterr().out
    rows.append({"id": "CheckoutSaga/o2", "status": "stuck", "cause": "ship was rejected 5 times"})
    assert call(["sagas", "--url", f"order={url}", "--json"]) == 1
    assert [row["status"] for row in json.loads(capsys.readouterr().out)["sagas"]] == ["running", "stuck"]
    found["/ops/sagas"] = {"items": [{"id": 7}]}
    assert call(["sagas", "--url", f"order={url}"]) == 1
    assert "! order: " in (out := capsys.readouterr().out) and "is no SagaEntries" in out
    assert call(["sagas", "--url", "order=http://127.0.0.1:1"]) == 1
    assert "does not answer" in capsys.readouterr().out


def test_events_are_paged(answers: tuple[str, dict[str, object]], capsys: pytest.CaptureFixture[str]) -> None:
    """Every event of the feed once, in order, over several pages; `--limit` and `--after` cut it."""
    url, found = answers
    every = [{"id": f"stock@{n}", "type": "stock.restocked.v1", "data": {"n": n}} for n in range(1, 1201)]

    def feed(query: dict[str, str]) -> list[dict[str, object]]:
        after, limit = int(query.get("after", 0)), int(query["limit"])
        return every[after : after + limit]

    found["/events"] = feed
    assert call(["events", url, "--json"]) == 0
    assert [json.loads(line)["data"]["n"] for line in capsys.readouterr().out.splitlines()] == list(range(1, 1201))
    assert call(["events", url, "--after", "700", "--limit", "2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["stock@701", "stock@702"]
    assert call(["events", url + "/absent"]) == 1
    assert "answered 404: there is no such thing" in capsys.readouterr().err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """`holdfast version --json` names the release."""
    import holdfast

    assert call(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holdfast"] == holdfast.__version__
