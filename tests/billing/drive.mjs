// Subscribes and cancels on the Stripe double's pages, as a person would:
// node drive.mjs NODE_MODULES CHROMIUM STRIPE FOLDER subscribe|cancel ACCOUNT|SUBSCRIPTION. Prints one JSON document.
import { join } from "node:path";
import { open } from "../browser.mjs";

const [modules, chromium, stripe, folder, deed, name] = process.argv.slice(2);
const found = { errors: [], violations: [] };

const { browser, page, violations } = await open(modules, chromium);
try {
  page.on("pageerror", (error) => found.errors.push(error.message));
  const look = async (moment) => {
    await page.screenshot({ path: join(folder, `${deed}-${moment}.png`) });
    found.violations.push(...(await violations()).map((v) => `${moment}: ${v}`));
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
