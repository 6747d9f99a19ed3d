// What the AI SDK gets from the gateway at its first argument; the task is JSON on stdin, so is what it prints.
// The second argument is which of its packages for OpenAI's API it uses.

import { text } from "node:stream/consumers";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, which] = process.argv.slice(2);
const task = JSON.parse(await text(process.stdin));
const model = {
  compatible: () =>
    createOpenAICompatible({
      name: "nemotron", baseURL, apiKey: task.key, includeUsage: true, supportsStructuredOutputs: true,
    })(task.model),
  // Its default is the Responses API.
  openai: () => createOpenAI({ baseURL, apiKey: task.key }).chat(task.model),
}[which]();
const City = z.object({ name: z.enum(["Paris", "Rome"]), letters: z.number().int().min(0).max(9) });
const tools = {
  calculate_tip: tool({
    description: "Calculate the tip for a bill",
    inputSchema: z.object({ bill_total: z.number().int(), tip_percentage: z.number().int() }),
    execute: ({ bill_total, tip_percentage }) => ({ tip: Math.floor((bill_total * tip_percentage) / 100) }),
  }),
};
const think = { instructions: "detailed thinking on" };
const user = (content) => ({ role: "user", content });

const whole = (options) => generateText({ model, temperature: 0, maxRetries: 0, ...options });

async function streamed(options) {
  const stream = streamText({ model, temperature: 0, maxRetries: 0, onError: ({ error }) => { throw error; }, ...options });
  let pieces = "";
  for await (const piece of stream.textStream) pieces += piece;
  const names = ["reasoningText", "toolCalls", "finishReason", "responseMessages", "steps", "usage"];
  const values = await Promise.all(names.map((name) => stream[name]));
  return { text: pieces, ...Object.fromEntries(names.map((name, index) => [name, values[index]])) };
}

const thought = ({ reasoningText, text }) => ({ reasoning: reasoningText ?? "", content: text });
const calls = ({ steps }) => steps.flatMap(({ toolCalls }) => toolCalls.map(({ toolName, input }) => [toolName, input]));

async function mistake(options) {
  try {
    await whole(options);
  } catch (error) {
    return [error.name, error.statusCode, JSON.parse(error.responseBody).error.code];
  }
}

const two = await whole({ prompt: task.two, tools });
const twoStreamed = await streamed({ ...think, prompt: task.two, tools });
const loop = await whole({ prompt: task.tip, tools, stopWhen: isStepCount(3) });
const loopStreamed = await streamed({ ...think, prompt: task.tip, tools, stopWhen: isStepCount(3) });
const structured = [];
for (const extra of [{}, think]) {
  structured.push((await whole({ ...extra, prompt: task.capital, output: Output.object({ schema: City }) })).output);
}
const echoed = [];
for (const { responseMessages } of [two, twoStreamed, loopStreamed]) {
  const messages = [user(task.two), ...responseMessages, user(task.capital)];
  echoed.push((await whole({ messages })).text);
}
const plain = await streamed({ prompt: task.capital });
process.stdout.write(JSON.stringify({
  plain: (await whole({ prompt: task.capital })).text,
  streamed: plain.text,
  usage: plain.usage,
  thinking: thought(await whole({ ...think, prompt: task.capital })),
  thinking_streamed: thought(await streamed({ ...think, prompt: task.capital })),
  calls: calls(two),
  calls_streamed: { calls: calls(twoStreamed), reasoning: twoStreamed.reasoningText ?? "" },
  loop: { calls: calls(loop), content: loop.text },
  loop_streamed: { calls: calls(loopStreamed), content: loopStreamed.text },
  echoed,
  structured,
  errors: {
    field: await mistake({ prompt: task.capital, topP: 7 }),
    long: await mistake({ prompt: "word ".repeat(5000) }),
  },
}));
