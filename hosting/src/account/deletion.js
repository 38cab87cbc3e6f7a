// Deletes the signed-in person's account: sign in again, DELETE, wait for the receipt, then remove the Firebase user.
// Whatever breaks off in between, the same call later goes on where it was: the server's part is resumable, and a user
// that is gone already is a success. The Firebase user goes last, since its token is what the server asks for.

export const PATH = "/api/v1/auth/delete-account";

const TRIES = 4;
const AGAIN_MS = [500, 2000, 5000];
const PATIENCE_MS = 10 * 60_000;

// Trying again at once cannot help: something of ours is set wrong, and whoever runs this has been told.
const REFUSED = "Your account cannot be deleted as things are. We have been told and will mend it: try again tomorrow.";

/** What stops a deletion; `code` is one of signed-out, held, refused, busy, recent-login. */
export class DeletionError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * @param {object} parts
 * @param {() => Promise<{getIdToken: (fresh: boolean) => Promise<string>, delete: () => Promise<void>}>} parts.signInAgain
 *   the Firebase user after a sign-in of just now
 * @param {typeof fetch} parts.fetch
 * @param {(ms: number) => Promise<void>} parts.wait
 * @param {(words: string) => void} [parts.tell] what is going on
 * @returns {Promise<object | null>} the receipt; null when there was no account any more
 */
export async function deleteAccount({ signInAgain, fetch, wait, tell = () => {} }) {
  const user = await signInAgain();
  tell("Deleting your account…");
  let answer = await ask(fetch, wait, "DELETE", PATH, await user.getIdToken(true));
  for (let waited = 0; answer.status === 202; ) {
    if (waited >= PATIENCE_MS) throw new DeletionError("busy", "It takes long. It goes on without you: come back later.");
    const pause = Number(answer.after || 5) * 1000;
    await wait(pause);
    waited += pause;
    tell("Still deleting: there is a lot of it…");
    answer = await ask(fetch, wait, "GET", answer.body.status_url, await user.getIdToken(false));
  }
  tell("Removing your sign-in…");
  await removeUser(user);
  return answer.body.receipt;
}

async function ask(fetch, wait, method, path, token) {
  for (let tried = 1; ; tried += 1) {
    const answer = await attempt(fetch, method, path, token);
    if (answer.status === 202 || (answer.status === 200 && answer.body?.status === "deleted")) return answer;
    if (answer.status === 401) throw new DeletionError("signed-out", "Your sign-in is no longer valid: sign in again.");
    if (answer.status === 409) throw new DeletionError("held", answer.body?.error ?? "The account cannot be deleted now.");
    if (answer.status === 200 && answer.body?.outcome === "refused") throw new DeletionError("refused", REFUSED);
    if (tried === TRIES) throw new DeletionError("busy", "That did not work just now. Nothing is lost: try again later.");
    await wait(AGAIN_MS[tried - 1]);
  }
}

async function attempt(fetch, method, path, token) {
  try {
    const answer = await fetch(path, { method, headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
    const body = await answer.json().catch(() => null);
    return { status: answer.status, body, after: answer.headers.get("Retry-After") };
  } catch {
    return { status: 0, body: null, after: null }; // no network: worth another try
  }
}

async function removeUser(user) {
  try {
    await user.delete();
  } catch (error) {
    if (error.code === "auth/user-not-found" || error.code === "auth/user-token-expired") return;
    if (error.code === "auth/requires-recent-login") {
      throw new DeletionError("recent-login", "Your data is deleted. Sign in once more to remove the sign-in as well.");
    }
    throw new DeletionError("busy", "Your data is deleted, your sign-in is not yet: try again later.");
  }
}
