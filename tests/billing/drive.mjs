// Subscribes and cancels on the Stripe double's pages, as a person would:
// node drive.mjs NODE_MODULES CHROMIUM STRIPE FOLDER subscribe|cancel ACCOUNT|SUBSCRIPTION. Prints one JSON document.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [modules, chromium, stripe, folder, deed, name] = process.argv.slice(2);
const require = createRequire(join(modules, "x.js"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const found = { errors: [], violations: [] };

const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0"],
});
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => found.errors.push(error.message));
  const look = async (moment) => {
    await page.screenshot({ path: join(folder, `${deed}-${moment}.png`) });
    await page.evaluate(axe);
    const result = await page.evaluate(() => window.axe.run());
    found.violations.push(...result.violations.map((v) => `${moment}: ${v.id}: ${v.nodes[0].html.slice(0, 120)}`));
  };
  const press = (selector) => Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click(selector)]);
  await page.goto(stripe, { waitUntil: "load" });
  if (deed === "subscribe") {
    await page.type("[name=account]", name);
    await press('form[action="/subscribe"] button');
    await look("checkout");
    await press("button[name=pay]");
  } else {
    await press(`form[action="/subscriptions/${name}"] button[value=cancel]`);
  }
  await look("after");
  found.rows = await page.$$eval("tr", (rows) => rows.slice(1).map((row) => [...row.cells].slice(0, 3).map((c) => c.textContent)));
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
