// An imaging controller: publishes a run that lies in a folder, and answers the daemon until it is done.
//
// RUN/run.json holds the `info` of run_start, RUN/C<cycle>/s_<lane>_<tile>_<channel>.raw the pixels of a frame.
// With --lose-every N every N-th message is lost on its way: it takes its number and is held, but is not sent.
// Prints what it did as JSON. Exit code 0 when the daemon said `done`.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { crc32 } from "node:zlib";
import { Router, XPublisher } from "zeromq";
import { decode, encode, ProtocolError } from "./protocol.mjs";

const POLL_MS = 10;
const PATIENCE_MS = 60_000;

process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(1);
});

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    frames: { type: "string", default: "ipc:///run/seqd/frames" },
    recovery: { type: "string", default: "ipc:///run/seqd/recovery" },
    "lose-every": { type: "string", default: "0" },
    "cycle-ms": { type: "string", default: "0" },
  },
});
const [folder] = positionals;
if (folder === undefined) throw new Error("the folder of the run is missing: node controller.mjs RUN");
const loseEvery = BigInt(options["lose-every"]);
const cycleMs = Number(BigInt(options["cycle-ms"]));

const info = JSON.parse(await readFile(join(folder, "run.json"), "utf8"));
const { run, height, width } = info;
const cycles = info.reads.reduce((sum, read) => sum + read.cycles, 0);

// A PUB socket that also tells who subscribes.
const frames = new XPublisher({ linger: 1000, receiveTimeout: PATIENCE_MS });
const recovery = new Router({ linger: 1000 });

// What the daemon may ask for: number of the last message, last whole cycle, and by cycle the frames not yet kept.
let seq = -1n;
let published = 0;
let ended = false;
const ring = new Map();

// Until the daemon has taken up the run, which it tells by a release.
let holding = true;
let done = false;
const summary = { run, published: 0, lost: 0, resent: 0, gone: 0, syncs: 0, holds: 0, kept: 0, unreadable: 0 };

await frames.bind(options.frames);
await recovery.bind(options.recovery);
const answering = answer();
await subscribed();
await image();
await until(() => done, `the daemon did not say done for ${run}`);
recovery.close();
frames.close();
await answering;
console.log(JSON.stringify({ ...summary, held: ring.size }));

async function subscribed() {
  try {
    await frames.receive();
  } catch (error) {
    if (error.code !== "EAGAIN") throw error;
    throw late(`no daemon subscribed to ${options.frames}`);
  }
}

async function image() {
  await publish("run_start", { info });
  await until(() => !holding, `the daemon did not take up ${run}`);
  for (let cycle = 1; cycle <= cycles; cycle++) {
    await sleep(cycleMs);
    ring.set(cycle, new Map());
    for (const { lane, tile } of info.tiles) {
      for (const channel of "ACGT") await expose({ lane, tile, cycle, channel });
    }
    published = cycle;
    await publish("cycle_end", { cycle });
  }
  ended = true;
  await publish("run_end");
}

async function expose(at) {
  if (holding) summary.holds += 1;
  await until(() => !holding, `the daemon did not release the hold of ${run}`);
  const pixels = await readFile(join(folder, `C${at.cycle}`, `s_${at.lane}_${at.tile}_${at.channel}.raw`));
  const frame = { ...at, height, width, t_ns: BigInt(Date.now()) * 1_000_000n, crc32: crc32(pixels) };
  ring.get(at.cycle).set(JSON.stringify(at), { frame, pixels });
  await publish("frame", frame, pixels);
}

async function publish(topic, fields, payload) {
  seq += 1n;
  if (loseEvery > 0n && seq % loseEvery === loseEvery - 1n) {
    summary.lost += 1;
    return;
  }
  await frames.send(encode(topic, { run, seq, ...fields }, payload));
  summary.published += 1;
}

async function answer() {
  for await (const [peer, ...parts] of recovery) {
    let request;
    try {
      request = decode(parts);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      summary.unreadable += 1;
      continue;
    }
    const reply = (...message) => recovery.send([peer, ...encode(...message)]);
    if (request.topic === "sync") {
      summary.syncs += 1;
      if (seq < 0n) await reply("idle");
      else {
        await reply("run_start", { run, seq, info });
        await reply("position", { run, seq, cycle: published, ended });
      }
    } else if (request.run === run) {
      await obey(request, reply);
    }
  }
}

async function obey({ topic, lane, tile, cycle, channel }, reply) {
  if (topic === "hold") {
    holding = true;
  } else if (topic === "release") {
    holding = false;
  } else if (topic === "kept") {
    summary.kept = cycle;
    for (const older of [...ring.keys()].filter((held) => held <= cycle)) ring.delete(older);
  } else if (topic === "done") {
    done = true;
  } else if (topic === "resend") {
    const at = { lane, tile, cycle, channel };
    const held = ring.get(cycle)?.get(JSON.stringify(at));
    summary[held ? "resent" : "gone"] += 1;
    await (held ? reply("frame", { run, seq, ...held.frame }, held.pixels) : reply("gone", { run, ...at }));
  }
}

async function until(condition, otherwise) {
  for (const end = Date.now() + PATIENCE_MS; !condition(); await sleep(POLL_MS)) {
    if (Date.now() > end) throw late(otherwise);
  }
}

function late(text) {
  return new Error(`${text} within ${PATIENCE_MS / 1000} s: ${JSON.stringify(summary)}`);
}
