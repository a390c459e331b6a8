// Drives one contender on Node.js through the measures of one round, as bench/driving.py does it in Python.
//
// The same file is run as client (`drive`) and, with the argument `worker`, as worker process (`work`). Clocks are
// process.hrtime, which is CLOCK_MONOTONIC like Python's perf_counter.

import { spawn } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import { createRequire } from "node:module";

export const require = createRequire(process.env.BENCH_NODE ?? import.meta.url);
const spec = JSON.parse(process.env.BENCH_SPEC);
export const server = spec.server;
const LETTERS = 98;
const CALLERS = 64;
const BULK = 1000;
const LATENCY_SECONDS = 8; // no latency is sampled for longer: one that polls gets fewer samples
const now = () => process.hrtime.bigint();
const seconds = (since) => Number(now() - since) / 1e9;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const payload = (kind = "q") => ({ text: (kind + String(now()).padStart(20, "0")).padEnd(LETTERS, "x") });

export const version = (name) => {
  const file = `${process.env.BENCH_NODE}node_modules/${name}/package.json`;
  return JSON.parse(fs.readFileSync(file, "utf8")).version;
};

// The no-op handler: call it with the data of the job.
export function handler() {
  const [host, port] = (process.env.BENCH_TELL ?? "127.0.0.1:9").split(":");
  const expected = Number(process.env.BENCH_DRAIN ?? 0);
  const socket = dgram.createSocket("udp4");
  const tell = (number) => socket.send(String(number), Number(port), host);
  let count = 0;
  return ({ text }) => {
    if (text[0] === "d") {
      count += 1;
      if (count === 1 || count === expected) tell(now());
    } else if (text[0] === "p") {
      tell(now() - BigInt(text.slice(1, 21)));
    }
  };
}

class Ear {
  static async open() {
    const ear = new Ear();
    ear.heard = [];
    ear.waiting = [];
    ear.socket = dgram.createSocket("udp4");
    ear.socket.on("message", (data) => {
      const number = Number(data.toString());
      const waiter = ear.waiting.shift();
      if (waiter) waiter(number);
      else ear.heard.push(number);
    });
    await new Promise((resolve) => ear.socket.bind(0, "127.0.0.1", resolve));
    ear.address = `127.0.0.1:${ear.socket.address().port}`;
    return ear;
  }

  hear(timeout = 60_000) {
    if (this.heard.length) return Promise.resolve(this.heard.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`heard nothing for ${timeout} ms`)), timeout);
      this.waiting.push((number) => {
        clearTimeout(timer);
        resolve(number);
      });
    });
  }
}

function cpuOf(root) {
  const left = [root];
  let ticks = 0;
  while (left.length) {
    const pid = left.pop();
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      for (const place of [11, 12, 13, 14]) ticks += Number(fields[place]);
      for (const thread of fs.readdirSync(`/proc/${pid}/task`)) {
        const children = fs.readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8");
        left.push(...children.split(" ").filter(Boolean).map(Number));
      }
    } catch {
      // it ended meanwhile; what it took is in its parent's account
    }
  }
  return ticks / 100;
}

const figures = {};
const cpu = {};

function account() {
  const client = process.cpuUsage();
  const before = spec.server_pid ? cpuOf(spec.server_pid) : 0;
  return (name, count, more = {}) => {
    const used = process.cpuUsage(client);
    const costs = { client: (used.user + used.system) / 1e6, server: cpuOf(spec.server_pid) - before, ...more };
    cpu[name] = Object.fromEntries(Object.entries(costs).filter(([, took]) => took > 0).map(([who, took]) => [who, (took / count) * 1e6]));
  };
}

async function enqueueUntil(contender, until, callers) {
  const call = async () => {
    let count = 0;
    while (now() < until) {
      await contender.enqueue(payload());
      count += 1;
    }
    return count;
  };
  const counts = await Promise.all(Array.from({ length: callers }, call));
  return counts.reduce((sum, one) => sum + one, 0);
}

const after = (delay) => now() + BigInt(Math.round(delay * 1e9));

async function enqueueing(contender, name, callers) {
  await enqueueUntil(contender, after(Math.min(0.2, spec.seconds)), callers);
  const cost = account();
  const began = now();
  const count = await enqueueUntil(contender, after(spec.seconds), callers);
  figures[name] = count / seconds(began);
  cost(name, count);
}

async function prepare(contender) {
  const jobs = Array.from({ length: spec.drain }, () => payload("d"));
  if (!contender.bulk) {
    for (const job of jobs) await contender.enqueue(job);
    return;
  }
  const size = BULK;
  const cost = account();
  const began = now();
  for (let at = 0; at < jobs.length; at += size) await contender.bulk(jobs.slice(at, at + size));
  figures.bulk = jobs.length / seconds(began);
  cost("bulk", jobs.length);
}

function middle(took, share) {
  took.sort((a, b) => a - b);
  return took[Math.floor(took.length * share)];
}

async function latencies(contender, ear) {
  const picked = [];
  const until = after(LATENCY_SECONDS);
  for (let sample = 0; sample < spec.samples && now() < until; sample += 1) {
    await contender.enqueue(payload("p"));
    picked.push((await ear.hear()) / 1e6);
    await pause(4);
  }
  figures.pick_up_p50 = middle(picked, 0.5);
  figures.pick_up_p99 = middle(picked, 0.99);
  if (!contender.roundTrip) return;
  const trips = [];
  for (let sample = 0; sample < spec.samples; sample += 1) {
    const began = now();
    await contender.roundTrip(payload());
    trips.push(seconds(began) * 1e3);
    await pause(4);
  }
  figures.round_trip_p50 = middle(trips, 0.5);
}

async function rounds(contender) {
  for (const [name, callers] of [["enqueue_one", 1], ["enqueue_64", CALLERS]]) {
    await enqueueing(contender, name, callers);
    await contender.purge();
  }
  await prepare(contender);
  const ear = await Ear.open();
  const cost = account();
  const worker = spawn(process.execPath, [process.argv[1], "worker"], {
    env: { ...process.env, BENCH_TELL: ear.address, BENCH_DRAIN: String(spec.drain) },
    stdio: ["ignore", process.env.BENCH_LOUD ? 2 : "ignore", process.env.BENCH_LOUD ? 2 : "ignore"],
  });
  try {
    const first = await ear.hear(30_000);
    const before = cpuOf(worker.pid);
    const last = await ear.hear(120_000);
    figures.drain = (spec.drain - 1) / ((last - first) / 1e9);
    cost("drain", spec.drain, { client: 0, worker: cpuOf(worker.pid) - before });
    await pause(300);
    await latencies(contender, ear);
  } finally {
    worker.kill("SIGKILL");
    ear.socket.close();
  }
}

// Run as client or, with the argument `worker`, as worker.
export async function run({ client, work, versions }) {
  if (process.argv[2] === "worker") {
    await work();
    return;
  }
  const contender = await client();
  await rounds(contender);
  console.log(JSON.stringify({ figures, cpu, versions: { node: process.versions.node, ...versions } }));
  process.exit(0);
}
