// A worker in Node.js 18 or newer, standard library only: claims ten at a time, keeps their leases, reports.
//   node worker.mjs        lineshaft enqueue reverse '"hello"' --wait
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

const url = process.env.LINESHAFT_URL ?? "http://127.0.0.1:7077";
const worker = { id: `node-${hostname()}-${process.pid}`, incarnation: randomUUID(), pid: process.pid };
const handlers = {
  reverse: async (payload) => [...payload].reverse().join(""),
};

const stop = new AbortController();
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => stop.abort());

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Every call may be repeated as it is: an outcome by its lease token, a claim by its claim_id.
async function call(path, body, signal) {
  for (let tries = 0; ; tries++) {
    try {
      const answer = await fetch(url + path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal,
      });
      if (![408, 429, 503].includes(answer.status)) return { status: answer.status, ...(await answer.json()) };
      await pause(1000 * Number(answer.headers.get("Retry-After") ?? 1));
    } catch (error) {
      if (signal?.aborted) return {};
      if (tries === 2) console.error(`${url} does not answer: ${error.message}; trying again`);
      await pause(Math.min(5000, 100 * 2 ** tries));
    }
  }
}

async function execute(task) {
  const at = `/_tasks/${encodeURIComponent(task.task_id)}`;
  const say = (verb, body) => call(`${at}/${verb}`, { lease_token: task.lease_token, ...body });
  const abort = new AbortController();
  const beat = setInterval(async () => {
    const { directive, error } = await say("_heartbeat");
    if (directive === "cancel" || error) abort.abort(); // cancelled, or somebody else's by now
  }, (task.lease_ttl * 1000) / 3);
  try {
    const result = await handlers[task.name](task.payload, abort.signal);
    await say("_complete", { result });
  } catch (error) {
    if (abort.signal.aborted) await say("_cancel");
    else await say("_fail", { error: { type: error.name, message: error.message, stack: error.stack } });
  } finally {
    clearInterval(beat);
  }
}

while (!stop.signal.aborted) {
  const claim = { claim_id: randomUUID(), worker, names: Object.keys(handlers), max: 10, wait: "30s", lease: "30s" };
  // A claim that is cut off here before its answer has left gives its tasks back at once.
  const { tasks = [], directive, error } = await call("/_tasks/_claim", claim, stop.signal);
  if (error) throw new Error(`${error.type}: ${error.reason}`);
  await Promise.all(tasks.map(execute));
  if (directive === "drain") break;
}
