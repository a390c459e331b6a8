// The same shop in Lineshaft, with Node.js 18 or newer and no package: lineshaft serve · node after.mjs worker · node after.mjs
import { randomUUID } from "node:crypto";

const url = process.env.LINESHAFT_URL ?? "http://127.0.0.1:7077";
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Every request may be sent again after a lost answer: by task id, claim id or lease token.
async function call(method, path, body) {
  for (let tries = 0; ; tries++) {
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
      if (![408, 429, 503].includes(answer.status)) return answer.status === 204 ? {} : await answer.json();
      await pause(1000 * Number(answer.headers.get("Retry-After") ?? 1));
    } catch {
      await pause(Math.min(5000, 100 * 2 ** tries));
    }
  }
}

const handlers = {
  fetchPrice: async (task) => {
    if (task.attempt <= 2) throw new Error("the price list does not answer");
    return { tea: 3, milk: 2 }[task.payload.sku];
  },
  sendReceipt: async (task) => `order ${task.payload.order}: ${task.payload.total} paid`,
};

async function execute(task) {
  const say = (verb, body) =>
    call("POST", `/_tasks/${encodeURIComponent(task.task_id)}/${verb}`, { lease_token: task.lease_token, ...body });
  const beat = setInterval(() => say("_heartbeat"), (task.lease_ttl * 1000) / 3);
  try {
    const handler = handlers[task.name];
    await say("_complete", { result: await handler(task) });
  } catch (error) {
    await say("_fail", { error: { type: error.name, message: error.message, stack: error.stack } });
  } finally {
    clearInterval(beat);
  }
}

async function work() {
  const worker = { id: `shop-${process.pid}`, incarnation: randomUUID() };
  for (;;) {
    const claim = { claim_id: randomUUID(), worker, names: Object.keys(handlers), max: 10, wait: "30s" };
    const { tasks = [] } = await call("POST", "/_tasks/_claim", claim);
    await Promise.all(tasks.map(execute));
  }
}

async function result(id) {
  for (;;) {
    const task = await call("GET", `/_tasks/${encodeURIComponent(id)}?wait=30s`);
    if (task.state === "completed") return task.result;
    if (["failed", "cancelled"].includes(task.state)) throw new Error(task.error?.message ?? task.state);
  }
}

async function main() {
  const options = { max_retries: 5, retry_policy: { backoff: "fixed", base: 0.2 } };
  const bulk = ["tea", "milk"].map((sku) => ({ task_id: randomUUID(), name: "fetchPrice", payload: { sku }, ...options }));
  await call("POST", "/_tasks/_bulk", bulk);
  const prices = await Promise.all(bulk.map((task) => result(task.task_id)));
  const total = prices.reduce((sum, price) => sum + price, 0);
  const receipt = { task_id: randomUUID(), name: "sendReceipt", queue: "mail", payload: { order: 7, total }, delay: 0.5 };
  await call("POST", "/_tasks", receipt);
  console.log(await result(receipt.task_id));
}

await (process.argv[2] === "worker" ? work() : main());
