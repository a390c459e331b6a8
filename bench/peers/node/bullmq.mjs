// BullMQ over Valkey.

import { handler, require, run, server, version } from "./driving.mjs";

const { Queue, QueueEvents, Worker } = require("bullmq");

const url = new URL(server);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const CONCURRENCY = 100;

async function client() {
  const queue = new Queue("bench", { connection, defaultJobOptions: { removeOnComplete: true, removeOnFail: true } });
  const events = new QueueEvents("bench", { connection });
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
  return {
    enqueue: (data) => queue.add("noop", data),
    bulk: (jobs) => queue.addBulk(jobs.map((data) => ({ name: "noop", data }))),
    // One that is removed at once cannot be waited for.
    roundTrip: async (data) => (await queue.add("noop", data, { removeOnComplete: 1000 })).waitUntilFinished(events),
    purge: () => queue.obliterate({ force: true }),
  };
}

async function work() {
  const ran = handler();
  const worker = new Worker("bench", async (job) => ran(job.data), { connection, concurrency: CONCURRENCY });
  await worker.waitUntilReady();
}

await run({ client, work, versions: { bullmq: version("bullmq") } });
