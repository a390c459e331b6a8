// pg-boss over PostgreSQL: a worker that takes batches, and asks every half second, which is as often as it can.

import { handler, require, run, server, version } from "./driving.mjs";

const PgBoss = require("pg-boss");

async function open() {
  const boss = new PgBoss({ connectionString: server, max: 32 });
  boss.on("error", () => {});
  await boss.start();
  return boss;
}

async function client() {
  const boss = await open();
  await boss.createQueue("bench");
  return {
    enqueue: (data) => boss.send("bench", data),
    bulk: (jobs) => boss.insert(jobs.map((data) => ({ name: "bench", data }))),
    purge: () => boss.purgeQueue("bench"),
  };
}

async function work() {
  const ran = handler();
  const boss = await open();
  await boss.work("bench", { batchSize: 1000, pollingIntervalSeconds: 0.5 }, async (jobs) => {
    for (const job of jobs) ran(job.data);
  });
}

await run({ client, work, versions: { "pg-boss": version("pg-boss"), pg: version("pg") } });
