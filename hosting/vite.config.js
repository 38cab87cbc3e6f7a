import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { readTimetable, renderTimetable } from "./src/timetable.js";

const FUNCTIONS = fileURLToPath(new URL("../functions", import.meta.url));
const PLACE = "<!-- timetable -->";

export default defineConfig({
  appType: "mpa", // a page that is not there is a 404, as on Hosting
  build: {
    // the Content-Security-Policy of firebase.json admits files of this site only
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: ["index.html", "account.html"] },
  },
  plugins: [
    {
      name: "timetable",
      transformIndexHtml(html, { path }) {
        if (path !== "/index.html") return html;
        if (!html.includes(PLACE)) throw new Error(`index.html: ${PLACE} is missing: the timetable goes there`);
        return html.replace(PLACE, () => renderTimetable(readTimetable(FUNCTIONS)));
      },
    },
  ],
  test: { include: ["test/**/*.test.js"] },
});
