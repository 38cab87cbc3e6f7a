import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BUDGETS, overBudget, weigh } from "../audit/weigh.mjs";

let dist;

beforeAll(async () => {
  dist = mkdtempSync(join(tmpdir(), "dist-"));
  const root = fileURLToPath(new URL("..", import.meta.url));
  await build({ root, logLevel: "silent", build: { outDir: dist, emptyOutDir: true } });
});

afterAll(() => rmSync(dist, { recursive: true }));

describe("the built site", () => {
  test("names each task on its page", () => {
    const page = readFileSync(join(dist, "index.html"), "utf8");

    for (const task of readdirSync(fileURLToPath(new URL("../../functions", import.meta.url))).filter((n) => !n.startsWith("__"))) {
      expect(page).toContain(`<th scope="row">${task}</th>`);
    }
    expect(page).not.toContain("<!-- timetable -->");
  });

  test.each(["index.html", "account.html"])("has nothing in %s that its Content-Security-Policy would refuse", (file) => {
    const page = readFileSync(join(dist, file), "utf8");

    expect(page).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc="\/)|(?:src|href)="(?!\/assets\/)/);
  });

  test("is within its budgets", () => {
    expect(overBudget(weigh(dist), BUDGETS)).toEqual([]);
  });
});

describe("the budget", () => {
  test("is exceeded by one byte too many, and not by the last one allowed", () => {
    expect(overBudget({ ".js": 100 }, { ".js": 100 })).toEqual([]);
    expect(overBudget({ ".js": 101 }, { ".js": 100 })).toEqual([expect.stringContaining(".js: 101 bytes")]);
  });

  test("covers every kind of file, so that a new kind is noticed", () => {
    expect(overBudget({ ".wasm": 1 }, { ".js": 100 })).toEqual([".wasm: has no budget: give it one in audit/weigh.mjs"]);
  });

  test("is not met by a build that is not there", () => {
    const empty = mkdtempSync(join(tmpdir(), "empty-"));
    writeFileSync(join(empty, "site.css"), "p{}");

    expect(() => weigh(empty)).toThrow("run npm run build first");
    rmSync(empty, { recursive: true });
  });
});
