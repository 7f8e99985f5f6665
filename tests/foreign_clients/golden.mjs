// Reads the messages that lie in a folder as docs/reference/protocol.md draws them, and writes each anew into another.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decode, encode } from "./protocol.mjs";

const [from, to] = process.argv.slice(2);
for (const file of (await readdir(from)).filter((name) => name.endsWith(".bin"))) {
  const { topic, payload, ...fields } = decode(unframed(await readFile(join(from, file))));
  await writeFile(join(to, file), framed(encode(topic, fields, payload)));
}

function unframed(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 4 + bytes.readUInt32LE(at);
    parts.push(bytes.subarray(at + 4, end));
    at = end;
  }
  return parts;
}

function framed(parts) {
  return Buffer.concat(
    parts.flatMap((part) => {
      const bytes = Buffer.from(part);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.length);
      return [length, bytes];
    }),
  );
}
