// Drives the console in a real Chromium: node drive.mjs NODE_MODULES CHROMIUM BASE FOLDER EMAIL PASSWORD.
// Prints one JSON document.
import { join } from "node:path";
import { open } from "../browser.mjs";

const [modules, chromium, base, folder, email, password] = process.argv.slice(2);
const found = { violations: [], said: [], strangers: [], steps: [] };

const { browser, page, violations } = await open(modules, chromium);
try {
  page.on("console", (message) => message.type() === "error" && found.said.push(message.text()));
  page.on("pageerror", (error) => found.said.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) found.strangers.push(request.url());
  });

  const look = async (name, path, { dark = false, phone = false } = {}) => {
    await page.setViewport(phone ? { width: 390, height: 844, deviceScaleFactor: 2 } : { width: 1280, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
    if (path !== null) await page.goto(base + path, { waitUntil: "load" });
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: false });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    if (wide > 0) found.violations.push(`${name}: the page is ${wide} px wider than the screen`);
    found.violations.push(...(await violations()).map((v) => `${name}: ${v}`));
  };
  const press = async (selector) => {
    await Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click(selector)]);
    found.steps.push(await page.$eval("h1", (h1) => h1.textContent.trim().replace(/\s+/g, " ")));
  };
  const why = (action, words) => page.type(`form[action="${action}"] input[name=why]`, words);

  // signing in: the door, a wrong password, the right one
  await look("sign-in", "/console");
  await page.type("input[type=email]", email);
  await page.type("input[type=password]", "a guess");
  await page.click("button");
  await page.waitForFunction(() => document.querySelector("#said").textContent.includes("do not belong together"));
  await page.type("input[type=password]", password);
  await Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click("button")]);
  found.signed_in = await page.$eval("footer", (footer) => footer.textContent);
  found.door = [...new Set(found.strangers.splice(0))]; // whom the sign-in page talked to
  found.said.length = 0; // a browser calls the answers 401 and 400, which are right here, errors

  for (const [name, options] of [["light", {}], ["dark", { dark: true }], ["phone", { phone: true }], ["phone-dark", { phone: true, dark: true }]])
    await look(name, "/console", options);
  found.latest = await page.evaluate(() => {
    const said = [...document.querySelectorAll(".timeline text")].find((text) => text.textContent === "now");
    const now = said.getBoundingClientRect(), seen = said.closest(".scroll").getBoundingClientRect();
    return seen.left < now.left && now.right < seen.right && document.documentElement.clientWidth < 500;
  });
  for (const path of ["tasks/db_cleanup", "tasks/vacuum_analyze", "approvals", "holds", "retention", "backups", "incidents", "plans", "models"])
    for (const dark of [false, true]) await look(path.replace("/", "-") + (dark ? "-dark" : ""), `/console/${path}`, { dark });

  await page.goto(`${base}/console/tasks/db_cleanup`, { waitUntil: "load" });
  await press('form[action="/console/tasks/db_cleanup/plan"] button');
  await look("plan", null);
  const exactly = await page.$eval('form[action*="/run?plan="]', (form) => form.getAttribute("action"));
  await why(exactly, "the plan is right");
  await press(`form[action="${exactly}"] button`);
  await look("run", null);
  await press('a[href$="/restore"]');
  await look("restore", null);
  const restore = await page.$eval('form[action$="/restore"]', (form) => form.getAttribute("action"));
  await why(restore, "one day too early");
  await press(`form[action="${restore}"] button`);
  await look("restored", null);

  await page.goto(`${base}/console`, { waitUntil: "load" });
  await why("/console/tasks/all/pause", "a drill");
  await press('form[action="/console/tasks/all/pause"] button');
  await look("paused", null);
  await why("/console/tasks/all/resume", "the drill is over");
  await press('form[action="/console/tasks/all/resume"] button');

  await page.goto(`${base}/console/approvals`, { waitUntil: "load" });
  const approve = await page.$eval('form[action$="/approve"]', (form) => form.getAttribute("action"));
  await look("approval", null);
  await why(approve, "it is the month for it");
  await press(`form[action="${approve}"] button`);
  await page.goto(`${base}/console/no-such-page`, { waitUntil: "load" });
  found.steps.push(await page.$eval("h1", (h1) => h1.textContent.trim()));
  await look("not-found", null);

  await page.setJavaScriptEnabled(false);
  await page.goto(`${base}/console`, { waitUntil: "load" });
  found.said.length = 0; // the browser says that the page was not found
  found.without = (await page.$$("tbody tr")).length;
  await page.setJavaScriptEnabled(true);

  await page.goto(`${base}/console`, { waitUntil: "load" });
  await page.keyboard.press("Tab");
  found.first_stop = await page.evaluate(() => document.activeElement.textContent);

  const { default: lighthouse } = await import(join(modules, "lighthouse/core/index.js"));
  // A score is null where Lighthouse could not measure, which says nothing of the page: it is asked again.
  let asked = 0;
  do {
    const { lhr } = await lighthouse(`${base}/console`, {
      port: Number(new URL(browser.wsEndpoint()).port),
      onlyCategories: ["performance", "accessibility", "best-practices"],
      disableStorageReset: true, // it signed in
      logLevel: "silent",
    });
    const percent = ({ score }) => (score === null ? null : Math.round(score * 100));
    found.scores = Object.fromEntries(Object.entries(lhr.categories).map(([name, one]) => [name, percent(one)]));
  } while (++asked < 3 && Object.values(found.scores).includes(null));
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
