import { readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

// Bytes after gzip, all files of a kind together. A page is read on a phone in a train.
export const BUDGETS = { ".html": 20_000, ".css": 10_000, ".js": 100_000, ".svg": 10_000, ".txt": 1_000 };

/**
 * Bytes after gzip by kind of file.
 * @param {string} folder
 * @returns {Record<string, number>}
 */
export function weigh(folder) {
  const sizes = {};
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const kind = extname(entry.name);
    sizes[kind] = (sizes[kind] ?? 0) + gzipSync(readFileSync(join(entry.parentPath, entry.name))).length;
  }
  if (!(".html" in sizes)) throw new Error(`${folder}: no page in it: run npm run build first`);
  return sizes;
}

/**
 * One line for each kind that is over its budget, or has none.
 * @param {Record<string, number>} sizes
 * @param {Record<string, number>} budgets
 * @returns {string[]}
 */
export function overBudget(sizes, budgets) {
  return Object.entries(sizes)
    .filter(([kind, bytes]) => bytes > (budgets[kind] ?? 0))
    .map(([kind, bytes]) =>
      kind in budgets
        ? `${kind}: ${bytes} bytes after gzip, the budget is ${budgets[kind]}: make it smaller, or argue for more in audit/weigh.mjs`
        : `${kind}: has no budget: give it one in audit/weigh.mjs`);
}
