// What is being made: the progress of a job, then its video and figures, or why there is none.
import { element, find, problem, sizeText, status } from "./shared.js";

const STEPS = ["Send the files", "Wait for a place", "Prepare face and speech", "Make the frames", "Save the video"];
const [SENDING, WAITING, PREPARING, FRAMES, SAVING] = STEPS.keys();
const STAGE_STEPS = { fetch: PREPARING, speech: PREPARING, memory: PREPARING, encode: FRAMES, store: SAVING, send: SAVING };
const TITLE = document.title;
const MIN_PART = 0.05; // of the frames, after which the time that is left can be told

const body = find("#stage-body");
const title = find("#stage-title");

function show(heading, ...children) {
  title.textContent = heading;
  body.replaceChildren(...children);
  document.title = TITLE;
}

/** Show what will be here. */
export function showNothing() {
  const picture = find("#placeholder").content.cloneNode(true);
  show("Your video", element("div", { className: "placeholder" }, picture, element("p", {}, "It appears here.")));
}

/** The progress of one job. `onCancel` is called when the person cancels. */
export class ProgressView {
  #announced = "";
  #started = null;

  constructor({ hasJobs, onCancel }) {
    this.label = element("strong", {});
    this.count = element("span", {});
    this.bar = element("progress", { className: "bar", max: 1, "aria-label": "Progress" });
    this.cancelButton = element("button", { type: "button", className: "secondary" }, "Cancel");
    this.cancelButton.addEventListener("click", onCancel);
    this.steps = STEPS.map((step) => element("li", {}, step));
    this.note = element("div", { role: "alert" });
    show(
      "Making your video",
      element("div", { className: "progress-head" }, this.label, this.count),
      this.bar,
      ...(hasJobs ? [element("ol", { className: "steps" }, ...this.steps)] : []),
      this.note,
      element("div", { className: "actions" }, this.cancelButton),
    );
  }

  /** Show how much of the files is sent; `isForm`: the video is the answer. */
  sent(part, isForm = false) {
    if (part < 1) this.#update(SENDING, "Sending the files", part, `${Math.round(part * 100)} %`);
    else if (isForm) this.#update(FRAMES, "Making the video", null, "");
    else this.#update(WAITING, "The files are sent", null, "");
  }

  /** Show a job that has not ended. */
  job(job, isConnected) {
    problem(this.note, isConnected ? "" : "The connection is lost. Trying again; the job goes on.");
    if (job.state === "queued") {
      this.#update(WAITING, "Waiting for a place", null, job.place ? `place ${job.place}` : "");
      return;
    }
    const step = STAGE_STEPS[job.stage] ?? PREPARING;
    const { frames_done: done, frames_total: total } = job;
    if (job.stage !== "encode" || !total) {
      const label = job.stage === "memory" ? "Waiting for memory" : STAGE_STEPS[job.stage] ? STEPS[step] : job.stage;
      this.#update(step, label ?? "Starting", null, total ? `${total} frames` : "");
      return;
    }
    this.#update(step, STEPS[step], done / total, `${done} of ${total} frames${this.#left(done, total)}`);
  }

  #left(done, total) {
    this.#started ??= { at: performance.now(), done };
    const made = done - this.#started.done;
    if (made / total < MIN_PART) return "";
    const seconds = ((performance.now() - this.#started.at) / 1000 / made) * (total - done);
    return seconds < 2 ? "" : `, ${duration(seconds)} left`;
  }

  #update(step, label, part, count) {
    this.label.textContent = label;
    this.count.textContent = count;
    if (part === null) this.bar.removeAttribute("value");
    else this.bar.value = part;
    for (const [index, item] of this.steps.entries()) {
      item.className = index < step ? "done" : index === step ? "now" : "";
      if (index === step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    document.title = part === null ? `… ${TITLE}` : `${Math.round(part * 100)} % · ${TITLE}`;
    // a screen reader gets each step, and each quarter of it
    const announcement = part === null || step === SENDING ? label : `${label}: ${Math.floor(part * 4) * 25} %`;
    if (announcement !== this.#announced) status((this.#announced = announcement));
  }

  /** Show that the job is being canceled. */
  canceling() {
    this.cancelButton.setAttribute("aria-disabled", "true");
    this.label.textContent = "Canceling";
  }
}

/** Show the video and its figures. `name`: of the file; `isPlayed`: at once. */
export function showVideo(job, url, name, isPlayed) {
  const { result } = job;
  const video = element("video", { src: url, controls: true, playsInline: true, "aria-label": "Your video" });
  video.classList.toggle("clear", result.media_type === "video/webm");
  const download = element("a", { className: "primary", href: url, download: name }, "Download");
  show(
    "Your video",
    ...standIns(result.stand_ins),
    video,
    element("div", { className: "actions" }, download),
    figures(job, video),
    ...notes(result),
    timings(result.seconds),
  );
  status("The video is ready");
  if (isPlayed && !matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
}

function standIns(names) {
  if (!names?.length) return [];
  const text = `Made with stand-ins (${names.join(", ")}): real models would give another video.`;
  return [element("p", { className: "note", id: "video-stand-ins" }, text)];
}

function figures(job, video) {
  const { result } = job;
  const length = element("dd", {}, result.duration ? `${result.duration.toFixed(1)} s` : "…");
  video.addEventListener("loadedmetadata", () => (length.textContent = `${video.duration.toFixed(1)} s`));
  const took = job.finished_at ? (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000 : null;
  const rows = [
    ["Frames", result.frames],
    ["Length", length],
    ["Frame rate", result.fps ? `${Number(result.fps.toFixed(2))} fps` : null],
    ["Made in", took === null ? null : duration(took)],
    ["Size", sizeText(result.size)],
    ["Without a face", result.frames_without_face || null],
    ["Encoder", result.encoder],
  ];
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const pairs = shown.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), value instanceof Node ? value : element("dd", {}, String(value))),
  );
  return element("dl", { className: "figures" }, ...pairs);
}

const notes = (result) => (result.notes ?? []).map((note) => element("p", { className: "note" }, note));

function timings(seconds) {
  const rows = Object.entries(seconds ?? {}).map(([stage, spent]) =>
    element("tr", {}, element("th", { scope: "row" }, stage), element("td", {}, `${spent.toFixed(2)} s`)),
  );
  const table = element("table", {}, element("tbody", {}, ...rows));
  const hint = element("p", { className: "hint" }, "Stages overlap.");
  return element("details", {}, element("summary", {}, "Time of each stage"), table, hint);
}

/** Show why there is no video, and what can be done about it. */
export function showFailure(heading, detail, ...actions) {
  const region = element("div", { role: "alert" });
  show(heading, region, ...(actions.length ? [element("div", { className: "actions" }, ...actions)] : []));
  problem(region, detail);
}

/** Show a sentence without alarm, such as that a job was canceled. */
export function showNotice(heading, text) {
  show(heading, element("div", { className: "placeholder" }, element("p", {}, text)));
  status(`${heading}. ${text}`);
}

/** Move the focus to the heading: who uses a keyboard or a screen reader continues there. */
export function focusStage() {
  title.focus({ preventScroll: true });
  title.closest("section").scrollIntoView({ block: "nearest" });
}

function duration(seconds) {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
