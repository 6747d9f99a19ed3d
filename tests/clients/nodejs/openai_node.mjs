// What `openai` for Node.js gets from the gateway at its argument; the task is JSON on stdin, so is what it prints.

import { text } from "node:stream/consumers";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const task = JSON.parse(await text(process.stdin));
const client = new OpenAI({ baseURL: process.argv[2], apiKey: task.key });
const City = z.object({ name: z.enum(["Paris", "Rome"]), letters: z.number().int().min(0).max(9) });
const think = { role: "system", content: "detailed thinking on" };
const user = (content) => ({ role: "user", content });
const common = { model: task.model, temperature: 0 };
const { tools } = task;

async function ask(messages, options = {}) {
  return (await client.chat.completions.create({ ...common, messages, ...options })).choices[0].message;
}

// Chunks by hand, as most programs read them.
async function joined(messages) {
  const texts = { reasoning: "", reasoning_content: "", content: "" };
  for await (const chunk of await client.chat.completions.create({ ...common, messages, stream: true })) {
    for (const name of Object.keys(texts)) texts[name] += chunk.choices[0].delta[name] ?? "";
  }
  return texts;
}

// The helper puts the answer together.
const helped = (messages, options = {}) =>
  client.chat.completions.stream({ ...common, messages, ...options }).finalChatCompletion();

const callsOf = ({ tool_calls: calls = [] }) =>
  calls.map(({ function: called }) => [called.name, JSON.parse(called.arguments)]);
const thoughtOf = ({ reasoning, reasoning_content, content }) => ({ reasoning, reasoning_content, content });
const answered = ({ tool_calls: calls }, content) =>
  calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content }));

// The package's own loop: it calls functions of this program until the model has an answer.
async function loop(stream) {
  const calls = [];
  const runner = client.chat.completions.runTools({
    ...common,
    stream,
    messages: [user(task.tip)],
    tools: [{
      type: "function",
      function: {
        ...tools[0].function,
        parse: JSON.parse,
        function: (given) => {
          calls.push(["calculate_tip", given]);
          return { tip: Math.floor((given.bill_total * given.tip_percentage) / 100) };
        },
      },
    }],
  });
  return { content: await runner.finalContent(), calls };
}

async function mistake(happen) {
  try {
    await happen();
  } catch (error) {
    const known = [error.constructor.name, error.status, error.code, error.param];
    return error.requestID ? known : "no id to look for in logs";
  }
}

const [capital, two] = [user(task.capital), user(task.two)];
const called = await ask([two], { tools });
const streamed = (await helped([think, two], { tools })).choices[0];
const echoed = [];
for (const message of [called, streamed.message]) {
  const history = [two, message, ...answered(message, '{"tip": 12}')];
  const next = await ask(history);
  echoed.push((await ask([...history, next, capital])).content);
}
const structured = [];
const response_format = zodResponseFormat(City, "city");
for (const messages of [[capital], [think, capital]]) {
  const parsed = await client.chat.completions.parse({ ...common, messages, response_format });
  structured.push(parsed.choices[0].message.parsed);
  structured.push((await helped(messages, { response_format })).choices[0].message.parsed);
}
process.stdout.write(JSON.stringify({
  plain: (await ask([capital])).content,
  streamed: (await joined([capital])).content,
  thinking: thoughtOf(await ask([think, capital])),
  thinking_streamed: await joined([think, capital]),
  calls: callsOf(called),
  // Of a field that it does not know the helper keeps the last piece, so not the thinking.
  calls_streamed: { calls: callsOf(streamed.message), finish: streamed.finish_reason },
  loop: await loop(false),
  loop_streamed: await loop(true),
  echoed,
  structured,
  errors: {
    key: await mistake(() => new OpenAI({ baseURL: process.argv[2], apiKey: "of-nobody-in-particular" }).models.list()),
    model: await mistake(() => ask([capital], { model: "gpt-4o" })),
    path: await mistake(() => client.embeddings.create({ model: task.model, input: "?" })),
    field: await mistake(() => ask([capital], { top_p: 7 })),
    long: await mistake(() => ask([user("word ".repeat(5000))])),
    stream: await mistake(() => joined([user("word ".repeat(5000))])),
  },
}));
