// Ask the `nemotron` model one question from Node.js (18.3 or later), with none of this project's code.
//
//     npm ci --ignore-scripts
//     node chat.mjs "What is the capital of France?"
//     node chat.mjs --tools ../../../build/demo/tools.json --thinking off 'What is an 18% tip on $100?'
//
// Options: --url HOST:PORT, --tools FILE (OpenAI-shaped JSON), --thinking on|off, --max-tokens N, --timeout SECONDS.
// Environment: NEMOTRON_SECRET, and NEMOTRON_ROOT_CA (a PEM file), which turns TLS on. With TLS give the server's name:
// Node warns of an IP address there.
//
// The answer goes to stdout as it comes, then each tool call as a line of JSON. The thinking goes to stderr, and after
// it a line with the finish reason and the token counts.
// Exit code 0: a whole answer. 1: none, and the last line on stderr says why. 2: an option that cannot be used.
// 130: Ctrl-C, which stops the generation too.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTO = fileURLToPath(new URL("inference.proto", import.meta.url));
const LONGEST_TIMEOUT_S = 86400;
const REMEDIES = {
  DEADLINE_EXCEEDED: "give it longer with --timeout",
  UNAVAILABLE: "see whether it is running, and try again",
};

/** What the user is told in one line. */
class Failure extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }

  /** `status` is gRPC's name of what went wrong; empty where tritonserver gave none. */
  static ofStatus(status, text) {
    const remedy = text.includes("protocol is restricted") ? "set NEMOTRON_SECRET" : REMEDIES[status];
    return new Failure(remedy ? `${text}; ${remedy}` : text);
  }
}

/** stdout and stderr, which may be one terminal: what changes from one to the other begins a line. */
class Page {
  #unended = null;

  text(stream, text) {
    if (!text) return;
    if (this.#unended !== stream) this.endLine();
    stream.write(text);
    this.#unended = text.endsWith("\n") ? null : stream;
  }

  line(stream, text) {
    this.endLine();
    stream.write(`${text}\n`);
  }

  endLine() {
    this.#unended?.write("\n");
    this.#unended = null;
  }
}

function readOptions() {
  const string = { type: "string" };
  const options = { url: string, tools: string, thinking: string, "max-tokens": string, timeout: string };
  let parsed;
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new Failure(error.message, 2);
  }
  const { values, positionals } = parsed;
  if (positionals.length !== 1) throw new Failure(`give one question in quotes, not ${positionals.length}`, 2);
  if (![undefined, "on", "off"].includes(values.thinking)) {
    throw new Failure(`--thinking is ${values.thinking}; it must be on or off`, 2);
  }
  const maxTokens = values["max-tokens"] === undefined ? undefined : Number(values["max-tokens"]);
  // Whether there may be so many is for the server to say; what is sent must be an INT32.
  if (maxTokens !== undefined && maxTokens !== (maxTokens | 0)) {
    throw new Failure(`--max-tokens is ${values["max-tokens"]}; it must be a whole number below 2147483648`, 2);
  }
  const timeoutS = Number(values.timeout ?? 600);
  if (!(timeoutS > 0 && timeoutS <= LONGEST_TIMEOUT_S)) {
    throw new Failure(`--timeout is ${values.timeout}; it must be above 0 and at most ${LONGEST_TIMEOUT_S} seconds`, 2);
  }
  return {
    question: positionals[0],
    url: values.url ?? "127.0.0.1:8001",
    tools: values.tools === undefined ? undefined : readFile(values.tools),
    thinking: values.thinking,
    maxTokens,
    timeoutS,
  };
}

function readFile(path) {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Failure(`cannot read ${path}: ${error.message}`);
  }
}

function connect(url) {
  const { inference } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, { keepCase: true, defaults: true }));
  const rootCa = process.env.NEMOTRON_ROOT_CA;
  const credentials = rootCa ? grpc.credentials.createSsl(readFile(rootCa)) : grpc.credentials.createInsecure();
  // http_proxy is for the web; an inference server is near.
  return new inference.GRPCInferenceService(url, credentials, { "grpc.enable_http_proxy": 0 });
}

/** What goes with every call. Never `triton_grpc_error`: it crashes tritonserver before 26.04. */
function metadata() {
  const headers = new grpc.Metadata();
  const secret = process.env.NEMOTRON_SECRET;
  if (secret && !/^[!-~]+$/.test(secret)) {
    throw new Failure("NEMOTRON_SECRET holds characters that are not visible ASCII; no server has such a secret");
  }
  if (secret) headers.set("triton-grpc-protocol-nemotron-secret", secret);
  return headers;
}

function requestOf({ question, tools, thinking, maxTokens, timeoutS }) {
  const tensors = [
    ["messages", "BYTES", packString(JSON.stringify([{ role: "user", content: question }]))],
    ["stream", "BOOL", packBool(true)],
  ];
  // As it is: the server says what is wrong with it, and no number in it is rounded.
  if (tools) tensors.push(["tools", "BYTES", packString(tools)]);
  if (thinking) tensors.push(["thinking", "BOOL", packBool(thinking === "on")]);
  if (maxTokens !== undefined) tensors.push(["max_tokens", "INT32", packInt32(maxTokens)]);
  return {
    model_name: "nemotron",
    id: randomUUID(),
    // The server keeps to it too, so that nothing is generated for nobody.
    parameters: { timeout: { int64_param: Math.ceil(timeoutS * 1e6) } },
    inputs: tensors.map(([name, datatype]) => ({ name, datatype, shape: [1, 1] })),
    raw_input_contents: tensors.map(([, , data]) => data),
  };
}

function packString(text) {
  const data = Buffer.from(text);
  return Buffer.concat([packInt32(data.length), data]);
}

function packBool(value) {
  return Buffer.of(value ? 1 : 0);
}

function packInt32(value) {
  const data = Buffer.alloc(4);
  data.writeInt32LE(value);
  return data;
}

/** The tensors of one response by name. Those that this script reads hold one value each. */
function readResponse({ outputs, raw_output_contents: contents }) {
  return Object.fromEntries(outputs.map(({ name, datatype }, index) => [name, unpack(datatype, contents[index])]));
}

function unpack(datatype, data) {
  if (datatype === "BYTES") return data.toString("utf8", 4);
  return datatype === "INT32" ? data.readInt32LE() : data;
}

async function answer(page, options) {
  const headers = metadata();
  const client = connect(options.url);
  const deadline = Date.now() + options.timeoutS * 1000;
  try {
    const { ready } = await promisify(client.ServerReady).call(client, {}, headers, { deadline });
    if (!ready) throw Failure.ofStatus("UNAVAILABLE", `${options.url} is not ready`);
    await show(page, client.ModelStreamInfer(headers, { deadline }), requestOf(options));
  } catch (error) {
    if (typeof error.code !== "number") throw error;
    throw Failure.ofStatus(grpc.status[error.code], `${options.url}: ${error.details}`);
  } finally {
    client.close();
  }
}

async function show(page, call, request) {
  let refusal = "";
  let finish;
  let interrupted = false;
  // Once: the second Ctrl-C ends the process at once.
  process.once("SIGINT", () => {
    interrupted = true;
    if (!refusal) call.cancel();
  });
  call.write(request);
  call.end();
  try {
    for await (const { error_message: message, infer_response: response } of call) {
      // Read on to the end, which is near: to cancel a stream that just ends crashes tritonserver before 25.06.
      refusal ||= message;
      if (message) continue;
      const tensors = readResponse(response);
      page.text(process.stderr, tensors.reasoning_output);
      page.text(process.stdout, tensors.text_output);
      for (const each of JSON.parse(tensors.tool_calls ?? "[]")) page.line(process.stdout, JSON.stringify(each));
      if (tensors.finish_reason) finish = tensors;
    }
  } catch (error) {
    throw interrupted ? new Failure("stopped", 130) : error;
  }
  if (refusal) throw Failure.ofStatus(refusal.split(": ", 1)[0], refusal);
  if (!finish) throw new Failure("the answer ended without a finish reason: what came of it is incomplete");
  const { finish_reason: reason, num_input_tokens: input, num_output_tokens: output } = finish;
  page.line(process.stderr, `${reason}: ${input} tokens in, ${output} out, ${finish.num_reasoning_tokens} of thinking`);
}

const page = new Page();
try {
  await answer(page, readOptions());
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  page.line(process.stderr, `Error: ${error.message.replace(/\s+/g, " ").trim()}`);
  process.exitCode = error.exitCode;
}
