// Records speech with the microphone, and shows that it does: a level, a clock.
import { element, status } from "./shared.js";

const TYPES = ["audio/webm;codecs=opus", "audio/mp4", "audio/ogg;codecs=opus"];
const REASONS = {
  NotAllowedError: "The browser does not allow this page to use the microphone. Allow it in the address bar and try again.",
  NotFoundError: "This device has no microphone.",
  NotReadableError: "Another program uses the microphone.",
};

/** Adds a button to a `FileField`, which gets the recording as its file. */
export class Recorder {
  #recorder = null;
  #context = null;
  #ended = null;

  constructor(field) {
    this.field = field;
    this.button = element("button", { type: "button", className: "secondary record" }, "Record");
    this.level = element("span", { className: "level", hidden: true }, element("span"));
    this.clock = element("span", { className: "clock", hidden: true });
    this.root = element("span", { className: "recording" }, this.button, this.level, this.clock);
    field.extra.prepend(this.root);
    this.button.addEventListener("click", () => (this.#recorder ? this.stop() : this.start()));
  }

  async start() {
    this.field.error("");
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      this.field.error("This browser lets a page use the microphone only over https, or on localhost.");
      return;
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, autoGainControl: true } });
    } catch (error) {
      this.field.error(REASONS[error.name] ?? `The microphone does not work: ${error.message}`);
      return;
    }
    const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
    const recorder = new MediaRecorder(stream, { mimeType });
    const chunks = [];
    recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
    recorder.addEventListener("stop", () => this.#finish(stream, recorder, chunks), { once: true });
    recorder.start();
    this.#recorder = recorder;
    this.#show(true);
    this.#measure(stream);
    status("Recording");
  }

  /** End the recording, if there is one; return when the field has it. */
  stop() {
    if (!this.#recorder) return Promise.resolve();
    const ended = new Promise((resolve) => (this.#ended = resolve));
    this.#recorder.stop();
    return ended;
  }

  #finish(stream, recorder, chunks) {
    for (const track of stream.getTracks()) track.stop();
    this.#context?.close();
    this.#recorder = this.#context = null;
    this.#show(false);
    const type = recorder.mimeType.split(";")[0];
    this.field.set(new File(chunks, `recording.${type.split("/")[1]}`, { type }));
    this.#ended?.();
  }

  #show(isOn) {
    this.button.textContent = isOn ? "Stop" : "Record again";
    this.button.classList.toggle("on", isOn);
    this.level.hidden = this.clock.hidden = !isOn;
  }

  #measure(stream) {
    const started = performance.now();
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    this.#context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const draw = () => {
      if (!this.#recorder) return;
      analyser.getFloatTimeDomainData(samples);
      const loudness = Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);
      this.level.firstChild.style.width = `${Math.min(100, Math.round(Math.sqrt(loudness) * 160))}%`;
      const seconds = Math.floor((performance.now() - started) / 1000);
      this.clock.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      requestAnimationFrame(draw);
    };
    draw();
  }
}
