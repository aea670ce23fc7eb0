"""Candidate programs in JavaScript: a grading process turns its child, inside all walls, into Node. The expected outputs are not here."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

from rheostat.credit.verifiers.sandbox import wire

RUNNER = r"""
"use strict";
const fs = require("fs");
const job = JSON.parse(fs.readFileSync(0, "utf8"));
function send(kind, row, text) {
  const body = Buffer.from(text, "utf8"), head = Buffer.alloc(9);
  head.writeUInt8(kind, 0); head.writeUInt32BE(row, 1); head.writeUInt32BE(body.length, 5);
  const frame = Buffer.concat([head, body]);
  for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(3, frame, sent);
}
function told(error) {
  try { return String(error).slice(0, 500); } catch { return "it raised what cannot be shown"; }
}
function plain(value, depth) {
  if (depth > job.depth) throw new TypeError("the value is nested too deeply");
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError("the number is not finite");
    return value;
  }
  if (Array.isArray(value)) return Array.from(value, (each) => plain(each, depth + 1));
  if (typeof value === "object" && [Object.prototype, null].includes(Object.getPrototypeOf(value)))
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each, depth + 1)]));
  throw new TypeError("it returned no plain value");
}
let found, broken;
try {
  const made = { exports: {} };
  const name = job.entry_point;
  const body = `${job.code}\n;return typeof ${name} === "function" ? ${name} : module.exports["${name}"];`;
  found = new Function("module", "exports", "require", body)(made, made.exports, require);
  if (typeof found !== "function") broken = `the program does not define ${job.entry_point}`;
} catch (error) { broken = told(error); }
job.inputs.forEach((inputs, row) => {
  let text = "e" + broken;
  if (broken === undefined)
    try { text = "r" + JSON.stringify(plain(found(...inputs), 0)); } catch (error) { text = "e" + told(error); }
  send(job.record, row, text);
});
send(job.done, 0, "");
process.exit(0);
"""
"""Reads the job from its standard input, runs the program and sends what it returns to descriptor 3."""


class JavaScriptHandler:
    """Runs candidate programs in Node.

    Args:
        node: path of the program.
        heap: MiB that JavaScript's own heap may have; the sandbox limits all memory.
    """

    name, batched, asynchronous = "programs-javascript", False, False
    becomes_program = True
    """Its child is replaced by a program, which may take addresses without limit, and memory as far as the sandbox says."""

    def __init__(self, node: str, heap: int) -> None:
        self.node, self.heap = node, heap

    def prepare(self, job: dict[str, Any]) -> None:
        """Put the job where the program reads it, before files can no longer be written."""
        content = str(job["content"]).encode("utf-8", "replace")
        place = os.memfd_create("job")
        wire.write_all(place, content)
        os.lseek(place, 0, os.SEEK_SET)
        os.dup2(place, 0)
        os.close(place)

    def run(self, job: dict[str, Any], send: Callable[..., None]) -> None:
        """Become Node. Returns only where that is impossible.

        Args:
            job: prepared; its parts are read by the program.
            send: sends a frame.
        """
        options = [f"--max-old-space-size={self.heap}", "--v8-pool-size=0", "--single-threaded-gc"]
        try:
            os.execve(self.node, [self.node, *options, "-e", RUNNER], {"PATH": os.defpath, "LANG": "C.UTF-8", "OPENSSL_CONF": os.devnull})
        except OSError as error:
            send(wire.REFUSED, 0, wire.short(f"Node does not start in the sandbox ({error.strerror})"))


assert wire.HEAD.format == struct.Struct(">BII").format  # the head of a frame, as the program writes it
