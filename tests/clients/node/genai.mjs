// @google/genai. Argument: see drive.mjs.

import { FunctionCallingConfigMode, GoogleGenAI } from "@google/genai";
import { QUESTION, RESULT, REVIEW, TOOL, VERDICT, drive } from "./drive.mjs";

class Gemini {
  tools = [
    { functionDeclarations: [{ name: TOOL.name, description: TOOL.description, parametersJsonSchema: TOOL.schema }] },
  ];

  constructor(baseUrl, apiKey) {
    const retryOptions = { attempts: 2, initialDelay: 0.1 };
    this.client = new GoogleGenAI({ apiKey, httpOptions: { baseUrl, retryOptions } });
  }

  async ask(request) {
    return this.seen([await this.client.models.generateContent(request)]);
  }

  plain(model, text) {
    return this.ask({ model, contents: text, config: { temperature: 0, maxOutputTokens: 8 } });
  }

  stream(model, text) {
    return this.streamed({ model, contents: text, config: { temperature: 0, maxOutputTokens: 8 } });
  }

  call(model, streamed) {
    const functionCallingConfig = { mode: FunctionCallingConfigMode.ANY, allowedFunctionNames: [TOOL.name] };
    const config = { tools: this.tools, toolConfig: { functionCallingConfig } };
    const request = { model, contents: QUESTION, config };
    return streamed ? this.streamed(request) : this.ask(request);
  }

  answer(model, called) {
    const { id, name } = called.calls[0];
    const functionResponse = { id, name, response: { result: RESULT } };
    const contents = [
      { role: "user", parts: [{ text: QUESTION }] },
      { role: "model", parts: called.raw },
      { role: "user", parts: [{ functionResponse }] },
    ];
    return this.ask({ model, contents, config: { tools: this.tools, maxOutputTokens: 8 } });
  }

  async verdict(model) {
    const config = { responseMimeType: "application/json", responseJsonSchema: VERDICT, maxOutputTokens: 60 };
    return JSON.parse((await this.ask({ model, contents: REVIEW, config })).text);
  }

  async cached(model, prefix) {
    const cache = await this.client.caches.create({ model, config: { systemInstruction: prefix, ttl: "600s" } });
    return (text) => this.ask({ model, contents: text, config: { cachedContent: cache.name } });
  }

  async streamed(request) {
    const chunks = [];
    for await (const chunk of await this.client.models.generateContentStream(request)) chunks.push(chunk);
    return this.seen(chunks);
  }

  seen(chunks) {
    const parts = chunks.flatMap((chunk) => chunk.candidates[0].content?.parts ?? []);
    const last = chunks.at(-1);
    const usage = last.usageMetadata;
    const calls = parts.filter((part) => part.functionCall).map((part) => part.functionCall);
    return {
      text: parts.map((part) => part.text ?? "").join(""),
      finish: last.candidates[0].finishReason,
      input: usage.promptTokenCount,
      output: (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0),
      cached: usage.cachedContentTokenCount ?? 0,
      calls: calls.map(({ id, name, args }) => ({ id, name, arguments: args ?? {} })),
      raw: parts,
      pieces: parts.filter((part) => part.text).length,
    };
  }
}

await drive({ gemini: Gemini });
