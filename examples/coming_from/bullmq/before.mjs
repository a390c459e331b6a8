// A shop's two jobs in BullMQ. With a Redis at REDIS_URL:   node before.mjs worker · node before.mjs
import { Queue, QueueEvents, Worker } from "bullmq";
import { Redis } from "ioredis";

const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });

const handlers = {
  fetchPrice: async (job) => {
    if (job.attemptsMade < 2) throw new Error("the price list does not answer");
    return { tea: 3, milk: 2 }[job.data.sku];
  },
  sendReceipt: async (job) => `order ${job.data.order}: ${job.data.total} paid`,
};

function handle(job) {
  const handler = handlers[job.name];
  return handler(job);
}

async function work() {
  for (const queue of ["default", "mail"]) new Worker(queue, handle, { connection, concurrency: 10 });
}

async function main() {
  const [shop, mail] = ["default", "mail"].map((name) => new Queue(name, { connection }));
  const [shopEvents, mailEvents] = ["default", "mail"].map((name) => new QueueEvents(name, { connection }));
  const opts = { attempts: 6, backoff: { type: "fixed", delay: 200 } };
  const prices = await shop.addBulk(["tea", "milk"].map((sku) => ({ name: "fetchPrice", data: { sku }, opts })));
  const paid = await Promise.all(prices.map((job) => job.waitUntilFinished(shopEvents, 30_000)));
  const total = paid.reduce((sum, price) => sum + price, 0);
  const receipt = await mail.add("sendReceipt", { order: 7, total }, { delay: 500 });
  console.log(await receipt.waitUntilFinished(mailEvents, 30_000));
  await Promise.all([shop, mail, shopEvents, mailEvents].map((one) => one.close()));
  await connection.quit();
}

await (process.argv[2] === "worker" ? work() : main());
