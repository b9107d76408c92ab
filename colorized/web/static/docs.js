// /openapi.json as a page.
import "./store.js";  // keeps what this tab has made, until the page is back

const make = (tag, text, ...children) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};

function table(heads, rows) {
  const body = make("tbody", "", ...rows.map((row) => make("tr", "", ...row.map((cell) => make("td", cell)))));
  return make("table", "", make("thead", "", make("tr", "", ...heads.map((head) => make("th", head)))), body);
}

const last = (ref) => ref.split("/").pop();

function kind(field) {
  const { minimum, maximum, enum: values, const: value, type, format, contentMediaType, anyOf, items, $ref } = field;
  if ($ref) return last($ref);
  if (anyOf) return anyOf.filter((one) => one.type !== "null").map(kind).join(" or ");
  if (value !== undefined) return `"${value}"`;
  if (values) return values.join(", ");
  if (items) return `list of ${kind(items)}`;
  if (minimum !== undefined && maximum !== undefined) return `${type}, ${minimum} … ${maximum}`;
  return format ?? (contentMediaType ? "file" : type);
}

// Numbers beyond 2^53 as they stand in the text, which JSON.parse would round.
const parse = (text) => JSON.parse(text.replace(/: ?(\d{16,})(?=[,}\s])/g, ': "$1"'));

document.getElementById("example").textContent =
  `curl -F file=@photo.jpg -F seed=1 ${location.origin}/api/colorize -o color.png\n`
  + `curl -F file=@photo.jpg -F 'hints={"points": [{"x": 0.4, "y": 0.6, "radius": 0.02, "color": "#8b1a1a"}]}' `
  + `${location.origin}/api/colorize -o color.png`;

const [api, about] = await Promise.all([
  fetch("/openapi.json").then((answer) => answer.text()).then(parse),
  fetch("/api/about").then((answer) => answer.json()),
]);
const { schemas } = api.components;
const fields = ({ properties, required = [] }) => Object.entries(properties).map(([name, field]) => [
  name, kind(field), required.includes(name) ? "required" : String(field.default ?? ""),
  [field.description, field.examples && `Example: ${field.examples[0]}`].filter(Boolean).join(" "),
]);
const LIMITS = [
  ["bytes of a photograph", about.max_bytes], ["pixels", about.max_pixels], ["colorings at once", about.max_candidates],
  ["seconds for an upload, and for a photograph", about.max_seconds],
];
document.getElementById("limits").append(...LIMITS.map(([name, value]) => (
  make("tr", "", make("td", name), make("td", value.toLocaleString("en")))
)));
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const section = make("section", "", make("h2", `${method.toUpperCase()} ${path}`), make("p", operation.description));
    const form = operation.requestBody?.content["multipart/form-data"]?.schema.$ref;
    if (form) section.append(table(["field", "type", "default", ""], fields(schemas[last(form)])));
    section.append(table(["answer", "", "headers"], Object.entries(operation.responses).map(([code, answer]) => [
      code, [answer.description, Object.keys(answer.content ?? {}).join(", ")].filter(Boolean).join(": "),
      Object.entries(answer.headers ?? {}).map(([name, header]) => `${name}: ${header.description}`).join("; "),
    ])));
    const stream = operation.responses[200]?.content?.["application/x-ndjson"]?.itemSchema;
    for (const { $ref } of stream?.oneOf ?? []) {
      const event = schemas[last($ref)];
      section.append(make("h3", event.properties.event.const), make("p", event.description),
        table(["field", "type", "", ""], fields(event).filter(([name]) => name !== "event")));
    }
    document.getElementById("paths").append(section);
  }
}
for (const name of ["Numbers", "Candidate", "Level", "Problem"]) {
  const section = make("section", "", make("h2", name), make("p", schemas[name].description ?? ""));
  section.append(table(["field", "type", "", ""], fields(schemas[name])));
  document.getElementById("paths").append(section);
}
document.body.dataset.ready = "";
