"""LangChain's own suites for integrations, over each vendor's wire. They want a clever model, for which `obedient.py`
stands in, because what they test is the wire. Below them: the embedded engine, caches and errors through LangChain."""

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core import exceptions
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from emulators import EMBEDDED, OBEDIENT, model_of
from gateway import KEY
from shapes import HOTEL, picture
from wire import Wire, system


class Suite(ChatModelIntegrationTests):
    """The whole suite, but for tests that play recorded answers, and for documents, sounds, and pictures by address."""

    url: str

    @pytest.fixture(autouse=True)
    def _server(self, mixed_gateway, monkeypatch):
        type(self).url = mixed_gateway.url
        # Some tests load a picture from the network to send it; any picture will do.
        monkeypatch.setattr(httpx, "get", lambda url, **_options: httpx.Response(200, content=picture()))

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return model_of("vllm")


class TestOpenAiChat(Suite):
    chat_model_class = ChatOpenAI

    @property
    def chat_model_params(self) -> dict:
        return openai(self.url)

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestOpenAiResponses(TestOpenAiChat):
    @property
    def chat_model_params(self) -> dict:
        return responses(self.url)


class TestAnthropic(Suite):
    chat_model_class = ChatAnthropic

    @property
    def chat_model_params(self) -> dict:
        return anthropic(self.url)

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class TestGoogle(Suite):
    chat_model_class = ChatGoogleGenerativeAI

    @property
    def chat_model_params(self) -> dict:
        return google(self.url)

    @property
    def supports_model_override(self) -> bool:
        # The integration takes `model` for a field of the configuration.
        return False


def openai(url: str) -> dict:
    named = {"base_url": f"{url}/v1", "api_key": KEY, "model": model_of(OBEDIENT)}
    return named | {"temperature": 0, "stream_usage": True, "max_retries": 0}


def responses(url: str) -> dict:
    return openai(url) | {"use_responses_api": True}


def anthropic(url: str) -> dict:
    named = {"base_url": url, "api_key": KEY, "model": model_of(OBEDIENT)}
    return named | {"max_tokens": 200, "max_retries": 0}


def google(url: str) -> dict:
    named = {"base_url": url, "api_key": KEY, "model": model_of(OBEDIENT)}
    return named | {"temperature": 0, "max_retries": 1}


WIRES = {
    "openai-chat": (ChatOpenAI, openai),
    "openai-responses": (ChatOpenAI, responses),
    "anthropic": (ChatAnthropic, anthropic),
    "gemini": (ChatGoogleGenerativeAI, google),
}


@pytest.fixture(params=WIRES)
def chat(mixed_gateway, request):
    """A way to make the class of each wire for a model."""
    made, parameters = WIRES[request.param]
    return lambda model, **more: made(**parameters(mixed_gateway.url) | {"model": model, **more})


def test_the_embedded_engine(chat):
    model = chat(EMBEDDED, max_tokens=8)
    answer = model.invoke([SystemMessage(HOTEL), HumanMessage("When is breakfast?")])
    assert answer.text
    assert 0 < answer.usage_metadata["output_tokens"] <= 8
    assert answer.usage_metadata["input_tokens"] > 20
    chunks = list(model.stream("Count upwards from one."))
    assert sum(bool(chunk.text) for chunk in chunks) > 1


def test_a_forced_tool_of_the_embedded_engine(chat):
    @tool
    def ring(times: int) -> str:
        """Rings the bell."""
        return "It rang."

    answer = chat(EMBEDDED, max_tokens=200, temperature=0).bind_tools([ring], tool_choice="any").invoke("Ring the bell 3 times.")
    (call,) = answer.tool_calls
    assert call["name"] == "ring" and isinstance(call["args"]["times"], int)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (model_of("limited-openai-langchain"), exceptions.ModelRateLimitError),
        ("model-none", exceptions.ModelNotFoundError),
    ],
    ids=["limited", "unknown"],
)
def test_errors_have_langchains_classes(chat, model, error):
    with pytest.raises(error):
        chat(model).invoke("Hello")


def test_a_marked_system_message_is_cached(mixed_gateway):
    model = ChatAnthropic(**anthropic(mixed_gateway.url) | {"model": EMBEDDED, "max_tokens": 8})
    part = {"type": "text", "text": f"{HOTEL} LangChain asks. " * 3, "cache_control": {"type": "ephemeral"}}
    first, second = (
        model.invoke([SystemMessage([part]), HumanMessage(question)]).usage_metadata["input_token_details"]
        for question in ("When is breakfast?", "When does the pool close?")
    )
    assert (first["cache_read"], second["cache_creation"]) == (0, 0)
    assert second["cache_read"] > 60


def test_a_cache_of_gemini(mixed_gateway):
    with Wire(mixed_gateway.url) as wire:
        context = wire.create(EMBEDDED, system(HOTEL))
    parameters = google(mixed_gateway.url) | {"model": EMBEDDED, "max_tokens": 8}
    model = ChatGoogleGenerativeAI(**parameters, cached_content=f"cachedContents/{context['id']}")
    usage = model.invoke("When is breakfast?").usage_metadata
    assert usage["input_token_details"]["cache_read"] == context["usage"]["prompt_tokens"]


@pytest.mark.parametrize("way", ["key", "previous response"])
def test_a_prompt_cache_of_openai(mixed_gateway, way):
    more = {} if way == "previous response" else {"model_kwargs": {"prompt_cache_key": "langchain"}}
    model = ChatOpenAI(**responses(mixed_gateway.url) | {"model": EMBEDDED, "max_tokens": 16} | more)
    rules = SystemMessage(f"{HOTEL} LangChain asks by way of a {way}. " * 3)
    first = model.invoke([rules, HumanMessage("When is breakfast?")])
    question = HumanMessage("When does the pool close?")
    if way == "key":
        second = model.invoke([rules, question])
    else:
        second = model.invoke([question], previous_response_id=first.response_metadata["id"])
    assert second.usage_metadata["input_token_details"]["cache_read"] > 60
