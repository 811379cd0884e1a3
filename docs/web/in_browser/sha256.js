/**
 * SHA-256 (FIPS 180-4). A browser has its own, but not on every address from which a page may come.
 */

const BLOCK = 64; // bytes
const PRIMES = firstPrimes(64);
const ROUND_CONSTANTS = PRIMES.map((prime) => fractionBits(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => fractionBits(Math.sqrt(prime)));

function firstPrimes(count) {
  const primes = [];
  for (let n = 2; primes.length < count; n++) {
    if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  }
  return primes;
}

/** The first 32 bits behind the binary point. */
function fractionBits(number) {
  return ((number - Math.floor(number)) * 2 ** 32) | 0;
}

const turned = (word, bits) => (word >>> bits) | (word << (32 - bits));

/**
 * The SHA-256 of bytes.
 *
 * @param {Uint8Array} bytes
 * @returns {string} 64 hexadecimal digits
 */
export function sha256(bytes) {
  const state = Int32Array.from(START);
  const view = new DataView(padded(bytes).buffer);
  for (let start = 0; start < view.byteLength; start += BLOCK) addBlock(state, view, start);
  return [...state].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

/** The bytes, a 1 bit, zeros up to a whole number of blocks, and the length in bits. */
function padded(bytes) {
  const blocks = Math.ceil((bytes.length + 9) / BLOCK);
  const whole = new Uint8Array(blocks * BLOCK);
  whole.set(bytes);
  whole[bytes.length] = 0x80;
  new DataView(whole.buffer).setBigUint64(whole.length - 8, BigInt(bytes.length) * 8n);
  return whole;
}

function addBlock(state, view, start) {
  const words = new Int32Array(64);
  for (let at = 0; at < 16; at++) words[at] = view.getInt32(start + 4 * at);
  for (let at = 16; at < 64; at++) {
    const [early, late] = [words[at - 15], words[at - 2]];
    const first = turned(early, 7) ^ turned(early, 18) ^ (early >>> 3);
    const second = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
    words[at] = words[at - 16] + first + words[at - 7] + second;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let at = 0; at < 64; at++) {
    const choice = (e & f) ^ (~e & g);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const right = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const left = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
    const added = (h + right + choice + ROUND_CONSTANTS[at] + words[at]) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + added) | 0, c, b, a, (added + left + majority) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, at) => (state[at] += word));
}
