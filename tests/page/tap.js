// Records what a page really plays and shows: clicks at the destination of its sound, and white pictures on its canvas.
// It runs before the page's own scripts, and knows nothing of them but the id of the canvas. Its worklet is a blob, which
// the page's policy forbids: open the page with `bypass_csp`.

(() => {
  const seen = (window.tap = { clicks: [], flashes: [], clocks: [], rate: 0, loudest: 0 });
  const connect = AudioNode.prototype.connect;

  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode && !target.tapped) {
      target.tapped = true;
      tapInto(target.context).then((tap) => connect.call(this, tap));
    }
    return connect.call(this, target, ...rest);
  };

  // Tells the sample of the context at which each click begins, and how loud the sound was at most.
  const WORKLET = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process(inputs) {
      for (const [n, sample] of (inputs[0][0] ?? []).entries()) {
        if (Math.abs(sample) > 1.1 * (this.loudest ?? 0.01)) {
          this.loudest = Math.abs(sample);
          this.port.postMessage({ loudest: this.loudest });
        }
        if (Math.abs(sample) < 0.3 || currentFrame + n < (this.after ?? 0)) continue;
        this.port.postMessage({ click: currentFrame + n });
        this.after = currentFrame + n + sampleRate / 5;
      }
      return true;
    }
  });`;

  async function tapInto(context) {
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" })));
    const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data: { click, loudest } }) => {
      if (loudest) seen.loudest = loudest;
      else seen.clicks.push(click / context.sampleRate);
    };
    seen.rate = context.sampleRate;
    watch(context);
    return tap;
  }

  function watch(context) {
    let wasWhite = false;
    const look = () => {
      const canvas = document.querySelector("#live-canvas");
      const painter = canvas?.getContext("2d");
      const isWhite = painter?.getImageData(canvas.width - 2, canvas.height - 2, 1, 1).data[0] > 128;
      const { contextTime, performanceTime } = context.getOutputTimestamp();
      const now = performance.now();
      seen.clocks.push([now, contextTime, performanceTime, context.currentTime, context.outputLatency]);
      if (isWhite && !wasWhite) seen.flashes.push(now);
      wasWhite = isWhite;
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }
})();
