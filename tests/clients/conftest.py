# Clients are imported where they are used: some tests run once more with older SDKs, where the others are missing.

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulators
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


@pytest.fixture(scope="session")
def mixed_gateway(tmp_path_factory) -> Iterator[Gateway]:
    """A server with the embedded engine and a model at an emulated upstream of every family."""
    folder = tmp_path_factory.mktemp("mixed")
    started = emulators.start_all()
    try:
        config = folder / "mixed.toml"
        config.write_text(emulators.config(started), encoding="utf-8")
        gateway = Gateway(folder / "data", config, EMULATED_KEY="emulated-key")
        yield gateway
        gc.collect()
        gateway.stop()
    finally:
        emulators.stop_all(started)


@pytest.fixture
def wire(gateway) -> Iterator[Wire]:
    with Wire(gateway.url) as wire:
        yield wire


@pytest.fixture
def client(gateway) -> Iterator:
    """openai-python as its users set it up."""
    import openai

    with openai.OpenAI(base_url=gateway.v1, api_key=KEY) as client:
        yield client


@pytest.fixture(params=["/v1", "/api/v3"])
def ark(gateway, request) -> Iterator:
    """The Ark SDK on either of the paths it is used with."""
    from volcenginesdkarkruntime import Ark

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
