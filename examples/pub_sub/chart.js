// A chart of several series, one below the other, that moves with time and is drawn once a frame however many points come.

/** The newest points of all series, in rings that never grow. */
export class Points {
  #capacity;
  #times;
  #values;
  #next = 0;
  count = 0;
  /** How many were ever added. */
  total = 0;

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
    this.total++;
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

/**
 * The lowest and the highest value of each column of pixels: so much is drawn, however many points there are. Columns are pieces of
 * time, not of the screen: what has been in one stays in it while it moves.
 */
class Columns {
  #size;
  /** How many points were. */
  #taken;
  low;
  high;
  /** The first and the last that have points. */
  oldest = Infinity;
  newest = -Infinity;

  /** So many columns are kept, of so many ms each. */
  constructor(series, size, width) {
    this.#size = size;
    this.width = width;
    this.low = Array.from({ length: series }, () => new Float32Array(size));
    this.high = Array.from({ length: series }, () => new Float32Array(size));
  }

  /** Takes up the points that came since the last time: each is looked at once. */
  take(points) {
    const { times } = points;
    const since = this.#taken ?? points.total - points.count;
    this.#taken = points.total;
    for (let nth = Math.max(0, points.count - (points.total - since)); nth < points.count; nth++) {
      const index = points.index(nth);
      const column = Math.floor(times[index] / this.width);
      if (column > this.newest) this.#begin(column);
      if (column < this.oldest) continue;
      const at = this.at(column);
      for (let n = 0; n < this.low.length; n++) {
        const value = points.series(n)[index];
        if (value < this.low[n][at]) this.low[n][at] = value;
        if (value > this.high[n][at]) this.high[n][at] = value;
      }
    }
  }

  /** This one is the newest. All between are empty. */
  #begin(column) {
    this.oldest = Math.max(Math.min(this.oldest, column), column - this.#size + 1);
    for (let empty = Math.max(this.newest + 1, this.oldest); empty <= column; empty++) {
      const at = this.at(empty);
      for (const low of this.low) low[at] = Infinity;
      for (const high of this.high) high[at] = -Infinity;
    }
    this.newest = column;
  }

  /** Where it is in `low` and `high`. */
  at(column) {
    return column % this.#size;
  }

  isEmpty(column) {
    return this.low[0][this.at(column)] === Infinity;
  }
}

export const hueOf = (series) => (18 + series * 43) % 360;

/** How much longer the strip is than the canvas. */
const ROOM = 512;

export class Chart {
  #canvas;
  #context;
  #dark = matchMedia("(prefers-color-scheme: dark)");
  #isResized = true;
  #columns = null;
  /** All series over time, each column drawn once: the canvas shows the piece of it that ends now. */
  #strip = document.createElement("canvas");
  #pen = this.#strip.getContext("2d");
  /** Which column is at the strip's left, and which is the first that is not drawn yet. */
  #origin = 0;
  #next = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    // With the next frame: a canvas is blank after it.
    new ResizeObserver(() => (this.#isResized = true)).observe(canvas);
    this.#dark.addEventListener("change", () => this.clear());
  }

  /** Everything is drawn anew. */
  clear() {
    this.#columns = null;
  }

  #resize() {
    this.#isResized = false;
    const ratio = Math.min(devicePixelRatio, 2);
    const size = [this.#canvas.clientWidth, this.#canvas.clientHeight].map((length) => Math.max(1, Math.round(length * ratio)));
    if (size[0] === this.#canvas.width && size[1] === this.#canvas.height) return;
    [this.#canvas.width, this.#canvas.height] = size;
    this.clear();
  }

  /** Everything from `end - span` to `end`, in ms. */
  draw(points, series, end, span) {
    if (this.#isResized) this.#resize();
    const { width, height } = this.#canvas;
    if (this.#columns?.width !== span / width) {
      // Points may be ahead of what is shown.
      this.#columns = new Columns(series, width + ROOM, span / width);
      [this.#strip.width, this.#strip.height] = [width + ROOM, height];
      this.#next = -Infinity;
    }
    const left = end / this.#columns.width - width;
    this.#columns.take(points);
    this.#extend(Math.floor(left));

    const context = this.#context;
    context.clearRect(0, 0, width, height);
    // Seconds.
    context.strokeStyle = this.#dark.matches ? "rgb(255 255 255 / .055)" : "rgb(80 50 0 / .07)";
    context.lineWidth = 1;
    context.beginPath();
    for (let at = Math.floor(end / 1000) * 1000; at > end - span; at -= 1000) {
      const x = at / this.#columns.width - left;
      context.moveTo(x, 0);
      context.lineTo(x, height);
    }
    context.stroke();
    // Between two pixels, where it is there: so it moves evenly.
    context.drawImage(this.#strip, this.#origin - left, 0);
  }

  /** Draws the columns that nothing will change any more. Those before `first` are not seen. */
  #extend(first) {
    const { oldest, newest } = this.#columns;
    const strip = this.#strip;
    const from = Math.max(this.#next, oldest, first);
    // A line touches the columns beside its own.
    let to = newest - 2;
    if (from >= to) return;
    if (to > this.#origin + strip.width || this.#next <= this.#origin) {
      const moved = first - this.#origin;
      this.#origin = first;
      this.#pen.globalCompositeOperation = "copy";
      // All else is cleared by that.
      this.#pen.drawImage(strip, -moved, 0);
      this.#pen.globalCompositeOperation = "source-over";
    }
    to = Math.min(to, this.#origin + strip.width);
    this.#paint(from, to);
    this.#next = to;
  }

  /** Draws the columns from one to before another, with their lines to the neighbours. */
  #paint(from, to) {
    const columns = this.#columns;
    const pen = this.#pen;
    const { height } = this.#strip;
    let first = from - 2;
    while (first > columns.oldest && columns.isEmpty(first)) first--;
    first = Math.max(first, columns.oldest);
    let last = to + 1;
    while (last < columns.newest && columns.isEmpty(last)) last++;

    pen.save();
    pen.beginPath();
    pen.rect(from - this.#origin, 0, to - from, height);
    pen.clip();
    pen.clearRect(from - this.#origin, 0, to - from, height);
    pen.lineWidth = Math.max(1.2, height / 560);
    pen.lineJoin = "round";
    const lane = height / columns.low.length;
    const isDark = this.#dark.matches;
    for (const [n, low] of columns.low.entries()) {
      const high = columns.high[n];
      const bottom = lane * (n + 1);
      const toY = (value) => bottom - lane * (0.5 + 0.42 * value);
      const line = new Path2D();
      const area = new Path2D();
      const toX = (column) => column - this.#origin + 0.5;
      area.moveTo(toX(first), bottom);
      for (let column = first; column <= last; column++) {
        const at = columns.at(column);
        if (low[at] === Infinity) continue;
        const x = toX(column);
        if (high[at] !== low[at]) line.lineTo(x, toY(high[at]));
        line.lineTo(x, toY(low[at]));
        area.lineTo(x, toY(high[at]));
      }
      area.lineTo(toX(last), bottom);
      const hue = hueOf(n);
      const fill = pen.createLinearGradient(0, bottom - lane, 0, bottom);
      fill.addColorStop(0, `hsl(${hue} 80% ${isDark ? 62 : 50}% / .26)`);
      fill.addColorStop(1, `hsl(${hue} 80% ${isDark ? 62 : 50}% / 0)`);
      pen.fillStyle = fill;
      pen.fill(area);
      pen.strokeStyle = `hsl(${hue} ${isDark ? 85 : 65}% ${isDark ? 68 : 45}%)`;
      pen.stroke(line);
    }
    pen.restore();
  }
}
