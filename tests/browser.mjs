// A real Chromium with one page, and axe's opinion of it: how every drive.mjs begins.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export async function open(modules, chromium) {
  const require = createRequire(join(modules, "x.js"));
  const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
  const browser = await require("puppeteer-core").launch({
    executablePath: chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0"],
  });
  const page = await browser.newPage();
  const violations = async () => {
    await page.evaluate(axe);
    const result = await page.evaluate(() => window.axe.run());
    return result.violations.map((v) => `${v.id}: ${v.nodes[0].html.slice(0, 120)}`);
  };
  return { browser, page, violations };
}
