// Decides which pieces of the microphone's sound are speech: by loudness, against the noise of the room.

const LOUDEST_NOISE = 0.05; // RMS of full scale; anything louder is speech
const QUIETEST_SPEECH = 0.008;
const ABOVE_NOISE = 3; // speech is this much louder than the room
const NOISE_RISES = 1.02; // per piece: a fan that starts is noise after some seconds
const BEFORE = 0.2; // seconds before the first loud piece: words begin softly
const PAUSE = 0.6; // seconds of quiet after which the sentence is over

export class SpeechDetector {
  /** @param {number} seconds how long a piece is */
  constructor(seconds) {
    this.before = Math.ceil(BEFORE / seconds);
    this.lead = this.before * seconds; // of the speech, sent at once when it begins
    this.pause = Math.ceil(PAUSE / seconds);
    this.noise = QUIETEST_SPEECH / ABOVE_NOISE;
    this.speaking = false;
    this.quiet = 0; // pieces since the last loud one
    this.kept = []; // pieces before speech
  }

  /** Take a piece; return {send: pieces to send now, ended: whether the speech ended with them}. */
  take(piece) {
    const loud = this.isLoud(piece.loudness);
    if (!this.speaking) {
      this.kept.push(piece);
      if (!loud) {
        if (this.kept.length > this.before) this.kept.shift();
        return { send: [], ended: false };
      }
      this.speaking = true;
      this.quiet = 0;
      return { send: this.kept.splice(0), ended: false };
    }
    this.quiet = loud ? 0 : this.quiet + 1;
    const ended = this.quiet >= this.pause;
    if (ended) this.speaking = false;
    return { send: [piece], ended };
  }

  /** Forget what was kept, and return whether speech was going on: the microphone was muted. */
  stop() {
    const was = this.speaking;
    this.speaking = false;
    this.kept = [];
    return was;
  }

  isLoud(loudness) {
    const limit = Math.max(QUIETEST_SPEECH, Math.min(LOUDEST_NOISE, this.noise * ABOVE_NOISE));
    this.noise = loudness < this.noise ? loudness : Math.min(LOUDEST_NOISE, Math.max(this.noise, 1e-4) * NOISE_RISES);
    return loudness > limit;
  }
}
