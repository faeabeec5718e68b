// Plays frames with their sound: the sound runs on the audio clock, and each picture is shown when its sound is heard.

const DECODED_AHEAD = 0.4; // seconds of pictures that are decoded before their time
const DISPLAY = 0.008; // seconds until a drawn picture is seen, about half of a screen's refresh
const MARGIN = 0.1; // seconds of sound to hold against late frames; at rest, what the first speech needs, too
const MOST_MARGIN = 1;
const SLACK = 0.1; // seconds more than needed that may stay in the buffer while the face is at rest
const HIDDEN_MS = 500; // a page that is not drawn for this long is in the background: nothing is late there
const CLOCKS_AGREE = 0.2; // seconds; a browser whose two clocks differ by more has one that cannot be used

/** Return the time of the context, in seconds, of the sample that is heard now. */
export function heardTime(context, now = performance.now()) {
  const latency = context.outputLatency || context.baseLatency || 0;
  const plain = context.currentTime - latency;
  const { contextTime, performanceTime } = context.getOutputTimestamp?.() ?? {};
  if (!performanceTime) return plain;
  const exact = contextTime + (now - performanceTime) / 1000;
  return Math.abs(exact - plain) < CLOCKS_AGREE ? exact : plain;
}

/** Which frame is heard at which time: runs of frames without a gap, each with the time at which it began. */
export class Timeline {
  constructor(fps) {
    this.fps = fps;
    this.runs = []; // {index, from, to}: the time of the context in seconds
  }

  begin(index, from) {
    this.end(from);
    this.runs.push({ index, from, to: Infinity });
    if (this.runs.length > 100) this.runs.shift();
  }

  end(to) {
    const last = this.runs.at(-1);
    if (last) last.to = Math.min(last.to, to);
  }

  /** Return the frame of a time, or null where nothing plays. */
  frameAt(time) {
    const run = this.runs.findLast(({ from }) => from <= time);
    if (!run || time >= run.to) return null;
    return run.index + Math.floor((time - run.from) * this.fps + 1e-6);
  }

  /** Return when a frame is heard, or null where no run has reached it. */
  timeOf(index) {
    const run = this.runs.findLast((each) => each.index <= index);
    if (!run) return null;
    const time = run.from + (index - run.index) / this.fps;
    return time < run.to ? time : null;
  }
}

export class Player {
  /**
   * Connects to the context's destination; `canvas` gets the pictures. `latency` is that of the session; `lead` says how
   * many seconds of the first speech after a rest are sent at once.
   */
  constructor(context, canvas, { fps, latency, lead = 0 }) {
    Object.assign(this, { context, canvas, fps, wait: Math.max(0, latency - lead) });
    this.painter = canvas.getContext("2d");
    this.timeline = new Timeline(fps);
    this.frames = new Map(); // by index: {jpeg, atRest, bitmap, decoding}; those that were not shown yet
    this.margin = MARGIN;
    this.shown = this.newest = -1;
    this.counts = { shown: 0, late: 0, stalls: 0 };
    this.epoch = 0; // see the worklet
    this.painted = false;
    this.drawn = performance.now();
    this.times = []; // of the pictures of the last seconds, for the rate
    this.stillAtRest = false; // show no movement while nobody speaks
    this.closed = this.speaking = false;
    this.node = new AudioWorkletNode(context, "live-playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.onSound(data);
    this.node.connect(context.destination);
    this.setTargets();
    this.draw = this.draw.bind(this);
    this.request = requestAnimationFrame(this.draw);
  }

  /** Queue a frame of `parseFrame`. */
  push({ index, atRest, sound, jpeg }) {
    if (this.closed) return;
    if (this.isHidden()) this.dropBefore(this.timeline.frameAt(heardTime(this.context)) ?? 0, true);
    const samples = sound.length ? sound : new Int16Array(this.samplesOf(index));
    this.frames.set(index, { jpeg, atRest, bitmap: null, decoding: false });
    this.newest = index;
    this.speaking = !atRest;
    this.node.port.postMessage({ type: "push", index, atRest, samples }, [samples.buffer]);
    this.decode();
  }

  /** Play what is there without waiting for more: a segment has ended. */
  complete() {
    this.speaking = false;
    this.node.port.postMessage({ type: "complete" });
    this.margin = Math.max(MARGIN, this.margin * 0.95);
    this.setTargets();
  }

  /** Stop sound and pictures at once; return the index of the picture that stays. */
  clear() {
    this.epoch += 1;
    this.node.port.postMessage({ type: "clear", epoch: this.epoch });
    this.timeline.runs = [];
    this.dropBefore(Infinity, true);
    this.speaking = this.painted = false; // the next picture is shown as soon as it comes: the mouth closes
    return this.shown;
  }

  close() {
    this.clear();
    this.closed = true;
    cancelAnimationFrame(this.request);
    this.node.port.postMessage({ type: "close" });
    this.node.disconnect();
  }

  /** Return what the page tells of the playback: rate, late frames, seconds in the buffer. */
  figures() {
    const now = performance.now();
    this.times = this.times.filter((time) => now - time < 2000);
    const heard = this.timeline.frameAt(heardTime(this.context));
    const ahead = heard === null ? 0 : Math.max(0, this.newest + 1 - heard) / this.fps;
    return { ...this.counts, rate: this.times.length / 2, buffer: ahead, target: this.wait + this.margin };
  }

  samplesOf(index) {
    const at = (n) => Math.round((n * this.context.sampleRate) / this.fps);
    return at(index + 1) - at(index);
  }

  setTargets() {
    const rate = this.context.sampleRate;
    const seconds = { rest: this.wait + this.margin, speech: this.margin, slack: SLACK };
    const targets = Object.fromEntries(Object.entries(seconds).map(([name, each]) => [name, Math.round(each * rate)]));
    this.node.port.postMessage({ type: "targets", targets });
  }

  onSound({ type, at, index, epoch }) {
    if (epoch !== this.epoch) return;
    const time = at / this.context.sampleRate;
    if (type === "run") return this.timeline.begin(index, time);
    this.timeline.end(time);
    if (!this.speaking || index < 0) return;
    this.counts.stalls += 1;
    this.margin = Math.min(MOST_MARGIN, this.margin * 1.5);
    this.setTargets();
  }

  draw(now) {
    this.request = requestAnimationFrame(this.draw);
    const due = this.timeline.frameAt(heardTime(this.context) + DISPLAY);
    const wasHidden = this.isHidden(now);
    this.drawn = now;
    if (due === null) return void (this.painted || this.paintFirst());
    this.dropBefore(due, wasHidden);
    const frame = this.frames.get(due);
    if (frame?.bitmap) this.paint(due, frame);
    this.decode(due);
  }

  /** Whether the browser does not draw the page: it is in the background. */
  isHidden(now = performance.now()) {
    return now - this.drawn > HIDDEN_MS;
  }

  /** Show the face before anything plays. */
  paintFirst() {
    const first = this.frames.values().next().value;
    if (first?.bitmap) this.copy(first.bitmap);
  }

  copy(bitmap) {
    this.painter.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.painted = true;
  }

  paint(index, frame) {
    if (!(frame.atRest && this.stillAtRest && this.painted)) this.copy(frame.bitmap);
    this.shown = index;
    this.counts.shown += 1;
    this.times.push(performance.now());
    frame.bitmap.close();
    this.frames.delete(index);
  }

  /** Drop the frames whose time is over: a late picture is never shown, so that lips cannot lag. */
  dropBefore(index, quietly = false) {
    for (const [n, frame] of this.frames) {
      if (n >= index) break;
      frame.bitmap?.close();
      frame.dropped = true;
      this.frames.delete(n);
      if (!quietly && !frame.atRest && !frame.bitmap) this.counts.late += 1;
    }
  }

  /** Decode the pictures that are due soon. */
  decode(due = this.shown + 1) {
    const last = Math.max(due, this.frames.keys().next().value ?? 0) + DECODED_AHEAD * this.fps;
    for (const [index, frame] of this.frames) {
      if (index > last) break;
      if (!frame.decoding) this.decodeFrame(frame);
    }
  }

  async decodeFrame(frame) {
    frame.decoding = true;
    const bitmap = await createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" })).catch(() => null);
    frame.jpeg = null;
    if (frame.dropped) bitmap?.close();
    else frame.bitmap = bitmap;
  }
}
