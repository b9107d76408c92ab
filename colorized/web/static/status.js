// The status bar at the bottom of the page: activity, progress and errors.
import { percent } from "./words.js";

const $ = (id) => document.getElementById(id);
let again = null, thumb = "";

// The activity; `share` is 0 … 1, null if it is unknown, undefined if nothing runs.
export function say(text, share) {
  $("status").textContent = text;
  $("trouble").hidden = $("again").hidden = $("dismiss").hidden = true;
  $("stop").hidden = $("progress").hidden = share === undefined;
  if (share === null) $("progress").removeAttribute("value");
  else if (share !== undefined) {
    $("progress").value = share;
    $("progress").setAttribute("aria-valuetext", percent(share));
  }
}

// What went wrong, until something else is done; `retry` is what “Try again” does.
export function complain(message, retry = null) {
  say("");
  $("trouble").textContent = message;
  again = retry;
  $("trouble").hidden = $("dismiss").hidden = false;
  $("again").hidden = !retry;
}

// The visitor's own photograph, as far as the browser can show it.
export function showThumb(file) {
  URL.revokeObjectURL(thumb);
  thumb = file ? URL.createObjectURL(file) : "";
  const image = $("thumb");
  image.hidden = true;
  image.onload = () => { image.hidden = false; };
  if (file) image.src = thumb;
  else image.removeAttribute("src");
}

$("again").addEventListener("click", () => { const retry = again; say(""); retry?.(); });
$("dismiss").addEventListener("click", () => say(""));
