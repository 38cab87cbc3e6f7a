import { describe, expect, test, vi } from "vitest";
import { DeletionError, PATH, deleteAccount } from "../src/account/deletion.js";
import { counts, remains } from "../src/account/receipt.js";

const RECEIPT = { erasure_id: "7", deleted: { endpoints: 3 }, anonymised: {}, recount: { endpoints: 0 }, still_exists: [] };
const DELETED = { status: 200, body: { status: "deleted", receipt: RECEIPT } };
const STATUS = `${PATH}/7`;
const DELETING = { status: 202, body: { status: "deleting", status_url: STATUS }, headers: { "Retry-After": "2" } };

function world(...answers) {
  const user = { getIdToken: vi.fn(async (fresh) => (fresh ? "fresh" : "kept")), delete: vi.fn(async () => {}) };
  const asked = [];
  const fetch = vi.fn(async (path, { method, headers }) => {
    asked.push([method, path, headers.Authorization]);
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) throw answer;
    return new Response(JSON.stringify(answer.body ?? {}), { status: answer.status, headers: answer.headers });
  });
  const waits = [];
  const wait = async (ms) => void waits.push(ms);
  return { user, asked, waits, run: () => deleteAccount({ signInAgain: async () => user, fetch, wait }) };
}

describe("deleting an account", () => {
  test("asks with a fresh token, removes the user last and gives the receipt", async () => {
    const { user, asked, run } = world(DELETED);

    expect(await run()).toEqual(RECEIPT);
    expect(asked).toEqual([["DELETE", PATH, "Bearer fresh"]]);
    expect(user.delete).toHaveBeenCalledOnce();
  });

  test("waits as long as the server says for a long one", async () => {
    const { user, asked, waits, run } = world(DELETING, DELETING, DELETED);

    expect(await run()).toEqual(RECEIPT);
    expect(asked.slice(1)).toEqual([["GET", STATUS, "Bearer kept"], ["GET", STATUS, "Bearer kept"]]);
    expect(waits).toEqual([2000, 2000]);
    expect(user.delete).toHaveBeenCalledOnce();
  });

  test("gives up waiting after ten minutes and keeps the user", async () => {
    const { user, run } = world(DELETING);

    await expect(run()).rejects.toMatchObject({ code: "busy" });
    expect(user.delete).not.toHaveBeenCalled();
  });

  test.each([
    ["no network", new TypeError("failed to fetch")],
    ["a server that is busy", { status: 503 }],
    ["a gateway's page", { status: 504, body: "<html>" }],
    ["a run that was stopped", { status: 200, body: { outcome: "stopped" } }],
    ["a part that is not configured", { status: 200, body: { outcome: "unavailable" } }],
    ["a plan that deleted nothing", { status: 200, body: { outcome: "planned" } }],
  ])("tries again after %s", async (_, bad) => {
    const { user, waits, run } = world(bad, bad, DELETED);

    expect(await run()).toEqual(RECEIPT);
    expect(waits).toEqual([500, 2000]);
    expect(user.delete).toHaveBeenCalledOnce();
  });

  test.each([
    ["signed-out", { status: 401 }],
    ["held", { status: 409, body: { error: "held" } }],
    ["refused", { status: 200, body: { outcome: "refused", error: "the key is of the wrong mode" } }],
    ["busy", { status: 503 }],
    ["busy", { status: 200, body: { outcome: "unavailable" } }],
  ])("says %s and keeps the user", async (code, answer) => {
    const { user, run } = world(answer);

    await expect(run()).rejects.toMatchObject({ code });
    expect(user.delete).not.toHaveBeenCalled();
  });

  test("that is refused is asked for once, and told in words of its own", async () => {
    const { asked, run } = world({ status: 200, body: { outcome: "refused", error: "a key of the wrong mode" } });

    await expect(run()).rejects.toThrow(/^Your account cannot be deleted as things are\./);
    expect(asked).toHaveLength(1);
  });

  test.each(["auth/user-not-found", "auth/user-token-expired"])("calls a user that is gone (%s) a success", async (code) => {
    const { user, run } = world(DELETED);
    user.delete.mockRejectedValue(Object.assign(new Error(), { code }));

    expect(await run()).toEqual(RECEIPT);
  });

  test("asks for another sign-in when the user can no longer be removed", async () => {
    const { user, run } = world(DELETED);
    user.delete.mockRejectedValue(Object.assign(new Error(), { code: "auth/requires-recent-login" }));

    await expect(run()).rejects.toThrow(DeletionError);
    await expect(run()).rejects.toMatchObject({ code: "recent-login" });
  });

  test("of somebody who has no account any more still removes the user", async () => {
    const { user, run } = world({ status: 200, body: { status: "deleted", receipt: null } });

    expect(await run()).toBeNull();
    expect(user.delete).toHaveBeenCalledOnce();
  });
});

describe("the receipt", () => {
  test("has a row for each store, and says of reports that they stay", () => {
    const receipt = { deleted: { endpoints: 3, "groundskeeper.outbox": 1 }, anonymised: { bug_report: 2 }, recount: { endpoints: 0 } };

    expect(counts(receipt)).toEqual([
      ["bug report", "2 kept without you", "0"],
      ["endpoints", "3", "0"],
      ["outbox", "1", "0"],
    ]);
  });

  test("says until when, where anybody can say it", () => {
    const still_exists = [
      { what: "backups", because: "they are kept a while", until: "2027-01-02T03:04:05Z" },
      { what: "invoices", because: "the law says so", until: null },
    ];

    expect(remains({ still_exists })).toEqual([
      "backups: they are kept a while, until 2027-01-02",
      "invoices: the law says so",
    ]);
  });
});
