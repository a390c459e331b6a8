"""README and docs: their blocks run, their links lead somewhere, their tables are those of the code."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from lineshaft.cli.exits import MEANINGS
from lineshaft.cli.main import app
from lineshaft.errors import BY_TYPE, LineshaftError
from lineshaft.wire import CALLS, SESSION_PATH, SUBPROTOCOL, Call
from tests.docs.answers import differences, is_text_as_shown, values_of
from tests.docs.blocks import Block, blocks_of, steps_of
from tests.docs.desk import ROOT, Desk

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROTOCOL = ROOT / "docs" / "protocol.md"
QUICK = ("README.md", "quickstart.md", "protocol.md", "index.md", "guarantees.md")
"""Documents that are played before every commit; the others are left to the whole run."""
FEW = 4
"""Blocks of a document that may be shown only."""


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def played() -> list[Any]:
    return [
        pytest.param(document, id=name_of(document), marks=() if document.name in QUICK else pytest.mark.slow)
        for document in DOCUMENTS
    ]


@pytest.mark.requires("curl")
@pytest.mark.parametrize("document", played())
def test_document_plays(document: Path, tmp_path: Path) -> None:
    steps = steps_of(document)
    with Desk(tmp_path) as desk:
        if steps and not any("serve" in block.words for block, _ in steps):
            desk.serve()
        for block, output in steps:
            play(desk, block, output, where=f"{name_of(document)}:{block.line}")


def play(desk: Desk, block: Block, output: Block | None, *, where: str) -> None:
    if block.file is not None:
        desk.write(block.file, block.text)
    elif "serve" in block.words:
        desk.serve(block.text)
    elif "background" in block.words:
        desk.start(block.text)
    else:
        printed = desk.type(block.text) if block.language == "sh" else desk.run("python", "-c", block.text)
        compare(printed, output, where=where)


def compare(printed: str, output: Block | None, *, where: str) -> None:
    if output is None:
        return
    if output.language == "text":
        assert is_text_as_shown(output.text, printed), f"{where} prints\n{printed}\nand shows\n{output.text}"
        return
    wrong = differences(values_of(output.text), values_of(printed))
    assert not wrong, f"{where} prints\n{printed}\n" + "\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_what_is_not_run_is_little_and_says_why(document: Path) -> None:
    shown = [block for block in blocks_of(document) if block.is_shown_only]
    assert len(shown) <= FEW
    for block in shown:
        assert block.reason, f"{name_of(document)}:{block.line} does not say <!-- not run: why -->"
        if block.text.startswith("make "):
            target = block.text.removeprefix("make ").split()[0]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_blocks_are_what_their_language_says(document: Path) -> None:
    for block in blocks_of(document):
        match block.language:
            case "toml":
                assert tomllib.loads(block.text)
            case "yaml":
                assert yaml.safe_load(block.text)
            case "ini":
                parser = configparser.ConfigParser(strict=False, interpolation=None)
                parser.read_string(block.text)
                assert parser.sections()
            case "json":
                assert values_of(block.text)
        if block.file is not None and (example := ROOT / "examples" / block.file).exists():
            assert block.text == example.read_text(), (
                f"{name_of(document)}:{block.line} differs from {example.name}"
            )


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = document if not path else (document.parent / path).resolve()
        assert found.exists(), f"{name_of(document)}: {target}"
        if anchor:
            assert anchor in anchors_of(found), f"{name_of(document)}: {target}"


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_protocol_shows_the_session(tmp_path: Path) -> None:
    [block] = [block for block in blocks_of(PROTOCOL) if block.words == ("session",)]
    lines = re.findall(r"^(→|←|  task) ?(.*(?:\n {3,}.*)*)", block.text, re.MULTILINE)
    with Desk(tmp_path) as desk:
        desk.serve()
        place = desk.url.replace("http", "ws", 1) + SESSION_PATH
        with connect(place, subprotocols=[Subprotocol(SUBPROTOCOL)]) as line:
            for sign, text in lines:
                if sign == "→":
                    line.send(text)
                elif sign == "←":
                    wrong = differences(json.loads(text), json.loads(line.recv(timeout=10)))
                    assert not wrong, f"{text}: {wrong}"
                elif "enqueued" in text:
                    desk.run("lineshaft", "enqueue", "mail", "--queue", "mail", "--task-id", "m-2")
                else:
                    desk.run("lineshaft", "tasks", "cancel", "m-2", "--reason", "not needed")


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_protocol_has_curl_for_every_call(call: Call) -> None:
    typed = "\n".join(block.text for block in blocks_of(PROTOCOL) if block.language == "sh")
    typed = typed.replace("\\\n", " ")
    place = re.escape(call.path).replace(re.escape("{id}"), r"(?:[^/_\s\"?$][^/\s\"?]*|\$\w+)")
    urls = re.findall(rf"(.*)\$L{place}(?=[\s\"?]|$)(.*)", typed, re.MULTILINE)
    assert any(is_of_method(call, before + after) for before, after in urls), f"{call.method} {call.path}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_calls_that_are_named_exist(document: Path) -> None:
    known = {(call.method, as_named(call.path)) for call in CALLS.values()} | {("GET", SESSION_PATH)}
    for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?\s]*)", document.read_text()):
        assert (method, as_named(path)) in known, f"{name_of(document)}: {method} {path}"


def as_named(path: str) -> str:
    return re.sub(r"\{\w+\}", "{id}", path)


def is_of_method(call: Call, words: str) -> bool:
    said = re.search(r"-X (\w+)", words)
    if said is not None:
        return said[1] == call.method
    return call.method == ("POST" if " -d " in words else "GET")


def test_protocol_names_every_error() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PROTOCOL.read_text(), re.MULTILINE)
    assert set(rows) == {
        (str(error.status), word) for word, error in BY_TYPE.items() if word != LineshaftError.type
    }


def test_command_line_page_names_every_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for name, group in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        rows = "\n".join(re.findall(rf"^\| `{name}\b.*$", page, re.MULTILINE))
        assert rows, name
        # A group without a word lists: `workers` is `workers list`.
        for word in set(getattr(group, "commands", ())) - {"list"}:
            assert re.search(rf"\b{word}\b", rows), f"{name} {word}"


def test_command_line_page_has_the_exit_codes() -> None:
    codes = re.findall(r"^\| (\d+) \| .* \|$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert codes == [str(code.value) for code in MEANINGS]
