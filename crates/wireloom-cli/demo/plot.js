// A small line plot on a canvas: two series over a sliding window of time.

const STEPS = [1, 2, 5];

/** The smallest of 1, 2, 5, 10, 20, ... (and below 1) that is at least `value`. */
function niceCeil(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = STEPS.find((s) => s * power >= value * 0.999);
  return step ? step * power : 10 * power;
}

export class Plot {
  /** `seconds` of time fit; `unit` stands beside the scale; `floor` is the least top of the scale. */
  constructor(canvas, { seconds, unit, floor }) {
    this.canvas = canvas;
    this.span = seconds * 1000;
    this.unit = unit;
    this.floor = floor;
    this.series = { a: [], b: [] };
    this.frozenAt = null;
    this.dirty = true;
    new ResizeObserver(() => { this.dirty = true; }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.dirty = true; });
    const frame = () => {
      // While it runs the window moves even when nothing new comes.
      if (this.dirty || (this.frozenAt === null && this.hasPoints())) this.draw();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  hasPoints() {
    return this.series.a.length + this.series.b.length > 0;
  }

  add(name, value, at = performance.now()) {
    const points = this.series[name];
    points.push([at, value]);
    while (points.length && points[0][0] < at - this.span * 1.1) points.shift();
    this.dirty = true;
  }

  /** Stops the window where it is, so that a finished measurement stays to be looked at. */
  freeze() {
    this.frozenAt ??= performance.now();
  }

  restart() {
    this.series = { a: [], b: [] };
    this.resume();
  }

  resume() {
    this.frozenAt = null;
    this.dirty = true;
  }

  draw() {
    this.dirty = false;
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);

    const now = this.frozenAt ?? performance.now();
    const visible = [...this.series.a, ...this.series.b].filter(([at]) => at >= now - this.span);
    const top = niceCeil(Math.max(this.floor, ...visible.map(([, value]) => value * 1.05)));
    const box = { left: 44, right: width - 6, top: 22, bottom: height - 20 };
    const x = (at) => box.right - ((now - at) / this.span) * (box.right - box.left);
    const y = (value) => box.bottom - (value / top) * (box.bottom - box.top);

    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    g.lineWidth = 1;
    for (let i = 0; i <= 4; i += 1) {
      const value = (top * i) / 4;
      const line = Math.round(y(value)) + 0.5;
      g.strokeStyle = colour("--line");
      g.beginPath();
      g.moveTo(box.left, line);
      g.lineTo(box.right, line);
      g.stroke();
      g.fillStyle = colour("--soft");
      g.textAlign = "right";
      g.fillText(`${+value.toPrecision(3)}`, box.left - 8, line);
    }
    g.textBaseline = "alphabetic";
    g.fillText(this.frozenAt === null ? "now" : "", box.right, height - 4);
    g.textAlign = "left";
    g.fillText(this.unit, 0, 11);
    g.fillText(`${this.span / 1000} s`, box.left, height - 4);

    g.save();
    g.beginPath();
    g.rect(box.left, 0, box.right - box.left, height);
    g.clip();
    g.lineJoin = "round";
    for (const name of ["b", "a"]) {
      const points = this.series[name];
      g.strokeStyle = colour(`--${name}`);
      g.lineWidth = 1.75;
      g.beginPath();
      points.forEach(([at, value], i) => {
        // A gap in time is a gap in the line: nothing was measured there.
        if (i === 0 || at - points[i - 1][0] > 2000) g.moveTo(x(at), y(value));
        else g.lineTo(x(at), y(value));
      });
      g.stroke();
    }
    g.restore();
  }
}
