// The account page: a form, what is said meanwhile, and the receipt.
import { DeletionError, deleteAccount } from "./deletion.js";
import { openAuth, signIn } from "./firebase.js";
import { counts, remains } from "./receipt.js";

const form = document.querySelector("#sign-in");
const said = document.querySelector("#said");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { email, password } = Object.fromEntries(new FormData(form));
  form.inert = true;
  try {
    const auth = await openAuth();
    const receipt = await deleteAccount({
      signInAgain: () => signIn(auth, email, password),
      fetch: (...given) => window.fetch(...given),
      wait: (ms) => new Promise((done) => setTimeout(done, ms)),
      tell: (words) => (said.textContent = words),
    });
    said.textContent = "Your account is deleted.";
    form.hidden = true;
    if (receipt) show(receipt);
  } catch (error) {
    said.textContent = words(error);
    form.inert = false;
  }
});

function words(error) {
  if (error instanceof DeletionError) return error.message;
  if (/^auth\/(invalid|wrong|user)/.test(error.code ?? "")) return "E-mail and password do not match.";
  if (error.code === "auth/too-many-requests") return "Too many tries: wait a few minutes.";
  return "That did not work just now. Nothing is lost: try again later.";
}

function show(receipt) {
  document.querySelector("#number").textContent = receipt.erasure_id;
  document.querySelector("#counts").append(
    ...counts(receipt).map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text, column) => cell(text, column)));
      return row;
    }),
  );
  document.querySelector("#remains").append(...remains(receipt).map((text) => element("li", text)));
  document.querySelector("#receipt").hidden = false;
}

function cell(text, column) {
  const made = element(column === 0 ? "th" : "td", text);
  if (column === 0) made.scope = "row";
  return made;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
