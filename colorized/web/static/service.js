// Requests to the service.

// Something went wrong; the message is for people.
export class Trouble extends Error {}

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
});

// POST a form; when the room is full, wait as long as it says and ask again.
async function post(path, fields, signal, full) {
  for (;;) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    let answer;
    try {
      answer = await fetch(path, { method: "POST", body: form, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Trouble("The service does not answer. Your photograph is still here.");
    }
    if (answer.ok) return answer;
    if (answer.status === 429) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      full(seconds);
      await pause(1000 * seconds, signal);
      continue;
    }
    if (answer.status === 401) location.assign("/signin");
    const problem = await answer.json().catch(() => ({}));
    throw new Trouble(problem.error ?? `The service answered ${answer.status}.`);
  }
}

// What the service tells while it colors, event by event; ends after "done".
export async function* preview(fields, signal, full) {
  const answer = await post("/api/preview", fields, signal, full);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      part = { done: true };
    }
    if (part.done) throw new Trouble("The service broke off. Your photograph is still here.");
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "error") throw new Trouble(event.error);
      yield event;
      if (event.event === "done") return;
    }
  }
}

export async function colorize(fields, signal, full) {
  const answer = await post("/api/colorize", fields, signal, full);
  try {
    return await answer.blob();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Trouble("The service broke off. Your photograph is still here.");
  }
}

export async function about() {
  return (await fetch("/api/about")).json();
}
