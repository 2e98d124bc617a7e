// What the screens call: a door that throws for refusals, and streams of JSON lines.
import { Lines } from "../engine/lines";
import { BackendError, backend, type Method, type Problem, type Target } from "./index";

/** The engine says `{message}`, the control API a whole problem, a proxy perhaps only text. */
function refusal(target: Target, status: number, body: unknown): BackendError {
  const problem = (typeof body === "object" && body !== null ? body : {}) as Partial<Problem>;
  const message = problem.message ?? (typeof body === "string" && body !== "" ? body.trim() : `HTTP ${status}`);
  const { causes, hint } = problem;
  return new BackendError({ code: problem.code ?? `${target}-refused`, message, causes, hint }, status);
}

export async function call<T>(target: Target, method: Method, path: string, body?: unknown): Promise<T> {
  const answer = await backend.request(target, method, path, body);
  if (answer.status >= 400) throw refusal(target, answer.status, answer.body);
  return answer.body as T;
}

type Query = Record<string, string | number | boolean | string[] | Record<string, string[]> | undefined>;

/** `?all=true&filters={"id":["…"]}`: lists and objects as JSON, as the engine takes them. */
export function query(parameters: Query): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) continue;
    search.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

/** A name as one segment of a path. */
export const segment = (name: string): string => encodeURIComponent(name);

/** An image's name as a path: its slashes are part of it, and nothing else in it is syntax. */
export const imagePath = (name: string): string => name.split("/").map(encodeURIComponent).join("/");

export const control = {
  get: <T>(path: string) => call<T>("control", "GET", `/v1${path}`),
  post: <T>(path: string, body: unknown = {}) => call<T>("control", "POST", `/v1${path}`, body),
  put: <T>(path: string, body: unknown) => call<T>("control", "PUT", `/v1${path}`, body),
  delete: <T>(path: string) => call<T>("control", "DELETE", `/v1${path}`),
};

export const engine = {
  get: <T>(path: string, parameters: Query = {}) => call<T>("engine", "GET", path + query(parameters)),
  post: <T>(path: string, parameters: Query = {}, body?: unknown) => call<T>("engine", "POST", path + query(parameters), body),
  delete: <T>(path: string, parameters: Query = {}) => call<T>("engine", "DELETE", path + query(parameters)),
};

/** A JSON value a line, until the answer ends. */
export async function jsonLines<T>(
  target: Target,
  path: string,
  onValue: (value: T) => void,
  signal: AbortSignal,
  method: Method = "GET",
  body?: unknown,
): Promise<void> {
  const lines = new Lines((line) => {
    if (line.trim() !== "") onValue(JSON.parse(line) as T);
  });
  await backend.stream(target, method, path, body, (bytes) => lines.push(bytes), signal);
  lines.end();
}
