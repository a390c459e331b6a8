"""What every test may use: seeds, and the honest treatment of components that this machine lacks."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec

import hypothesis
import pytest

from tests.servers.fixtures import *  # noqa: F403  # the servers that a run shares; started when first asked for

# Its asserts must tell what they saw. Here, since other tests than those of stores may import it first.
pytest.register_assert_rewrite("lineshaft.store.conformance")

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# What tests need beyond the locked requirements: how to see that it is there, and how to get it.
COMPONENTS: dict[str, tuple[Callable[[], bool], str]] = {
    "curl": (lambda: shutil.which("curl") is not None, "apt-get install curl"),
    "pydantic": (lambda: find_spec("pydantic") is not None, "pip install 'lineshaft[pydantic]'"),
    "strace": (lambda: shutil.which("strace") is not None, "apt-get install strace"),
    "watchfiles": (lambda: find_spec("watchfiles") is not None, "pip install 'lineshaft[reload]'"),
}

SEARCH_NODES = {"opensearch_server", "elasticsearch_server"}

# A run in the background (`make test &`) begins with Ctrl-C ignored, and so would whatever a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# In CI the same examples every time: a red run must be about the change, and found bugs are kept as tests.
hypothesis.settings.register_profile("local", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if IN_CI else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lineshaft")
    group.addoption("--seed", type=int, default=0, help="first seed of tests that take one (default 0)")
    group.addoption("--seeds", type=int, default=1000, help="how many seeds such tests try (default 1000)")


def pytest_report_header(config: pytest.Config) -> str:
    seeds = seeds_of(config)
    missing = [name for name, (is_there, _) in COMPONENTS.items() if not is_there()]
    treatment = "fail" if IN_CI else "are skipped"
    return (
        f"lineshaft: seeds {seeds.start} to {seeds.stop - 1} (--seed, --seeds); "
        f"missing: {', '.join(missing) or 'nothing'} (tests that need it {treatment})"
    )


def seeds_of(config: pytest.Config) -> range:
    first = config.getoption("--seed")
    return range(first, first + config.getoption("--seeds"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a parameter `seed` runs once for each seed, which then stands in its name."""
    declared = {name for mark in metafunc.definition.iter_markers("parametrize") for name in names_of(mark)}
    if "seed" in metafunc.fixturenames and "seed" not in declared:
        metafunc.parametrize("seed", seeds_of(metafunc.config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a search node, which takes seconds to start and a processor of its own, is slow."""
    for item in items:
        if SEARCH_NODES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def names_of(parametrize: pytest.Mark) -> list[str]:
    names = parametrize.args[0] if parametrize.args else parametrize.kwargs["argnames"]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]  # a generator of pluggy's own
    """Say under a failure which seed brings it back."""
    outcome = yield
    report = outcome.get_result()
    seed = item.callspec.params.get("seed") if hasattr(item, "callspec") else None
    if report.failed and seed is not None:
        test = item.nodeid.partition("[")[0]
        report.sections.append(("seed", f"pytest '{test}' --seed={seed} --seeds=1"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        for component in mark.args:
            require_component(component)


@pytest.fixture
def require() -> Callable[[str], None]:
    """Give a function that ends the test where a component is missing: failed in CI, else skipped."""
    return require_component


def require_component(component: str) -> None:
    is_there, how_to_get = COMPONENTS[component]
    if is_there():
        return
    reason = f"{component} is missing here: {how_to_get}"
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
