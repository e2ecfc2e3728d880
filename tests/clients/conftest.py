import gc
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from volcenginesdkarkruntime import Ark

from gateway import KEY, REPOSITORY, SMALL_CONFIG, Gateway
from wire import Wire


@pytest.fixture(scope="session")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    """A server with the seed's models, shared by all tests."""
    gateway = Gateway(tmp_path_factory.mktemp("seed") / "data")
    yield gateway
    # Connections of clients that nobody holds any more would be drained otherwise.
    gc.collect()
    gateway.stop()


@pytest.fixture(scope="session")
def small_gateway(tmp_path_factory) -> Iterator[Gateway]:
    """A server with our own rules and low limits."""
    gateway = Gateway(tmp_path_factory.mktemp("small") / "data", SMALL_CONFIG)
    yield gateway
    gc.collect()
    gateway.stop()


@pytest.fixture
def wire(gateway) -> Iterator[Wire]:
    with Wire(gateway.url) as wire:
        yield wire


@pytest.fixture
def client(gateway) -> Iterator[openai.OpenAI]:
    """openai-python as its users set it up."""
    with openai.OpenAI(base_url=gateway.v1, api_key=KEY) as client:
        yield client


@pytest.fixture(params=["/v1", "/api/v3"])
def ark(gateway, request) -> Iterator[Ark]:
    """The Ark SDK on either of the paths it is used with."""
    ark = Ark(base_url=gateway.url + request.param, api_key=KEY)
    yield ark
    ark.close()


@pytest.fixture(scope="session")
def long_text() -> str:
    """More than the 4096 tokens the seed asks for: the operator's handbook, and its beginning once more."""
    handbook = (REPOSITORY / "docs" / "handbook.md").read_text(encoding="utf-8")
    return handbook + handbook[:1500]


@pytest.fixture(scope="session")
def stranger_key(gateway) -> str:
    """A key of another project."""
    with Wire(gateway.url) as wire:
        body = {"project": "stranger", "label": "client tests", "scopes": ["inference"]}
        return wire.ok("POST", "/admin/v1/keys", json=body)["key"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The crash loop is the longest; what fails sooner should be seen sooner.
    items.sort(key=lambda item: Path(item.path).stem == "test_crash")
