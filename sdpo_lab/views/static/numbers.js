// Numbers as the views write them. NaN, which is what `number` makes of no value, is "–".

// A number of a page's data: JSON has no word for those that are not finite
export function number(value) {
  if (value === null || value === undefined) return NaN;
  return value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
}

const minus = (text) => text.replace("-", "−");

export function fixed(v, digits = 2) {
  if (Number.isNaN(v)) return "–";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  return minus(v.toFixed(digits).replace(/^-(0\.?0*)$/, "$1"));
}

export const signed = (v) => (v > 0 ? "+" : "") + fixed(v);

export const rounded = (v) => minus(String(Number(v.toPrecision(3))));

export function short(v) {
  return v && Math.abs(v) < 1e-3 ? v.toExponential(1) : String(Number(v.toPrecision(3)));
}

export function probability(p) {
  if (Number.isNaN(p)) return "–";
  if (p > 0.9995 && p < 1) return "> 0.999";
  return p > 0 && p < 0.00095 ? minus(p.toExponential(0)) : p === 0 ? "0" : p.toFixed(3);
}

// What the teacher does with a token, in words
export function moved(advantage) {
  if (Number.isNaN(advantage)) return "no advantage";
  if (Math.abs(advantage) < 0.005) return "teacher leaves it as it is";
  return `teacher ${advantage < 0 ? "lowers" : "raises"} it by ${fixed(Math.abs(advantage))} nats`;
}

// [class, sign, word] of an attempt's reward
export function verdict(reward, right = reward >= 1) {
  if (right) return ["good", "✓", "right"];
  return reward > 0 ? ["part", "½", "partly right"] : ["bad", "✗", "wrong"];
}

// a, b, ... z, 27, 28: names for marks
export const letter = (k) => (k < 26 ? String.fromCharCode(97 + k) : String(k + 1));
