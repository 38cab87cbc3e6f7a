for (const time of document.querySelectorAll("time")) {
  const at = new Date(time.dateTime);
  if (at.getTimezoneOffset() === 0) continue;
  const here = document.createElement("span");
  here.className = "here";
  here.textContent = at.toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" }) + " here";
  time.append(here);
}
