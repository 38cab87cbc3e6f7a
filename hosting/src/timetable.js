// What the plane does and when, read from the task.yaml files themselves: the page cannot say anything else.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

/**
 * The tasks of a `functions` folder, by name.
 * @param {string} functions path of the folder
 * @returns {{name: string, summary: string, when: string}[]}
 */
export function readTimetable(functions) {
  return readdirSync(functions, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith(".") && !entry.name.startsWith("__"))
    .map(({ name }) => {
      const { summary, triggers } = parse(readFileSync(join(functions, name, "task.yaml"), "utf8"));
      return { name, summary, when: triggers.map(inWords).join(", ") || "by hand" };
    })
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

function inWords({ cron, every_s: seconds, topic, http, ...unknown }) {
  if (cron !== undefined) return `${cron} (UTC)`;
  if (seconds !== undefined) return `every ${seconds} s`;
  if (topic !== undefined) return `on ${topic}`;
  if (http !== undefined) return `${http.methods.join(", ")} ${http.path}`;
  throw new Error(`task.yaml: triggers: ${JSON.stringify(unknown)} is no kind of trigger this page knows`);
}

/**
 * The rows of the page's table.
 * @param {ReturnType<typeof readTimetable>} tasks
 * @returns {string} HTML
 */
export function renderTimetable(tasks) {
  return tasks
    .map(({ name, summary, when }) =>
      `<tr><th scope="row">${escaped(name)}</th><td>${escaped(summary)}</td><td>${escaped(when)}</td></tr>`)
    .join("\n");
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escaped(text) {
  return text.replace(/[&<>"']/g, (sign) => ENTITIES[sign]);
}
