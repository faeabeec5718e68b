// Takes the microphone's sound in pieces of INT16, with the loudness of each, at the rate of the context.

class CaptureProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions: { size } }) {
    super();
    this.piece = new Int16Array(size);
    this.count = 0;
    this.squares = 0;
    this.closed = false;
    this.port.onmessage = () => (this.closed = true);
  }

  process(inputs) {
    for (const sample of inputs[0][0] ?? []) {
      const value = Math.max(-1, Math.min(1, sample));
      this.squares += value * value;
      this.piece[this.count++] = Math.round(value * 32767);
      if (this.count === this.piece.length) this.send();
    }
    return !this.closed;
  }

  send() {
    const loudness = Math.sqrt(this.squares / this.count);
    this.port.postMessage({ samples: this.piece, loudness, end: currentFrame }, [this.piece.buffer]);
    this.piece = new Int16Array(this.count);
    this.count = this.squares = 0;
  }
}

registerProcessor("live-capture", CaptureProcessor);
