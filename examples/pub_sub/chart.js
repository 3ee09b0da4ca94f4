// A chart of several series, one below the other, that moves with time and is drawn once a frame however many points come.

/** The newest points of all series, in rings that never grow. */
export class Points {
  #capacity;
  #times;
  #values;
  #next = 0;
  count = 0;

  constructor(series, capacity) {
    this.#capacity = capacity;
    this.#times = new Float64Array(capacity);
    this.#values = Array.from({ length: series }, () => new Float32Array(capacity));
  }

  add(time, values) {
    this.#times[this.#next] = time;
    for (const [n, series] of this.#values.entries()) series[this.#next] = values[n];
    this.#next = (this.#next + 1) % this.#capacity;
    this.count = Math.min(this.count + 1, this.#capacity);
  }

  get newest() {
    return this.count > 0 ? this.#times[(this.#next + this.#capacity - 1) % this.#capacity] : -Infinity;
  }

  last(series) {
    return this.#values[series][(this.#next + this.#capacity - 1) % this.#capacity];
  }

  /** Calls `take(time, index)` for the points from `start` on, the newest last; `index` is for `value`. */
  from(start, take) {
    // Times grow: the first is found by halving.
    const first = this.#next - this.count + this.#capacity;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[(first + middle) % this.#capacity] < start) low = middle + 1;
      else high = middle;
    }
    for (let n = low; n < this.count; n++) {
      const index = (first + n) % this.#capacity;
      take(this.#times[index], index);
    }
  }

  value(series, index) {
    return this.#values[series][index];
  }
}

export const hueOf = (series) => (18 + series * 43) % 360;

export class Chart {
  #canvas;
  #context;
  #dark = matchMedia("(prefers-color-scheme: dark)");

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  #resize() {
    const ratio = Math.min(devicePixelRatio, 2);
    this.#canvas.width = Math.round(this.#canvas.clientWidth * ratio);
    this.#canvas.height = Math.round(this.#canvas.clientHeight * ratio);
  }

  /** Everything from `end - span` to `end`, in ms. */
  draw(points, series, end, span) {
    const context = this.#context;
    const { width, height } = this.#canvas;
    const isDark = this.#dark.matches;
    context.clearRect(0, 0, width, height);

    // Seconds.
    context.strokeStyle = isDark ? "rgb(255 255 255 / .055)" : "rgb(80 50 0 / .07)";
    context.lineWidth = 1;
    context.beginPath();
    for (let at = Math.floor(end / 1000) * 1000; at > end - span; at -= 1000) {
      const x = Math.round(((at - end) / span + 1) * width) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, height);
    }
    context.stroke();

    // One pass over the points; of each column of pixels the lowest and the highest are drawn.
    const columns = [];
    let column = -1;
    points.from(end - span, (time, index) => {
      const x = Math.floor(((time - end) / span + 1) * width);
      if (x !== column) {
        column = x;
        columns.push({ x, low: new Float32Array(series).fill(Infinity), high: new Float32Array(series).fill(-Infinity) });
      }
      const { low, high } = columns[columns.length - 1];
      for (let n = 0; n < series; n++) {
        const value = points.value(n, index);
        if (value < low[n]) low[n] = value;
        if (value > high[n]) high[n] = value;
      }
    });
    const lane = height / series;
    for (let n = 0; n < series; n++) {
      const middle = lane * (n + 0.5);
      const scale = lane * 0.42;
      const y = (value) => middle - value * scale;
      const hue = hueOf(n);
      const line = new Path2D();
      const area = new Path2D();
      for (const [at, { x, low, high }] of columns.entries()) {
        if (at === 0) {
          line.moveTo(x, y(high[n]));
          area.moveTo(x, middle + lane / 2);
        }
        line.lineTo(x, y(high[n]));
        line.lineTo(x, y(low[n]));
        area.lineTo(x, y(high[n]));
      }
      if (columns.length > 0) area.lineTo(columns[columns.length - 1].x, middle + lane / 2);
      const fill = context.createLinearGradient(0, middle - lane / 2, 0, middle + lane / 2);
      fill.addColorStop(0, `hsl(${hue} 80% ${isDark ? 62 : 50}% / .26)`);
      fill.addColorStop(1, `hsl(${hue} 80% ${isDark ? 62 : 50}% / 0)`);
      context.fillStyle = fill;
      context.fill(area);
      context.strokeStyle = `hsl(${hue} ${isDark ? 85 : 65}% ${isDark ? 68 : 45}%)`;
      context.lineWidth = Math.max(1.2, height / 560);
      context.lineJoin = "round";
      context.stroke(line);
    }
  }
}
