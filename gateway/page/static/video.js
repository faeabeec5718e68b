// The tab "Make a video": the form, the job that it starts, and the last jobs.
import * as history from "./history.js";
import { cancelJob, fetchVideo, isFinal, sendForm, submitJob, watchJob } from "./jobs.js";
import { OptionsForm } from "./options.js";
import { Recorder } from "./recorder.js";
import { asset, chooseFace, element, FileField, find, optionsSchema, problem, serviceIndex, status } from "./shared.js";
import { focusStage, ProgressView, showFailure, showNothing, showNotice, showVideo } from "./stage.js";

const form = find("#video-form");
const submitButton = find("#submit-button");
const sampleButton = find("#sample-button");
const alertRegion = find("#form-alert");
const onChange = () => form.classList.toggle("ready", Boolean(face.file && speech.file)); // its button stays in view
const face = chooseFace(find("#face-field"), { onChange });
const speech = new FileField(find("#speech-field"), {
  name: "audio_file",
  label: "Speech",
  hint: "Or the sound of a video.",
  accept: "audio/*,video/*",
  onChange,
});
const recorder = new Recorder(speech);

let options = null; // the form of the options, once the schema is there
let hasJobs = true; // whether the service keeps jobs
let current = null; // what the stage shows: {id, controller}
let isSending = false;
let videoUrl = null;

/** Begin to show something else: what was shown is not followed any more; a job goes on. */
function begin(id = null) {
  current?.controller.abort();
  if (videoUrl) URL.revokeObjectURL(videoUrl);
  videoUrl = null;
  current = { id, controller: new AbortController() };
  showHistory();
  return current;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!isSending) send();
});

let sample = null; // what loads the sample: who clicks fast does not have to wait for it
sampleButton.addEventListener("click", () => (sample = chooseSample()));

async function chooseSample() {
  try {
    const files = [asset("sample-face.jpg", "image/jpeg"), asset("sample-speech.mp3", "audio/mpeg")];
    const [picture, voice] = await Promise.all(files);
    face.set(picture);
    speech.set(voice);
    problem(alertRegion, "");
    status("The sample is chosen. Make the video.");
    if (document.activeElement === sampleButton) submitButton.focus();
  } catch (error) {
    problem(alertRegion, error.detail ?? String(error));
  }
}

/** Return whether both files are there; say at their fields if not. */
function isComplete() {
  const missing = [face, speech].filter((field) => !field.file);
  face.error(face.file ? "" : "Choose a picture or a video of a face, or try the sample.");
  speech.error(speech.file ? "" : "Choose or record a speech, or try the sample.");
  missing[0]?.focus();
  return !missing.length;
}

function formData() {
  const data = new FormData();
  data.append("face_file", face.file, face.file.name);
  data.append("audio_file", speech.file, speech.file.name);
  data.append("avatarFileType", /\.(\w+)$/.exec(face.file.name)?.[1] ?? (face.file.type.startsWith("image") ? "png" : "mp4"));
  const values = options?.values() ?? { background: "From Input" };
  for (const [name, value] of Object.entries(values)) data.append(name, value);
  return data;
}

async function send() {
  isSending = true;
  await Promise.all([sample, recorder.stop()]); // who makes the video while recording has said it all
  options?.clearErrors();
  problem(alertRegion, "");
  if (!isComplete()) {
    isSending = false;
    return;
  }
  setSending(true);
  const shown = begin();
  const name = `${stem(face.file.name)}-${stem(speech.file.name)}`;
  const sent = { face: face.file.name, speech: speech.file.name, name, at: Date.now() };
  const progress = new ProgressView({ hasJobs, onCancel: () => cancel(shown, progress) });
  progress.sent(0);
  focusStage();
  try {
    const picture = history.smallPicture(find("img, video", face.preview));
    const job = await handOver(formData(), progress, shown.controller.signal);
    if (job.blob) {
      finish({ ...job, name }, shown, true);
    } else {
      shown.id = job.id;
      history.remember({ ...sent, id: job.id, state: job.state, picture: await picture });
      showHistory();
      follow(shown, progress, true);
    }
  } catch (error) {
    reject(error);
  } finally {
    setSending(false);
  }
}

async function handOver(data, progress, signal) {
  if (hasJobs) {
    try {
      return await submitJob(data, (part) => progress.sent(part), signal);
    } catch (error) {
      if (error.code !== "no_database") throw error;
      hasJobs = false;
    }
  }
  return sendForm(data, (part) => progress.sent(part, true), signal);
}

function setSending(isOn) {
  isSending = isOn;
  submitButton.setAttribute("aria-disabled", String(isOn));
  submitButton.textContent = isOn ? "Sending…" : "Make the video";
}

window.addEventListener("beforeunload", (event) => isSending && event.preventDefault());

/** Show an error of the service: at its field if it names one, else above the button. */
function reject(error) {
  if (error.name === "AbortError") {
    showNotice("Canceled", "Nothing was made.");
    return;
  }
  const detail = error.detail ?? String(error);
  showNothing();
  if (atField(error.field, detail)) return;
  problem(alertRegion, detail + (error.retryAfter ? ` Try again in ${error.retryAfter} s.` : ""));
  alertRegion.scrollIntoView({ block: "nearest" });
}

/** Show a sentence at a field of the form and go there; return whether there is such a field. */
function atField(name, detail) {
  const field = [face, speech].find((each) => each.name === name);
  if (!field) return name ? (options?.error(name, detail) ?? false) : false;
  field.error(detail);
  field.focus();
  return true;
}

/** Follow a job until it has ended, and show what became of it. `isOwn`: the form has its files still. */
async function follow(shown, progress, isOwn) {
  try {
    const onEvent = (job, isConnected) => {
      if (isFinal(job)) return;
      progress.job(job, isConnected);
      noteState(job);
    };
    const job = await watchJob(shown.id, onEvent, shown.controller.signal);
    if (shown.controller.signal.aborted) return;
    noteState(job);
    await showEnd(job, shown, isOwn);
  } catch (error) {
    if (error.name === "AbortError" || shown.controller.signal.aborted) return;
    if (error.status === 404) history.forget(shown.id);
    showHistory();
    showFailure("There is no video", error.detail ?? String(error));
  }
}

/** Write down the state of a job, if the list has the job and another state. */
function noteState({ id, state }) {
  const known = history.jobs().find((job) => job.id === id);
  if (!known || known.state === state) return;
  history.remember({ id, state });
  showHistory();
}

async function showEnd(job, shown, isOwn) {
  if (job.state === "succeeded") return finish(job, shown, isOwn);
  if (job.state === "canceled") return showNotice("Canceled", "The job was canceled.");
  if (job.state === "expired") return showNotice("The video is gone", "The service removes videos after a while.");
  const detail = job.error?.detail ?? "The job failed.";
  showFailure("There is no video", detail);
  if (isOwn) atField(fieldOfJob(job.error), detail);
}

const fieldOfJob = (error) => (error?.code === "face_not_found" ? "face_file" : /^(\w+): /.exec(error?.detail ?? "")?.[1]);

async function finish(job, shown, isPlayed) {
  const blob = job.blob ?? (await fetchVideo(job.id, shown.controller.signal));
  if (shown.controller.signal.aborted) return;
  videoUrl = URL.createObjectURL(blob);
  const known = history.jobs().find((each) => each.id === job.id);
  const kind = job.result.media_type.split("/")[1];
  showVideo(job, videoUrl, `${known?.name ?? job.name ?? "avatar"}.${kind}`, isPlayed);
  const focused = document.activeElement;
  if (!focused || focused === document.body || find("#stage").contains(focused)) focusStage();
}

async function cancel(shown, progress) {
  progress.canceling();
  if (!shown.id) {
    shown.controller.abort();
    return;
  }
  try {
    await cancelJob(shown.id); // its events tell the end
  } catch (error) {
    problem(progress.note, error.detail ?? String(error));
  }
}

/** Show a job of the list. */
function open(id, isAsked = true) {
  const shown = begin(id);
  const progress = new ProgressView({ hasJobs: true, onCancel: () => cancel(shown, progress) });
  progress.job({ state: "running" }, true);
  if (isAsked) focusStage();
  return follow(shown, progress, false);
}

const STATES = { queued: "waiting", running: "being made", succeeded: "", failed: "failed", canceled: "canceled", expired: "removed" };

function showHistory() {
  const jobs = history.jobs();
  find("#history").hidden = !jobs.length;
  find("#history-list").replaceChildren(...jobs.map(historyItem));
}

function historyItem(job) {
  const when = new Date(job.at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const state = STATES[job.state];
  const picture = job.picture
    ? element("img", { src: job.picture, alt: "" })
    : element("span", { className: "no-picture" });
  const title = element("span", { className: "title" }, job.face);
  const line = element("span", { className: "when" }, state ? `${when} · ${state}` : when);
  const isShown = current?.id === job.id ? "true" : null;
  const button = element("button", { type: "button", "aria-current": isShown }, picture, element("span", {}, title, line));
  button.addEventListener("click", () => open(job.id));
  return element("li", {}, button);
}

find("#forget-button").addEventListener("click", () => {
  history.forgetAll();
  showHistory();
  form.scrollIntoView({ block: "nearest" });
  face.focus();
});

const stem = (name) => name.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "-").slice(0, 40) || "file";

async function showOptions() {
  options = new OptionsForm(find("#common-options"), find("#other-options"), await optionsSchema());
  find("#options").hidden = false;
}

/** Start the tab; a job that had not ended when the page was closed goes on being shown. */
export async function start() {
  showNothing();
  showHistory();
  const running = history.jobs().find((job) => ["queued", "running"].includes(job.state));
  if (running) open(running.id, false);
  await showOptions().catch((error) => problem(alertRegion, error.detail ?? String(error)));
  hasJobs = (await serviceIndex()).jobs !== null;
  find("#no-jobs").hidden = hasJobs;
}
