// Serves the build as Hosting does and fails when a Lighthouse category is below its budget.
// Needs `npm run build`, `npm ci` in images/lighthouse, and Chrome (CHROME_PATH).
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { preview } from "vite";

const BUDGETS = { performance: 0.95, accessibility: 1, "best-practices": 0.95, seo: 0.95 };

const hosting = fileURLToPath(new URL("..", import.meta.url));
const lighthouse = fileURLToPath(new URL("../../images/lighthouse/node_modules/.bin/lighthouse", import.meta.url));
const report = `${hosting}.lighthouse/report`;

mkdirSync(`${hosting}.lighthouse`, { recursive: true });
const site = await preview({ root: hosting, preview: { host: "127.0.0.1", port: 4173 }, logLevel: "silent" });
try {
  await run(lighthouse, [
    site.resolvedUrls.local[0], "--quiet", "--output=json", "--output=html", `--output-path=${report}`,
    "--no-enable-error-reporting",
    "--chrome-flags=--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run",
  ]);
} finally {
  await site.close();
}

const { categories } = JSON.parse(readFileSync(`${report}.report.json`, "utf8"));
const below = Object.entries(BUDGETS).filter(([name, least]) => !(categories[name]?.score >= least));
for (const [name, least] of Object.entries(BUDGETS)) console.log(`${name}\t${categories[name]?.score} of ${least}`);
for (const [name] of below) console.error(`${name}: below its budget: see ${report}.report.html`);
process.exit(below.length > 0 ? 1 : 0);

function run(program, options) {
  return new Promise((resolve, reject) => {
    spawn(program, options, { stdio: "inherit" })
      .on("error", reject)
      .on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`lighthouse ended ${code}`))));
  });
}
