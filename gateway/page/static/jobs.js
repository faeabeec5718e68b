// Jobs over HTTP: hand one over, watch it by its events, cancel it, fetch its video. Without a database: the form.
import { ApiError, api, askForKey, errorFrom, keyHeaders, unreachable } from "./shared.js";

const FINAL = ["succeeded", "failed", "canceled", "expired"];
const FIRST_PAUSE = 1000; // milliseconds before a lost connection is tried again, doubled each time
const LONGEST_PAUSE = 10_000;
const LOOK_PAUSE = 2000; // after which a job is looked at without an event: for its place in the queue, or what was missed

export const isFinal = (job) => FINAL.includes(job.state);

/** Hand over a job; `onSent(part)` tells how much of the files is sent, from 0 to 1. Return the job. */
export async function submitJob(form, onSent, signal) {
  const headers = { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) };
  return (await upload("v1/jobs", form, { headers, onSent, signal, type: "json" })).response;
}

/** Send the form and wait for the video. Return a job like those of `/v1`, with the video as `blob`. */
export async function sendForm(form, onSent, signal) {
  const answer = await upload("./", form, { headers: {}, onSent, signal, type: "blob" });
  const header = (name) => answer.getResponseHeader(name) ?? "";
  const list = (text, separator) => (text ? text.split(separator) : []);
  const timings = list(header("Server-Timing"), ", ").map((entry) => entry.split(";dur="));
  const blob = answer.response;
  const result = {
    media_type: blob.type === "video/webm" ? blob.type : "video/mp4",
    size: blob.size,
    frames: Number(header("X-Avatar-Frames")),
    frames_without_face: Number(header("X-Avatar-Frames-Without-Face")),
    stand_ins: list(header("X-Avatar-Stand-Ins"), ", "),
    notes: list(header("X-Avatar-Notes"), "; "),
    encoder: header("X-Avatar-Encoder"),
    decoder: header("X-Avatar-Decoder"),
    seconds: Object.fromEntries(timings.map(([name, milliseconds]) => [name, Number(milliseconds) / 1000])),
  };
  return { id: null, state: "succeeded", result, blob: new Blob([blob], { type: result.media_type }) };
}

/** POST a form; XMLHttpRequest tells how much is sent, which fetch does not. */
async function upload(path, form, options) {
  for (;;) {
    const request = await post(path, form, options);
    if (request.status >= 200 && request.status < 300) return request;
    const failure = await failureOf(request);
    if (failure.status !== 401) throw failure;
    await askForKey(failure.detail);
  }
}

function post(path, form, { headers, onSent, signal, type }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("POST", path);
    request.responseType = type;
    for (const [name, value] of Object.entries({ ...headers, ...keyHeaders() })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.total && onSent(event.loaded / event.total));
    request.upload.addEventListener("load", () => onSent(1));
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("canceled", "AbortError")));
    request.addEventListener("loadend", () => signal?.removeEventListener("abort", abort));
    signal?.addEventListener("abort", abort);
    request.send(form);
  });
}

async function failureOf(request) {
  let body = request.response;
  if (body instanceof Blob) {
    const text = await body.text();
    try {
      body = JSON.parse(text);
    } catch {
      body = null; // a proxy answers with its own page
    }
  }
  return errorFrom(request.status, body, request.getResponseHeader("Retry-After"));
}

/** Return a job as it is now. */
export const readJob = async (id, signal) => (await api(`v1/jobs/${id}`, { signal })).json();

/** Cancel a job that has not ended; return it as it is then. */
export const cancelJob = async (id) => (await api(`v1/jobs/${id}?remove=false`, { method: "DELETE" })).json();

/** Return the video of a job as a blob. It comes through the service: the policy of the page allows no other host. */
export const fetchVideo = async (id, signal) => (await api(`v1/jobs/${id}/result?redirect=false`, { signal })).blob();

/**
 * Follow a job until it has ended, and return it then. `onChange(job, isConnected)` gets every change.
 * A lost connection is tried again for as long as it takes. Throws ApiError where the service has no such job.
 */
export async function watchJob(id, onChange, signal) {
  let job = null;
  let pause = FIRST_PAUSE;
  let last = "";
  while (!signal.aborted) {
    try {
      job = await readJob(id, signal);
      onChange(job, true);
      if (isFinal(job)) return job;
      for await (const event of jobEvents(id, last, signal)) {
        pause = FIRST_PAUSE;
        last = event.id || last;
        job = await changed(job, event, id, signal);
        onChange(job, true);
      }
      await sleep(isFinal(job) ? 0 : FIRST_PAUSE, signal); // the stream ended: the job did, or the service is stopped
    } catch (error) {
      if (error.name === "AbortError") return job;
      if (error instanceof ApiError && error.status && error.status < 500 && error.status !== 429) throw error;
      if (job) onChange(job, false);
      await sleep(pause, signal);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }
  return job;
}

async function changed(job, event, id, signal) {
  if (event.type === "progress") return { ...job, state: "running", ...event.data, hasProgress: true };
  if (event.type !== "state" && event.type !== "look") return job;
  const now = await readJob(id, signal); // it has more than the event: its place in the queue, its error, its result
  // while it runs, its record is older than its events
  const isOlder = job.hasProgress && now.state === "running" && now.attempts === job.attempts;
  return isOlder ? { ...now, stage: job.stage, frames_done: job.frames_done, frames_total: job.frames_total, hasProgress: true } : now;
}

/** Yield the events of a job, `{type, id, data}`; also `look`, when none has come for a while. */
async function* jobEvents(id, last, signal) {
  const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
  const response = await api(`v1/jobs/${id}/events`, { headers, signal });
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let next = reader.read();
  try {
    for (;;) {
      const part = await Promise.race([next, sleep(LOOK_PAUSE, signal)]);
      if (!part) {
        yield { type: "look" };
        continue;
      }
      if (part.done) return;
      next = reader.read();
      text += part.value.replaceAll("\r", "");
      const blocks = text.split("\n\n");
      text = blocks.pop();
      yield* blocks.map(parseEvent).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  const lines = block.split("\n").map((line) => /^(\w+): ?(.*)$/.exec(line)).filter(Boolean);
  const fields = Object.fromEntries(lines.map(([, name, value]) => [name, value]));
  return fields.data ? { type: fields.event ?? "message", id: fields.id ?? "", data: JSON.parse(fields.data) } : null;
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end);
  });
}
