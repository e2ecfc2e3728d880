// Drives openai-node against a server and prints what it saw as one JSON object.
// usage: node chat.mjs BASE_URL KEY MODEL CONTEXT_ID

import OpenAI from "openai";

const [baseURL, apiKey, model, context_id] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey });
const question = { model, messages: [{ role: "user", content: "When is breakfast?" }], max_tokens: 10, temperature: 0 };

async function failure(promise) {
  try {
    await promise;
    return { name: "none" };
  } catch (error) {
    const { name } = error.constructor;
    return { name, status: error.status, code: error.code, param: error.param, requestID: error.requestID };
  }
}

const seen = { models: [] };
for await (const listed of client.models.list()) seen.models.push(listed.id);

seen.plain = await client.chat.completions.create(question);

const { data, response } = await client.chat.completions.create({ ...question, context_id }).withResponse();
seen.withContext = data;
seen.receipt = response.headers.get("x-context-cache");

seen.streamed = { text: "", finishReasons: [], usage: null, choicesBesideUsage: null };
const stream = await client.chat.completions.create({
  ...question,
  context_id,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  if (chunk.usage) {
    seen.streamed.usage = chunk.usage;
    seen.streamed.choicesBesideUsage = chunk.choices.length;
    continue;
  }
  seen.streamed.text += chunk.choices[0].delta.content ?? "";
  if (chunk.choices[0].finish_reason) seen.streamed.finishReasons.push(chunk.choices[0].finish_reason);
}

const runner = client.chat.completions.stream({ ...question, context_id });
seen.helper = (await runner.finalChatCompletion()).choices[0].message.content;

const endless = await client.chat.completions.create({
  ...question,
  context_id,
  max_tokens: 4000,
  logit_bias: { 0: -100, 2: -100 },
  stream: true,
});
seen.chunksBeforeAbort = 0;
for await (const _ of endless) {
  seen.chunksBeforeAbort += 1;
  if (seen.chunksBeforeAbort === 3) break;
}

seen.errors = {
  context: await failure(
    client.chat.completions.create({ ...question, context_id: "ctx-20260101000000-aaaaaaaaaaaaaaaa" }),
  ),
  field: await failure(client.chat.completions.create({ ...question, temperature: 9 })),
  key: await failure(new OpenAI({ baseURL, apiKey: "hf-somebody-elses-key-0000000000" }).models.retrieve(model)),
};

console.log(JSON.stringify(seen));
