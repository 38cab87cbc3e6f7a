// Deletes an account in a real Chromium, as its owner would:
// node drive.mjs NODE_MODULES CHROMIUM BASE EMAIL PASSWORD [SCREENSHOT]. Prints one JSON document.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [modules, chromium, base, email, password, screenshot] = process.argv.slice(2);
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
  page.on("console", (message) => message.type() === "error" && found.errors.push(message.text()));
  page.on("pageerror", (error) => found.errors.push(error.message));
  await page.goto(`${base}/account`, { waitUntil: "load" });
  const look = async () => {
    await page.evaluate(axe);
    const result = await page.evaluate(() => window.axe.run());
    found.violations.push(...result.violations.map((v) => `${v.id}: ${v.nodes[0].html.slice(0, 120)}`));
  };
  const send = async (word) => {
    await page.$eval("[name=password]", (field) => (field.value = ""));
    await page.type("[name=password]", word);
    await page.click("button");
    await page.waitForFunction(() => /match|deleted\.|later|again/.test(document.querySelector("#said").textContent));
    return page.$eval("#said", (said) => said.textContent);
  };
  await look();
  await page.type("[name=email]", email);
  await page.click("[name=sure]");
  found.wrong = await send(`not ${password}`);
  found.errors = []; // the refusal of a wrong password is one for Chromium
  await page.$eval("#said", (said) => (said.textContent = ""));
  found.right = await send(password);
  found.form = await page.$eval("#sign-in", (form) => form.checkVisibility());
  found.number = await page.$eval("#number", (number) => number.textContent);
  found.counts = await page.$$eval("#counts tr", (rows) => rows.map((row) => [...row.cells].map((c) => c.textContent)));
  found.remains = await page.$$eval("#remains li", (items) => items.length);
  if (screenshot) await page.screenshot({ path: screenshot });
  await look();
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
