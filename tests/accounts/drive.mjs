// Deletes an account in a real Chromium, as its owner would:
// node drive.mjs NODE_MODULES CHROMIUM BASE EMAIL PASSWORD [SCREENSHOT]. Prints one JSON document.
import { open } from "../browser.mjs";

const [modules, chromium, base, email, password, screenshot] = process.argv.slice(2);
const found = { errors: [], violations: [] };

const { browser, page, violations } = await open(modules, chromium);
try {
  page.on("console", (message) => message.type() === "error" && found.errors.push(message.text()));
  page.on("pageerror", (error) => found.errors.push(error.message));
  await page.goto(`${base}/account`, { waitUntil: "load" });
  const look = async () => found.violations.push(...(await violations()));
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
