// Drives the clients of one script against a server and prints what they saw as one JSON object. A client is a class
// with the verbs that are called here, each of which uses its SDK as its documentation does.
// usage: node SCRIPT '{"url", "key", "embedded", "obedient", "limited", "upstreams": {FAMILY: MODEL}, "prefix"}'

export const QUESTION = "What is the weather like in Rome?";
export const RESULT = "Sunny, 24 degrees.";
export const TOOL = {
  name: "get_weather",
  description: "Tells the weather of a city.",
  schema: { type: "object", properties: { city: { type: "string", enum: ["Paris", "Rome"] } } },
};
export const VERDICT = {
  type: "object",
  properties: {
    sentiment: { type: "string", enum: ["good", "bad"] },
    stars: { type: "integer", enum: [1, 2, 3, 4, 5] },
  },
  required: ["sentiment", "stars"],
  additionalProperties: false,
};
export const REVIEW = "A guest writes: the breakfast was wonderful. Rate the review.";

// Statuses of the requests for a model, by its name. Clients run side by side, each with one of its own that is refused.
const attempts = new Map();
const original = globalThis.fetch;
globalThis.fetch = async (...parameters) => {
  const response = await original(...parameters);
  const body = parameters[1]?.body;
  const text = `${parameters[0]?.url ?? parameters[0]} ${typeof body === "string" ? body : ""}`;
  for (const [word, seen] of attempts) if (text.includes(`${word}"`) || text.includes(`${word}:`)) seen.push(response.status);
  return response;
};

export async function drive(clients) {
  const { url, key, embedded, obedient, limited, upstreams, prefix } = JSON.parse(process.argv[2]);
  const seen = {};
  const run = async ([name, Client]) => {
    const client = new Client(url, key);
    seen[name] = {
      embedded: {
        plain: await attempt(() => client.plain(embedded, "Say hello.")),
        stream: await attempt(() => client.stream(embedded, "Say hello.")),
        called: await attempt(() => client.call(embedded, false)),
      },
      obedient: { verdict: await attempt(() => client.verdict(obedient)), ...(await tools(client, obedient)) },
      errors: {
        key: await attempt(() => new Client(url, "hf-somebody-elses-key-0000000000").plain(embedded, "Hello")),
        model: await attempt(() => client.plain("model-none", "Hello")),
        limited: await refused(new Client(url, key), limited[name]),
      },
    };
    for (const [family, model] of Object.entries(upstreams)) {
      seen[name][family] = {
        plain: await attempt(() => client.plain(model, "Hello there, who are you?")),
        stream: await attempt(() => client.stream(model, "Hello there, who are you?")),
        ...(await tools(client, model)),
        ...(await caching(client, model, `${prefix} For ${name} by way of ${family}.`.repeat(400))),
      };
    }
  };
  await Promise.all(Object.entries(clients).map(run));
  console.log(JSON.stringify(seen, (field, value) => (field === "raw" ? undefined : value)));
}

async function tools(client, model) {
  const called = await attempt(() => client.call(model, false));
  return {
    called,
    streamedCall: await attempt(() => client.call(model, true)),
    answered: await attempt(() => client.answer(model, called)),
  };
}

async function caching(client, model, prefix) {
  const ask = await attempt(() => client.cached(model, prefix));
  if (ask.error) return { first: ask, second: ask };
  return {
    first: await attempt(() => ask("When is breakfast?")),
    second: await attempt(() => ask("And on Sundays, when is it then?")),
  };
}

async function refused(client, model) {
  attempts.set(model, []);
  const failure = await attempt(() => client.plain(model, "Hello"));
  return { ...failure, attempts: attempts.get(model) };
}

async function attempt(verb) {
  try {
    return await verb();
  } catch (error) {
    const last = error.lastError ?? error;
    const { name } = last.constructor;
    return { error: { name, status: last.status ?? last.statusCode, message: last.message, stack: error.stack } };
  }
}
