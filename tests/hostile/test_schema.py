"""Requests made from `/openapi.json`, good ones and bad ones, over the wire to a process of its own.

No answer is a 5xx, all conform to what the document declares, and every refusal has the protocol's one shape.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from lineshaft.errors import BY_TYPE, Invalid
from lineshaft.server.openapi import describe
from lineshaft.values.durations import parse_duration
from lineshaft.version import __version__
from lineshaft.wire import CALLS
from tests.hostile.target import Target

DOCUMENT = describe(CALLS.values(), version=__version__)
OPERATIONS = {
    operation.ok().definition.raw["operationId"]: operation.ok()
    for operation in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}
REQUESTS = 3_000
BLANK = [
    name for name, operation in OPERATIONS.items() if not [*operation.iter_parameters(), *operation.body]
]
"""Those that take nothing: there is one good request of each, and no bad one."""
PLAN = [
    (name, mode)
    for name in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if name not in BLANK or mode is GenerationMode.POSITIVE
]
EXAMPLES = -(-REQUESTS // (len(PLAN) - len(BLANK)))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


class Api:
    """A session with an admin key, and what there is to be found."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.url = f"http://127.0.0.1:{target.port}"
        self.session = requests.Session()
        self.session.trust_env = False
        made = self.session.post(
            f"{self.url}/_keys", json={"name": "k", "scopes": ["admin", "enqueue", "work", "read"]}
        )
        self.session.headers["Authorization"] = f"ApiKey {made.json()['key']}"
        self.sent = 0
        self._numbers = itertools.count()

    def lease(self) -> dict[str, Any]:
        """Enqueue a task, claim it, and return it."""
        id = f"held-{next(self._numbers)}"
        self.session.put(f"{self.url}/_tasks/{id}", json={"name": "n", "queue": id})
        claimed: dict[str, Any] = self.session.post(f"{self.url}/_tasks/_claim", json={"queues": [id]}).json()
        return claimed


@pytest.fixture(scope="module", name="api")
def give_api(target: Target) -> Iterator[Api]:
    api = Api(target)
    with api.session:
        yield api
    print(f"\n{api.sent} requests made from the document")


@pytest.mark.slow
@pytest.mark.parametrize("name, mode", PLAN, ids=lambda part: getattr(part, "value", part))
def test_every_operation_keeps_to_its_declaration(api: Api, name: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[name]

    @hypothesis.settings(
        max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck), database=None
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def exchange(case: schemathesis.Case, real: bool) -> None:
        if real and mode is GenerationMode.POSITIVE:
            _bring_near(api, case)
        _shorten_waits(case)
        api.sent += 1
        response = case.call(base_url=api.url, session=api.session, timeout=20)
        case.validate_response(response, checks=CHECKS)
        judge(response)
        if name != "session":
            judge_by_intent(response, case, mode)

    exchange()


def _bring_near(api: Api, case: schemathesis.Case) -> None:
    """Let a good request be about a task that is there and leased, so that it is not only told 404."""
    body = case.body if isinstance(case.body, dict) else {}
    if "id" in case.path_parameters and case.path.startswith("/_tasks/"):
        held = api.lease()
        case.path_parameters["id"] = held["task_id"]
        if "lease_token" in body:
            body["lease_token"] = held["lease_token"]
    for item in body.get("items", []):
        held = api.lease()
        item["task_id"], item["lease_token"] = held["task_id"], held["lease_token"]


def _shorten_waits(case: schemathesis.Case) -> None:
    """Wait no longer than this test has time for; what is no wait stays as it is."""
    parts = [case.query, case.body]
    if isinstance(case.body, dict):
        parts.append(case.body.get("claim"))
    for part in parts:
        if isinstance(part, dict) and isinstance(wait := part.get("wait"), str | int | float):
            with contextlib.suppress(Invalid):
                if parse_duration(wait, field="wait") > 20:
                    part["wait"] = "20ms"


def judge(response: schemathesis.Response) -> None:
    """Hold the answer to what the protocol says of all answers."""
    assert response.status_code < 500, response.text
    assert response.headers["content-length"] == [str(len(response.content))]
    if response.status_code < 400:
        return
    error = json.loads(response.content)["error"]
    assert BY_TYPE[error["type"]].status == response.status_code
    assert error["reason"]
    assert not re.search(r"Traceback|File \"|0x[0-9a-f]{6}", error["reason"]), error


def judge_by_intent(response: schemathesis.Response, case: schemathesis.Case, mode: GenerationMode) -> None:
    """A good request is never unreadable; a bad one never succeeds.

    Where the bad part of a request was left out altogether, and may be, what is left is a good one.
    """
    if mode is GenerationMode.POSITIVE:
        assert response.status_code not in (400, 401, 403, 405, 413, 415), response.text
    elif response.status_code < 300 and isinstance(case.body, list | dict) and case.body:
        items = json.loads(response.content)["items"]  # of a bulk or a report, each for itself
        assert any(item["status"] >= 400 for item in items), case.body
