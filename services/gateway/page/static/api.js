// Reading the gateway. Every error is a problem document; its detail says what to do.

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.title = problem.title;
    this.status = problem.status;
    this.check = problem.check ?? [];
  }
}

const SILENT = "The gateway does not answer. Is `trueward up` still running? The page tries again by itself.";

export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return answer(await asked(text ? `${path}?${text}` : path, { signal }));
}

export async function post(path, body, headers) {
  const options = {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", ...headers },
  };
  return answer(await asked(path, options));
}

async function asked(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError({ title: "No answer", status: 0, detail: SILENT });
  }
}

async function answer(response) {
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError({ title: "No answer", status: response.status, detail: SILENT });
  }
  if (!response.ok) throw new ProblemError(body);
  return body;
}
