// Fails when a kind of file in the build weighs more than its budget. `npm run bundle`, after `npm run build`.
import { fileURLToPath } from "node:url";
import { BUDGETS, overBudget, weigh } from "./weigh.mjs";

const sizes = weigh(fileURLToPath(new URL("../dist", import.meta.url)));
const over = overBudget(sizes, BUDGETS);
for (const [kind, bytes] of Object.entries(sizes)) console.log(`${kind}\t${bytes} of ${BUDGETS[kind] ?? 0} bytes`);
for (const line of over) console.error(line);
process.exit(over.length > 0 ? 1 : 0);
