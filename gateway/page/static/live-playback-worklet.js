// Plays the sounds of frames without gaps, and tells the page when each run of them begins: the page shows pictures by
// these runs. Before a run it waits until enough samples are there, so that a late frame does not stop the sound.

const FADE = 0.98; // per sample: a sound that stops at once is heard as a click

class PlaybackProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = []; // {index, atRest, samples}, in order
    this.buffered = 0; // samples in `pieces` that were not played yet
    this.offset = 0; // of the next sample in the first piece
    this.targets = { rest: 0, speech: 0, slack: 0 }; // in samples
    this.epoch = 0; // counts the calls of `clear`: the page ignores what was told before the last one
    this.playing = this.closed = this.complete = false;
    this.expected = -1; // the index that continues the run
    this.last = 0; // the sample that was played last
    this.port.onmessage = ({ data }) => this[`on_${data.type}`](data);
  }

  on_push({ index, atRest, samples }) {
    this.pieces.push({ index, atRest, samples });
    this.buffered += samples.length;
    this.complete = false;
  }

  on_targets({ targets }) {
    this.targets = targets;
  }

  on_complete() {
    this.complete = true; // nothing else comes for now: do not wait for more
  }

  on_clear({ epoch }) {
    this.epoch = epoch;
    this.pieces = [];
    this.buffered = this.offset = 0;
    this.playing = this.complete = false;
  }

  on_close() {
    this.closed = true;
  }

  process(_inputs, outputs) {
    const out = outputs[0][0];
    let n = 0;
    while (n < out.length && this.ready(currentFrame + n)) {
      const { samples } = this.pieces[0];
      const count = Math.min(out.length - n, samples.length - this.offset);
      for (let i = 0; i < count; i++) out[n + i] = samples[this.offset + i] / 32768;
      n += count;
      this.offset += count;
      this.buffered -= count;
      if (this.offset === samples.length) this.next();
      this.last = out[n - 1] ?? this.last;
    }
    for (; n < out.length; n++) out[n] = this.last *= Math.abs(this.last) < 1e-4 ? 0 : FADE;
    return !this.closed;
  }

  /** Whether there is a sample to play at frame `at` of the context; tells the page of runs that begin and end. */
  ready(at) {
    if (!this.playing) {
      if (!this.pieces.length || (this.buffered < this.needed() && !this.complete)) return false;
      this.playing = true;
      this.expected = -1;
    }
    if (!this.pieces.length) {
      this.playing = false;
      this.tell("stall", at, this.expected);
      return false;
    }
    if (this.offset === 0) this.begin(at);
    return true;
  }

  /** Begin the first piece; frames at rest are left out while more is buffered than needed. */
  begin(at) {
    while (this.pieces.length > 1 && this.pieces[0].atRest && this.excess() > this.targets.slack) {
      this.buffered -= this.pieces.shift().samples.length;
    }
    const { index } = this.pieces[0];
    if (index !== this.expected) this.tell("run", at, index);
    this.expected = index + 1;
  }

  excess() {
    return this.buffered - this.pieces[0].samples.length - this.targets.rest;
  }

  /** Samples to have before a run: the first speech after rest comes late by the latency of the session. */
  needed() {
    return this.pieces[0].atRest ? this.targets.rest : this.targets.speech;
  }

  tell(type, at, index) {
    this.port.postMessage({ type, at, index, epoch: this.epoch });
  }

  next() {
    this.pieces.shift();
    this.offset = 0;
  }
}

registerProcessor("live-playback", PlaybackProcessor);
