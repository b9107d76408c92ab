// The URL that the service prints ends in #token=…, which browsers do not send.
const form = document.getElementById("signin");
const given = new URLSearchParams(location.hash.slice(1)).get("token");
document.getElementById("wrong").hidden = !location.search.includes("wrong");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = given;
  form.submit();
}
