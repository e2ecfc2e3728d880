// @anthropic-ai/sdk. Argument: see drive.mjs.

import Anthropic from "@anthropic-ai/sdk";
import { QUESTION, RESULT, REVIEW, TOOL, VERDICT, drive } from "./drive.mjs";

const user = (content) => ({ role: "user", content });

class Messages {
  tools = [{ name: TOOL.name, description: TOOL.description, input_schema: TOOL.schema }];

  constructor(baseURL, apiKey) {
    this.client = new Anthropic({ baseURL, apiKey, maxRetries: 1 });
  }

  async ask(request) {
    return this.seen(await this.client.messages.create({ max_tokens: 100, ...request }));
  }

  plain(model, text) {
    return this.ask({ model, messages: [user(text)], max_tokens: 8 });
  }

  stream(model, text) {
    return this.streamed({ model, messages: [user(text)], max_tokens: 8 });
  }

  call(model, streamed) {
    const request = {
      model,
      messages: [user(QUESTION)],
      tools: this.tools,
      tool_choice: { type: "tool", name: TOOL.name },
    };
    return streamed ? this.streamed(request) : this.ask(request);
  }

  answer(model, called) {
    const result = { type: "tool_result", tool_use_id: called.calls[0].id, content: RESULT };
    const messages = [user(QUESTION), { role: "assistant", content: called.raw.content }, user([result])];
    return this.ask({ model, messages, tools: this.tools, max_tokens: 8 });
  }

  async verdict(model) {
    const format = { type: "json_schema", schema: VERDICT };
    const request = { model, messages: [user(REVIEW)], output_config: { format }, max_tokens: 60 };
    return JSON.parse((await this.ask(request)).text);
  }

  cached(model, prefix) {
    const system = [{ type: "text", text: prefix, cache_control: { type: "ephemeral" } }];
    return (text) => this.ask({ model, system, messages: [user(text)] });
  }

  async streamed(request) {
    const stream = this.client.messages.stream({ max_tokens: 100, ...request });
    let pieces = 0;
    stream.on("text", () => (pieces += 1));
    return { ...this.seen(await stream.finalMessage()), pieces };
  }

  seen(message) {
    const { input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens } = message.usage;
    const blocks = (type) => message.content.filter((block) => block.type === type);
    return {
      text: blocks("text")
        .map((block) => block.text)
        .join(""),
      finish: message.stop_reason,
      input: input_tokens + cache_read_input_tokens + cache_creation_input_tokens,
      output: output_tokens,
      cached: cache_read_input_tokens,
      calls: blocks("tool_use").map(({ id, name, input }) => ({ id, name, arguments: input })),
      raw: message,
    };
  }
}

await drive({ anthropic: Messages });
