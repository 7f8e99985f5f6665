// Codec of the wire protocol as docs/reference/protocol.md gives it: messages to parts and back, no sockets.
import { decode as unpack, encode as pack } from "@msgpack/msgpack";

const VERSION = 1;
const HEADER_LIMIT = 8_388_608;

/** A message that is not one of the protocol: names the kind, the field and the value. */
export class ProtocolError extends Error {}

const refuse = (value, allowed) => {
  throw new ProtocolError(`is ${typeof value === "bigint" ? value : JSON.stringify(value)}, not ${allowed}`);
};

// A type takes a value and gives it back as JavaScript wants it, or refuses it.
const integer = (low, high) => (value) => {
  const whole = typeof value === "bigint" || Number.isInteger(value);
  return whole && value >= low && value <= high ? Number(value) : refuse(value, `an integer from ${low} to ${high}`);
};
// A number of JavaScript is exact to 2^53 only: these stay BigInt, and BigInt is written as 64 bits.
const long = (value) => {
  const whole = typeof value === "bigint" || Number.isSafeInteger(value);
  return whole && value >= 0 && value < 2n ** 63n ? BigInt(value) : refuse(value, "an integer from 0 to 2^63 - 1");
};
const string = (pattern) => (value) =>
  typeof value === "string" && pattern.test(value) ? value : refuse(value, `a string like ${pattern.source}`);
const boolean = (value) => (typeof value === "boolean" ? value : refuse(value, "true or false"));
const array = (low, high, type) => (value) =>
  Array.isArray(value) && value.length >= low && value.length <= high
    ? value.map(type)
    : refuse(value, `an array of ${low} to ${high}`);
const positiveOrNil = (high) => (value) =>
  value === null || (typeof value === "number" && value > 0 && value <= high)
    ? value
    : refuse(value, `nil or a number above 0, at most ${high}`);
const optional = (type, otherwise) => Object.assign((value) => type(value), { otherwise });
const map = (fields) => (value) => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) refuse(value, "a map");
  const unknown = Object.keys(value).find((key) => !Object.hasOwn(fields, key));
  if (unknown !== undefined) throw new ProtocolError(`has an unknown field ${unknown}`);
  return Object.fromEntries(
    Object.entries(fields).map(([key, type]) => {
      if (!Object.hasOwn(value, key) && "otherwise" in type) return [key, type.otherwise];
      if (!Object.hasOwn(value, key)) throw new ProtocolError(`lacks the field ${key}`);
      try {
        return [key, type(value[key])];
      } catch (error) {
        throw error instanceof ProtocolError ? new ProtocolError(`${key} ${error.message}`) : error;
      }
    }),
  );
};

const name = string(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/);
const lane = integer(1, 64);
const tile = integer(1, 999_999);
const cycle = integer(1, 5000);
const cycleOrNone = integer(0, 5000);
const pixels = integer(8, 16_384);
const channel = string(/^[ACGT]$/);
const u32 = integer(0, 2 ** 32 - 1);
const runOrNone = string(/^[^]{0,128}$/u);

const info = map({
  run: name,
  number: optional(integer(0, 1e9), 1),
  flowcell: name,
  instrument: name,
  date: optional(string(/^[0-9A-Za-z :/.+-]{0,40}$/), ""),
  reads: array(1, 16, map({ number: integer(1, 16), cycles: cycle, index: optional(boolean, false) })),
  tiles: array(1, 100_000, map({ lane, tile })),
  height: pixels,
  width: pixels,
  pixel_um: optional(positiveOrNil(100), null),
});

// Version and fields of every kind of message.
const KINDS = new Map(
  Object.entries({
    run_start: { run: name, seq: long, info },
    frame: {
      run: name,
      seq: long,
      lane,
      tile,
      cycle,
      channel,
      height: pixels,
      width: pixels,
      dtype: optional(string(/^uint16$/), "uint16"),
      t_ns: long,
      crc32: u32,
    },
    cycle_end: { run: name, seq: long, cycle },
    run_end: { run: name, seq: long },
    sync: {},
    position: { run: name, seq: long, cycle: cycleOrNone, ended: boolean },
    idle: {},
    resend: { run: name, lane, tile, cycle, channel },
    gone: { run: name, lane, tile, cycle, channel },
    hold: { run: name },
    release: { run: name },
    kept: { run: name, cycle },
    done: { run: name },
    calls: { run: name, seq: long, lane, tile, cycle, n: u32 },
    template: { run: name, seq: long, lane, tile, n: u32 },
    event: {
      run: runOrNone,
      seq: long,
      t_ns: long,
      level: string(/^(info|warning|error)$/),
      run_state: string(/^[^]{0,32}$/u),
      text: string(/^[^]{0,2000}$/u),
    },
    status: {},
    status_answer: {},
    tiles: {},
    tiles_answer: { run: runOrNone, tiles: array(0, 100_000, map({ lane, tile, cycle: cycleOrNone })) },
    replay: { lane, tile, cycle: cycleOrNone },
    drain: {},
    accepted: {},
    refused: { reason: string(/^[^]{0,2000}$/u) },
  }).map(([topic, fields]) => [topic, map({ v: integer(VERSION, VERSION), ...fields })]),
);

/** The three parts [topic, header, payload] of a message; throws ProtocolError where a field is not the protocol's. */
export function encode(topic, fields = {}, payload = new Uint8Array()) {
  return [topic, pack(header(topic, { v: VERSION, ...fields }), { useBigInt64: true }), payload];
}

/** The kind, fields and payload of a message of three parts; throws ProtocolError where it is not the protocol's. */
export function decode(parts) {
  if (parts.length !== 3) throw new ProtocolError(`message has ${parts.length} parts, not 3`);
  const topic = parts[0].toString("latin1");
  if (parts[1].length > HEADER_LIMIT) throw new ProtocolError(`${topic}: header has ${parts[1].length} bytes`);
  let fields;
  try {
    fields = unpack(parts[1], { useBigInt64: true });
  } catch (error) {
    throw new ProtocolError(`${topic}: header is not msgpack: ${error.message}`);
  }
  return { topic, ...header(topic, fields), payload: parts[2] };
}

function header(topic, fields) {
  const kind = KINDS.get(topic);
  if (kind === undefined) throw new ProtocolError(`${JSON.stringify(topic)} is no kind of message`);
  try {
    return kind(fields);
  } catch (error) {
    throw error instanceof ProtocolError ? new ProtocolError(`${topic}: ${error.message}`) : error;
  }
}
