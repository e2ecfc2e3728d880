"""A model that does as it is told, for suites that expect a clever one: it calls the tool that a question is about, and
fills in schemas with words and numbers of the question. It speaks OpenAI's Chat Completions, streams only, and is an
upstream of the gateway like any other."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "You are welcome to an answer in a few plain words."


class Obedient:
    """The server, on a port of its own."""

    family, provider = "obedient", "openai-compatible"

    def __init__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert body["stream"] and body["stream_options"]["include_usage"], body
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for choices, usage in answer(body):
            chunk = {
                "id": "chatcmpl-obedient",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": body["model"],
            }
            data = json.dumps(chunk | {"choices": choices, "usage": usage}, ensure_ascii=False)
            self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_arguments) -> None:
        pass


def answer(body: dict) -> Iterator[tuple[list[dict], dict | None]]:
    """Choices and usage of each chunk."""
    deltas, finish, size = [{"role": "assistant", "content": ""}], "stop", 0
    if tool := wanted_tool(body):
        arguments = json.dumps(fill(tool.get("parameters") or {}, question(body)), ensure_ascii=False)
        size, finish = len(arguments), "tool_calls"
        call = {"index": 0, "id": "call_obedient", "type": "function"}
        deltas.append({"tool_calls": [call | {"function": {"name": tool["name"], "arguments": ""}}]})
        for piece in (arguments[: size // 2], arguments[size // 2 :]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        text = wanted_text(body)
        size = len(text)
        deltas += [{"content": piece} for piece in re.findall(r"\s*\S+|\s+", text)]
    for delta in deltas:
        yield [{"index": 0, "delta": delta, "finish_reason": None}], None
    yield [{"index": 0, "delta": {}, "finish_reason": finish}], None
    prompt, output = len(json.dumps(body["messages"])) // 4, size // 4 + 1
    yield [], {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def wanted_tool(body: dict) -> dict | None:
    tools = [tool["function"] for tool in body.get("tools") or []]
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return None
    if isinstance(choice, dict):
        return next(tool for tool in tools if tool["name"] == choice["function"]["name"])
    if choice == "required":
        return tools[0]
    # Left to itself it calls the tool that the question is about, and asks no second time.
    if body["messages"][-1]["role"] != "user":
        return None
    words = set(re.findall(r"\w+", question(body).lower()))
    return next((tool for tool in tools if words & set(tool["name"].split("_"))), None)


def wanted_text(body: dict) -> str:
    shape = body.get("response_format") or {}
    if shape.get("type") == "json_schema":
        return json.dumps(fill(shape["json_schema"]["schema"], question(body)), ensure_ascii=False)
    if shape.get("type") == "json_object":
        return json.dumps({key: key for key in re.findall(r"'(\w+)'", question(body))})
    stops = body.get("stop") or []
    ends = [ANSWER.index(stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop in ANSWER]
    return ANSWER[: min(ends, default=None)]


def question(body: dict) -> str:
    """The last user's text."""
    content = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def fill(schema: dict, text: str, root: dict | None = None) -> object:
    """Something of that schema."""
    root = root or schema
    if "$ref" in schema:
        target: dict = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return fill(target, text, root)
    for combined in ("anyOf", "oneOf", "allOf"):
        if combined in schema:
            return fill(schema[combined][0], text, root)
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: fill(of, text, root) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [fill(schema.get("items", {"type": "string"}), text, root)]
    if kind in ("integer", "number"):
        number = int(next(iter(re.findall(r"\d+", text)), 1))
        return max(schema.get("minimum", number), min(schema.get("maximum", number), number))
    if kind == "boolean":
        return True
    return next(iter(re.findall(r"'([^']+)'", text)), text.split()[-1])
