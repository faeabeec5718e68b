// The tab "Talk live": a face, a microphone, and the face that says your words back.

import { isPossible } from "./live-microphone.js";
import { Talk } from "./live-talk.js";
import { api, apiKey, asset, askForKey, chooseFace, fieldOf, find, problem, serviceIndex, status } from "./shared.js";

const HIDDEN = "The microphone is muted: this tab is not shown.";
const READY = "Speak: the face says your words back.";
const BEHIND = "The service makes frames more slowly than you speak: the face comes later.";
const MOST_BEHIND = 2; // seconds of speech
const FIGURES_MS = 500;
const LOUD = 0.25; // RMS of a loud voice: the full width of the meter
const part = (name) => find(`#live-${name}`);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const face = chooseFace(part("face"), { id: "live-face-file", onChange: () => show() });
let talk = null;
let timer = 0;
let loudness = 0;
let prepared = null; // {face: what was chosen, avatar: the id that the last session gave it}

const chosen = () => part("kept").value || face.file;

/** Enable what can be done now. */
function show(state) {
  const running = Boolean(talk?.player);
  part("start").disabled = part("sample").disabled = Boolean(talk);
  part("form").setAttribute("aria-busy", String(Boolean(talk) && !running));
  for (const name of ["interrupt", "mute", "say"]) part(name).disabled = !running;
  part("end").disabled = !talk;
  face.root.hidden = Boolean(part("kept").value);
  if (state) part("state").textContent = state;
}

async function start() {
  problem(part("alert"), "");
  face.error("");
  if (!isPossible()) {
    problem(part("alert"), "The browser gives a page the microphone only over HTTPS, or at http://localhost.");
    return;
  }
  if (!chosen()) {
    face.error("Choose a face first, or use the sample face.");
    face.focus();
    return;
  }
  part("start").textContent = "Start talking";
  await open(chosen(), prepared?.face === chosen() ? prepared.avatar : null);
}

/** Open a session with a face; `avatar` is the id of the same face that an earlier session prepared. */
async function open(wanted, avatar) {
  const mine = (talk = new Talk(part("canvas"), {
    ready: (info) => onReady(wanted, info),
    microphoneLost: () => problem(part("alert"), "The microphone was disconnected."),
    slow: () => problem(part("alert"), "The network takes less than you say: words are missing."),
    speaking: (isSpeaking) => part("stage").classList.toggle("speaking", isSpeaking),
    level: (value) => (loudness = value),
    close: (error) => talk === mine && onClose(error, wanted, avatar),
  }));
  mine.stillAtRest = calm.matches;
  show("Connecting …");
  const kept = typeof wanted === "string" ? wanted : null;
  const options = { avatar: avatar || kept, face: kept ? null : wanted, key: apiKey() };
  try {
    const missing = await mine.start({ ...options, echoCancellation: part("echo").checked });
    if (missing) problem(part("alert"), `${missing.message} Without it, the face can only say the sample.`);
    if (talk === mine && !mine.player) show("The service looks for the face …");
  } catch (error) {
    mine.finish({ detail: `The browser cannot play sound: ${error.message}` });
  }
}

function onReady(wanted, info) {
  prepared = { face: wanted, avatar: info.avatar };
  part("placeholder").hidden = true;
  part("canvas").hidden = false;
  part("figures").hidden = false;
  part("latency").textContent = seconds(info.latency);
  setMuted(false);
  timer = setInterval(showFigures, FIGURES_MS);
  show(READY);
  part("interrupt").focus();
}

async function onClose(error, wanted, avatar) {
  const wasOpen = Boolean(talk.player);
  talk = null;
  clearInterval(timer);
  part("level").value = 0;
  part("stage").classList.remove("speaking");
  if (!error) return void show("The session has ended.");
  if (error.status === 404 && avatar) return void open(wanted, null); // the service forgot it: send the file again
  show(wasOpen ? "The session was lost." : "The session could not start.");
  if (error.status === 401 && !wasOpen) {
    return void askForKey(error.detail).then(start, () => problem(part("alert"), error.detail));
  }
  tell(error, wasOpen);
}

/** Show an error in the service's words, at the field that it names. */
function tell({ detail, code, field, request_id, retry_after }, wasOpen) {
  const later = retry_after ? ` Try again in ${retry_after} s.` : "";
  const text = `${detail.replace(/[^.!?]$/, "$&.")}${later}${request_id ? ` (request ${request_id})` : ""}`;
  if (wasOpen) part("start").textContent = "Connect again";
  if ((field ?? fieldOf(code ?? null, detail)) === "face_file" && !part("kept").value) {
    face.error(text);
    face.focus();
    return;
  }
  problem(part("alert"), text);
  part("start").focus();
}

function showFigures() {
  const figures = talk?.figures();
  if (!figures) return;
  part("delay").textContent = figures.delay === null ? "–" : seconds(figures.delay);
  part("rate").textContent = figures.rate.toFixed(1);
  part("late").textContent = String(figures.late);
  part("buffer").textContent = seconds(figures.buffer);
  part("gaps").textContent = String(figures.stalls);
  part("level").value = Math.min(1, loudness / LOUD);
  const isBehind = figures.behind > MOST_BEHIND;
  if (isBehind !== (part("state").textContent === BEHIND)) show(isBehind ? BEHIND : READY);
}

const seconds = (value) => `${value.toFixed(2)} s`;

function setMuted(isMuted) {
  part("mute").setAttribute("aria-pressed", String(isMuted));
  talk?.mute(isMuted);
}

function interrupt() {
  if (!talk?.player) return;
  talk.interrupt();
  show("Interrupted. Speak again when you like.");
}

const complain = ({ message }) => problem(part("alert"), message);

async function useSample() {
  const file = await asset("sample-face.jpg", "image/jpeg");
  part("kept").value = "";
  face.set(file);
}

async function say() {
  const speech = await asset("sample-speech.mp3", "audio/mpeg");
  await talk?.say(speech);
}

/** Offer the faces that the jobs API keeps, if there are any. Nobody is asked for a key for that. */
async function offerKept() {
  const { jobs, needs_key } = await serviceIndex();
  if (!jobs || (needs_key && !apiKey())) return;
  const { avatars } = await (await api("v1/avatars")).json();
  const select = part("kept");
  const options = avatars.map(({ id, width, height, frames, created_at: at }) => {
    const kind = frames ? "video" : "picture";
    return new Option(`${kind} ${width}×${height}, kept ${new Date(at).toLocaleString()}`, id);
  });
  const value = select.value;
  select.replaceChildren(new Option("None: use the file above", ""), ...options);
  select.value = avatars.some(({ id }) => id === value) ? value : "";
  part("kept-field").hidden = !options.length;
  show();
}

part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
part("sample").addEventListener("click", () => useSample().catch(complain));
part("kept").addEventListener("change", () => show());
part("interrupt").addEventListener("click", interrupt);
part("mute").addEventListener("click", () => {
  setMuted(!talk.isMuted);
  show(talk.isMuted ? "The microphone is muted." : "The microphone is on.");
});
part("say").addEventListener("click", () => say().catch(complain));
part("end").addEventListener("click", () => {
  talk?.end();
  part("start").focus();
});
find("#panel-live").addEventListener("keydown", ({ key }) => key === "Escape" && interrupt());
find("#panel-live").addEventListener("hidden", () => {
  if (!talk?.player || talk.isMuted) return;
  setMuted(true);
  show(HIDDEN);
  status(HIDDEN);
});
find("#panel-live").addEventListener("shown", () => offerKept().catch(() => {}));
window.addEventListener("pagehide", () => talk?.end());
offerKept().catch(() => {});
show();
