/**
 * SHA-512 (FIPS 180-4) of a text's UTF-8 bytes, for names: the reference's chains and comments carry its digests. Written out because
 * `node:crypto` brings twenty modules into the startup snapshot, 2 to 4 ms of every start. A 64-bit word is two 32-bit halves, `…h` and
 * `…l`, in local variables: this runs once or twice in a process, so it is interpreted, where that takes 0.2 ms a block, and four times as long with BigInt or with destructuring.
 */
export function sha512(text: string): Buffer {
  const message = padded(Buffer.from(text));
  const state = Int32Array.from(INITIAL);
  for (let at = 0; at < message.length; at += 128) compress(state, message.subarray(at, at + 128));
  const digest = Buffer.alloc(64);
  state.forEach((half, index) => digest.writeInt32BE(half, index * 4));
  return digest;
}

/** 2^32: a sum of low halves divided by it is the carry. */
const HALF = 4_294_967_296;
const PRIMES = firstPrimes(80);
/** The first 64 bits of the fractional parts of the square roots of the first 8 primes, and of the cube roots of the first 80. */
const INITIAL = halves(PRIMES.slice(0, 8).map((prime) => root(prime << 128n, 2n)));
const CONSTANTS = halves(PRIMES.map((prime) => root(prime << 192n, 3n)));

/** The bytes, 0x80, zeros, and the length in bits as a 128-bit number: a multiple of 128 bytes. */
function padded(bytes: Buffer): Buffer {
  const message = Buffer.alloc(Math.ceil((bytes.length + 17) / 128) * 128);
  bytes.copy(message);
  message[bytes.length] = 0x80;
  message.writeBigUInt64BE(BigInt(bytes.length) * 8n, message.length - 8);
  return message;
}

/** One block of 128 bytes into the state (FIPS 180-4, 6.4.2). */
function compress(state: Int32Array, block: Buffer): void {
  const words = schedule(block);
  let [ah = 0, al = 0, bh = 0, bl = 0, ch = 0, cl = 0, dh = 0, dl = 0] = state;
  let [eh = 0, el = 0, fh = 0, fl = 0, gh = 0, gl = 0, hh = 0, hl = 0] = state.subarray(8);
  for (let t = 0; t < 160; t += 2) {
    // T1 = h + (e rotated by 14, 18 and 41) + choice(e, f, g) + K + W
    const e1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
    const e1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
    const kl = CONSTANTS[t + 1] ?? 0;
    const wl = words[t + 1] ?? 0;
    let low = (hl >>> 0) + (e1l >>> 0) + (((el & fl) ^ (~el & gl)) >>> 0) + (kl >>> 0) + (wl >>> 0);
    const high = hh + e1h + ((eh & fh) ^ (~eh & gh)) + (CONSTANTS[t] ?? 0) + (words[t] ?? 0);
    const t1h = (high + ((low / HALF) | 0)) | 0;
    const t1l = low | 0;
    // T2 = (a rotated by 28, 34 and 39) + majority(a, b, c)
    const a0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
    const a0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
    low = (a0l >>> 0) + (((al & bl) ^ (al & cl) ^ (bl & cl)) >>> 0);
    const t2h = a0h + ((ah & bh) ^ (ah & ch) ^ (bh & ch)) + ((low / HALF) | 0);
    const t2l = low | 0;
    hh = gh;
    hl = gl;
    gh = fh;
    gl = fl;
    fh = eh;
    fl = el;
    low = (dl >>> 0) + (t1l >>> 0);
    eh = (dh + t1h + ((low / HALF) | 0)) | 0;
    el = low | 0;
    dh = ch;
    dl = cl;
    ch = bh;
    cl = bl;
    bh = ah;
    bl = al;
    low = (t1l >>> 0) + (t2l >>> 0);
    ah = (t1h + t2h + ((low / HALF) | 0)) | 0;
    al = low | 0;
  }
  addTo(state, [ah, al, bh, bl, ch, cl, dh, dl, eh, el, fh, fl, gh, gl, hh, hl]);
}

/** The block's sixteen words, stretched to eighty. */
function schedule(block: Buffer): Int32Array {
  const w = new Int32Array(160);
  for (let half = 0; half < 32; half += 1) w[half] = block.readInt32BE(half * 4);
  for (let t = 32; t < 160; t += 2) {
    const nearH = w[t - 4] ?? 0;
    const nearL = w[t - 3] ?? 0;
    const farH = w[t - 30] ?? 0;
    const farL = w[t - 29] ?? 0;
    // near rotated by 19 and 61, shifted by 6; far rotated by 1 and 8, shifted by 7
    const n1h = ((nearH >>> 19) | (nearL << 13)) ^ ((nearL >>> 29) | (nearH << 3)) ^ (nearH >>> 6);
    const n1l =
      ((nearL >>> 19) | (nearH << 13)) ^ ((nearH >>> 29) | (nearL << 3)) ^ ((nearL >>> 6) | (nearH << 26));
    const f0h = ((farH >>> 1) | (farL << 31)) ^ ((farH >>> 8) | (farL << 24)) ^ (farH >>> 7);
    const f0l = ((farL >>> 1) | (farH << 31)) ^ ((farL >>> 8) | (farH << 24)) ^ ((farL >>> 7) | (farH << 25));
    const low = (n1l >>> 0) + ((w[t - 13] ?? 0) >>> 0) + (f0l >>> 0) + ((w[t - 31] ?? 0) >>> 0);
    w[t] = n1h + (w[t - 14] ?? 0) + f0h + (w[t - 32] ?? 0) + ((low / HALF) | 0);
    w[t + 1] = low;
  }
  return w;
}

function addTo(state: Int32Array, words: readonly number[]): void {
  for (let half = 0; half < 16; half += 2) {
    const low = ((state[half + 1] ?? 0) >>> 0) + ((words[half + 1] ?? 0) >>> 0);
    state[half] = (state[half] ?? 0) + (words[half] ?? 0) + ((low / HALF) | 0);
    state[half + 1] = low;
  }
}

function firstPrimes(count: number): bigint[] {
  const primes: bigint[] = [];
  for (let candidate = 2n; primes.length < count; candidate += 1n) {
    if (primes.every((prime) => candidate % prime !== 0n)) primes.push(candidate);
  }
  return primes;
}

/** The integer part of a root, by Newton's method from above. */
function root(value: bigint, degree: bigint): bigint {
  for (let guess = value; ;) {
    const next = ((degree - 1n) * guess + value / guess ** (degree - 1n)) / degree;
    if (next >= guess) return guess;
    guess = next;
  }
}

/** The lowest 64 bits of each word, high half before low. */
function halves(words: readonly bigint[]): Int32Array {
  return Int32Array.from(
    words.flatMap((word) => [Number(BigInt.asIntN(32, word >> 32n)), Number(BigInt.asIntN(32, word))]),
  );
}
