// What the rules of javascript.yaml find (ruleid) and leave alone (ok). Never loaded.
export function show(element, text, token) {
  // ruleid: text-becomes-markup
  element.innerHTML = text;
  // ruleid: text-becomes-markup
  element.insertAdjacentHTML("beforeend", text);
  // ok: text-becomes-markup
  element.textContent = text;
  // ruleid: text-becomes-code
  eval(text);
  // ruleid: text-becomes-code
  setTimeout("show()", 5);
  // ok: text-becomes-code
  setTimeout(() => show(element, text), 5);
  // ruleid: token-kept-in-storage
  localStorage.setItem("idToken", token);
  // ok: token-kept-in-storage
  localStorage.setItem("theme", "dark");
}
