// /openapi.json as a page.
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

function range({ minimum, maximum, enum: values, type, format, contentMediaType }) {
  if (values) return values.join(", ");
  if (minimum !== undefined) return `${type}, ${minimum} … ${maximum}`;
  return format ?? (contentMediaType ? "file" : type);
}

document.getElementById("example").textContent =
  `curl -F file=@photo.jpg -F seed=1 ${location.origin}/api/colorize -o color.png`;

const api = await (await fetch("/openapi.json")).json();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const section = make("section", "", make("h2", `${method.toUpperCase()} ${path}`), make("p", operation.description));
    const form = operation.requestBody?.content["multipart/form-data"]?.schema.$ref;
    if (form) {
      const { properties, required } = api.components.schemas[form.split("/").pop()];
      section.append(table(["field", "is", "default", ""], Object.entries(properties).map(([name, field]) => (
        [name, range(field), required.includes(name) ? "needed" : String(field.default), field.description ?? ""]
      ))));
    }
    section.append(table(["answer", ""], Object.entries(operation.responses).map(([code, answer]) => (
      [code, `${answer.description}: ${Object.keys(answer.content ?? {}).join(", ")}`]
    ))));
    document.getElementById("paths").append(section);
  }
}
document.body.dataset.ready = "";
