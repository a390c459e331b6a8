"""Compose files: whole by structure, and what they say of Lineshaft runs, on servers of the same kind."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from lineshaft.store.urls import open_store
from tests import servers
from tests.docs.desk import ROOT, Desk

COMPOSE = ROOT / "deploy" / "compose"
KINDS = {
    "postgres": servers.postgres,
    "valkey": servers.valkey,
    "opensearch": servers.opensearch,
    "elasticsearch": servers.elasticsearch,
}
# What a service may say, of all that Compose knows.
KEYS = {
    *("build", "image", "command", "environment", "ports", "volumes", "depends_on", "healthcheck"),
    *("restart", "profiles", "stop_grace_period"),
}

Services = dict[str, dict[str, Any]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def whole(kind: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((COMPOSE / f"{kind}.yaml").read_text())
    return read


@pytest.fixture
def services(whole: dict[str, Any]) -> Services:
    found: Services = whole["services"]
    return found


def test_there_is_a_file_for_each_store() -> None:
    assert {path.stem for path in COMPOSE.glob("*.yaml")} == set(KINDS)


def test_there_are_two_coordinators_a_worker_and_the_store(kind: str, services: Services) -> None:
    assert {"coordinator-1", "coordinator-2", "worker", kind} <= set(services)
    for name, service in services.items():
        assert set(service) <= KEYS, name
        assert ("image" in service) != ("build" in service), name


def test_what_services_wait_for_is_there_and_says_when_it_is_healthy(services: Services) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert services[other]["healthcheck"]["test"][0] == "CMD", other


def test_volumes_are_declared(whole: dict[str, Any]) -> None:
    used = {
        volume.split(":")[0]
        for service in whole["services"].values()
        for volume in service.get("volumes", [])
    }
    assert used == set(whole["volumes"])


def test_only_this_machine_reaches_the_ports(services: Services) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(set(published)) == len(published) >= 2
    for port in published:
        assert port.startswith("127.0.0.1:")


def test_coordinators_share_the_store_and_each_has_its_address(kind: str, services: Services) -> None:
    environments = {name: services[name]["environment"] for name in ("coordinator-1", "coordinator-2")}
    [url] = {environment["LINESHAFT_STORE"] for environment in environments.values()}
    assert urlsplit(url).hostname == kind
    assert open_store(url).url  # its options are known
    for name, environment in environments.items():
        assert environment["LINESHAFT_ADDRESS"] == f"http://{name}:7077"
        assert f"--allowed-host={name}" in services[name]["command"]


def test_images_are_pinned_and_what_is_built_is_there(services: Services) -> None:
    for name, service in services.items():
        if "image" in service:
            assert ":" in service["image"], name
        else:
            context = (COMPOSE / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).exists()


def test_what_the_image_copies_is_there() -> None:
    for line in (COMPOSE / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line


def ask_by_name(url: str, name: str) -> dict[str, Any]:
    """Ask as somebody who knows the coordinator by its name; again while shards are on their way."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": name})) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_they_run(kind: str, services: Services, tmp_path: Path) -> None:
    """As the files say, but for the names of machines, which only Docker makes."""
    server = KINDS[kind]()
    place = server.fresh()
    options = urlsplit(services["coordinator-1"]["environment"]["LINESHAFT_STORE"]).query
    place += f"?{options}" if options else ""
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
    with Desk(folders[0]) as desk, Desk(folders[1]) as other:
        for each, name in ((desk, "coordinator-1"), (other, "coordinator-2")):
            told = {
                **services[name]["environment"],
                "LINESHAFT_STORE": place,
                "LINESHAFT_LISTEN": each.address,
                "LINESHAFT_ADDRESS": each.url,
            }
            assert set(told) == set(services[name]["environment"])
            words = " ".join(services[name]["command"])
            assignments = " ".join(f"{variable}='{value}'" for variable, value in told.items())
            each.serve(f"env {assignments} lineshaft {words}")
        words = " ".join(services["worker"]["command"])
        (folders[1] / "tasks.py").write_text((COMPOSE / "tasks.py").read_text())
        other.start(f"lineshaft {words}", LINESHAFT_URL=other.url)
        try:
            printed = desk.run("lineshaft", "enqueue", "greet", '{"name": "you"}', "--wait")
            assert json.loads(printed) == "Hello, you"
            listed = ask_by_name(f"{other.url}/_tasks", "coordinator-2:7077")
            assert [task["name"] for task in listed["tasks"]] == ["greet"]
        finally:
            print(desk.everything_printed(), other.everything_printed())
    if isinstance(server, servers.SearchServer):
        server.request("DELETE", f"/_data_stream/logs-{place.rpartition('/')[2].partition('?')[0]}.task-*")
        server.drop(place.rpartition("/")[2].partition("?")[0])
