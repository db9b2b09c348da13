const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * The wish to stop: Ctrl-C, `kill`, or the terminal closing; or a fault of this program that nobody caught. Held until the host is
 * as before, so that a second Ctrl-C breaks nothing.
 */
export class Stop {
  /** Resolves at the first signal, rejects at a fault. */
  readonly asked: Promise<void>;
  readonly #onSignal: () => void;
  readonly #onFault: (fault: unknown) => void;
  #interrupted = false;
  #fault: { reason: unknown } | undefined;

  constructor(onFirst: () => void) {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.asked = promise;
    // Seen by whoever waits; nobody waiting is no second fault.
    promise.catch(() => undefined);
    this.#onSignal = () => {
      if (!this.#interrupted) onFirst();
      this.#interrupted = true;
      resolve(undefined);
    };
    this.#onFault = (reason) => {
      this.#fault ??= { reason };
      reject(reason);
    };
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
    process.on('uncaughtException', this.#onFault);
  }

  /** Whether the user wants to stop. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Throws once there is a reason to stop: called between the steps of the set-up. */
  check(): void {
    if (this.#fault !== undefined) throw this.#fault.reason;
    if (this.#interrupted) throw new Error('interrupted');
  }

  release(): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
    process.off('uncaughtException', this.#onFault);
  }
}
