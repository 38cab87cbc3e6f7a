const form = document.querySelector("form[data-key]");
const said = document.querySelector("#said");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  said.textContent = "Signing in…";
  try {
    const answer = await fetch(`${form.dataset.endpoint}/v1/accounts:signInWithPassword?key=${form.dataset.key}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ email: form.email.value, password: form.password.value, returnSecureToken: true }),
    });
    if (!answer.ok) throw new Error("That e-mail address and password do not belong together.");
    const { idToken } = await answer.json();
    const session = await fetch("/console/session", {
      method: "POST",
      headers: { Authorization: `Bearer ${idToken}`, "X-Console": "sign-in" },
    });
    if (!session.ok) throw new Error(await session.text());
    location.assign("/console");
  } catch (error) {
    said.textContent = error.message;
    form.password.value = "";
    form.password.focus();
  }
});
