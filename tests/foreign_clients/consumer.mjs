// A consumer of calls: writes the tile files of one run as the daemon writes them, whenever it joins.
//
// Prints what it received as JSON. Exit code 0 when the run finished and every call of it is written.
import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Dealer, Subscriber } from "zeromq";
import { decode, encode } from "./protocol.mjs";

const SILENCE_MS = 500;
const PATIENCE_MS = 60_000;
const ENDS = new Set(["finished", "stopped", "failed"]);

process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(1);
});

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    calls: { type: "string", default: "ipc:///run/seqd/calls" },
    control: { type: "string", default: "ipc:///run/seqd/control" },
    output: { type: "string", default: "." },
  },
});
const [run] = positionals;
if (run === undefined) throw new Error("the name of the run is missing: node consumer.mjs RUN");

const calls = new Subscriber({ receiveTimeout: SILENCE_MS, linger: 0 });
const control = new Dealer({ receiveTimeout: PATIENCE_MS, sendTimeout: PATIENCE_MS, linger: 0 });

const tiles = new Map(); // name of a tile: clusters, and the cycle that comes next, where 0 is the template
const summary = { run, state: "", streamed: 0, replayed: 0, gaps: 0, tiles: {} };

await mkdir(options.output, { recursive: true });
calls.connect(options.calls);
calls.subscribe();
control.connect(options.control);
summary.state = await follow();
for (const [name, { next }] of tiles) summary.tiles[name] = next - 1;
console.log(JSON.stringify(summary));
process.exit(summary.state === "finished" ? 0 : 1);

async function follow() {
  let expected;
  for (let heard = Date.now(); ; ) {
    const message = await receive();
    if (message === undefined) {
      const status = JSON.parse((await request("status", "status_answer")).payload);
      if (status.run === run && ENDS.has(status.state)) {
        await catchUp();
        return status.state;
      }
      if (Date.now() - heard > PATIENCE_MS) throw new Error(`nothing came of ${run} for ${PATIENCE_MS / 1000} s`);
      continue;
    }
    heard = Date.now();
    if (message.seq !== expected || isAhead(message)) {
      if (expected !== undefined) summary.gaps += 1;
      await catchUp();
    }
    expected = message.seq + 1n;
    if (message.run !== run) continue;
    if (message.topic === "event" && ENDS.has(message.run_state)) return message.run_state;
    if (message.topic !== "event") summary.streamed += await take(message);
  }
}

/** Whether a cycle is past the next of its tile: a daemon that was started again may go on by the same `seq`. */
function isAhead(message) {
  return message.run === run && message.cycle > (tiles.get(nameOf(message))?.next ?? 0);
}

async function receive() {
  try {
    return decode(await calls.receive());
  } catch (error) {
    if (error.code === "EAGAIN") return undefined;
    throw error;
  }
}

async function catchUp() {
  const committed = await request("tiles", "tiles_answer");
  if (committed.run !== run) return;
  for (const { lane, tile, cycle } of committed.tiles) {
    const next = () => tiles.get(nameOf({ lane, tile }))?.next ?? 0;
    while (cycle > 0 && next() <= cycle) {
      const fields = { lane, tile, cycle: next() };
      const answer = await request("replay", next() === 0 ? "template" : "calls", fields);
      if (answer.run !== run) throw new Error(`${run}: the daemon went on to run ${answer.run}`);
      summary.replayed += await take(answer);
    }
  }
}

/** Writes a template or calls if it is the tile's next; 1 where it was. */
async function take({ topic, lane, tile, cycle = 0, n, payload }) {
  const name = nameOf({ lane, tile });
  const { next, clusters } = tiles.get(name) ?? { next: 0, clusters: n };
  if (cycle < next) return 0;
  if (cycle > next) throw new Error(`${name}: cycle ${cycle} came, ${next} is the next`);
  if (n !== clusters) throw new Error(`${name}, cycle ${cycle}: of ${n} clusters, the template has ${clusters}`);
  if (payload.length !== n * (topic === "template" ? 8 : 1)) {
    throw new Error(`${name}, cycle ${cycle}: ${topic} of ${n} clusters has ${payload.length} bytes`);
  }
  const bcls = join(options.output, `${name}.bcls`);
  if (topic === "template") {
    const head = Buffer.alloc(12);
    head.writeUInt32LE(1, 0);
    head.writeFloatLE(1, 4);
    head.writeUInt32LE(n, 8);
    await writeFile(join(options.output, `${name}.locs`), Buffer.concat([head, payload]), { flag: "wx" });
    await writeFile(bcls, head.subarray(8), { flag: "wx" });
  } else {
    await appendFile(bcls, payload);
  }
  tiles.set(name, { next: cycle + 1, clusters: n });
  return 1;
}

function nameOf({ lane, tile }) {
  return `s_${lane}_${tile}`;
}

async function request(topic, expected, fields) {
  await control.send(encode(topic, fields));
  let answer;
  try {
    answer = decode(await control.receive());
  } catch (error) {
    if (error.code !== "EAGAIN") throw error;
    throw new Error(`${options.control} did not answer ${topic} within ${PATIENCE_MS / 1000} s`);
  }
  if (answer.topic === "refused") throw new Error(`${topic} was refused: ${answer.reason}`);
  if (answer.topic !== expected) throw new Error(`${topic} was answered by ${answer.topic}, not ${expected}`);
  return answer;
}
