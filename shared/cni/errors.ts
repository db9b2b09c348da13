/**
 * The one error type of the suite: what a CNI plugin prints on stdout when it fails.
 * Codes: CNI SPEC 1.1.0 "Error", and containernetworking's InvalidNetNS (8).
 */
export const CniCode = {
  IncompatibleVersion: 1,
  UnsupportedField: 2,
  UnknownContainer: 3,
  InvalidEnvironment: 4,
  IoFailure: 5,
  DecodingFailure: 6,
  InvalidNetworkConfig: 7,
  InvalidNetworkNamespace: 8,
  TryAgainLater: 11,
  PluginNotAvailable: 50,
  LimitedConnectivity: 51,
  Internal: 999,
} as const;

export interface CniErrorJson {
  readonly cniVersion?: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/**
 * @param code one of {@link CniCode}, or a delegate's own code (>= 100)
 * @param message which input, what rule, what was given
 * @param options.details what the operator can do, or the failing object; runtimes show it after the message
 * @param options.cause the underlying error; kept for `weft` and the log, its text decides nothing
 */
export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code: number;
  readonly details: string | undefined;

  constructor(code: number, message: string, options: { details?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details;
  }
}

/**
 * Any thrown value as a CniError. A missing capability (KernelError) is an I/O failure (5), anything else that is no CniError is Internal
 * (999); both keep message and cause.
 */
export function toCniError(thrown: unknown): CniError {
  if (thrown instanceof CniError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (lacksCapability(thrown)) {
    return new CniError(CniCode.IoFailure, message, { details: PRIVILEGES, cause: thrown });
  }
  return new CniError(CniCode.Internal, message, { cause: thrown });
}

/** Whether the error, or one of its causes, is the kernel's refusal because of a missing capability (KernelError). */
export function lacksCapability(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  return ('capability' in thrown && thrown.capability !== undefined) || lacksCapability(thrown.cause);
}

const PRIVILEGES = 'plugins need CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW, or root';
