"""Dashboards by structure: no Kibana runs here, so what can be known without one is."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lineshaft.core.task import STATE_WORDS
from lineshaft.store.elastic.history import HistoryNames, mapping
from lineshaft.store.elastic.history_events import ACTIONS
from lineshaft.store.elastic.names import Names
from lineshaft.store.elastic.setup import TASKS
from tests.docs.desk import ROOT

DEPLOY = ROOT / "deploy"
PRODUCTS = ("kibana", "opensearch-dashboards")
TYPES = ("index-pattern", "search", "visualization", "dashboard")

Saved = dict[str, Any]


def fields_of(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield all fields with their types."""
    for name, field in properties.items():
        if "properties" in field:
            yield from fields_of(field["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, field["type"]


TYPES_OF = {
    Names("lineshaft").all_tasks: dict(fields_of(TASKS["mappings"]["properties"])),
    HistoryNames("lineshaft").pattern: dict(fields_of(mapping()["properties"])),
}
FIELDS = {pattern: set(fields) for pattern, fields in TYPES_OF.items()}

NUMBERS = {"long", "integer"}
AGGREGATED = {
    "terms": {"keyword"},
    "date_histogram": {"date"},
    "percentiles": NUMBERS,
    "max": {*NUMBERS, "date"},
    "min": {*NUMBERS, "date"},
}


@pytest.fixture(params=PRODUCTS)
def saved(request: pytest.FixtureRequest) -> list[Saved]:
    lines = (DEPLOY / request.param / "lineshaft.ndjson").read_text().splitlines()
    return [json.loads(line) for line in lines]


def pattern_of(each: Saved, saved: list[Saved]) -> str:
    """Return the pattern that a search or a visualization looks at."""
    [reference] = each["references"]
    [found] = [one for one in saved if (one["type"], one["id"]) == (reference["type"], reference["id"])]
    title: str = found["attributes"]["title"]
    return title


def looks(saved: list[Saved]) -> list[Saved]:
    return [each for each in saved if each["type"] in ("search", "visualization")]


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_files_are_what_their_maker_writes(product: str) -> None:
    path = DEPLOY / "make_dashboards.py"
    spec = importlib.util.spec_from_file_location("make_dashboards", path)
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.text_of(product) == (DEPLOY / product / "lineshaft.ndjson").read_text(), f"run {path}"


def test_every_object_is_named_once_and_whole(saved: list[Saved]) -> None:
    names = [(each["type"], each["id"]) for each in saved]
    assert len(set(names)) == len(names)
    for each in saved:
        assert each["type"] in TYPES
        assert each["attributes"]["title"]
        for name, value in each["attributes"].items():
            if name.endswith("JSON") or name == "visState":
                json.loads(value)


def test_every_reference_leads_to_an_object_that_came_before(saved: list[Saved]) -> None:
    known: set[tuple[str, str]] = set()
    for each in saved:
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in known, f"{each['id']}: {reference}"
        known.add((each["type"], each["id"]))


def test_every_name_of_a_reference_is_given(saved: list[Saved]) -> None:
    for each in saved:
        given = {reference["name"] for reference in each["references"]}
        used = set(re.findall(r'"(?:indexRefName|panelRefName)":"([^"]+)"', _unpacked(each)))
        assert given == used, each["id"]


def _unpacked(each: Saved) -> str:
    attributes = each["attributes"]
    inner = attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "")
    return "".join([inner, attributes.get("panelsJSON", "")])


def test_index_patterns_are_ours_and_their_time_is_a_date(saved: list[Saved]) -> None:
    patterns = [each["attributes"] for each in saved if each["type"] == "index-pattern"]
    assert {pattern["title"] for pattern in patterns} == set(FIELDS)
    for pattern in patterns:
        fields = FIELDS[pattern["title"]]
        assert pattern["timeFieldName"] in fields
        assert set(json.loads(pattern["fieldFormatMap"])) <= fields


def test_every_field_is_in_the_mapping(saved: list[Saved]) -> None:
    for each in looks(saved):
        fields = FIELDS[pattern_of(each, saved)]
        used = set(each["attributes"].get("columns", []))
        used |= {field for field, _ in each["attributes"].get("sort", [])}
        if "visState" in each["attributes"]:
            aggregations = json.loads(each["attributes"]["visState"])["aggs"]
            used |= {one["params"]["field"] for one in aggregations if "field" in one["params"]}
        query = json.loads(each["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]
        assert query["language"] == "kuery"
        used |= set(re.findall(r"([@\w.]+):", query["query"]))
        assert used <= fields, f"{each['id']}: {used - fields}"


def test_aggregations_fit_the_types_of_their_fields(saved: list[Saved]) -> None:
    for each in saved:
        if each["type"] == "visualization":
            types = TYPES_OF[pattern_of(each, saved)]
            for one in json.loads(each["attributes"]["visState"])["aggs"]:
                if one["type"] != "count":
                    assert types[one["params"]["field"]] in AGGREGATED[one["type"]], f"{each['id']}: {one}"


def test_queries_ask_for_words_that_there_are(saved: list[Saved]) -> None:
    words = {"event.action": set(ACTIONS), "event.outcome": {"success", "failure", "unknown"}}
    words["state"] = set(STATE_WORDS.values())
    for each in looks(saved):
        query = json.loads(each["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"]
        for field, asked in re.findall(r"([\w.]+): \(?((?:[\w-]+(?: or )?)+)", query):
            if field in words:
                assert set(asked.split(" or ")) <= words[field], f"{each['id']}: {asked}"


def test_rows_are_ordered_by_a_number_that_there_is(saved: list[Saved]) -> None:
    for each in saved:
        if each["type"] == "visualization":
            aggregations = json.loads(each["attributes"]["visState"])["aggs"]
            assert [one["id"] for one in aggregations] == [str(n) for n, _ in enumerate(aggregations, 1)]
            kinds = {one["id"]: one["type"] for one in aggregations}
            for one in aggregations:
                if one["type"] == "terms":
                    by = one["params"]["orderBy"]
                    assert by == "_key" or kinds[by] in ("count", "max", "min", "avg", "sum")


def test_panels_do_not_lie_on_each_other(saved: list[Saved]) -> None:
    for each in saved:
        if each["type"] == "dashboard":
            taken: set[tuple[int, int]] = set()
            for panel in json.loads(each["attributes"]["panelsJSON"]):
                place = panel["gridData"]
                assert place["i"] == panel["panelIndex"]
                cells = {
                    (x, y)
                    for x in range(place["x"], place["x"] + place["w"])
                    for y in range(place["y"], place["y"] + place["h"])
                }
                assert not cells & taken
                assert max(x for x, _ in cells) < 48
                taken |= cells


@pytest.mark.parametrize("product", PRODUCTS)
def test_it_is_said_that_nobody_saw_them(product: str) -> None:
    assert re.search(r"\*\*No [\w ]+ ran where these were made", (DEPLOY / product / "README.md").read_text())
