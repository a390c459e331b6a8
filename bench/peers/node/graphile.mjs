// Graphile Worker over PostgreSQL, with the settings of its page on performance.

import { handler, require, run, server, version } from "./driving.mjs";

const { Logger, makeWorkerUtils, run: runWorker } = require("graphile-worker");
const pg = require("pg");

const silent = new Logger(() => () => {});

async function client() {
  const pool = new pg.Pool({ connectionString: server, max: 32 });
  const utils = await makeWorkerUtils({ pgPool: pool, logger: silent });
  await utils.migrate();
  return {
    enqueue: (data) => utils.addJob("noop", data),
    bulk: (jobs) => utils.addJobs(jobs.map((payload) => ({ identifier: "noop", payload }))),
    purge: () => pool.query("truncate graphile_worker._private_jobs"),
  };
}

async function work() {
  const ran = handler();
  await runWorker({
    preset: {
      worker: {
        connectionString: server,
        concurrentJobs: 24,
        maxPoolSize: 25,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
        logger: silent,
      },
    },
    taskList: { noop: async (payload) => ran(payload) },
  });
}

await run({ client, work, versions: { "graphile-worker": version("graphile-worker"), pg: version("pg") } });
