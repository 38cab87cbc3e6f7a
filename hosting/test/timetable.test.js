import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { readTimetable, renderTimetable } from "../src/timetable.js";

let functions;

beforeEach(() => {
  functions = mkdtempSync(join(tmpdir(), "functions-"));
});

afterEach(() => rmSync(functions, { recursive: true }));

function task(name, summary, triggers) {
  mkdirSync(join(functions, name));
  writeFileSync(join(functions, name, "task.yaml"), `summary: ${summary}\ntriggers: ${triggers}\n`);
}

describe("the timetable", () => {
  test("says when each kind of trigger fires", () => {
    task("db_cleanup", "Deletes.", '[{cron: "0 2 * * *"}]');
    task("outbox_relay", "Publishes.", "[{every_s: 5}, {topic: outbox-nudge}]");
    task("billing_sync", "Syncs.", "[{http: {path: /api/v1/billing/sync, methods: [POST, GET], auth: firebase}}]");
    task("rotate_keys", "Rotates.", "[]");

    expect(readTimetable(functions)).toEqual([
      { name: "billing_sync", summary: "Syncs.", when: "POST, GET /api/v1/billing/sync" },
      { name: "db_cleanup", summary: "Deletes.", when: "0 2 * * * (UTC)" },
      { name: "outbox_relay", summary: "Publishes.", when: "every 5 s, on outbox-nudge" },
      { name: "rotate_keys", summary: "Rotates.", when: "by hand" },
    ]);
  });

  test("does not guess at a trigger it does not know", () => {
    task("moon_phase", "Howls.", "[{moon: full}]");

    expect(() => readTimetable(functions)).toThrow('{"moon":"full"} is no kind of trigger');
  });

  test("leaves out folders that are no tasks", () => {
    mkdirSync(join(functions, "__pycache__"));
    mkdirSync(join(functions, ".cache"));

    expect(readTimetable(functions)).toEqual([]);
  });

  test("shows a summary as text, whatever signs are in it", () => {
    task("odd_summary", "\"<script>alert('x')</script> & more $& $1\"", "[]");

    expect(renderTimetable(readTimetable(functions))).toBe(
      '<tr><th scope="row">odd_summary</th>' +
        "<td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; more $&amp; $1</td><td>by hand</td></tr>",
    );
  });

  test("reads every task of this repository", () => {
    const tasks = readTimetable(fileURLToPath(new URL("../../functions", import.meta.url)));

    expect(tasks).toContainEqual(expect.objectContaining({ name: "db_cleanup", when: "0 2 * * * (UTC)" }));
    expect(tasks.every(({ summary, when }) => summary && when)).toBe(true);
  });
});
