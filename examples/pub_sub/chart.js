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

  clear() {
    this.count = 0;
  }

  get newest() {
    return this.count > 0 ? this.#times[(this.#next + this.#capacity - 1) % this.#capacity] : -Infinity;
  }

  last(series) {
    return this.#values[series][(this.#next + this.#capacity - 1) % this.#capacity];
  }

  /** How many points are older than `start`: the others are those from there on. */
  before(start) {
    // Times grow: found by halving.
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[this.index(middle)] < start) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Where the nth point is in `times` and `series`. */
  index(nth) {
    return (this.#next - this.count + this.#capacity + nth) % this.#capacity;
  }

  get times() {
    return this.#times;
  }

  series(n) {
    return this.#values[n];
  }
}

export const hueOf = (series) => (18 + series * 43) % 360;

export class Chart {
  #canvas;
  #context;
  #dark = matchMedia("(prefers-color-scheme: dark)");
  /** Of each column. */
  #low = new Float32Array();
  #high = new Float32Array();

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
    this.#low = new Float32Array(this.#canvas.width + 1);
    this.#high = new Float32Array(this.#canvas.width + 1);
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

    // Of each column of pixels the lowest and the highest are drawn: so much is drawn, however many points there are.
    const first = points.before(end - span);
    const toX = width / span;
    const { times } = points;
    const lane = height / series;
    for (let n = 0; n < series; n++) {
      const middle = lane * (n + 0.5);
      const scale = lane * 0.42;
      const y = (value) => middle - value * scale;
      const hue = hueOf(n);
      const values = points.series(n);
      const low = this.#low.fill(Infinity, 0, width + 1);
      const high = this.#high.fill(-Infinity, 0, width + 1);
      for (let nth = first; nth < points.count; nth++) {
        const index = points.index(nth);
        const x = Math.floor((times[index] - end) * toX) + width;
        if (x > width) break;
        if (values[index] < low[x]) low[x] = values[index];
        if (values[index] > high[x]) high[x] = values[index];
      }
      const line = new Path2D();
      const area = new Path2D();
      let from = -1;
      let to = 0;
      for (let x = 0; x <= width; x++) {
        if (low[x] === Infinity) continue;
        if (from < 0) {
          from = x;
          area.moveTo(x, middle + lane / 2);
        }
        to = x;
        if (high[x] !== low[x]) line.lineTo(x, y(high[x]));
        line.lineTo(x, y(low[x]));
        area.lineTo(x, y(high[x]));
      }
      area.lineTo(to, middle + lane / 2);
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
