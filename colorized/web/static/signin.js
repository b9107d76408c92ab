// The address that the service prints ends in #token=…, which browsers send to nobody.
const form = document.getElementById("signin");
const given = new URLSearchParams(location.hash.slice(1)).get("token");
document.getElementById("wrong").hidden = !location.search.includes("wrong");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = given;
  form.submit();
}
