// openai-node: Chat Completions and Responses. Argument: see drive.mjs.

import OpenAI from "openai";
import { QUESTION, RESULT, REVIEW, TOOL, VERDICT, drive } from "./drive.mjs";

const user = (content) => ({ role: "user", content });

class Chat {
  tools = [{ type: "function", function: { name: TOOL.name, description: TOOL.description, parameters: TOOL.schema } }];

  constructor(url, apiKey) {
    this.client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 1 });
  }

  async ask(request) {
    return this.seen(await this.client.chat.completions.create(request));
  }

  plain(model, text) {
    return this.ask({ model, messages: [user(text)], temperature: 0, max_tokens: 8 });
  }

  async stream(model, text) {
    return this.streamed({ model, messages: [user(text)], temperature: 0, max_tokens: 8 });
  }

  call(model, streamed) {
    const tool_choice = { type: "function", function: { name: TOOL.name } };
    const request = { model, messages: [user(QUESTION)], tools: this.tools, tool_choice };
    return streamed ? this.streamed(request) : this.ask(request);
  }

  answer(model, called) {
    const result = { role: "tool", tool_call_id: called.calls[0].id, content: RESULT };
    return this.ask({ model, messages: [user(QUESTION), called.raw, result], tools: this.tools, max_tokens: 8 });
  }

  async verdict(model) {
    const json_schema = { name: "verdict", strict: true, schema: VERDICT };
    const response_format = { type: "json_schema", json_schema };
    return JSON.parse((await this.ask({ model, messages: [user(REVIEW)], response_format, max_tokens: 60 })).text);
  }

  cached(model, prefix) {
    const part = { type: "text", text: prefix, prompt_cache_breakpoint: { mode: "explicit" } };
    return (text) =>
      this.ask({ model, messages: [{ role: "system", content: [part] }, user(text)], prompt_cache_key: "node" });
  }

  async streamed(request) {
    const stream = this.client.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
    let pieces = 0;
    stream.on("content.delta", () => (pieces += 1));
    return { ...this.seen(await stream.finalChatCompletion()), pieces };
  }

  seen({ choices: [{ message, finish_reason }], usage }) {
    const calls = (message.tool_calls ?? []).map(({ id, function: { name, arguments: json } }) => ({
      id,
      name,
      arguments: JSON.parse(json),
    }));
    return {
      text: message.content ?? "",
      finish: finish_reason,
      input: usage.prompt_tokens,
      output: usage.completion_tokens,
      cached: usage.prompt_tokens_details.cached_tokens,
      calls,
      raw: message,
    };
  }
}

class Responses extends Chat {
  tools = [
    { type: "function", name: TOOL.name, description: TOOL.description, parameters: TOOL.schema, strict: false },
  ];

  async ask(request) {
    return this.seen(await this.client.responses.create(request));
  }

  plain(model, text) {
    return this.ask({ model, input: text, temperature: 0, max_output_tokens: 8 });
  }

  stream(model, text) {
    return this.streamed({ model, input: text, temperature: 0, max_output_tokens: 8 });
  }

  call(model, streamed) {
    const request = { model, input: QUESTION, tools: this.tools, tool_choice: { type: "function", name: TOOL.name } };
    return streamed ? this.streamed(request) : this.ask(request);
  }

  answer(model, called) {
    const input = [{ type: "function_call_output", call_id: called.calls[0].id, output: RESULT }];
    return this.ask({ model, previous_response_id: called.raw.id, input, tools: this.tools, max_output_tokens: 8 });
  }

  async verdict(model) {
    const format = { type: "json_schema", name: "verdict", strict: true, schema: VERDICT };
    const request = { model, input: REVIEW, text: { format }, max_output_tokens: 60 };
    return (await this.client.responses.parse(request)).output_parsed;
  }

  cached(model, prefix) {
    const part = { type: "input_text", text: prefix, prompt_cache_breakpoint: { mode: "explicit" } };
    let previous_response_id;
    return async (text) => {
      const input = previous_response_id ? [user(text)] : [{ role: "system", content: [part] }, user(text)];
      const seen = await this.ask({ model, input, previous_response_id, prompt_cache_key: "node" });
      previous_response_id = seen.raw.id;
      return seen;
    };
  }

  async streamed(request) {
    const stream = this.client.responses.stream(request);
    let pieces = 0;
    stream.on("response.output_text.delta", () => (pieces += 1));
    return { ...this.seen(await stream.finalResponse()), pieces };
  }

  seen(response) {
    const calls = response.output.filter((item) => item.type === "function_call");
    return {
      text: response.output_text,
      finish: response.status,
      input: response.usage.input_tokens,
      output: response.usage.output_tokens,
      cached: response.usage.input_tokens_details.cached_tokens,
      calls: calls.map((call) => ({ id: call.call_id, name: call.name, arguments: JSON.parse(call.arguments) })),
      raw: response,
    };
  }
}

await drive({ "openai-chat": Chat, "openai-responses": Responses });
