// The `ai` SDK with its providers for OpenAI (Responses, Chat Completions), Anthropic and Google. Argument: see drive.mjs.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { Output, generateText, jsonSchema, streamText, tool } from "ai";
import { QUESTION, RESULT, REVIEW, TOOL, VERDICT, drive } from "./drive.mjs";

const user = (content) => ({ role: "user", content });

class Ai {
  tools = { [TOOL.name]: tool({ description: TOOL.description, inputSchema: jsonSchema(TOOL.schema) }) };
  // What a request, and what a system message, needs to be cached.
  options = {};
  markedOptions = {};

  async ask(request) {
    return this.seen(await generateText(this.request(request)));
  }

  request({ model, ...request }) {
    return { model: this.model(model), maxRetries: 1, maxOutputTokens: 100, ...request };
  }

  plain(model, prompt) {
    return this.ask({ model, prompt, maxOutputTokens: 8 });
  }

  stream(model, prompt) {
    return this.streamed({ model, prompt, maxOutputTokens: 8 });
  }

  call(model, streamed) {
    const toolChoice = { type: "tool", toolName: TOOL.name };
    const request = { model, prompt: QUESTION, tools: this.tools, toolChoice };
    return streamed ? this.streamed(request) : this.ask(request);
  }

  answer(model, called) {
    const { id: toolCallId, name: toolName } = called.calls[0];
    const content = [{ type: "tool-result", toolCallId, toolName, output: { type: "text", value: RESULT } }];
    const messages = [user(QUESTION), ...called.raw, { role: "tool", content }];
    return this.ask({ model, messages, tools: this.tools, maxOutputTokens: 8 });
  }

  async verdict(model) {
    const output = Output.object({ schema: jsonSchema(VERDICT) });
    return (await generateText(this.request({ model, prompt: REVIEW, output, maxOutputTokens: 60 }))).output;
  }

  cached(model, prefix) {
    const system = { role: "system", content: prefix, providerOptions: this.markedOptions };
    return (text) => this.ask({ model, system, prompt: text, providerOptions: this.options });
  }

  async streamed(request) {
    const result = streamText({ ...this.request(request), onError: () => {} });
    let pieces = 0;
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      pieces += part.type === "text-delta" && part.text !== "";
    }
    const [text, finishReason, usage, toolCalls, response] = await Promise.all([
      result.text,
      result.finishReason,
      result.usage,
      result.toolCalls,
      result.response,
    ]);
    return { ...this.seen({ text, finishReason, usage, toolCalls, response }), pieces };
  }

  seen({ text, finishReason, usage, toolCalls, response }) {
    return {
      text,
      finish: finishReason,
      input: usage.inputTokens,
      output: usage.outputTokens,
      cached: usage.cachedInputTokens ?? 0,
      calls: toolCalls.map(({ toolCallId, toolName, input }) => ({ id: toolCallId, name: toolName, arguments: input })),
      raw: response.messages,
    };
  }
}

class AiOpenAi extends Ai {
  options = { openai: { promptCacheKey: "node" } };

  constructor(url, apiKey) {
    super();
    this.provider = createOpenAI({ baseURL: `${url}/v1`, apiKey });
  }

  model(name) {
    return this.provider.responses(name);
  }
}

class AiOpenAiChat extends AiOpenAi {
  model(name) {
    return this.provider.chat(name);
  }
}

class AiAnthropic extends Ai {
  markedOptions = { anthropic: { cacheControl: { type: "ephemeral" } } };

  constructor(url, apiKey) {
    super();
    this.model = createAnthropic({ baseURL: `${url}/v1`, apiKey });
  }
}

class AiGoogle extends Ai {
  constructor(url, apiKey) {
    super();
    this.url = url;
    this.apiKey = apiKey;
    this.model = createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey });
  }

  // The SDK uses caches, and leaves making them to others.
  async cached(model, prefix) {
    const response = await fetch(`${this.url}/v1beta/cachedContents`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-goog-api-key": this.apiKey },
      body: JSON.stringify({ model: `models/${model}`, systemInstruction: { parts: [{ text: prefix }] }, ttl: "600s" }),
    });
    if (!response.ok) throw new Error(await response.text());
    const { name: cachedContent } = await response.json();
    return (prompt) => this.ask({ model, prompt, providerOptions: { google: { cachedContent } } });
  }
}

await drive({
  "ai-openai": AiOpenAi,
  "ai-openai-chat": AiOpenAiChat,
  "ai-anthropic": AiAnthropic,
  "ai-google": AiGoogle,
});
