"""The vendors' own Python SDKs, each behind the same few verbs, so that one test can drive all of them.

Every verb uses the SDK as its documentation does. `Seen` is what an answer comes to, by each vendor's own arithmetic;
`heard` counts the pieces of text that the last stream has brought so far.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

from shapes import PDF, PICTURE, picture

TOOL = "get_weather"
TOOL_TEXT = "Tells the weather of a city."
TOOL_SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}}
QUESTION = "What is the weather like in Rome?"
RESULT = "Sunny, 24 degrees."
PICTURE_QUESTION = "What colour is this?"
PICTURE_URL = f"data:image/png;base64,{PICTURE}"
DOCUMENT_QUESTION = "What does it say?"
DOCUMENT = base64.b64encode(PDF).decode()
DOCUMENT_URL = f"data:application/pdf;base64,{DOCUMENT}"
HARD_QUESTION = "How many rooms are there?"


class StreamFailed(Exception):
    """For SDKs that hand out the failure of a stream as an event and raise nothing."""


@dataclass
class Call:
    id: str
    name: str
    arguments: dict


@dataclass
class Seen:
    """One answer."""

    text: str
    # The vendor's word for how it ended.
    finish: str
    # All tokens of the prompt, cached ones included, however the vendor counts.
    input: int
    output: int
    cached: int
    calls: list[Call] = field(default_factory=list)
    # What the next request repeats: the vendor's form of the answer.
    raw: object = None
    # Pieces of a stream that carried text.
    pieces: int = 0


class OpenAiChat:
    """openai-python, Chat Completions."""

    name = "openai-chat"
    finish, finish_tools = "stop", "tool_calls"

    def __init__(self, url: str, key: str, **more):
        import openai

        self.sdk = openai
        self.broken: type[Exception] = openai.APIError
        self.client = openai.OpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, _strict_response_validation=True, **more
        )

    def close(self) -> None:
        self.client.close()

    def plain(self, model: str, text: str) -> Seen:
        return self._seen(self.client.chat.completions.create(model=model, messages=[_user(text)]))

    def stream(self, model: str, text: str) -> Seen:
        return self._stream(model=model, messages=[_user(text)])

    def see(self, model: str) -> Seen:
        """Shows a picture."""
        parts = [
            {"type": "text", "text": PICTURE_QUESTION},
            {"type": "image_url", "image_url": {"url": PICTURE_URL}},
        ]
        return self._seen(self.client.chat.completions.create(model=model, messages=[_user(parts)]))

    def read(self, model: str) -> Seen:
        """Shows a document."""
        file = {"type": "file", "file": {"filename": "rooms.pdf", "file_data": DOCUMENT_URL}}
        parts = [{"type": "text", "text": DOCUMENT_QUESTION}, file]
        return self._seen(self.client.chat.completions.create(model=model, messages=[_user(parts)]))

    def think(self, model: str) -> Seen:
        """Asks for some reasoning."""
        return self._stream(model=model, messages=[_user(HARD_QUESTION)], reasoning_effort="low")

    def call(self, model: str, *, streamed: bool = False) -> Seen:
        """Forces a call of the tool."""
        request = {"model": model, "messages": [_user(QUESTION)], **self._forced()}
        return self._stream(**request) if streamed else self._seen(self.client.chat.completions.create(**request))

    def answer_call(self, model: str, called: Seen) -> Seen:
        messages = [
            _user(QUESTION),
            called.raw.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": called.calls[0].id, "content": RESULT},
        ]
        return self._seen(
            self.client.chat.completions.create(model=model, messages=messages, tools=[self._tool()])
        )

    @contextmanager
    def cached(self, model: str, prefix: str) -> Iterator:
        """A way to ask questions after a prefix that is to be cached."""

        def ask(question: str) -> Seen:
            part = {"type": "text", "text": prefix, "prompt_cache_breakpoint": {"mode": "explicit"}}
            messages = [{"role": "system", "content": [part]}, _user(question)]
            return self._seen(
                self.client.chat.completions.create(model=model, messages=messages, prompt_cache_key="matrix")
            )

        yield ask

    @contextmanager
    def conversation(self, model: str, prefix: str) -> Iterator:
        """A way to go on talking, all of which is to be cached."""
        messages = [{"role": "system", "content": prefix}]

        def say(text: str) -> Seen:
            messages.append(_user(text))
            seen = self._seen(
                self.client.chat.completions.create(model=model, messages=messages, prompt_cache_key="talk")
            )
            messages.append({"role": "assistant", "content": seen.text})
            return seen

        yield say

    def _tool(self) -> dict:
        return {
            "type": "function",
            "function": {"name": TOOL, "description": TOOL_TEXT, "parameters": TOOL_SCHEMA},
        }

    def _forced(self) -> dict:
        return {"tools": [self._tool()], "tool_choice": {"type": "function", "function": {"name": TOOL}}}

    def _stream(self, **request) -> Seen:
        self.heard = 0
        with self.client.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
            for event in stream:
                self.heard += event.type == "content.delta"
            seen = self._seen(stream.get_final_completion())
        seen.pieces = self.heard
        return seen

    def _seen(self, completion) -> Seen:
        choice, usage = completion.choices[0], completion.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        calls = [
            Call(call.id, call.function.name, json.loads(call.function.arguments))
            for call in choice.message.tool_calls or []
        ]
        return Seen(
            text=choice.message.content or "",
            finish=choice.finish_reason,
            input=usage.prompt_tokens,
            output=usage.completion_tokens,
            cached=usage.prompt_tokens_details.cached_tokens,
            calls=calls,
            raw=choice.message,
        )


class OpenAiResponses(OpenAiChat):
    """openai-python, Responses."""

    name = "openai-responses"
    finish, finish_tools = "completed", "completed"

    def __init__(self, url: str, key: str, **more):
        super().__init__(url, key, **more)
        self.broken = StreamFailed

    def plain(self, model: str, text: str) -> Seen:
        return self._seen(self.client.responses.create(model=model, input=text))

    def stream(self, model: str, text: str) -> Seen:
        return self._stream(model=model, input=text)

    def see(self, model: str) -> Seen:
        image = {"type": "input_image", "image_url": PICTURE_URL, "detail": "auto"}
        parts = [{"type": "input_text", "text": PICTURE_QUESTION}, image]
        return self._seen(self.client.responses.create(model=model, input=[_user(parts)]))

    def read(self, model: str) -> Seen:
        file = {"type": "input_file", "filename": "rooms.pdf", "file_data": DOCUMENT_URL}
        parts = [{"type": "input_text", "text": DOCUMENT_QUESTION}, file]
        return self._seen(self.client.responses.create(model=model, input=[_user(parts)]))

    def think(self, model: str) -> Seen:
        return self._stream(model=model, input=HARD_QUESTION, reasoning={"effort": "low"})

    def call(self, model: str, *, streamed: bool = False) -> Seen:
        request = {"model": model, "input": QUESTION, **self._forced()}
        return self._stream(**request) if streamed else self._seen(self.client.responses.create(**request))

    def answer_call(self, model: str, called: Seen) -> Seen:
        output = {"type": "function_call_output", "call_id": called.calls[0].id, "output": RESULT}
        return self._seen(
            self.client.responses.create(
                model=model, previous_response_id=called.raw.id, input=[output], tools=[self._tool()]
            )
        )

    @contextmanager
    def cached(self, model: str, prefix: str) -> Iterator:
        part = {"type": "input_text", "text": prefix, "prompt_cache_breakpoint": {"mode": "explicit"}}
        first = [{"role": "system", "content": [part]}]
        last: list[str] = []

        def ask(question: str) -> Seen:
            asked = [{"role": "user", "content": question}]
            request = {"previous_response_id": last[-1], "input": asked} if last else {"input": first + asked}
            seen = self._seen(self.client.responses.create(model=model, prompt_cache_key="matrix", **request))
            last.append(seen.raw.id)
            return seen

        yield ask

    @contextmanager
    def conversation(self, model: str, prefix: str) -> Iterator:
        last: list[str] = []

        def say(text: str) -> Seen:
            if last:
                request = {"previous_response_id": last[-1], "input": text}
            else:
                request = {"input": [{"role": "system", "content": prefix}, _user(text)]}
            seen = self._seen(self.client.responses.create(model=model, **request))
            last.append(seen.raw.id)
            return seen

        yield say

    def _tool(self) -> dict:
        return {
            "type": "function",
            "name": TOOL,
            "description": TOOL_TEXT,
            "parameters": TOOL_SCHEMA,
            "strict": False,
        }

    def _forced(self) -> dict:
        return {"tools": [self._tool()], "tool_choice": {"type": "function", "name": TOOL}}

    def _stream(self, **request) -> Seen:
        self.heard = 0
        with self.client.responses.stream(**request) as stream:
            for event in stream:
                self.heard += event.type == "response.output_text.delta"
                if event.type == "response.failed":
                    assert event.response.status == "failed"
                    assert event.response.error.code
                    raise StreamFailed(event.response.error.message)
            seen = self._seen(stream.get_final_response())
        seen.pieces = self.heard
        return seen

    def _seen(self, response) -> Seen:
        usage = response.usage
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
        calls = [
            Call(item.call_id, item.name, json.loads(item.arguments))
            for item in response.output
            if item.type == "function_call"
        ]
        return Seen(
            text=response.output_text,
            finish=response.status,
            input=usage.input_tokens,
            output=usage.output_tokens,
            cached=usage.input_tokens_details.cached_tokens,
            calls=calls,
            raw=response,
        )


class AnthropicMessages:
    """anthropic-sdk-python."""

    name = "anthropic"
    finish, finish_tools = "end_turn", "tool_use"

    def __init__(self, url: str, key: str, **more):
        import anthropic

        self.sdk = anthropic
        self.broken = anthropic.APIError
        self.client = anthropic.Anthropic(
            base_url=url, api_key=key, max_retries=0, _strict_response_validation=True, **more
        )

    def close(self) -> None:
        self.client.close()

    def plain(self, model: str, text: str) -> Seen:
        return self._seen(self.client.messages.create(model=model, max_tokens=100, messages=[_user(text)]))

    def stream(self, model: str, text: str) -> Seen:
        return self._stream(model=model, max_tokens=100, messages=[_user(text)])

    def see(self, model: str) -> Seen:
        source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
        parts = [{"type": "image", "source": source}, {"type": "text", "text": PICTURE_QUESTION}]
        return self._seen(self.client.messages.create(model=model, max_tokens=100, messages=[_user(parts)]))

    def read(self, model: str) -> Seen:
        source = {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}
        document = {"type": "document", "title": "Rooms", "source": source}
        parts = [document, {"type": "text", "text": DOCUMENT_QUESTION}]
        return self._seen(self.client.messages.create(model=model, max_tokens=100, messages=[_user(parts)]))

    def think(self, model: str) -> Seen:
        thinking = {"type": "enabled", "budget_tokens": 1024}
        return self._stream(model=model, max_tokens=4000, messages=[_user(HARD_QUESTION)], thinking=thinking)

    def call(self, model: str, *, streamed: bool = False) -> Seen:
        request = {
            "model": model,
            "max_tokens": 100,
            "messages": [_user(QUESTION)],
            "tools": [self._tool()],
            "tool_choice": {"type": "tool", "name": TOOL},
        }
        return self._stream(**request) if streamed else self._seen(self.client.messages.create(**request))

    def answer_call(self, model: str, called: Seen) -> Seen:
        result = {"type": "tool_result", "tool_use_id": called.calls[0].id, "content": RESULT}
        messages = [
            _user(QUESTION),
            {"role": "assistant", "content": called.raw.content},
            {"role": "user", "content": [result]},
        ]
        return self._seen(
            self.client.messages.create(model=model, max_tokens=100, messages=messages, tools=[self._tool()])
        )

    @contextmanager
    def cached(self, model: str, prefix: str) -> Iterator:
        system = [{"type": "text", "text": prefix, "cache_control": {"type": "ephemeral"}}]

        def ask(question: str) -> Seen:
            return self._seen(
                self.client.messages.create(model=model, max_tokens=100, system=system, messages=[_user(question)])
            )

        yield ask

    @contextmanager
    def conversation(self, model: str, prefix: str) -> Iterator:
        messages: list[dict] = []
        # A marker that moves with the end of the conversation.
        automatic = {"cache_control": {"type": "ephemeral"}}

        def say(text: str) -> Seen:
            messages.append(_user(text))
            seen = self._seen(
                self.client.messages.create(
                    model=model, max_tokens=100, system=prefix, messages=messages, extra_body=automatic
                )
            )
            messages.append({"role": "assistant", "content": seen.text})
            return seen

        yield say

    def _tool(self) -> dict:
        return {"name": TOOL, "description": TOOL_TEXT, "input_schema": TOOL_SCHEMA}

    def _stream(self, **request) -> Seen:
        self.heard = 0
        with self.client.messages.stream(**request) as stream:
            for event in stream:
                self.heard += event.type == "text"
            seen = self._seen(stream.get_final_message())
        seen.pieces = self.heard
        return seen

    def _seen(self, message) -> Seen:
        usage = message.usage
        # This vendor counts what was read and written beside the input, not in it.
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        return Seen(
            text="".join(block.text for block in message.content if block.type == "text"),
            finish=message.stop_reason,
            input=usage.input_tokens + read + written,
            output=usage.output_tokens,
            cached=read,
            calls=[
                Call(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"
            ],
            raw=message,
        )


class Gemini:
    """google-genai."""

    name = "gemini"
    finish, finish_tools = "STOP", "STOP"

    def __init__(self, url: str, key: str, **options):
        from google import genai
        from google.genai import errors, types

        self.sdk, self.errors, self.types = genai, errors, types
        self.broken = errors.APIError
        self.client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, **options))

    def close(self) -> None:
        if hasattr(self.client, "close"):
            self.client.close()

    def plain(self, model: str, text: str) -> Seen:
        return self._seen([self.client.models.generate_content(model=model, contents=text)])

    def stream(self, model: str, text: str) -> Seen:
        return self._stream(model=model, contents=text)

    def see(self, model: str) -> Seen:
        image = self.types.Part.from_bytes(data=picture(), mime_type="image/png")
        return self._seen([self.client.models.generate_content(model=model, contents=[PICTURE_QUESTION, image])])

    def read(self, model: str) -> Seen:
        file = self.types.Part.from_bytes(data=PDF, mime_type="application/pdf")
        return self._seen([self.client.models.generate_content(model=model, contents=[DOCUMENT_QUESTION, file])])

    def think(self, model: str) -> Seen:
        thinking = self.types.ThinkingConfig(thinking_budget=1024, include_thoughts=True)
        config = self.types.GenerateContentConfig(thinking_config=thinking)
        return self._stream(model=model, contents=HARD_QUESTION, config=config)

    def call(self, model: str, *, streamed: bool = False) -> Seen:
        types = self.types
        forced = types.FunctionCallingConfig(mode="ANY", allowed_function_names=[TOOL])
        request = {
            "model": model,
            "contents": QUESTION,
            "config": self._config(tool_config=types.ToolConfig(function_calling_config=forced)),
        }
        if streamed:
            return self._stream(**request)
        return self._seen([self.client.models.generate_content(**request)])

    def answer_call(self, model: str, called: Seen) -> Seen:
        types = self.types
        part = types.Part.from_function_response(name=TOOL, response={"result": RESULT})
        part.function_response.id = called.calls[0].id
        contents = [
            types.Content(role="user", parts=[types.Part(text=QUESTION)]),
            types.Content(role="model", parts=called.raw),
            types.Content(role="user", parts=[part]),
        ]
        return self._seen(
            [self.client.models.generate_content(model=model, contents=contents, config=self._config())]
        )

    @contextmanager
    def cached(self, model: str, prefix: str) -> Iterator:
        types = self.types
        cache = self.client.caches.create(
            model=model, config=types.CreateCachedContentConfig(system_instruction=prefix, ttl="600s")
        )

        def ask(question: str) -> Seen:
            config = types.GenerateContentConfig(cached_content=cache.name)
            return self._seen([self.client.models.generate_content(model=model, contents=question, config=config)])

        try:
            yield ask
        finally:
            self.client.caches.delete(name=cache.name)

    @contextmanager
    def conversation(self, model: str, prefix: str) -> Iterator:
        types = self.types
        cache = self.client.caches.create(
            model=model, config=types.CreateCachedContentConfig(system_instruction=prefix, ttl="600s")
        )
        chat = self.client.chats.create(model=model, config=types.GenerateContentConfig(cached_content=cache.name))
        try:
            yield lambda text: self._seen([chat.send_message(text)])
        finally:
            self.client.caches.delete(name=cache.name)

    def _config(self, **more):
        types = self.types
        declaration = types.FunctionDeclaration(
            name=TOOL,
            description=TOOL_TEXT,
            parameters=types.Schema(
                type="OBJECT", properties={"city": types.Schema(type="STRING", enum=["Paris", "Rome"])}
            ),
        )
        return types.GenerateContentConfig(
            tools=[types.Tool(function_declarations=[declaration])],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            **more,
        )

    def _stream(self, **request) -> Seen:
        self.heard, chunks = 0, []
        for chunk in self.client.models.generate_content_stream(**request):
            chunks.append(chunk)
            self.heard += bool(chunk.text)
        seen = self._seen(chunks)
        seen.pieces = self.heard
        return seen

    def _seen(self, chunks: list) -> Seen:
        parts = [part for chunk in chunks for part in (chunk.candidates[0].content.parts or [])]
        usage = chunks[-1].usage_metadata
        output = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        assert usage.total_token_count == usage.prompt_token_count + output
        finishes = [chunk.candidates[0].finish_reason for chunk in chunks]
        assert all(finish is None for finish in finishes[:-1]), finishes
        return Seen(
            text="".join(part.text or "" for part in parts if not part.thought),
            finish=finishes[-1].name,
            input=usage.prompt_token_count,
            output=output,
            cached=usage.cached_content_token_count or 0,
            calls=[
                Call(part.function_call.id, part.function_call.name, dict(part.function_call.args or {}))
                for part in parts
                if part.function_call
            ],
            raw=parts,
        )


ALL = [OpenAiChat, OpenAiResponses, AnthropicMessages, Gemini]


def _user(content: str | list) -> dict:
    return {"role": "user", "content": content}


def error_of(dialect, status: int) -> type[Exception]:
    """The class that the SDK promises for a status."""
    if isinstance(dialect, Gemini):
        return dialect.errors.ClientError if status < 500 else dialect.errors.ServerError
    sdk: ModuleType = dialect.sdk
    return {
        400: sdk.BadRequestError,
        401: sdk.AuthenticationError,
        403: sdk.PermissionDeniedError,
        404: sdk.NotFoundError,
        429: sdk.RateLimitError,
    }.get(status, sdk.InternalServerError)


def status_of(error: Exception) -> int:
    return error.code if hasattr(error, "details") and not hasattr(error, "status_code") else error.status_code
