/**
 * The rows of a receipt: what, how many went, how many are left.
 * @param {{deleted: Record<string, number>, anonymised: Record<string, number>, recount: Record<string, number>}} receipt
 * @returns {[string, string, string][]}
 */
export function counts({ deleted, anonymised, recount }) {
  const names = [...new Set([...Object.keys(deleted), ...Object.keys(anonymised)])].sort();
  return names.map((name) => [
    name.replace("groundskeeper.", "").replaceAll("_", " "),
    name in anonymised ? `${anonymised[name]} kept without you` : String(deleted[name]),
    String(recount[name] ?? 0),
  ]);
}

/**
 * What outlives the deletion, in sentences.
 * @param {{still_exists: {what: string, because: string, until: string | null}[]}} receipt
 * @returns {string[]}
 */
export function remains({ still_exists: left }) {
  return left.map(({ what, because, until }) => `${what}: ${because}${until ? `, until ${until.slice(0, 10)}` : ""}`);
}
