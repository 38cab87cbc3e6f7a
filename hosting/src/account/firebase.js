// Firebase Auth of this site's own project. Hosting itself says which one that is; on a laptop the plane does, and names
// its own Firebase beside it.
import { initializeApp } from "@firebase/app";
import {
  browserSessionPersistence,
  connectAuthEmulator,
  initializeAuth,
  signInWithEmailAndPassword,
} from "@firebase/auth";

/** https://firebase.google.com/docs/hosting/reserved-urls */
const CONFIG = "/__/firebase/init.json";

/** @returns {Promise<import("@firebase/auth").Auth>} */
export async function openAuth() {
  const answer = await fetch(CONFIG);
  if (!answer.ok) throw new Error(`${CONFIG}: ${answer.status}: is this site on Firebase Hosting?`);
  const { emulator, ...config } = await answer.json();
  const auth = initializeAuth(initializeApp(config), { persistence: browserSessionPersistence });
  // its warning would be a style that the Content-Security-Policy refuses
  if (emulator) connectAuthEmulator(auth, emulator, { disableWarnings: true });
  return auth;
}

/** A sign-in of just now; the user it is of. */
export async function signIn(auth, email, password) {
  return (await signInWithEmailAndPassword(auth, email, password)).user;
}
